"""Fixed few-shot episodes from a JSON-lines file, so that whoever measures on it gets comparable numbers.

A line is an episode: `class_name`, `query` (one photo) and `support` (K photos). There are four kinds of file:

- single: photos are stems of a folder with a `metadata.jsonl`;
- mosaic: as single, but the query is the tile at `position` of a 2 x 2 scene, three `distractors` fill the others, in
  order, and only the query photo's mask counts;
- COCO: photos are COCO's image ids, and a mask is the union of the instances of `category_id`;
- named: photos are `photo_id`s of the test photos of the named set `data_set`, and `class_name` is one of its classes;
  `fold` says which classes are the test's, `seed` which repetition of the protocol a line belongs to.
"""

import io
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Image as ImageFeature
from PIL import Image

from ..errors import InputError
from ..files import read_json_lines
from ..inference.photos import load_mask, load_photo, open_image
from .episode_lines import MOSAIC_LAYOUT, check_entries, photo_ids_of, query_id_of, query_photos_of, support_ids_of
from .episode_photos import CocoPhotos, Example, PhotoFolder
from .mosaic import compose_mosaic
from .named_sets import class_names, load_index, split_classes


@dataclass(frozen=True, eq=False)
class Episode:
    """One query with its support.

    Args:
        class_name: of the class to find.
        query: RGB photo or mosaic.
        query_mask: bool (height, width) of the class in the query.
        support: K RGB photos, each with its mask of the class, bool (height, width).
        support_ids: one for each support photo with its mask, unique in the file: equal ids are equal supports.
        class_names: every name of the class.
        seed: of the repetition that the episode belongs to; figures are averaged over the seeds.
        query_ignore: bool (height, width), pixels that do not count; None where all do.
        query_base: bool (height, width), objects of other classes that the model was trained on; None where unknown.
        position: for a mosaic, index of the tile that holds the class, row by row.
        layout: for a mosaic, its (rows, columns).
        query_others: bool (height, width), objects of all other classes that the query is known to show: a mosaic's
            distractors, COCO's other categories, a named set's `query_base`; None where unknown.
        description: of the class, where the photos' metadata defines it.
        query_classes: names of all classes that the query is known to show.
        query_photos: ids of the photos that the query is made of, a mosaic's distractors among them.
    """

    class_name: str
    query: Image.Image
    query_mask: np.ndarray
    support: list[Example]
    support_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    seed: int = 0
    query_ignore: np.ndarray | None = None
    query_base: np.ndarray | None = None
    position: int | None = None
    layout: tuple[int, int] | None = None
    query_others: np.ndarray | None = None
    description: str | None = None
    query_classes: frozenset[str] = frozenset()
    query_photos: tuple[str, ...] = ()

    @property
    def support_photos(self) -> tuple[str, ...]:
        """Ids of the support photos."""
        return tuple(support_id.removesuffix(f":{self.class_name}") for support_id in self.support_ids)


def load_episodes(
    root: Path, file: Path, limit: int | None = None, trained_classes: Collection[str] | None = None
) -> Sequence[Episode]:
    """Opens a file of episodes; the photos of one are read when it is asked for.

    Args:
        root: folder that the photos are looked for in: that of `metadata.jsonl`, or COCO's with `annotations/`, whose
            split is the one that knows the file's ids; or a named set's.
        file: of any of the four kinds.
        limit: number of episodes to take from the file's beginning; None takes all.
        trained_classes: of `named_episodes`.

    Raises:
        InputError: the file or the root is not laid out so or lacks a photo; also, when an episode is read, its photo
            or mask cannot be used.
    """
    entries = check_entries(read_json_lines(file)[:limit], file)
    if "data_set" in entries[0]:
        return named_episodes(root, entries, trained_classes)
    photo_ids = {photo_id for entry in entries for photo_id in photo_ids_of(entry)}
    photos = (CocoPhotos if "category_id" in entries[0] else PhotoFolder)(root, photo_ids)
    return _EpisodeFile(entries, photos)


def take_evenly(episodes: Sequence[Episode], limit: int) -> Sequence[Episode]:
    """At most so many episodes, evenly from the first to the last: files list them by class."""
    numbers = np.unique(np.linspace(0, len(episodes) - 1, limit).round().astype(int))
    return _Chosen(episodes, numbers.tolist())


def named_episodes(
    root: Path, entries: list[dict[str, Any]], trained_classes: Collection[str] | None = None
) -> Sequence[Episode]:
    """Episodes of a named set.

    Args:
        root: of the set.
        entries: of one set and fold, as `dsvlfs.data.protocol` makes them.
        trained_classes: names in lower case of the classes that the model was trained on, which `query_base` shows;
            None takes every class that the fold does not test, and leaves it unknown without a fold.

    Raises:
        InputError: the root is not laid out as the set or lacks a photo; also as `load_episodes`.
    """
    return _NamedEpisodes(root, entries, trained_classes)


