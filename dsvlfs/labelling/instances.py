"""A class's mask as objects.

The rule: a connected part is an object; a part that falls apart into parts of comparable size where the probability
is higher, is that many; a speck (`SPECK`) belongs to the object beside it, or where there is none leaves the mask.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy import ndimage

SIDE = 640
"""Pixels of the longer side that objects are told apart at."""
SPECK, SMALLEST = 1e-4, 16
"""Share of the photo, and pixels at `SIDE`, under which a part is no object."""
LEVELS = (0.6, 0.7, 0.8, 0.9)
"""Probabilities at which a part may fall apart."""
BESIDE = 3
"""Pixels, at `SIDE`, between a speck and the object that it belongs to at most."""
COMPARABLE = 0.4
"""Area of a part beside the largest that comes of the same part."""


def objects_of(mask: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Tells the objects of a class apart.

    Args:
        mask: bool (height, width).
        probability: (height, width), of the class, in [0, 1].

    Returns:
        int32 (height, width), the number of the object that a pixel belongs to, from 1 on; 0 elsewhere.
    """
    height, width = mask.shape
    scale = min(1.0, SIDE / max(mask.shape))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)) > 127
    sure = np.asarray(Image.fromarray(probability.astype(np.float32)).resize(size, Image.Resampling.BOX))
    parts, _ = ndimage.label(small)
    least = max(SPECK * small.size, SMALLEST)
    numbers, objects = np.zeros(small.shape, np.int32), 0
    for number, place in enumerate(ndimage.find_objects(parts), 1):
        part = parts[place] == number
        if np.count_nonzero(part) < least:
            continue
        for piece in _fallen_apart(part, sure[place], LEVELS, least):
            objects += 1
            numbers[place][piece] = objects
    if not objects:
        return np.zeros(mask.shape, np.int32)
    distance, place = ndimage.distance_transform_edt(numbers == 0, return_indices=True)
    numbers = np.where(distance <= BESIDE, numbers[tuple(place)], 0)
    full = np.asarray(Image.fromarray(numbers).resize((width, height), Image.Resampling.NEAREST))
    return np.where(mask, full, 0)


def _fallen_apart(part: np.ndarray, probability: np.ndarray, levels: Sequence[float], least: float) -> list[np.ndarray]:
    """The pieces of a part: at the lowest level at which it falls apart, and those again at higher ones."""
    for place, level in enumerate(levels):
        cores, count = ndimage.label(part & (probability >= level))
        if count < 2:
            continue
        areas = np.bincount(cores.ravel())[1:]
        kept = np.flatnonzero(areas >= max(least, COMPARABLE * areas.max())) + 1
        if len(kept) < 2:
            continue
        nearest = _nearest(np.where(np.isin(cores, kept), cores, 0))
        return [
            piece
            for core in kept
            for piece in _fallen_apart(part & (nearest == core), probability, levels[place + 1 :], least)
        ]
    return [part]


def _nearest(cores: np.ndarray) -> np.ndarray:
    """Of each pixel, the number of the core that is nearest."""
    place = ndimage.distance_transform_edt(cores == 0, return_distances=False, return_indices=True)
    return cores[tuple(place)]
