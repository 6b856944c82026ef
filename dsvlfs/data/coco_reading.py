"""COCO's and LVIS's own annotation files as an index, one photo and one category a row."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from pycocotools import mask as coco_mask

from ..errors import InputError
from .index_cache import Split, cached_index, file_state, layout_error
from .json_stream import read_entries
from .photos import as_png
from .run_lengths import union_run_lengths
from .schemas import Annotation, Category, CocoPhoto, LvisCategory, LvisPhoto

_COCO_NAMES = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign, "
    "parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, "
    "handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, "
    "surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, "
    "broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, "
    "laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, "
    "scissors, teddy bear, hair drier, toothbrush"
)
# In the order of COCO's category ids.
COCO_CLASSES = tuple((name,) for name in _COCO_NAMES.split(", "))

COCO_TREE = (
    "annotations/instances_{train,val}2014.json with train2014/*.jpg and val2014/*.jpg (or, for the same photos, "
    "train2017/*.jpg and val2017/*.jpg); or annotations/instances_{train,val}2017.json with the latter, which makes "
    "other splits"
)


def coco_index(root: Path, split: Split, *, exclusive: bool = False) -> Dataset:
    """COCO 2014, train or val; or 2017 where 2014's annotations are not there.

    Args:
        root: of the set.
        split: of it.
        exclusive: of `coco_rows`.

    Raises:
        InputError: the root is not laid out as `COCO_TREE`, or a file is damaged.
    """
    part = {"train": "train", "test": "val"}[split]
    for year in ("2014", "2017"):
        file = root / "annotations" / f"instances_{part}{year}.json"
        if file.is_file():
            break
    else:
        raise layout_error("coco-20i", COCO_TREE, root, f"annotations/instances_{part}2014.json")
    folder = root.resolve() / f"{part}{year}"
    if folder.is_dir():
        photos = folder

        def photo_path(photo: dict[str, Any]) -> Path:
            return folder / photo["file_name"]

    else:  # 2017 shuffled 2014's photos between its folders, and left their numbers
        photos, rest = root.resolve() / "val2017", root.resolve() / "train2017"
        if not (photos.is_dir() and rest.is_dir()):
            raise layout_error("coco-20i", COCO_TREE, root, folder.name)
        in_val = {file.name for file in photos.iterdir()}

        def photo_path(photo: dict[str, Any]) -> Path:
            name = photo["file_name"].split("_")[-1]
            return (photos if name in in_val else rest) / name

    index_of = {names[0]: index for index, names in enumerate(COCO_CLASSES)}

    def describe(category: dict[str, Any]) -> dict[str, Any]:
        name = category["name"]
        if name not in index_of:
            raise InputError(f"{file} has the category '{name}', which COCO's 80 have not; get COCO's own file.")
        return {"class_index": index_of[name], "class_name": name, "class_names": [name], "definition": ""}

    key = (root.resolve(), split, year, file_state(file), photos.name, *(["exclusive"] if exclusive else []))
    schemas = CocoPhoto, Category
    return cached_index("coco-20i", key, lambda: coco_rows(file, *schemas, photo_path, describe, exclusive=exclusive))


LVIS_TREE = (
    "lvis_v1_train.json and lvis_v1_val.json (in annotations/ or in the root) and COCO's train2017/*.jpg and "
    "val2017/*.jpg (in coco/ or in the root)"
)


def lvis_index(root: Path, split: Split) -> Dataset:
    """LVIS v1, train or val. A class's index is its category id.

    Raises:
        InputError: the root is not laid out as `LVIS_TREE`, or a file is damaged.
    """
    name = f"lvis_v1_{'train' if split == 'train' else 'val'}.json"
    for file in (root / "annotations" / name, root / name):
        if file.is_file():
            break
    else:
        raise layout_error("lvis-92i", LVIS_TREE, root, name)
    for photos in (root.resolve(), root.resolve() / "coco"):
        if (photos / "train2017").is_dir():
            break
    else:
        raise layout_error("lvis-92i", LVIS_TREE, root, "train2017")

    def photo_path(photo: dict[str, Any]) -> Path:
        return photos.joinpath(*photo["coco_url"].split("/")[-2:])

    def describe(category: dict[str, Any]) -> dict[str, Any]:
        names = [n.replace("_", " ") for n in [category["name"], *(category.get("synonyms") or [])]]
        return {
            "class_index": category["id"],
            "class_name": names[0],
            "class_names": list(dict.fromkeys(names)),
            "definition": category.get("def") or "",
        }

    key = (photos, split, file.resolve(), file_state(file))
    return cached_index("lvis-92i", key, lambda: coco_rows(file, LvisPhoto, LvisCategory, photo_path, describe))


def coco_rows(
    file: Path,
    photo: Any,
    category: Any,
    photo_path: Callable[[dict[str, Any]], Path],
    describe: Callable[[dict[str, Any]], Mapping[str, Any]],
    *,
    exclusive: bool = False,
) -> Iterator[dict[str, Any]]:
    """Rows by photo and category id; a mask is the union of the category's instances, crowds included.

    Args:
        file: `instances_*.json` or `lvis_v1_*.json`.
        photo, category: schemas of the entries of `images` and `categories`.
        photo_path: of an entry of `images`, where the photo is.
        describe: of an entry of `categories`: its `class_index`, `class_name`, `class_names` and `definition`.
        exclusive: a pixel that several instances cover is of the smallest one's category alone, for COCO does not say
            which of them is in front.

    Yields:
        `photo_id`, `image`, `mask`, `ignore` (none), `area` (pixels of the mask) and what `describe` gives.

    Raises:
        InputError: the file is damaged or not COCO's.
    """
    photos, categories = {}, {}
    for entry in read_entries(file, "images", photo):
        photos[entry["id"]] = (str(photo_path(entry)), entry["height"], entry["width"])
    for entry in read_entries(file, "categories", category):
        categories[entry["id"]] = describe(entry)
    instances: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
    for entry in read_entries(file, "annotations", Annotation):
        photo_id, category_id = entry["image_id"], entry["category_id"]
        if photo_id not in photos or category_id not in categories:
            raise InputError(
                f"{file} annotates photo {photo_id} with category {category_id} but does not list both; get the file "
                "again."
            )
        try:
            run_lengths = union_run_lengths([entry["segmentation"]], *photos[photo_id][1:])
        except InputError as error:
            raise InputError(f"Photo {photo_id} in {file}: {error}") from None
        if run_lengths is not None:
            instances[photo_id].append((category_id, run_lengths["counts"]))
    masks_of = _apart if exclusive else _whole
    for photo_id in sorted(instances):
        path, *size = photos[photo_id]
        for category_id, mask in masks_of(instances.pop(photo_id), size):
            area = int(mask.sum())
            if area:
                yield {
                    "photo_id": str(photo_id),
                    "image": path,
                    "mask": as_png(mask),
                    "ignore": None,
                    "area": area,
                    **categories[category_id],
                }


def _whole(instances: list[tuple[int, bytes]], size: list[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Each category's mask, bool (height, width): the union of its instances."""
    for category_id in sorted({category_id for category_id, _ in instances}):
        own = [{"size": size, "counts": counts} for other, counts in instances if other == category_id]
        yield category_id, coco_mask.decode(coco_mask.merge(own)).astype(bool)


def _apart(instances: list[tuple[int, bytes]], size: list[int]) -> Iterator[tuple[int, np.ndarray]]:
    """As `_whole`; no two masks share a pixel."""
    encoded = [(category_id, {"size": size, "counts": counts}) for category_id, counts in instances]
    labels = np.full(size, -1, dtype=np.int64)
    for category_id, run_lengths in sorted(encoded, key=lambda one: -int(coco_mask.area(one[1]))):
        labels[coco_mask.decode(run_lengths).astype(bool)] = category_id
    for category_id in sorted({category_id for category_id, _ in instances}):
        yield category_id, labels == category_id
