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
from pycocotools import mask as coco_mask

from ..errors import InputError
from ..files import check_fields, read_json, read_json_lines
from ..inference.photos import open_image

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
    for entry in read_json_lines(folder / "metadata.jsonl", ("image", "mask", "name")):
        if split is not None and entry.get("split", split) != split:
            continue
        names = [entry["name"], *entry.get("synonyms", []), *entry.get("hypernyms", [])]
        rows.append(
            {
                "photo_id": Path(entry["image"]).stem,
                "image": str(folder / entry["image"]),
                "mask": str(folder / entry["mask"]),
                "ignore": str(folder / entry["ignore"]) if entry.get("ignore") else None,
                "class_name": entry["name"],
                "class_names": list(dict.fromkeys(names)),
                "definition": entry.get("definition", ""),
            }
        )
    return Dataset.from_list(rows, features=FEATURES)


def load_coco(root: Path, split: str) -> Dataset:
    """COCO's own layout: `root/split/*.jpg` and `root/annotations/instances_split.json`. A row is a photo and a
    category; its mask is the union of that category's instances, crowds included.

    Raises:
        InputError: the annotations are not there or lack something.
    """
    file = root / "annotations" / f"instances_{split}.json"
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
        mask = union_mask(segmentations, photo["height"], photo["width"])
        rows.append(
            {
                "photo_id": str(photo_id),
                "image": str(root / split / photo["file_name"]),
                "mask": as_png(mask),
                "ignore": None,
                "class_name": category["name"],
                "class_names": [
                    category["name"],
                    *([category["supercategory"]] if "supercategory" in category else []),
                ],
                "definition": "",
            }
        )
    return Dataset.from_list(rows, features=FEATURES)


LABEL_IGNORE = 255


def load_label_maps(root: Path, *, smallest_share: float = 0.01) -> Dataset:
    """Dense labels: `root/images/STEM.*`, `root/labels/STEM.png` of class indices and `root/classes.json` (index to
    name). A row is a photo, by the folder's name and its own, and a class in it; pixels labelled 255 do not count.

    Args:
        root: the folder.
        smallest_share: of the photo that a class covers to have a row.

    Raises:
        InputError: the folder is not laid out so.
    """
    classes = read_json(root / "classes.json")
    if not all(index.isdecimal() for index in classes):
        raise InputError(f"{root / 'classes.json'} has a key that is no class index; give index to name.")
    if not (root / "images").is_dir():
        raise InputError(f"There is no folder images in {root}; give the folder that holds images and labels.")
    rows = []
    for file in sorted((root / "images").iterdir()):
        labels = np.array(open_image(root / "labels" / f"{file.stem}.png", "label map"))
        unlabelled = labels == LABEL_IGNORE
        ignore = as_png(unlabelled) if unlabelled.any() else None
        for index, name in classes.items():
            mask = labels == int(index)
            if mask.mean() >= smallest_share:
                rows.append(
                    {
                        "photo_id": f"{root.name}/{file.stem}",
                        "image": str(file),
                        "mask": as_png(mask),
                        "ignore": ignore,
                        "class_name": name,
                        "class_names": [name],
                        "definition": "",
                    }
                )
    return Dataset.from_list(rows, features=FEATURES)


def load_cutouts(folder: Path) -> Dataset:
    """RGBA cut-outs: `metadata.jsonl` with `image`, `name` and `category` (a path of ever finer kinds); the mask is
    the opaque part.

    Raises:
        InputError: the folder is not laid out so.
    """
    rows = []
    for entry in read_json_lines(folder / "metadata.jsonl", ("image", "name", "category")):
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
    return Dataset.from_list(rows, features=FEATURES)


def union_mask(segmentations: list, height: int, width: int) -> np.ndarray:
    """Union of COCO segmentations (polygons or run lengths), boolean (height, width)."""
    return coco_mask.decode(union_run_lengths(segmentations, height, width)).astype(bool)


def union_run_lengths(segmentations: list, height: int, width: int) -> dict:
    """Union of COCO segmentations (polygons or run lengths) as COCO's compressed run lengths."""
    encoded = []
    for segmentation in segmentations:
        if isinstance(segmentation, list):
            encoded += coco_mask.frPyObjects(segmentation, height, width)
        elif isinstance(segmentation["counts"], list):
            encoded.append(coco_mask.frPyObjects(segmentation, height, width))
        else:
            encoded.append(segmentation)
    return coco_mask.merge(encoded)


def read_coco(file: Path) -> dict[str, list[dict]]:
    """Reads COCO's `instances_*.json`, or says in one sentence what is wrong with it (InputError)."""
    fields = {
        "images": ("id", "file_name", "height", "width"),
        "annotations": ("image_id", "category_id", "segmentation"),
        "categories": ("id", "name"),
    }
    content = read_json(file, tuple(fields))
    for part, entry_fields in fields.items():
        if not isinstance(content[part], list):
            raise InputError(f"'{part}' in {file} is not a list; get the file again.")
        for number, entry in enumerate(content[part], 1):
            check_fields(entry, entry_fields, f"Entry {number} of '{part}' in {file}")
    return content


def as_png(mask: np.ndarray) -> dict:
    """A boolean mask (height, width) as a row of `FEATURES` stores it: a PNG of one bit a pixel."""
    buffer = io.BytesIO()
    image = PILImage.frombytes("1", mask.shape[::-1], np.packbits(mask, axis=1).tobytes())
    image.save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}
