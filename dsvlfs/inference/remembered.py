"""What a checkpoint remembers of a class, looked up by its name."""

from collections.abc import Sequence

from torch import Tensor

from .checks import name_key
from .interface import Parts


def place_of(names: Sequence[str], class_name: str) -> int | None:
    """Where a class is among those that are remembered, however its name is written; None where it is not."""
    keys = [name_key(name) for name in names]
    key = name_key(class_name)
    return keys.index(key) if key in keys else None


def remembered_map(model: Parts, features: dict[str, Tensor], class_name: str, size: int) -> Tensor | None:
    """The map (1, size, size) of a class over a query, from -1 to 1; None of a class that is not remembered."""
    if model.class_memory is None:
        return None
    place = place_of(model.config.remembered_classes, class_name)
    if place is None:
        return None
    return model.class_memory.score(place, [features[name] for name in model.config.correlation_layers], size)
