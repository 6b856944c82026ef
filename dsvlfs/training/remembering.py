"""Classes that a run's photos show are kept in the checkpoint under their names (`dsvlfs.parts.class_memory`)."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from ..hub.trained_parts import new_class_memory
from ..inference.checks import name_key
from ..modeling import DSVLFSModel
from ..parts.class_memory import class_direction
from ..parts.request_fit import unit_positions
from .feature_cache import FeatureCache

_VIEWS = 100
"""Of a class that are read, at most: each takes a tenth of a second."""


@torch.no_grad()
def remember_classes(model: DSVLFSModel, cache: FeatureCache) -> None:
    """Solves for what the classes of a cache's queries look like, each from up to `_VIEWS` views that show it, and
    keeps it in the model; what this remembers already stays, but for classes of the same name.

    Args:
        model: with a fit to the request, whose image encoder does not learn.
        cache: finished, with the features of the model's correlation layers.
    """
    shown, names = defaultdict(list), {}
    for stem, entry in cache.names("queries").items():
        places = defaultdict(list)
        for item in entry["objects"]:
            places[name_key(item["names"][0])].append(item["place"])
            names.setdefault(name_key(item["names"][0]), item["names"][0])
        for key, own in places.items():
            shown[key].append((stem, own))
    old = zip(model.config.remembered_classes or [], model.class_memory.directions if model.class_memory else [])
    known = {name_key(name): (name, direction) for name, direction in old}
    for key, views in tqdm(sorted(shown.items()), desc="remembered classes"):
        some = [views[round(place)] for place in np.linspace(0, len(views) - 1, min(len(views), _VIEWS))]
        known[key] = names[key], class_direction(_read(model, cache, some)).to(model.device)
    model.config.remembered_classes = [name for name, _ in known.values()] or None
    memory = new_class_memory(model.config)
    if memory is not None:
        memory.directions.copy_(torch.stack([direction for _, direction in known.values()]))
        model.class_memory = memory.to(model.device)


def _read(
    model: DSVLFSModel, cache: FeatureCache, views: list[tuple[str, list[int]]]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """What `class_direction` reads of the queries that show a class; with each, the places of its masks."""
    for stem, places in views:
        tensors = cache.load("queries", stem, {*model.config.correlation_layers, "masks", "ignore"})
        layers = [tensors[name][None].to(model.device) for name in model.config.correlation_layers]
        size = layers[0].shape[-1]
        ignored = tensors.get("ignore", torch.zeros_like(tensors["masks"][0]))
        counted = _on_grid(255 - ignored, size).to(model.device)
        share = _on_grid(tensors["masks"][places].amax(dim=0), size).to(model.device)
        yield unit_positions(layers, size)[0], (share / counted.clamp(min=1e-4)).clamp(max=1), counted


def _on_grid(map: Tensor, size: int) -> Tensor:
    """A map (height, width) of bytes as shares on a grid, flat."""
    return F.adaptive_avg_pool2d(map.float()[None, None] / 255, size).flatten()
