"""Photos with masks as `datasets.Dataset`s of one schema, whatever the source's layout on disk.

A row is one photo with the mask of one class in it: foreground where `mask` is above zero. Pixels where `ignore` is
above zero are neither foreground nor background (object borders in PASCAL VOC); most rows have none. A class has every
name that fits, the most specific first, so that a class may also be a WordNet node: 'dog' is every row with 'dog' among
its names.
"""

import io
from collections import defaultdict
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PILImage

from ..errors import InputError
from ..files import read_json, read_json_lines
from ..inference.photos import open_image
from .run_lengths import union_mask
from .schemas import CocoFile, Cutout, NamedPhoto

FEATURES = Features(
    {
        "photo_id": Value("string"),
        "image": Image(),
        "mask": Image(),
        "ignore": Image(),
        "class_name": Value("string"),
        "class_names": List(Value("string")),
        "definition": Value("string"),
    }
)


def load_photo_folder(folder: Path, split: str | None = None) -> Dataset:
    """A folder of `metadata.jsonl`, one photo a line: `image`, `mask`, `name`, and where known `synonyms`,
    `hypernyms` (nearest first), `definition`, `ignore` (a second mask) and `split`.

    Args:
        split: leaves out the photos whose line names another split; None leaves out nothing.

    Raises:
        InputError: the folder is not laid out so.
    """
    rows = []
    for entry in read_json_lines(folder / "metadata.jsonl", NamedPhoto):
        if split is not None and (entry.get("split") or split) != split:
            continue
        names = [entry["name"], *(entry.get("synonyms") or []), *(entry.get("hypernyms") or [])]
        rows.append(
            {
                "photo_id": Path(entry["image"]).stem,
                "image": str(folder / entry["image"]),
                "mask": str(folder / entry["mask"]),
                "ignore": str(folder / entry["ignore"]) if entry.get("ignore") else None,
                "class_name": entry["name"],
                "class_names": list(dict.fromkeys(names)),
                "definition": entry.get("definition") or "",
            }
        )
    return rows_of(rows, folder)


def load_coco(root: Path, split: str) -> Dataset:
    """COCO's own layout: `root/split/*.jpg` and `root/annotations/instances_split.json`. A row is a photo and a
    category; its mask is the union of that category's instances, crowds included.

    Raises:
        InputError: the annotations are not there or lack something.
    """
    return load_coco_file(root / "annotations" / f"instances_{split}.json", root / split)


def load_coco_file(file: Path, folder: Path) -> Dataset:
    """A COCO JSON of instances whose photos lie in `folder`; rows as `load_coco` has them.

    Raises:
        InputError: the annotations are not there or lack something.
    """
    annotations = read_coco(file)
    categories = {entry["id"]: entry for entry in annotations["categories"]}
    instances = defaultdict(list)
    for entry in annotations["annotations"]:
        instances[entry["image_id"], entry["category_id"]].append(entry["segmentation"])
    photos = {entry["id"]: entry for entry in annotations["images"]}
    rows = []
    for (photo_id, category_id), segmentations in sorted(instances.items()):
        if photo_id not in photos or category_id not in categories:
            raise InputError(
                f"{file} annotates photo {photo_id} with category {category_id} but does not list both; get the file "
                "again."
            )
        photo, category = photos[photo_id], categories[category_id]
        try:
            mask = union_mask(segmentations, photo["height"], photo["width"])
        except InputError as error:
            raise InputError(f"Photo {photo_id} in {file}: {error}") from None
        if not mask.any():
            continue
        rows.append(
            {
                "photo_id": str(photo_id),
                "image": str(folder / photo["file_name"]),
                "mask": as_png(mask),
                "ignore": None,
                "class_name": category["name"],
                "class_names": [category["name"], *filter(None, [category.get("supercategory")])],
                "definition": "",
            }
        )
    return rows_of(rows, file)


def load_own_photos(root: Path) -> Dataset:
    """A person's own photos: `metadata.jsonl` as `load_photo_folder` reads it, or one COCO JSON, whose photos lie
    beside it or in `images`.

    Raises:
        InputError: there is neither, or both, or they are laid out wrong.
    """
    if (root / "metadata.jsonl").is_file():
        return load_photo_folder(root)
    found = sorted(root.glob("*.json"))
    if len(found) != 1:
        raise InputError(
            f"{root} has no metadata.jsonl and {len(found)} JSON files; put metadata.jsonl there, with images and "
            "masks, or one COCO JSON."
        )
    return load_coco_file(found[0], root / "images" if (root / "images").is_dir() else root)


def load_cutouts(folder: Path) -> Dataset:
    """RGBA cut-outs: `metadata.jsonl` with `image`, `name` and `category` (a path of ever finer kinds); the mask is
    the opaque part.

    Raises:
        InputError: the folder is not laid out so.
    """
    rows = []
    for entry in read_json_lines(folder / "metadata.jsonl", Cutout):
        cutout = open_image(folder / entry["image"], "cut-out")
        alpha = np.array(cutout.convert("RGBA").getchannel("A"))
        kinds = entry["category"].split("/")
        # "An owl (a bird)" is called owl; its category names its kinds.
        name = entry["name"].split(" (")[0].split(",")[0].rstrip(".").lower()
        for article in ("a ", "an ", "the ", "some "):
            name = name.removeprefix(article)
        if len(name.split()) > 4 or any(mark in name for mark in "!?:"):  # a sentence
            name = kinds[-1]
        rows.append(
            {
                "photo_id": Path(entry["image"]).stem,
                "image": str(folder / entry["image"]),
                "mask": as_png(alpha > 127),
                "ignore": None,
                "class_name": name,
                "class_names": list(dict.fromkeys([name, *reversed(kinds)])),
                "definition": "",
            }
        )
    return rows_of(rows, folder)


def read_coco(file: Path) -> CocoFile:
    """Reads COCO's `instances_*.json`, or says in one sentence what is wrong with it (InputError)."""
    return read_json(file, CocoFile)


def rows_of(rows: list[dict], source: Path) -> Dataset:
    """Rows of `FEATURES`, of which there must be one: InputError says that `source` holds none."""
    if not rows:
        raise InputError(f"{source} holds no photo with a mask of the kind that is asked for; add some.")
    return Dataset.from_list(rows, features=FEATURES)


def as_png(mask: np.ndarray) -> dict:
    """A boolean mask (height, width) as a row of `FEATURES` stores it: a PNG of one bit a pixel."""
    buffer = io.BytesIO()
    image = PILImage.frombytes("1", mask.shape[::-1], np.packbits(mask, axis=1).tobytes())
    image.save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}
