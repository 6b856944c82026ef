"""What a person's drawing makes of a photo's figures and objects."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from .labels import Figures, ObjectFigures

CERTAIN = 1.0
"""Score of what a person drew."""


def redrawn_figures(figures: Sequence[Figures], before: np.ndarray, after: np.ndarray) -> tuple[Figures, ...]:
    """The figures of each class, those of a class whose mask was changed as a person's: certain, with no IoU to expect.

    Args:
        figures: as they were.
        before, after: (height, width), the numbers of the classes, from 1 on, and 0.
    """
    redrawn = []
    for number, known in enumerate(figures, 1):
        mask = after == number
        if not np.array_equal(mask, before == number):
            score = CERTAIN if mask.any() else 0.0
            known = replace(
                known, area_percent=100 * float(mask.mean()), score=score, expected_iou=None, is_emptied=False
            )
        redrawn.append(known)
    return tuple(redrawn)


def redrawn_objects(
    objects: Sequence[ObjectFigures], object_map: np.ndarray, class_map: np.ndarray
) -> tuple[tuple[ObjectFigures, ...], np.ndarray]:
    """The objects after a drawing: what was of an object and still is of its class stays of it; a part that is new is
    of the object beside it, or an object of its own where there is none.

    Args:
        objects, object_map: as they were; the map has the place of each in the list, from 1 on.
        class_map: (height, width), the numbers of the classes as they are now.

    Returns:
        The objects, and their map, uint16 (height, width).
    """
    class_of = np.array([0, *(entry.class_number for entry in objects)])
    kept = np.where(class_of[object_map] == class_map, object_map, 0).astype(np.int64)
    newest = len(objects)
    for number in (int(number) for number in np.unique(class_map[kept == 0]) if number):
        own = class_map == number
        parts, count = ndimage.label(own & (kept == 0), np.ones((3, 3)))
        for part, place in enumerate(ndimage.find_objects(parts, count), 1):
            around = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in place)
            new = parts[around] == part
            beside = kept[around][ndimage.binary_dilation(new, np.ones((3, 3))) & own[around] & ~new]
            neighbours = beside[beside > 0]
            if len(neighbours):
                kept[around][new] = np.bincount(neighbours).argmax()
            else:
                newest += 1
                kept[around][new] = newest
    return _numbered(objects, object_map, kept, class_map)


def _numbered(
    objects: Sequence[ObjectFigures], before: np.ndarray, kept: np.ndarray, class_map: np.ndarray
) -> tuple[tuple[ObjectFigures, ...], np.ndarray]:
    """The objects that have pixels, numbered from 1 on."""
    result: list[ObjectFigures] = []
    object_map = np.zeros(before.shape, np.uint16)
    for old, place in enumerate(ndimage.find_objects(kept), 1):
        if place is None:
            continue
        inside = kept[place] == old
        unchanged = old <= len(objects) and np.array_equal(kept == old, before == old)
        rows, columns = place
        result.append(
            objects[old - 1]
            if unchanged
            else ObjectFigures(
                class_number=int(class_map[place][inside][0]),
                box=(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start),
                area=int(np.count_nonzero(inside)),
                score=CERTAIN,
            )
        )
        object_map[place][inside] = len(result)
    return tuple(result), object_map
