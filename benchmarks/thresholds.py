"""Finds a method's one threshold: the score at which mIoU is best, averaged over mosaics and COCO scenes of the
training packs, or over fields that training left out. Nothing of what is reported on is looked at.

The prototype's is `dsvlfs.measuring.prototype.SCORE_THRESHOLD`. The model's becomes, with its sign turned,
`logit_offset` in its config.
"""

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dsvlfs import DSVLFSModel
from dsvlfs.measuring import prototype
from dsvlfs.measuring.evaluation import Segmenter
from dsvlfs.measuring.metrics import SegmentationMetrics, count_episode
from dsvlfs.training.requests import Request, coco_scenes, field_requests, training_mosaics

THRESHOLDS = {"prototype": np.arange(-0.2, 0.5, 0.02), "model": np.arange(-2, 1.1, 0.25)}


def curve(
    segmenter: Segmenter, episodes: Iterator[Request], number: int, at: float, thresholds: np.ndarray
) -> np.ndarray:
    """mIoU at each threshold.

    Args:
        at: the score at which the segmenter's probability is 0.5.
    """
    counts = [[] for _ in thresholds]
    for class_name, query, mask, example in tqdm(episodes, total=number):
        support = segmenter.encode_support([example])
        probability = segmenter.segment(query, class_name, support=support, mode="both").probability
        scores = torch.logit(torch.from_numpy(probability), eps=1e-6).numpy() + at
        for threshold, episode_counts in zip(thresholds, counts):
            episode_counts.append(count_episode(class_name, scores >= threshold, mask))
    return np.array([SegmentationMetrics(episode_counts).miou() for episode_counts in counts])


def main() -> None:
    """Prints the curves and the best threshold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--method", choices=tuple(THRESHOLDS), default="prototype")
    parser.add_argument("--model", default="dsvlfs-tiny")
    parser.add_argument("--episodes", type=int, default=100, help="of each kind")
    parser.add_argument("--fields", nargs="+", help="folders of the pack domains, in place of mosaics and scenes")
    arguments = parser.parse_args()
    model = DSVLFSModel.from_pretrained(arguments.model)
    segmenter, at = model, -model.config.logit_offset
    if arguments.method == "prototype":
        segmenter, at = prototype.PrototypeSegmenter(model), prototype.SCORE_THRESHOLD
    root, number, thresholds = arguments.data_root, arguments.episodes, THRESHOLDS[arguments.method]
    asked = {
        "mosaics": lambda: training_mosaics(root / "imagenet_sample" / "train", number),
        "scenes": lambda: coco_scenes(root / "coco_sample", number),
    }
    if arguments.fields:
        asked = {name: partial(field_requests, [root / "domains" / name], number) for name in arguments.fields}
    curves = {name: curve(segmenter, requests(), number, at, thresholds) for name, requests in asked.items()}
    mean = np.mean(list(curves.values()), axis=0)
    print("threshold", *curves, "mean")
    for place, threshold in enumerate(thresholds):
        print(f"{threshold:9.2f}", *(f"{100 * own[place]:6.1f}" for own in (*curves.values(), mean)))
    print(f"best mean at {thresholds[mean.argmax()]:.2f}")


if __name__ == "__main__":
    main()
