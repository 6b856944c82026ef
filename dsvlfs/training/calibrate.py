"""Fits the calibration of a checkpoint's probability on mosaics and COCO scenes of the training packs, and writes it to
the checkpoint's `config.json`. No mask changes but for those that its limit on the presence leaves empty.

python train/calibrate.py CHECKPOINT --data-root DATA
"""

import argparse
import itertools
import json
import sys
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from .. import DSVLFSModel, InputError
from ..files import write_json
from ..inference.calibration import expected_calibration_error, fit_calibration, reliability
from .requests import coco_scenes, training_mosaics


def main() -> None:
    """Fits and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="folder of the checkpoint")
    parser.add_argument("--data-root", type=Path, required=True, help="folder of the training packs")
    parser.add_argument("--requests", type=int, default=60, help="of each kind (default: 60)")
    arguments = parser.parse_args()
    root, number = arguments.data_root, arguments.requests
    model = DSVLFSModel.from_pretrained(arguments.checkpoint)
    requests = itertools.chain(
        training_mosaics(root / "imagenet_sample" / "train", number), coco_scenes(root / "coco_sample", number)
    )
    logits, targets = [], []
    for class_name, query, mask, example in tqdm(requests, total=2 * number):
        support = model.encode_support([example])
        found = model.predict(query, class_name, support=support, modes=["both"])["both"].deciding[0]
        target = Image.fromarray(mask).convert("L").resize((found.shape[1], found.shape[0]), Image.Resampling.BOX)
        logits.append(found.flatten())
        targets.append(torch.frombuffer(bytearray(target.tobytes()), dtype=torch.uint8) / 255)
    logits, targets = torch.cat(logits), torch.cat(targets)
    calibration = fit_calibration(logits, targets)
    for title, own in (("before", logits), ("after", calibration(logits))):
        error = expected_calibration_error(reliability(own.sigmoid().numpy(), targets.numpy()))
        print(f"{title}: expected calibration error {error:.4f} on what it is fitted to")
    file = arguments.checkpoint / "config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    fitted = [round(calibration.temperature, 3), round(calibration.bias, 3)]
    write_json(file, dict(sorted((content | {"calibration": fitted}).items())))
    print(f"temperature and bias {fitted} written to {file}")


if __name__ == "__main__":
    try:
        main()
    except (InputError, OSError) as error:
        sys.exit(f"calibrate.py: {error}")
