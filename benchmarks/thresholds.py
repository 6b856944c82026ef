"""Finds a method's one threshold on training episodes: the score at which mIoU, averaged over mosaics and COCO scenes
of the training packs, is best. Nothing of what is reported on is looked at.

The prototype's is `dsvlfs.prototype.SCORE_THRESHOLD`. The model's may become, with its sign turned, `logit_offset` in
its config; that of the packaged checkpoint was chosen otherwise (model_card.md).
"""

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
from dsvlfs.evaluation import Segmenter
from dsvlfs.metrics import SegmentationMetrics, count_episode

THRESHOLDS = {"prototype": np.arange(-0.2, 0.5, 0.02), "model": np.arange(-2, 1.1, 0.25)}


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


def curve(
    segmenter: Segmenter, episodes: Iterator[tuple], number: int, at: float, thresholds: np.ndarray
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
