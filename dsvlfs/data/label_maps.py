"""Folders of index masks, as people label their own fields: `images/`, `labels/` and `classes.json`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from ..errors import InputError
from ..files import PHOTO_SUFFIXES, read_json
from ..inference.photos import open_image
from .index_cache import Split, cached_index, file_state, layout_error
from .photos import FEATURES, as_png, rows_of
from .schemas import ClassNames

IGNORED = 255
LABELS_TREE = (
    "images/*, labels/STEM.png (a class index a pixel, 255 where it does not count) and classes.json (index to name)"
)
_TESTED_SHARE = 0.002


def load_label_maps(root: Path, *, smallest_share: float = 0.01) -> Dataset:
    """Every photo and every class in it as a row (`dsvlfs.data.photos.FEATURES`).

    Args:
        root: the folder.
        smallest_share: of the photo that a class covers to have a row.

    Raises:
        InputError: the folder is not laid out as `LABELS_TREE`, or a label map is damaged.
    """
    rows = [{name: row[name] for name in FEATURES} for row in label_map_rows(root, smallest_share)]
    return rows_of(rows, root)


def labels_index(root: Path, _: Split) -> Dataset:
    """Every photo of the folder and every class that covers at least 0.2 % of it; all are for testing.

    Raises:
        InputError: as `load_label_maps`.
    """
    if not (root / "classes.json").is_file():
        raise layout_error("labels", LABELS_TREE, root, "classes.json")
    root = root.resolve()
    parts = [root / "images", root / "labels", root / "classes.json"]
    key = (root, *(file_state(part) for part in parts if part.exists()))
    return cached_index("labels", key, lambda: label_map_rows(root, _TESTED_SHARE))


def label_map_rows(root: Path, smallest_share: float) -> Iterator[dict[str, Any]]:
    """Rows of `dsvlfs.data.index_cache.INDEX_FEATURES`; a photo is called by the folder's name and its own.

    Raises:
        InputError: as `load_label_maps`.
    """
    classes = read_json(root / "classes.json", ClassNames)
    if not (root / "images").is_dir():
        raise InputError(f"There is no folder images in {root}; give the folder that holds images and labels.")
    photos = [file for file in (root / "images").iterdir() if file.suffix.lower() in PHOTO_SUFFIXES]
    for file in sorted(file for file in photos if not file.name.startswith(".")):
        map_file = root / "labels" / f"{file.stem}.png"
        labels = np.array(open_image(map_file, "label map"))
        if labels.ndim != 2:
            raise InputError(f"{map_file} is in colours; give a map of one class index a pixel.")
        ignored = labels == IGNORED
        for index, name in classes.items():
            mask = labels == int(index)
            if mask.mean() >= smallest_share:
                yield {
                    "photo_id": f"{root.name}/{file.stem}",
                    "image": str(file),
                    "mask": as_png(mask),
                    "ignore": as_png(ignored) if ignored.any() else None,
                    "class_name": name,
                    "class_names": [name],
                    "definition": "",
                    "class_index": int(index),
                    "area": int(mask.sum()),
                }


def fields_of(root: Path) -> list[Path]:
    """The folders of index masks in a folder of several, or the folder itself.

    Raises:
        InputError: there are none.
    """
    if (root / "classes.json").is_file():
        return [root]
    found = sorted(folder for folder in root.glob("*") if (folder / "classes.json").is_file())
    if not found:
        raise InputError(f"Neither {root} nor a folder in it holds {LABELS_TREE}; give another folder.")
    return found
