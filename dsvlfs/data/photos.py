"""Photos with masks as `datasets.Dataset`s of one schema, whatever the source's layout on disk.

A row is one photo with the mask of one class in it. A class has every name that fits, the most specific first, so that
a class may also be a WordNet node: 'dog' is every row with 'dog' among its names.
"""

import io
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PILImage
from pycocotools import mask as coco_mask

from ..errors import InputError

FEATURES = Features(
    {
        "photo_id": Value("string"),
        "image": Image(),
        "mask": Image(),
        "class_name": Value("string"),
        "class_names": List(Value("string")),
        "definition": Value("string"),
    }
)


def load_photo_folder(folder: Path) -> Dataset:
    """A folder of `metadata.jsonl`, one photo a line: `image`, `mask`, `name`, and where known `synonyms`,
    `hypernyms` (nearest first) and `definition`.

    Raises:
        InputError: the folder is not laid out so.
    """
    rows = []
    for entry in read_json_lines(folder / "metadata.jsonl"):
        names = [entry["name"], *entry.get("synonyms", []), *entry.get("hypernyms", [])]
        rows.append(
            {
                "photo_id": Path(entry["image"]).stem,
                "image": str(folder / entry["image"]),
                "mask": str(folder / entry["mask"]),
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
        InputError: the annotations are not there.
    """
    file = root / "annotations" / f"instances_{split}.json"
    annotations = read_json(file)
    categories = {entry["id"]: entry for entry in annotations["categories"]}
    instances = defaultdict(list)
    for entry in annotations["annotations"]:
        instances[entry["image_id"], entry["category_id"]].append(entry["segmentation"])
    photos = {entry["id"]: entry for entry in annotations["images"]}
    rows = []
    for (photo_id, category_id), segmentations in sorted(instances.items()):
        photo, category = photos[photo_id], categories[category_id]
        mask = union_mask(segmentations, photo["height"], photo["width"])
        rows.append(
            {
                "photo_id": str(photo_id),
                "image": str(root / split / photo["file_name"]),
                "mask": _as_png(mask),
                "class_name": category["name"],
                "class_names": [
                    category["name"],
                    *([category["supercategory"]] if "supercategory" in category else []),
                ],
                "definition": "",
            }
        )
    return Dataset.from_list(rows, features=FEATURES)


def load_label_maps(root: Path) -> Dataset:
    """Dense labels: `root/images/STEM.*`, `root/labels/STEM.png` of class indices and `root/classes.json` (index to
    name). A row is a photo and a class that covers at least 1 % of it.

    Raises:
        InputError: the folder is not laid out so.
    """
    names = {int(index): name for index, name in read_json(root / "classes.json").items()}
    rows = []
    for file in sorted((root / "images").iterdir()):
        labels = np.array(PILImage.open(root / "labels" / f"{file.stem}.png"))
        for index, name in names.items():
            mask = labels == index
            if mask.mean() >= 0.01:
                rows.append(
                    {
                        "photo_id": file.stem,
                        "image": str(file),
                        "mask": _as_png(mask),
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
    for entry in read_json_lines(folder / "metadata.jsonl"):
        with PILImage.open(folder / entry["image"]) as cutout:
            alpha = np.array(cutout.convert("RGBA").getchannel("A"))
        # "An owl (a bird)" is called owl; its category names its kinds.
        name = entry["name"].split(" (")[0].split(",")[0].rstrip(".").lower()
        for article in ("a ", "an ", "the ", "some "):
            name = name.removeprefix(article)
        rows.append(
            {
                "photo_id": Path(entry["image"]).stem,
                "image": str(folder / entry["image"]),
                "mask": _as_png(alpha > 127),
                "class_name": name,
                "class_names": list(dict.fromkeys([name, *reversed(entry["category"].split("/"))])),
                "definition": "",
            }
        )
    return Dataset.from_list(rows, features=FEATURES)


def union_mask(segmentations: list, height: int, width: int) -> np.ndarray:
    """Union of COCO segmentations (polygons or run lengths), boolean (height, width)."""
    encoded = []
    for segmentation in segmentations:
        if isinstance(segmentation, list):
            encoded += coco_mask.frPyObjects(segmentation, height, width)
        elif isinstance(segmentation["counts"], list):
            encoded.append(coco_mask.frPyObjects(segmentation, height, width))
        else:
            encoded.append(segmentation)
    return coco_mask.decode(coco_mask.merge(encoded)).astype(bool)


def read_json(file: Path) -> dict:
    """Reads a JSON file, or says in one sentence that it is missing or damaged (InputError)."""
    try:
        return json.loads(_read_text(file))
    except json.JSONDecodeError as error:
        raise InputError(f"{file} is not valid JSON ({error}); get the file again.") from None


def read_json_lines(file: Path) -> list[dict]:
    """Reads a JSON-lines file, or says in one sentence that it is missing or damaged (InputError)."""
    entries = []
    for number, line in enumerate(_read_text(file).splitlines(), 1):
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            raise InputError(f"Line {number} of {file} is not valid JSON; mend or remove the line.") from None
    return entries


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"There is no {file.name} in {file.parent}; give the folder that holds it.") from None
    except IsADirectoryError:
        raise InputError(f"{file} is a folder; give the file in it.") from None
    except UnicodeDecodeError:
        raise InputError(f"{file} is not a text file; give a JSON file.") from None


def _as_png(mask: np.ndarray) -> dict:
    buffer = io.BytesIO()
    PILImage.fromarray(mask).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}
