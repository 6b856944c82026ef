"""Requests on training photos: for what is fitted or chosen without a look at what is reported on."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..data.episodes import Episode, Example, load_episodes, named_episodes, take_evenly
from ..data.mosaic import compose_mosaic
from ..data.named_sets import load_named_set, training_class_names
from ..data.pascal import PASCAL_CLASSES
from ..data.photos import load_photo_folder
from ..data.protocol import protocol_episodes, sample_episodes


class Request(NamedTuple):
    """A class, a query with its mask of the class, bool (height, width), and its supports.

    Args:
        ignore: bool (height, width), pixels of the query that do not count; None where all do.
        further: supports beside the first.
    """

    class_name: str
    query: Image.Image
    query_mask: np.ndarray
    support: Example
    ignore: np.ndarray | None = None
    further: Sequence[Example] = ()

    @classmethod
    def of(cls, episode: Episode) -> "Request":
        """An episode's."""
        first, *further = episode.support
        return cls(episode.class_name, episode.query, episode.query_mask, first, episode.query_ignore, further)


def training_mosaics(folder: Path, number: int, seed: int = 0) -> Iterator[Request]:
    """Requests of 2 x 2 mosaics of training photos, one of whose tiles shares a WordNet node with the support and the
    others do not."""
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
        yield Request(
            shared[0], scene, masks[list(order).index(query)], (example["image"], np.array(example["mask"]) > 0)
        )
        made += 1


def coco_scenes(root: Path, number: int) -> Iterator[Request]:
    """Requests of COCO train2017's fixed episodes, evenly taken."""
    episodes = load_episodes(root, root / "episodes_train2017_1shot.jsonl")
    yield from map(Request.of, take_evenly(episodes, number))


def field_requests(folders: Sequence[Path], number: int, shots: int = 1) -> Iterator[Request]:
    """Requests of folders of index masks, such as fields that training left out: as many of each folder as make
    `number` in all, at least one."""
    for folder in folders:
        entries = protocol_episodes("labels", folder, fold=None, shots=shots, limit=max(1, number // len(folders)))
        yield from map(Request.of, named_episodes(folder, entries))


def unseen_pascal(root: Path, fold: int, number: int, shots: int = 1, seed: int = 0) -> Iterator[Request]:
    """Requests of VOC's training photos and the classes that a fold of PASCAL-5i tests, which a checkpoint of that fold
    has not learned."""
    rows = load_named_set("pascal-5i", root, split="train", fold=None)
    tested = {names[0] for names in PASCAL_CLASSES} - {
        names[0] for names in PASCAL_CLASSES if names[0].lower() in training_class_names("pascal-5i", root, fold)
    }
    places = {
        (photo, name): place
        for place, (photo, name) in enumerate(zip(rows["photo_id"], rows["class_name"]))
        if name in tested
    }
    chosen = rows.select(sorted(places.values()))
    for entry in sample_episodes(chosen, shots=shots, count=number, seed=seed, queries="classes"):
        name = entry["class_name"]
        query, *supports = (rows[places[photo, name]] for photo in (entry["query"], *entry["support"]))
        first, *further = ((row["image"], np.array(row["mask"]) > 0) for row in supports)
        ignore = None if query["ignore"] is None else np.array(query["ignore"]) > 0
        yield Request(name, query["image"], np.array(query["mask"]) > 0, first, ignore, further)
