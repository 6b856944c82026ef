"""Which values of a mask are foreground.

A mask says it by two values, or by nearly two: a JPEG's noise and soft edges lie between. What lies between more often
is a photo, a map of several classes or the like, and is refused: each of its values could be meant.
"""

import numpy as np
from PIL import Image

from ..errors import InputError

_DARK, _HALF, _BRIGHT = 64, 128, 192
_BETWEEN = 0.1  # share of the pixels between dark and bright; photos have more, soft edges and noise less
_FEW = 16  # values of a map of classes, which has no noise
_COLOURS = 64  # of 512: two colours and what noise and edges make between them are fewer


def foreground(values: np.ndarray, title: str) -> np.ndarray:
    """The foreground of a mask.

    Args:
        values: (height, width) or (height, width, channels): bool; a probability (height, width) of floats, foreground
            from 0.5 on; or numbers, 0 and one other, or nearly black and white, foreground from half of white on. Of
            several channels the largest counts; but where an alpha channel (the last of 2 or 4) is not opaque
            everywhere, it alone counts.
        title: what to call the mask in an error.

    Returns:
        bool (height, width); it may be all True or all False.

    Raises:
        InputError: the values can be understood in several ways, or in none.
    """
    if values.ndim not in (2, 3) or values.dtype.kind not in "biuf" or 0 in values.shape:
        raise InputError(
            f"{title} has shape {values.shape} and is {values.dtype}; give numbers (height, width) or "
            "(height, width, channels)."
        )
    if values.ndim == 3:
        values = _without_alpha(values)
    if values.dtype == bool:
        return values if values.ndim == 2 else values.any(axis=-1)
    if values.dtype.kind == "f":
        values = _of_floats(values, title)
        if values.dtype == bool:
            return values
    strength = values if values.ndim == 2 else _largest(values)
    low, high = int(strength.min()), int(strength.max())
    if low < 0:
        raise InputError(f"{title} has values from {low} to {high}; give one value for the object and 0 for the rest.")
    if _has_two(values, strength, high):
        return strength > 0
    if high > 65_535:
        raise InputError(f"{title} has values up to {high}; give one value for the object and 0 for the rest.")
    if high > 255:
        strength, values = (strength // 257).astype(np.uint8), (values // 257).astype(np.uint8)
    _check_nearly_two(values.astype(np.uint8, copy=False), strength.astype(np.uint8, copy=False), title)
    return strength >= _HALF


def _without_alpha(values: np.ndarray) -> np.ndarray:
    if values.shape[2] in (2, 4):
        colours, alpha = values[..., :-1], values[..., -1]
        opaque = 255 if values.dtype.kind in "iu" else 1
        # An opaque image with an alpha channel is drawn in its colours.
        values = alpha if (alpha < opaque).any() else colours
    return values[..., 0] if values.shape[2:] == (1,) else values


def _of_floats(values: np.ndarray, title: str) -> np.ndarray:
    """A probability as its mask, colours as bytes, and whole numbers that are stored as floats as whole numbers."""
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"{title} has values that are no finite numbers; give 0 to 1.")
    if low >= 0 and high <= 1:
        return values >= 0.5 if values.ndim == 2 else (values * 255).round().astype(np.uint8)
    if low >= 0 and high <= 65_535 and (values == np.floor(values)).all():
        return values.astype(np.uint16)
    raise InputError(f"{title} has values from {low:g} to {high:g}; give a probability from 0 to 1, or True and False.")


def _largest(values: np.ndarray) -> np.ndarray:
    """Of the channels, at each pixel."""
    result = values[..., 0].copy()
    for channel in range(1, values.shape[-1]):  # several times as fast as max(axis=-1)
        np.maximum(result, values[..., channel], out=result)
    return result


def _has_two(values: np.ndarray, strength: np.ndarray, high: int) -> bool:
    """Whether there is black and one other value or colour: then they are a mask, however dark the other is."""
    if ((strength > 0) & (strength < high)).any():
        return False
    if values.ndim == 2:
        return True
    place = np.unravel_index(strength.argmax(), strength.shape)
    channels = zip(np.moveaxis(values, -1, 0), values[place])
    return not any(((strength > 0) & (channel != value)).any() for channel, value in channels)


def _check_nearly_two(values: np.ndarray, strength: np.ndarray, title: str) -> None:
    """Raises InputError unless 8-bit values (height, width) or (height, width, channels) are nearly black and white."""
    counts = np.array(Image.fromarray(strength).histogram())
    between = counts[_DARK:_BRIGHT].sum() / strength.size
    found = counts.nonzero()[0]
    is_map = len(found) <= _FEW and counts[1:_BRIGHT].max() > counts[_BRIGHT:].sum()
    if between > _BETWEEN or is_map or _colours(values) > _COLOURS:
        what = f"{len(found)} values" if is_map else f"{between:.0%} of its pixels between black and white"
        raise InputError(
            f"{title} is not of two values ({what}): a photo in its place, or several classes? Give white, or any one "
            "value, for the object and 0 for the rest."
        )


def _colours(values: np.ndarray) -> int:
    """How many colours there are, of 8 levels a channel, in a part of the pixels."""
    if values.ndim == 2 or values.shape[2] != 3:
        return 0
    step = 1 + max(values.shape) // 1000
    red, green, blue = np.moveaxis(values[::step, ::step].astype(np.int64) >> 5, -1, 0)
    return np.count_nonzero(np.bincount((red << 6 | green << 3 | blue).ravel()))
