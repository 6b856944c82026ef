"""COCO's segmentations, polygons or run lengths, to masks.

pycocotools trusts what it is given, and ends the process over what it cannot hold: everything is checked before.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pycocotools import mask as coco_mask
from pydantic import FailFast, Field, FiniteFloat, TypeAdapter
from typing_extensions import TypedDict

from ..errors import InputError
from ..files import checked

_Size = Annotated[list[int], Field(min_length=2, max_length=2)]
_POLYGONS = TypeAdapter(Annotated[list[Annotated[list[FiniteFloat], Field(min_length=6), FailFast()]], FailFast()])
_Compressed = Annotated[str, Field(pattern=r"^(?:[P-o]{0,6}[0-O])+$")]


class _Counted(TypedDict):
    size: _Size
    counts: Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], FailFast()]


class _Compact(TypedDict):
    size: _Size
    counts: _Compressed


def union_mask(segmentations: Sequence[Any], height: int, width: int) -> np.ndarray:
    """Union of COCO segmentations, bool (height, width).

    Raises:
        InputError: one is none, or of another size.
    """
    union = union_run_lengths(segmentations, height, width)
    if union is None:
        return np.zeros((height, width), dtype=bool)
    return coco_mask.decode(union).astype(bool)


def union_run_lengths(segmentations: Sequence[Any], height: int, width: int) -> dict | None:
    """Union of COCO segmentations as COCO's compressed run lengths; None where they are empty.

    Raises:
        InputError: one is none, or of another size.
    """
    encoded = [part for segmentation in segmentations for part in _encoded(segmentation, height, width)]
    return coco_mask.merge(encoded) if encoded else None


def _encoded(segmentation: Any, height: int, width: int) -> list[dict]:
    what = "A segmentation"
    if isinstance(segmentation, list):
        for polygon in checked(segmentation, _POLYGONS, what):
            xs, ys = polygon[::2], polygon[1::2]
            if len(xs) != len(ys):
                raise InputError(f"{what} has a polygon of {len(polygon)} numbers; give x and y of each point.")
            # A far point takes memory by its distance.
            if min(xs) < -width or max(xs) > 2 * width or min(ys) < -height or max(ys) > 2 * height:
                raise InputError(f"{what} has a point far outside its photo, which is {width} x {height}; correct it.")
        return coco_mask.frPyObjects(segmentation, height, width) if segmentation else []
    is_counted = isinstance(segmentation, dict) and isinstance(segmentation.get("counts"), list)
    segmentation = checked(segmentation, _Counted if is_counted else _Compact, what)
    if segmentation["size"] != [height, width]:
        raise InputError(f"{what} is of size {segmentation['size']}, its photo of [{height}, {width}]; correct it.")
    counts = segmentation["counts"] if is_counted else _unpacked(segmentation["counts"])
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise InputError(f"{what} has run lengths that do not add up to its {height} x {width} pixels; correct it.")
    return [coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)]


def _unpacked(text: str) -> list[int]:
    """Run lengths of COCO's text (pycocotools decodes it too, but reads on where a run is missing): a character holds
    five bits of a number, lowest first, and whether it goes on; from the fourth on, numbers are differences to the last
    but one."""
    counts: list[int] = []
    value = shift = 0
    for character in text.encode():
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts
