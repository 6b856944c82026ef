"""Where the photos of a file of episodes come from: a folder with a `metadata.jsonl`, or COCO's layout."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from ..files import read_json_lines
from ..inference.photos import load_mask, load_photo
from .photos import read_coco
from .run_lengths import union_mask
from .schemas import MaskedPhoto

Example = tuple[Image.Image, np.ndarray]
"""A photo, and its mask of a class, bool (height, width)."""


class PhotoFolder:
    """Photos by stem; each has one mask, so that there are no categories."""

    def __init__(self, root: Path, photo_ids: set[str]) -> None:
        file = root / "metadata.jsonl"
        entries = read_json_lines(file, MaskedPhoto)
        self._files = {Path(entry["image"]).stem: (root / entry["image"], root / entry["mask"]) for entry in entries}
        self.definitions = {e["name"]: e["definition"] for e in entries if "name" in e and e.get("definition")}
        self._classes = {
            Path(e["image"]).stem: {name for key in ("synonyms", "hypernyms") for name in e.get(key) or ()}
            | ({e["name"]} if "name" in e else set())
            for e in entries
        }
        if missing := sorted(photo_ids - self._files.keys(), key=str):
            raise InputError(
                f"{file} has no photo '{missing[0]}' ({len(missing)} of the episodes' photos are missing); give the "
                "root that the episodes were made for."
            )

    def example(self, photo_id: str, _: None) -> Example:
        image_file, mask_file = self._files[photo_id]
        photo = load_photo(image_file)
        return photo, load_mask(mask_file, photo.size, may_fill=True)

    def classes(self, photo_id: str) -> set[str]:
        """Every name of what the photo is known to show."""
        return self._classes[photo_id]

    def others(self, photo_id: str, _: None) -> None:
        """What else a photo shows is unknown."""


class CocoPhotos:
    """Photos of COCO's layout by image id, in the split that knows them all."""

    definitions: Mapping[str, str] = {}

    def __init__(self, root: Path, photo_ids: set[int]) -> None:
        for file in sorted((root / "annotations").glob("instances_*.json")):
            annotations = read_coco(file)
            self._photos = {entry["id"]: entry for entry in annotations["images"]}
            if photo_ids <= self._photos.keys():
                break
        else:
            raise InputError(
                f"No annotations/instances_*.json in {root} knows every photo of the episodes; give the root that the "
                "episodes were made for."
            )
        self._folder = root / file.stem.removeprefix("instances_")
        self._names = {entry["id"]: entry["name"] for entry in annotations["categories"]}
        self._segmentations = defaultdict(list)
        self._categories: dict[int, set[int]] = defaultdict(set)
        for entry in annotations["annotations"]:
            self._categories[entry["image_id"]].add(entry["category_id"])
            self._segmentations[entry["image_id"], entry["category_id"]].append(entry["segmentation"])

    def example(self, photo_id: int, category_id: int) -> Example:
        entry = self._photos[photo_id]
        segmentations = self._segmentations.get((photo_id, category_id))
        if not segmentations:
            raise InputError(
                f"Photo {photo_id} has no instance of category {category_id} in {self._folder.name}; correct or remove "
                "the episodes that use it."
            )
        photo = load_photo(self._folder / entry["file_name"])
        return photo, load_mask(self._mask(photo_id, segmentations), photo.size)

    def classes(self, photo_id: int) -> set[str]:
        """The name of every category in the photo."""
        return {self._names[c] for c in self._categories[photo_id] if c in self._names}

    def others(self, photo_id: int, category_id: int) -> np.ndarray:
        """Every instance of another category in the photo, bool (height, width)."""
        found = [self._segmentations[photo_id, other] for other in self._categories[photo_id] - {category_id}]
        return self._mask(photo_id, [instance for part in found for instance in part])

    def _mask(self, photo_id: int, segmentations: list[Any]) -> np.ndarray:
        entry = self._photos[photo_id]
        try:
            return union_mask(segmentations, entry["height"], entry["width"])
        except InputError as error:
            raise InputError(f"Photo {photo_id} of {self._folder.name}: {error}") from None
