"""Trains a small network on labels, to be used without this project's model: EfficientNet-Lite2, frozen, and a head.

    python examples/train_student.py --photos photos --labels labels/masks --classes 3 --out student.safetensors
    python examples/train_student.py --photos others --labels true_masks --classes 3 --check student.safetensors

A label is a PNG named like its photo, with a pixel's class, from 1 on, 0 where there is none, and 255 where it does not
count; of one class, 255 is the class. Photos that have no label are left out.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dsvlfs.hub.bases import load_base
from dsvlfs.parts.efficientnet_lite import EfficientNetLiteModel

SIDE = 320
STAGES = (2, 4, 6)
"""Of the network: strides 8, 16 and 32."""
IGNORED = 255
EPOCHS, BATCH, RATE = 40, 8, 2e-3


class Student(nn.Module):
    """A head on the network's stages, each brought to 64 channels at stride 8 and added up.

    Args:
        channels: of each stage.
        classes: without the background.
    """

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(count, 64, 1) for count in channels)
        self.mix = nn.Sequential(
            nn.GroupNorm(8, 64), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.GroupNorm(8, 64), nn.ReLU()
        )
        self.classify = nn.Conv2d(64, classes + 1, 1)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """(batch, classes + 1, height / 8, width / 8) of logits."""
        size = stages[0].shape[-2:]
        total = sum(
            F.interpolate(lateral(stage), size, mode="bilinear", align_corners=False)
            for lateral, stage in zip(self.lateral, stages)
        )
        return self.classify(self.mix(total))


@torch.no_grad()
def features_of(tower: EfficientNetLiteModel, photo: Image.Image) -> list[Tensor]:
    """The stages of a photo at `SIDE` pixels squared, each (channels, height, width)."""
    pixels = np.asarray(photo.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR), dtype=np.float32)
    maps = tower(torch.from_numpy((pixels - 127) / 128).permute(2, 0, 1)[None]).feature_maps
    return [maps[stage][0] for stage in STAGES]


def train(features: Sequence[Sequence[Tensor]], labels: Sequence[np.ndarray], classes: int, seed: int = 0) -> Student:
    """A student of some photos.

    Args:
        features: of each photo.
        labels: (height, width) of each, as the file's head says.
        classes: how many there are.
        seed: of the start and the order.
    """
    torch.manual_seed(seed)
    student = Student([stage.shape[0] for stage in features[0]], classes)
    targets = torch.stack([_target(label) for label in labels])
    mirrored = [
        [stage.flip(-1) for stage in stages] for stages in features
    ]  # of a stage: nearly that of a mirrored photo
    optimizer = torch.optim.AdamW(student.parameters(), RATE, weight_decay=1e-2)
    steps = EPOCHS * -(-len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
    for _ in range(EPOCHS):
        for places in torch.randperm(len(labels)).split(BATCH):
            flips = torch.rand(len(places)) < 0.5
            chosen = [(mirrored if flip else features)[place] for place, flip in zip(places.tolist(), flips)]
            batch = [torch.stack(stages) for stages in zip(*chosen)]
            target = torch.stack([targets[p].flip(-1) if flip else targets[p] for p, flip in zip(places, flips)])
            logits = F.interpolate(student(batch), target.shape[-2:], mode="bilinear", align_corners=False)
            loss = F.cross_entropy(logits, target, ignore_index=IGNORED)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return student.eval()


def _target(label: np.ndarray) -> Tensor:
    small = Image.fromarray(label.astype(np.uint8)).resize((SIDE // 4, SIDE // 4), Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(small)).long()


@torch.inference_mode()
def segment(student: Student, features: Sequence[Tensor], size: tuple[int, int]) -> np.ndarray:
    """The classes of a photo's pixels, uint8 (height, width).

    Args:
        student: to ask.
        features: of the photo.
        size: (width, height).
    """
    logits = student([stage[None] for stage in features])
    return F.interpolate(logits, size[::-1], mode="bilinear", align_corners=False)[0].argmax(0).byte().numpy()


def miou(found: Sequence[np.ndarray], truth: Sequence[np.ndarray], classes: int) -> float:
    """Mean over the classes of intersection over union, summed over the photos, in percent."""
    ratios = []
    for number in range(1, classes + 1):
        both = sum(np.count_nonzero((f == number) & (t == number)) for f, t in zip(found, truth))
        either = sum(np.count_nonzero(((f == number) | (t == number)) & (t != IGNORED)) for f, t in zip(found, truth))
        ratios.append(both / either if either else np.nan)
    return 100 * float(np.nanmean(ratios))


def _read(photos: Path, labels: Path, classes: int) -> tuple[list[Image.Image], list[np.ndarray]]:
    """Each photo that has a label, and the label."""
    images, maps = [], []
    for file in sorted(photos.rglob("*")):
        label = (labels / file.relative_to(photos)).with_suffix(".png")
        if file.is_file() and label.is_file():
            images.append(Image.open(file))
            values = np.array(Image.open(label))
            maps.append((values > 0).astype(np.uint8) if classes == 1 else values)
    if not images:
        raise SystemExit(f"No photo of {photos} has a label in {labels}; give both folders as dsvlfs label had them.")
    return images, maps


def main() -> None:
    """Trains a student, or measures one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--classes", type=int, required=True, help="without the background")
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--out", type=Path, help="file to write the head to")
    task.add_argument("--check", type=Path, help="file of a head to measure")
    arguments = parser.parse_args()
    photos, labels = _read(arguments.photos, arguments.labels, arguments.classes)
    tower = load_base(EfficientNetLiteModel, "efficientnet-lite2").eval()
    features = [features_of(tower, photo) for photo in photos]
    if arguments.out:
        save_file(train(features, labels, arguments.classes).state_dict(), arguments.out)
        print(f"Trained on {len(photos)} photos; written to {arguments.out}.")
        return
    student = Student([stage.shape[0] for stage in features[0]], arguments.classes)
    student.load_state_dict(load_file(arguments.check))
    found = [segment(student.eval(), own, label.shape[::-1]) for own, label in zip(features, labels)]
    print(f"mIoU {miou(found, labels, arguments.classes):.1f} on {len(photos)} photos")


if __name__ == "__main__":
    main()
