"""The field's test protocols: how many episodes of a named set, how they are drawn, and how often."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import Dataset, Image

from ..errors import InputError
from ..files import write_text
from .copies import copy_groups
from .named_sets import load_named_set

Queries = Literal["rows", "classes"]


@dataclass(frozen=True)
class Protocol:
    """How a set is tested.

    Args:
        episodes: of one seed.
        seeds: 0 and on; their figures are averaged.
        queries: what takes turns: "rows", every photo of a class in a random order, or "classes", each with a photo
            drawn at random.
    """

    episodes: int
    seeds: int
    queries: Queries


# PASCAL's 1,000 episodes and queries in turn are HSNet's (data/pascal.py); so are FSS-1000's, one for each test photo
# (data/fss.py). COCO has 4,000; HSNet draws the class at random (data/coco.py), here classes take turns. The mean of
# five seeds is BAM's (test.py), LVIS's 2,300 Matcher's: 25 a class.
PROTOCOLS = {
    "pascal-5i": Protocol(episodes=1000, seeds=5, queries="rows"),
    "coco-20i": Protocol(episodes=4000, seeds=5, queries="classes"),
    "coco-20i-exclusive": Protocol(episodes=4000, seeds=5, queries="classes"),
    "fss-1000": Protocol(episodes=2400, seeds=1, queries="rows"),
    "lvis-92i": Protocol(episodes=2300, seeds=1, queries="classes"),
    "folder": Protocol(episodes=1000, seeds=5, queries="rows"),
    "labels": Protocol(episodes=100, seeds=1, queries="classes"),
}


def protocol_episodes(
    name: str, root: Path, *, fold: int | None, shots: int, seeds: int | None = None, limit: int | None = None
) -> list[dict[str, Any]]:
    """The episodes of a named set's test protocol, as lines of an episode file (`dsvlfs.data.episodes`).

    Args:
        name, root, fold: of `load_named_set`.
        shots: supports of an episode.
        seeds: their number; None takes the protocol's.
        limit: episodes of a seed at most; they are the first of the whole list's.

    Raises:
        InputError: the set cannot be loaded, or no class has enough photos.
    """
    protocol = PROTOCOLS[name]
    rows = load_named_set(name, root, split="test", fold=fold)
    copies = None
    if name == "labels":
        images = rows.cast_column("image", Image(decode=False))["image"]
        files = {photo_id: Path(image["path"]) for photo_id, image in zip(rows["photo_id"], images)}
        copies = dict(zip(files, copy_groups(list(files.values()))))
    entries = []
    for seed in range(protocol.seeds if seeds is None else seeds):
        count = min(protocol.episodes, limit or protocol.episodes)
        episodes = sample_episodes(rows, shots=shots, count=count, seed=seed, queries=protocol.queries, copies=copies)
        for entry in episodes:
            entries.append({"data_set": name, "fold": fold, "seed": seed, **entry})
    return entries


def sample_episodes(
    rows: Dataset,
    *,
    shots: int,
    count: int,
    seed: int,
    queries: Queries,
    copies: Mapping[str, int] | None = None,
) -> list[dict[str, Any]]:
    """Draws episodes. One depends on the rows, the shots, the seed and its number alone.

    Args:
        rows: of `dsvlfs.data.photos.FEATURES`; classes are told apart by `class_name`.
        shots: supports of an episode: as many other photos of the query's class, each once.
        count: of the episodes.
        seed: of all draws.
        queries: of `Protocol`.
        copies: a group for each photo (`dsvlfs.data.copies`): no support is of the query's; None takes each photo for
            itself.

    Returns:
        For each its `class_name`, `query` and `support` (photo ids).

    Raises:
        InputError: no class has more photos than `shots`.
    """
    photos_of_class: dict[str, list[str]] = {}
    for class_name, photo_id in zip(rows["class_name"][:], rows["photo_id"][:]):
        photos_of_class.setdefault(class_name, []).append(photo_id)
    photos_of_class = {name: sorted(set(photos)) for name, photos in sorted(photos_of_class.items())}
    groups: Mapping[str, object] = copies or {photo: photo for photos in photos_of_class.values() for photo in photos}
    photos_of_class = {
        name: photos
        for name, photos in photos_of_class.items()
        if min(sum(groups[other] != groups[photo] for other in photos) for photo in photos) >= shots
    }
    if not photos_of_class:
        raise InputError(f"No class has a query and {shots} other photos for support; add photos, or ask for less.")
    classes = list(photos_of_class)
    turns = [(name, photo) for name, photos in photos_of_class.items() for photo in photos]
    order = np.random.default_rng(seed).permutation(len(turns))
    entries = []
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        if queries == "rows":
            class_name, query = turns[order[number % len(turns)]]
        else:
            class_name = classes[number % len(classes)]
            query = photos_of_class[class_name][rng.integers(len(photos_of_class[class_name]))]
        others = [photo for photo in photos_of_class[class_name] if groups[photo] != groups[query]]
        support = [others[i] for i in rng.choice(len(others), shots, replace=False)]
        entries.append({"class_name": class_name, "query": query, "support": support})
    return entries


def write_episodes(file: Path, entries: Iterable[dict[str, Any]]) -> None:
    """Writes episodes, one a line, all or none; `load_episodes` reads them back."""
    write_text(file, "".join(f"{json.dumps(entry)}\n" for entry in entries))
