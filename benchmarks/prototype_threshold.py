"""Finds the prototype's one threshold on training episodes: the score at which mIoU, averaged over mosaics and COCO
scenes of the training packs, is best. Nothing of what is reported on is looked at."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dsvlfs import DSVLFSModel, prototype
from dsvlfs.data.episodes import load_episodes
from dsvlfs.data.photos import load_photo_folder
from dsvlfs.data.scenes import compose_mosaic
from dsvlfs.metrics import SegmentationMetrics

THRESHOLDS = np.arange(-0.2, 0.5, 0.02)


def training_mosaics(folder: Path, number: int, seed: int = 0) -> Iterator[tuple]:
    """(class name, query, query mask, (support photo, mask)) of 2 x 2 mosaics of training photos, one of whose tiles
    shares a WordNet node with the support and the others do not."""
    rng = np.random.default_rng(seed)
    photos = load_photo_folder(folder)
    names = [set(row) for row in photos["class_names"]]
    made = 0
    while made < number:
        query, support, *others = (int(i) for i in rng.choice(len(photos), 5, replace=False))
        # Nodes as wide as those of the validation classes (3 to 9 photos).
        shared = sorted(n for n in names[query] & names[support] if 3 <= sum(n in row for row in names) <= 12)
        if not shared or any(shared[0] in names[other] for other in others):
            continue
        order = rng.permutation([query, *others])
        tiles = [(photos[int(i)]["image"], np.array(photos[int(i)]["mask"]) > 0) for i in order]
        scene, masks = compose_mosaic(tiles)
        example = photos[support]
        yield shared[0], scene, masks[list(order).index(query)], (example["image"], np.array(example["mask"]) > 0)
        made += 1


def coco_scenes(root: Path, number: int) -> Iterator[tuple]:
    """The same of COCO train2017's fixed episodes, evenly taken."""
    episodes = load_episodes(root, root / "episodes_train2017_1shot.jsonl")
    for index in np.linspace(0, len(episodes) - 1, number).astype(int):
        episode = episodes[int(index)]
        yield episode.class_name, episode.query, episode.query_mask, episode.support[0]


def curve(segmenter: prototype.PrototypeSegmenter, episodes: Iterator[tuple], number: int) -> np.ndarray:
    """mIoU at each of `THRESHOLDS`."""
    metrics = [SegmentationMetrics() for _ in THRESHOLDS]
    for class_name, query, mask, example in tqdm(episodes, total=number):
        probability = segmenter.segment(query, class_name, support=segmenter.encode_support([example])).probability
        scores = torch.logit(torch.from_numpy(probability)).numpy() + prototype.SCORE_THRESHOLD
        for threshold, metric in zip(THRESHOLDS, metrics):
            metric.update(class_name, scores >= threshold, mask)
    return np.array([metric.miou() for metric in metrics])


def main() -> None:
    """Prints the curves and the best threshold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=100, help="of each kind")
    arguments = parser.parse_args()
    segmenter = prototype.PrototypeSegmenter(DSVLFSModel.from_pretrained())
    root, number = arguments.data_root, arguments.episodes
    mosaics = curve(segmenter, training_mosaics(root / "imagenet_sample" / "train", number), number)
    scenes = curve(segmenter, coco_scenes(root / "coco_sample", number), number)
    print("threshold  mosaics  scenes   mean")
    for threshold, a, b in zip(THRESHOLDS, mosaics, scenes):
        print(f"{threshold:9.2f}  {100 * a:7.1f}  {100 * b:6.1f}  {50 * (a + b):5.1f}")
    print(f"best mean at {THRESHOLDS[(mosaics + scenes).argmax()]:.2f}")


if __name__ == "__main__":
    main()
