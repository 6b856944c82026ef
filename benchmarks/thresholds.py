"""Finds a method's one threshold on training episodes: the score at which mIoU, averaged over mosaics and COCO scenes
of the training packs, is best. Nothing of what is reported on is looked at.

The prototype's is `dsvlfs.measuring.prototype.SCORE_THRESHOLD`. The model's may become, with its sign turned,
`logit_offset` in its config; that of the packaged checkpoint was chosen otherwise (model_card.md).
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dsvlfs import DSVLFSModel
from dsvlfs.measuring import prototype
from dsvlfs.measuring.evaluation import Segmenter
from dsvlfs.measuring.metrics import SegmentationMetrics, count_episode
from dsvlfs.training.requests import Request, coco_scenes, training_mosaics

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
    arguments = parser.parse_args()
    model = DSVLFSModel.from_pretrained(arguments.model)
    segmenter, at = model, -model.config.logit_offset
    if arguments.method == "prototype":
        segmenter, at = prototype.PrototypeSegmenter(model), prototype.SCORE_THRESHOLD
    root, number, thresholds = arguments.data_root, arguments.episodes, THRESHOLDS[arguments.method]
    mosaics = curve(segmenter, training_mosaics(root / "imagenet_sample" / "train", number), number, at, thresholds)
    scenes = curve(segmenter, coco_scenes(root / "coco_sample", number), number, at, thresholds)
    print("threshold  mosaics  scenes   mean")
    for threshold, a, b in zip(thresholds, mosaics, scenes):
        print(f"{threshold:9.2f}  {100 * a:7.1f}  {100 * b:6.1f}  {50 * (a + b):5.1f}")
    print(f"best mean at {thresholds[(mosaics + scenes).argmax()]:.2f}")


if __name__ == "__main__":
    main()
