"""What corrections are worth: the mIoU of a labelled pool after a simulated person has corrected some masks by the true
ones, which become further supports, in the order of `dsvlfs review` (worst first) and in random orders.

Each class has one support from outside the pool. The corrections come in rounds; before each, the rest is labelled
again with all that has been corrected, and ordered anew.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cachetools import LRUCache
from PIL import Image

from dsvlfs import DSVLFSModel, Labeller, Sample
from dsvlfs.files import read_json
from dsvlfs.labelling.labels import PhotoLabels
from dsvlfs.labelling.record import Label, figures_of, line_of
from dsvlfs.labelling.review import worst_first

IGNORED = 255
WORDS = ("corrected", "order")
"""What a table has beside its photos."""
RESAMPLES = 2000
RANDOM = 100
"""Random choices, where nothing is labelled again."""
VOC_CLASSES = {10: "cow", 13: "horse", 17: "sheep"}
CAMVID_CLASSES = {8: "car", 9: "pedestrian", 5: "tree"}


@dataclass(frozen=True)
class Photo:
    """A photo with its true map.

    Args:
        name: its stem.
        image: RGB.
        truth: (height, width), the numbers of the classes, from 1 on; 0, and `IGNORED` where it does not count.
    """

    name: str
    image: Image.Image
    truth: np.ndarray


def photos_of(images: Path, labels: Path, stems: Sequence[str], indices: Sequence[int]) -> list[Photo]:
    """The photos that show at least 1 % of one of the classes, in an order that does not change."""
    found = []
    for stem in stems:
        with Image.open(labels / f"{stem}.png") as file:
            index = np.asarray(file)
        truth = np.where(index == IGNORED, IGNORED, 0).astype(np.uint8)
        for number, value in enumerate(indices, 1):
            truth[index == value] = number
        shares = [(truth == number).mean() for number in range(1, len(indices) + 1)]
        if max(shares) >= 0.01:
            found.append(Photo(stem, Image.open(next(images.glob(f"{stem}.*"))).convert("RGB"), truth))
    return found


def pack(name: str, root: Path) -> tuple[list[Photo], list[str]]:
    """The photos of a pack (`voc`, `camvid`, a field of `domains`), and three of its classes."""
    if name == "voc":
        folder = root / "VOC2012"
        lines = (folder / "ImageSets" / "Segmentation" / "train_aug.txt").read_text().split()
        stems = list(dict.fromkeys(Path(line).stem for line in lines))
        photos = photos_of(folder / "JPEGImages", folder / "SegmentationClassAug", stems, list(VOC_CLASSES))
        return photos, list(VOC_CLASSES.values())
    if name == "camvid":
        folder, classes = root / "camvid_sample", CAMVID_CLASSES
    else:
        folder = root / "domains" / name
        classes = dict(list(read_json(folder / "classes.json").items())[:3])
    stems = sorted(file.stem for file in (folder / "labels").glob("*.png"))
    indices = [int(index) for index in classes]
    return photos_of(folder / "images", folder / "labels", stems, indices), list(classes.values())


def supports_and_pool(photos: Sequence[Photo], classes: int, size: int, seed: int) -> tuple[list[Photo], list[Photo]]:
    """A support of each class, and as many other photos of each class as of the next.

    Args:
        photos: to choose from.
        classes: how many there are.
        size: of the pool.
        seed: of the choice.
    """
    order = [photos[place] for place in np.random.default_rng(seed).permutation(len(photos))]
    supports: list[Photo] = []
    for number in range(1, classes + 1):
        shows = [photo for photo in order if (photo.truth == number).mean() >= 0.03 and photo not in supports]
        supports.append(shows[0])
    shares = [[photo for photo in order if (photo.truth == number).any()] for number in range(1, classes + 1)]
    pool: dict[str, Photo] = {}
    for same in zip(*(_endless(share) for share in shares)):
        for photo in same:
            if photo is not None and photo not in supports and len(pool) < size:
                pool[photo.name] = photo
        if len(pool) == size or all(photo is None for photo in same):
            break
    return supports, list(pool.values())


def _endless(photos: Sequence[Photo]) -> Any:
    yield from photos
    while True:
        yield None


class Remembering:
    """The model, which encodes each photo and each support once."""

    def __init__(self, model: DSVLFSModel) -> None:
        self._model = model
        self._queries: LRUCache[bytes, Any] = LRUCache(500)
        self._supports: dict[bytes, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode_query(self, image: Image.Image) -> Any:
        key = image.tobytes()
        if key not in self._queries:
            self._queries[key] = self._model.encode_query(image)
        return self._queries[key]

    def encode_support(self, examples: Sequence[tuple[Image.Image, np.ndarray]]) -> Any:
        shots = []
        for image, mask in examples:
            key = np.asarray(image).tobytes() + np.packbits(mask).tobytes()
            if key not in self._supports:
                self._supports[key] = self._model.encode_support([(image, mask)])
            shots.append(self._supports[key])
        return type(shots[0]).join(shots)


def samples_of(photos: Sequence[Photo], names: Sequence[str]) -> list[Sample]:
    """Each class of each photo, from 0.1 % of it on."""
    return [
        Sample(photo.image, photo.truth == number, name)
        for photo in photos
        for number, name in enumerate(names, 1)
        if (photo.truth == number).mean() >= 0.001
    ]


def _share(photo: Photo) -> float:
    return float(((photo.truth > 0) & (photo.truth != IGNORED)).mean())


def as_label(photo: Photo, labels: PhotoLabels) -> Label:
    """What `dsvlfs review` knows of a label when it orders."""
    files = {"digest": "", "mask": "", "overlay": "", "mask_stamp": ""}
    size = {"width": photo.image.width, "height": photo.image.height}
    return Label(photo=photo.name, **files, **size, **figures_of(labels))


def counts(class_map: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """Intersection and union of each class, (classes, 2)."""
    counted = truth != IGNORED
    rows = []
    for number in range(1, classes + 1):
        found, true = (class_map == number) & counted, truth == number
        rows.append((np.count_nonzero(found & true), np.count_nonzero(found | true)))
    return np.array(rows, dtype=np.int64)


def _doubt(label: Label) -> tuple[bool, float]:
    """Masks by the IoU to expect, then those that are empty by their presence, the largest first."""
    if label.area_percent == 0:
        return True, -(label.presence or 0.0)
    return False, label.score if label.expected_iou is None else label.expected_iou


Order = Callable[[Sequence[Label]], list[str]]
ORDERS: dict[str, Order] = {
    "worst first": lambda labels: [label.photo for label in worst_first(labels)],
    "least expected IoU first": lambda labels: [label.photo for label in sorted(labels, key=_doubt)],
}


def loop(
    labeller: Labeller,
    supports: list[Photo],
    pool: list[Photo],
    names: list[str],
    order: Order,
    rounds: Sequence[int],
    kept: Path | None = None,
    largest: float = 1.0,
) -> dict[int, dict[str, Any]]:
    """The counts of each photo of the pool after each number of corrections; a corrected one is right. What the labels
    were before is written to a file."""
    corrected: list[str] = []
    labels: list[Label] = []
    known = {photo.name: photo for photo in pool}
    measured = {}
    for number in (0, *rounds):
        if number:
            corrected += order(labels)[: number - len(corrected)]
        learned = [known[name] for name in corrected if _share(known[name]) <= largest]
        labeller.fit(samples_of([*supports, *learned], names))
        labels, table = [], {}
        for photo in pool:
            if photo.name in corrected:
                table[photo.name] = counts(photo.truth, photo.truth, len(names))
                continue
            found = labeller.label(photo.image)
            class_map = np.zeros_like(found.class_map)  # the labeller numbers classes as their samples come
            for place, name in enumerate(names, 1):
                class_map[found.mask(name)] = place
            labels.append(as_label(photo, found))
            table[photo.name] = counts(class_map, photo.truth, len(names))
        rest = [name for name in table if name not in corrected]
        print(f"  {number} corrected: pool {miou(table):.1f}, rest {miou(table, rest):.1f}", flush=True)
        measured[number] = {"corrected": list(corrected), **table}
        if not number and kept is not None:
            lines = [{**json.loads(line_of(label)), "counts": table[label.photo].tolist()} for label in labels]
            kept.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        if not number:
            measured[number]["order"] = order(labels)
    return measured


def miou(table: dict[str, Any], names: Sequence[str] | None = None) -> float:
    """Of some photos, in percent."""
    rows = np.stack([table[name] for name in (names or [n for n in table if n not in WORDS])])
    return float(_miou(rows.sum(0)))


def _miou(total: np.ndarray) -> np.ndarray:
    """(..., classes, 2) to the mean over classes that are there."""
    union = total[..., 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100 * np.nanmean(np.where(union > 0, total[..., 0] / union, np.nan), axis=-1)


def interval(first: dict[str, Any], others: Sequence[dict[str, Any]]) -> tuple[float, float, float]:
    """mIoU of the pool: the first less the mean of the others, and its 95 % interval over photos drawn again."""
    names = [name for name in first if name not in WORDS]
    own = np.stack([first[name] for name in names])
    beside = [np.stack([other[name] for name in names]) for other in others]
    rng = np.random.default_rng(0)

    def difference(draw: np.ndarray) -> float:
        return float(_miou(own[draw].sum(0)) - np.mean([_miou(rows[draw].sum(0)) for rows in beside]))

    drawn = [difference(rng.integers(0, len(names), len(names))) for _ in range(RESAMPLES)]
    low, high = np.percentile(drawn, (2.5, 97.5))
    return difference(np.arange(len(names))), float(low), float(high)


def unlearned(before: dict[str, Any], pool: Sequence[Photo], order: Sequence[str], corrected: int) -> list[float]:
    """mIoU of the pool where corrections are no supports, so that the rest stays as it was: of the first of an order,
    of random choices, the difference, and its 95 % interval over photos drawn again.

    Args:
        before: the counts of each photo.
        pool: the photos.
        order: their names.
        corrected: how many are.
    """
    classes = len(before[pool[0].name])
    own = np.stack([before[photo.name] for photo in pool])
    true = np.stack([counts(photo.truth, photo.truth, classes) for photo in pool])
    rng = np.random.default_rng(0)
    chosen = np.isin([photo.name for photo in pool], order[:corrected])
    random = [rng.permutation(len(pool)) < corrected for _ in range(RANDOM)]
    tables = [np.where(picked[:, None, None], true, own) for picked in (chosen, *random)]

    def values(draw: np.ndarray) -> np.ndarray:
        return np.array([_miou(table[draw].sum(0)) for table in tables])

    measured = values(np.arange(len(pool)))
    drawn = [values(rng.integers(0, len(pool), len(pool))) for _ in range(RESAMPLES // 4)]
    low, high = np.percentile([row[0] - row[1:].mean() for row in drawn], (2.5, 97.5))
    return [
        round(float(value), 1)
        for value in (measured[0], measured[1:].mean(), measured[0] - measured[1:].mean(), low, high)
    ]


def main() -> None:
    """Prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--pack", required=True, help="voc, camvid, or a field's name")
    parser.add_argument("--pool", type=int, default=40, help="photos")
    parser.add_argument("--random", type=int, default=3, help="random orders")
    parser.add_argument("--rounds", type=int, nargs="*", default=[5, 10, 20], help="corrections to measure after")
    parser.add_argument("--orders", nargs="+", choices=ORDERS, default=list(ORDERS))
    parser.add_argument("--seed", type=int, default=0, help="of the pool")
    parser.add_argument("--model", default="dsvlfs-tiny")
    parser.add_argument(
        "--largest", type=float, default=1.0, help="share of its photo that a further support fills at most"
    )
    parser.add_argument("--labels", type=Path, help="file for the labels before any correction, a JSON line each")
    parser.add_argument("--out", type=Path, help="file for the result (JSON)")
    arguments = parser.parse_args()
    photos, names = pack(arguments.pack, arguments.data_root)
    supports, pool = supports_and_pool(photos, len(names), arguments.pool, arguments.seed)
    labeller = Labeller(Remembering(DSVLFSModel.from_pretrained(arguments.model)))
    orders: dict[str, Order] = {title: ORDERS[title] for title in arguments.orders}
    for seed in range(arguments.random):
        orders[f"random {seed}"] = _random(seed)
    started, runs, pool_names = time.perf_counter(), {}, [photo.name for photo in pool]
    for title, order in orders.items():
        print(title, flush=True)
        runs[title] = loop(
            labeller, supports, pool, names, order, arguments.rounds, arguments.labels, arguments.largest
        )
    rows: dict[str, Any] = {"pack": arguments.pack, "photos": len(pool), "classes": names, "seconds": None}
    for number in arguments.rounds:
        others = [run[number] for title, run in runs.items() if title not in ORDERS]
        rests = {title: [n for n in pool_names if n not in run[number]["corrected"]] for title, run in runs.items()}
        rows[str(number)] = {
            "pool": {title: round(miou(run[number]), 1) for title, run in runs.items()},
            "rest": {title: round(miou(run[number], rests[title]), 1) for title, run in runs.items()},
            "pool, less random": {
                title: [round(value, 1) for value in interval(runs[title][number], others)]
                for title in arguments.orders
                if others
            },
        }
    rows["corrected but not learned from: this order, random orders, the difference and its interval"] = {
        f"{title}, {number}": unlearned(runs[title][0], pool, runs[title][0]["order"], number)
        for title in arguments.orders
        for number in (5, 10)
    }
    rows["before"] = round(miou(runs[arguments.orders[0]][0]), 1)
    rows["seconds"] = round(time.perf_counter() - started)
    print(json.dumps(rows, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=2) + "\n")


def _random(seed: int) -> Order:
    rng = np.random.default_rng(seed)

    def order(labels: Sequence[Label]) -> list[str]:
        return [labels[place].photo for place in rng.permutation(len(labels))]

    return order


if __name__ == "__main__":
    main()
