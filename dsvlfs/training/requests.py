"""Requests on training photos: for what is fitted or chosen without a look at what is reported on."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..data.episodes import Example, load_episodes, named_episodes, take_evenly
from ..data.mosaic import compose_mosaic
from ..data.photos import load_photo_folder
from ..data.protocol import protocol_episodes


class Request(NamedTuple):
    """A class, a query with its mask of the class, bool (height, width), and one support."""

    class_name: str
    query: Image.Image
    query_mask: np.ndarray
    support: Example


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
    for episode in take_evenly(load_episodes(root, root / "episodes_train2017_1shot.jsonl"), number):
        yield Request(episode.class_name, episode.query, episode.query_mask, episode.support[0])


def field_requests(folders: Sequence[Path], number: int) -> Iterator[Request]:
    """Requests of folders of index masks, such as fields that training left out: as many of each folder as make
    `number` in all, at least one."""
    for folder in folders:
        entries = protocol_episodes("labels", folder, fold=None, shots=1, limit=max(1, number // len(folders)))
        for episode in named_episodes(folder, entries):
            yield Request(episode.class_name, episode.query, episode.query_mask, episode.support[0])