class _EpisodeFile(Sequence[Episode]):
    def __init__(self, entries: list[dict[str, Any]], photos: PhotoFolder | CocoPhotos) -> None:
        self._entries = entries
        self._photos = photos

    def __len__(self) -> int:
        return len(self._entries)

    def query_id(self, index: int) -> str:
        """What tells the query of an episode from others, known without reading it."""
        return query_id_of(self._entries[index])

    def __getitem__(self, index: int) -> Episode:  # type: ignore[override]  # no slices
        entry = self._entries[index]
        category_id: Any = entry.get("category_id")  # COCO's photos alone have one
        query, query_mask = self._photos.example(entry["query"], category_id)
        position, layout = entry.get("position"), None
        others = self._photos.others(entry["query"], category_id)
        if position is not None:
            tiles = [self._photos.example(photo_id, category_id) for photo_id in entry["distractors"]]
            tiles.insert(position, (query, query_mask))
            layout = MOSAIC_LAYOUT
            query, tile_masks = compose_mosaic(tiles, *layout)
            query_mask = tile_masks[position]
            others = np.any([mask for tile, mask in enumerate(tile_masks) if tile != position], axis=0)
        return Episode(
            class_name=entry["class_name"],
            query=query,
            query_mask=query_mask,
            support=[self._photos.example(photo_id, category_id) for photo_id in entry["support"]],
            support_ids=support_ids_of(entry),
            class_names=(entry["class_name"],),
            position=position,
            layout=layout,
            query_others=None if others is None else others & ~query_mask,
            description=self._photos.definitions.get(entry["class_name"]),
            query_classes=frozenset().union(
                *map(self._photos.classes, [entry["query"], *entry.get("distractors", ())])
            ),
            query_photos=query_photos_of(entry),
        )


class _Chosen(Sequence[Episode]):
    def __init__(self, episodes: Sequence[Episode], numbers: list[int]) -> None:
        self._episodes, self._numbers = episodes, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def query_id(self, index: int) -> str:
        """What tells the query of an episode from others, known without reading it."""
        return getattr(self._episodes, "query_id", str)(self._numbers[index])

    def __getitem__(self, index: int) -> Episode:  # type: ignore[override]  # no slices
        return self._episodes[self._numbers[index]]


class _NamedEpisodes(Sequence[Episode]):
    def __init__(self, root: Path, entries: list[dict[str, Any]], trained: Collection[str] | None) -> None:
        self._entries = entries
        name, fold = entries[0]["data_set"], entries[0]["fold"]
        index = load_index(name, root, "test")
        base_classes: set[int] | None = None
        if trained is not None:
            base_classes = {i for i, names in class_names(index).items() if is_shared(names, trained)}
        elif fold is not None:
            base_classes = set(class_names(index)) - split_classes(name, root, split="test", fold=fold)
        for column in ("image", "mask", "ignore"):  # decoded here, where an error gets a sentence
            index = index.cast_column(column, ImageFeature(decode=False))
        self._index = index
        wanted = {photo_id for entry in entries for photo_id in photo_ids_of(entry)}
        self._rows: dict[tuple[str, str], int] = {}
        self._classes: dict[str, set[str]] = defaultdict(set)
        base_rows: dict[str, list[int]] = defaultdict(list)
        self._base_rows = None if base_classes is None else base_rows
        columns = zip(index["photo_id"][:], index["class_name"][:], index["class_index"][:])
        for row, (photo_id, class_name, class_index) in enumerate(columns):
            if photo_id in wanted:
                self._rows[photo_id, class_name] = row
                self._classes[photo_id].add(class_name)
                if base_classes is not None and class_index in base_classes:
                    base_rows[photo_id].append(row)
        for entry in entries:
            for photo_id in photo_ids_of(entry):
                if (photo_id, entry["class_name"]) not in self._rows:
                    raise InputError(
                        f"The test photos of {name} in {root} have no '{photo_id}' with "
                        f"{entry['class_name']}; give the root that the episodes were made for."
                    )

    def __len__(self) -> int:
        return len(self._entries)

    def query_id(self, index: int) -> str:
        """What tells the query of an episode from others, known without reading it."""
        return query_id_of(self._entries[index])

    def __getitem__(self, index: int) -> Episode:  # type: ignore[override]  # no slices
        entry = self._entries[index]
        class_name = entry["class_name"]
        own = self._rows[entry["query"], class_name]
        row = self._index[own]
        query, query_mask = self._example(row)
        base = None
        if self._base_rows is not None:
            base = np.zeros_like(query_mask)
            for other in self._base_rows[entry["query"]]:
                if other != own:
                    base |= _decoded_mask(self._index[other]["mask"], query.size)
            base &= ~query_mask
        return Episode(
            class_name=class_name,
            query=query,
            query_mask=query_mask,
            support=[self._example(self._index[self._rows[photo_id, class_name]]) for photo_id in entry["support"]],
            support_ids=support_ids_of(entry),
            class_names=tuple(row["class_names"]),
            seed=entry["seed"],
            query_ignore=_decoded_ignore(row["ignore"], query.size) if row["ignore"] else None,
            query_base=base,
            query_others=base,
            description=row["definition"] or None,
            query_classes=frozenset(self._classes[entry["query"]]),
            query_photos=query_photos_of(entry),
        )

    def _example(self, row: dict[str, Any]) -> Example:
        photo = load_photo(row["image"]["path"])
        return photo, _decoded_mask(row["mask"], photo.size)


def is_shared(names: Collection[str], trained_classes: Collection[str]) -> bool:
    """Whether any of a class's names is among those that a model was trained on (in lower case)."""
    return any(name.lower() in trained_classes for name in names)


def _decoded_mask(stored: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """A mask of a dataset's row, as stored: the path of an image, or the image."""
    source: Any = open_image(io.BytesIO(stored["bytes"]), "mask") if stored["bytes"] else stored["path"]
    return load_mask(source, size, may_fill=True)


def _decoded_ignore(stored: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """As `_decoded_mask`, but it may be empty."""
    source: Any = io.BytesIO(stored["bytes"]) if stored["bytes"] else stored["path"]
    ignore = np.asarray(open_image(source, "ignore mask").convert("L")) > 0
    if ignore.shape != (size[1], size[0]):
        raise InputError(
            f"The ignore mask {stored['path']} is {ignore.shape[1]} x {ignore.shape[0]} pixels but its photo is "
            f"{size[0]} x {size[1]}; give one of the photo's size."
        )
    return ignore
