"""Fixed few-shot episodes from a JSON-lines file, so that whoever measures on it gets comparable numbers.

A line is an episode: `class_name`, `query` (one photo) and `support` (K photos). There are three kinds of file:

- single: photos are stems of a folder with a `metadata.jsonl`;
- mosaic: as single, but the query is the tile at `position` of a 2 x 2 scene, three `distractors` fill the others, in
  order, and only the query photo's mask counts;
- COCO: photos are COCO's image ids, and a mask is the union of the instances of `category_id`.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from ..processing import load_mask, load_photo
from .photos import read_coco, read_json_lines, union_mask
from .scenes import compose_mosaic

Example = tuple[Image.Image, np.ndarray]

MOSAIC_LAYOUT = (2, 2)


@dataclass(frozen=True, eq=False)
class Episode:
    """One query with its support.

    Args:
        class_name: of the class to find.
        query: RGB photo or mosaic.
        query_mask: bool (height, width) of the class in the query.
        support: K RGB photos, each with its mask of the class, bool (height, width).
        support_ids: one for each support photo with its mask, unique in the file: equal ids are equal supports.
        position: for a mosaic, index of the tile that holds the class, row by row.
        layout: for a mosaic, its (rows, columns).
    """

    class_name: str
    query: Image.Image
    query_mask: np.ndarray
    support: list[Example]
    support_ids: tuple[str, ...]
    position: int | None = None
    layout: tuple[int, int] | None = None


def load_episodes(root: Path, file: Path, limit: int | None = None) -> Sequence[Episode]:
    """Opens a file of episodes; the photos of one are read when it is asked for.

    Args:
        root: folder that the photos are looked for in: that of `metadata.jsonl`, or COCO's with `annotations/`, whose
            split is the one that knows the file's ids.
        file: of any of the three kinds.
        limit: number of episodes to take from the file's beginning; None takes all.

    Raises:
        InputError: the file or the root is not laid out so or lacks a photo; also, when an episode is read, its photo
            or mask cannot be used.
    """
    entries = read_json_lines(file)[:limit]
    if not entries:
        raise InputError(f"{file} holds no episodes; give a file with one episode a line.")
    _check_entries(entries, file)
    photo_ids = {photo_id for entry in entries for photo_id in _photo_ids(entry)}
    photos = (_CocoPhotos if "category_id" in entries[0] else _PhotoFolder)(root, photo_ids)
    return _EpisodeFile(entries, photos)


class _EpisodeFile(Sequence[Episode]):
    def __init__(self, entries: list[dict[str, Any]], photos: "_PhotoFolder | _CocoPhotos") -> None:
        self._entries = entries
        self._photos = photos

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Episode:
        entry = self._entries[index]
        category_id = entry.get("category_id")
        query, query_mask = self._photos.example(entry["query"], category_id)
        position, layout = entry.get("position"), None
        if position is not None:
            tiles = [self._photos.example(photo_id, category_id) for photo_id in entry["distractors"]]
            tiles.insert(position, (query, query_mask))
            layout = MOSAIC_LAYOUT
            query, tile_masks = compose_mosaic(tiles, *layout)
            query_mask = tile_masks[position]
        return Episode(
            class_name=entry["class_name"],
            query=query,
            query_mask=query_mask,
            support=[self._photos.example(photo_id, category_id) for photo_id in entry["support"]],
            support_ids=tuple(f"{photo_id}:{entry['class_name']}" for photo_id in entry["support"]),
            position=position,
            layout=layout,
        )


class _PhotoFolder:
    """Photos by stem; each has one mask, so that there are no categories."""

    def __init__(self, root: Path, photo_ids: set[str]) -> None:
        file = root / "metadata.jsonl"
        self._files = {
            Path(entry["image"]).stem: (root / entry["image"], root / entry["mask"])
            for entry in read_json_lines(file, ("image", "mask"))
        }
        if missing := sorted(photo_ids - self._files.keys(), key=str):
            raise InputError(
                f"{file} has no photo '{missing[0]}' ({len(missing)} of the episodes' photos are missing); give the "
                "root that the episodes were made for."
            )

    def example(self, photo_id: str, _: None) -> Example:
        image_file, mask_file = self._files[photo_id]
        photo = load_photo(image_file)
        return photo, load_mask(mask_file, photo.size)


class _CocoPhotos:
    """Photos of COCO's layout by image id, in the split that knows them all."""

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
        self._segmentations = defaultdict(list)
        for entry in annotations["annotations"]:
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
        return photo, load_mask(union_mask(segmentations, entry["height"], entry["width"]), photo.size)


def _photo_ids(entry: dict[str, Any]) -> list:
    return [entry["query"], *entry["support"], *entry.get("distractors", ())]


def _is_id(value: object) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool)


def _are_ids(values: object) -> bool:
    return isinstance(values, list) and all(map(_is_id, values))


def _check_entries(entries: list[dict[str, Any]], file: Path) -> None:
    """Every line has the first one's kind and all of its fields, of the right types."""
    fields = {"class_name", "query", "support"}
    for kind in ({"category_id"}, {"position", "distractors"}):
        fields |= kind if kind & entries[0].keys() else set()
    tiles = MOSAIC_LAYOUT[0] * MOSAIC_LAYOUT[1]
    for number, entry in enumerate(entries, 1):
        if not fields <= entry.keys():
            raise InputError(f"Line {number} of {file} is no episode: it needs {', '.join(sorted(fields))}.")
        if not isinstance(entry["class_name"], str) or not all(
            _is_id(entry[field]) for field in fields & {"query", "category_id"}
        ):
            raise InputError(
                f"Line {number} of {file} is no episode: class_name must be text, and an id text or a whole number."
            )
        if not entry["support"] or not _are_ids(entry["support"]):
            raise InputError(f"Line {number} of {file} is no episode: support must be a list of one or more photo ids.")
        if "position" in fields and (
            not _are_ids(entry["distractors"])
            or len(entry["distractors"]) != tiles - 1
            or type(entry["position"]) is not int
            or entry["position"] not in range(tiles)
        ):
            raise InputError(
                f"Line {number} of {file} is no mosaic: it needs {tiles - 1} distractors and a position from 0 to "
                f"{tiles - 1}."
            )
