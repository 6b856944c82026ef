"""What inference is asked, checked before anything is computed: what is wrong gets one sentence (InputError)."""

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Literal, get_args

import numpy as np

from ..errors import InputError
from ..parts.aggregation import AGGREGATIONS, Aggregation
from .encoded import Query, Support
from .interface import Parts
from .photos import Photo

Mode = Literal["both", "semantic", "visual"]
MODES: tuple[Mode, ...] = get_args(Mode)
MAX_NAME, MAX_DESCRIPTION = 200, 2000  # characters

_INVISIBLE = ("Cc", "Cf", "Zl", "Zp", "Zs")
_PAIRS = "give a list of (photo, mask) pairs, such as [(photo, mask)]"


def class_name_of(text: object) -> str:
    """A class's name on one line, without space around it."""
    name = _line_of(text, "class name", MAX_NAME)
    if all(unicodedata.category(character) in _INVISIBLE for character in name):
        raise InputError("The class name is empty; name what is to be segmented, such as 'red fox'.")
    return name


def name_key(name: str) -> str:
    """What is the same for every way to write a class's name: case, hyphens, underscores and spaces do not count."""
    return "".join(name.casefold().replace("-", "").replace("_", "").split())


def description_of(text: object) -> str:
    """A description on one line; empty where there is none."""
    return "" if text is None else _line_of(text, "description", MAX_DESCRIPTION)


def _line_of(text: object, kind: str, limit: int) -> str:
    if not isinstance(text, str):
        raise InputError(f"The {kind} is of type {type(text).__name__}; give text.")
    text = " ".join(text.split())
    if len(text) > limit:
        raise InputError(f"The {kind} has {len(text):,} characters; give at most {limit:,}.")
    if wrong := [c for c in text if unicodedata.category(c) in ("Cc", "Cs")]:
        raise InputError(f"The {kind} holds {wrong[0]!a}, which is no character of a text; leave it out.")
    return text


def examples_of(examples: Iterable[tuple[Photo, Photo]]) -> list[tuple[Photo, Photo]]:
    """Support photos with their masks."""
    if isinstance(examples, (str, bytes, Mapping, np.ndarray)) or not isinstance(examples, Iterable):
        raise InputError(f"The supports are of type {type(examples).__name__}; {_PAIRS}.")
    pairs = list(examples)
    if not pairs:
        raise InputError("There is no support; give at least one photo with its mask, or segment with support=None.")
    for pair in pairs:
        if not isinstance(pair, (tuple, list)):
            raise InputError(f"A support is of type {type(pair).__name__}, and no photo with its mask; {_PAIRS}.")
        if len(pair) != 2:
            raise InputError(f"A support has {len(pair)} parts; {_PAIRS}.")
    return pairs


def check_support(model: Parts, support: object) -> None:
    """Whether it is what `encode_support` made, with a model of this kind."""
    if support is None:
        return
    if not isinstance(support, Support):
        raise InputError(
            f"The support is of type {type(support).__name__}; give what model.encode_support([(photo, mask)]) made."
        )
    reads_whole = bool(model.config.whole_weight) and support.whole_masks is None
    if len(support.layers) != len(model.config.correlation_layers) or reads_whole:
        raise InputError("The support was encoded by another model; encode it again with this one.")


def check_query(model: Parts, query: Query) -> None:
    """Whether it was encoded by a model of this kind."""
    if set(model.config.frozen_layers) - query.features.keys():
        raise InputError("The query was encoded by another model; encode it again with this one.")


def check_modes(modes: object, support: Support | None) -> None:
    """Whether there are such modes, and a support where one needs it."""
    if isinstance(modes, str) or not isinstance(modes, Sequence):
        raise InputError(f"The modes are {modes!r}; give a list of {', '.join(MODES)}.")
    if unknown := [mode for mode in modes if not isinstance(mode, str) or mode not in MODES]:
        raise InputError(f"There is no mode {unknown[0]!r}; choose one of {', '.join(MODES)}.")
    if support is None and "visual" in modes:
        raise InputError("Mode 'visual' needs a support; give one, or ask with mode 'semantic'.")


def aggregation_of(model: Parts, aggregation: Aggregation | None) -> Aggregation:
    """The aggregation to use, once it is known that the model has it."""
    aggregation = model.config.shot_aggregation if aggregation is None else aggregation
    if not isinstance(aggregation, str) or aggregation not in AGGREGATIONS:
        raise InputError(f"There is no aggregation {aggregation!r}; choose one of {', '.join(AGGREGATIONS)}.")
    if aggregation == "attention" and model.shot_attention is None:
        raise InputError(
            "This checkpoint has learned no attention over the shots; choose votes, logits or joint, or train it."
        )
    return aggregation


def share_of(value: Any, name: str) -> float:
    """A number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= 1:
        hint = f", such as {value / 100:g} for {value:g} %" if _is_percent(value) else ""
        raise InputError(f"The {name} is {value!r}; give a number from 0 to 1{hint}.")
    return float(value)


def _is_percent(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 1 < value <= 100


def batch_size_of(value: Any) -> int:
    """A whole number from 1."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise InputError(f"The batch size is {value!r}; give a whole number, 1 or more.")
    return int(value)


def zoom_of(value: Any, images: Sequence[Photo | Query]) -> bool:
    """Whether to look again, closer; None does so where there are photos to look at."""
    if value not in (True, False, None):
        raise InputError(f"zoom is {value!r}; give True, False or None.")
    encoded = any(isinstance(image, Query) for image in images)
    if value and encoded:
        raise InputError("A closer look needs the photo itself; give segment the photo, or zoom=False.")
    return not encoded if value is None else bool(value)


def numbers_of(values: Any, count: int, what: str) -> tuple[float, ...]:
    """Finite numbers, so many.

    Args:
        values: such as a box or a point.
        count: of them.
        what: what to call them in an error, and what they are.
    """
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, (tuple, list)) or len(values) != count:
        raise InputError(f"{what} is {values!r}; give {count} numbers.")
    if not all(isinstance(v, Real) and not isinstance(v, bool) and math.isfinite(v) for v in values):
        raise InputError(f"{what} is {values!r}; give {count} finite numbers.")
    return tuple(float(value) for value in values)


def points_of(points: Any) -> list[Any]:
    """A list of points."""
    if isinstance(points, np.ndarray):
        points = points.tolist()
    if not isinstance(points, (tuple, list)):
        raise InputError(f"The points are of type {type(points).__name__}; give a list of (x, y) pairs.")
    return list(points)
