"""A photo's map of classes as the editor shows it, one class to paint, and as what was painted changes it.

The editor has a smaller picture than the photo: a pixel of the map changes only where the brush was.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from ...inference.pictures import TINT, overlay
from ...labelling.colours import tint
from ..supports import BRUSH_OPACITY, EditorValue, painted_mask
from ..uploads import enlarge

MARGIN = "#d4d4d4"
GLANCE, SAME = (32, 32), 4.0
"""Cells, and levels of 255 by which a picture that has been in the editor may differ from itself."""


def small_mask(class_map: np.ndarray, number: int, size: tuple[int, int]) -> np.ndarray:
    """A class's mask in the editor's size, bool.

    Args:
        class_map: (height, width) of the photo.
        number: of the class.
        size: (width, height) of the editor's picture.
    """
    mask = Image.fromarray((class_map == number).astype(np.uint8))
    return np.asarray(mask.resize(size, Image.Resampling.NEAREST)) > 0


def with_others(photo: Image.Image, class_map: np.ndarray, number: int, classes: int) -> Image.Image:
    """The editor's picture with every class drawn in but the one that is painted.

    Args:
        photo: RGB, in the editor's size.
        class_map: (height, width) of the photo's own size.
        number: of the class to paint; 0 draws all in.
        classes: how many there are.
    """
    for other in (int(other) for other in np.unique(class_map) if other not in (0, number)):
        photo = overlay(photo, small_mask(class_map, other, photo.size), tint=tint(other, classes))
    return photo


def editor_content(
    photo: Image.Image, class_map: np.ndarray, number: int, classes: int, canvas: tuple[int, int]
) -> dict[str, Any]:
    """What the editor shows: the other classes in the picture, this one as if the brush had painted it.

    Args:
        photo: RGB, at most as large as the canvas.
        class_map, number, classes: as `with_others` takes them.
        canvas: (width, height), the same for all photos: the editor puts layers of another size beside the picture.
    """
    layers, mask = [], small_mask(class_map, number, photo.size)
    left, top = corner(photo.size, canvas)
    if mask.any():
        alpha = Image.new("L", canvas)
        alpha.paste(Image.fromarray(np.uint8(255 * BRUSH_OPACITY * mask)), (left, top))
        layer = Image.new("RGB", canvas, TINT)  # the brush's, whatever the class
        layer.putalpha(alpha)
        layers.append(layer)
    background = Image.new("RGB", canvas, MARGIN)
    background.paste(with_others(photo, class_map, number, classes), (left, top))
    return {"background": background, "layers": layers, "composite": None}


def is_shown(editor: EditorValue, background: Image.Image) -> bool:
    """Whether the editor shows a picture, rather than the one before or after."""
    if editor["background"].size != background.size:
        return False
    shown, expected = (
        np.asarray(image.convert("RGB").resize(GLANCE, Image.Resampling.BOX), dtype=np.int16)
        for image in (editor["background"], background)
    )
    return float(np.abs(shown - expected).mean()) < SAME


def strokes_in(editor: EditorValue, size: tuple[int, int], canvas: tuple[int, int]) -> np.ndarray:
    """Where the brush has been, bool (height, width) of the photo in the editor.

    Args:
        editor: its value.
        size: (width, height) of the photo there.
        canvas: of the editor.
    """
    left, top = corner(size, canvas)
    return painted_mask(editor, canvas)[top : top + size[1], left : left + size[0]]


def corner(size: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int]:
    """(left, top) of a picture in the middle of a canvas."""
    return (canvas[0] - size[0]) // 2, (canvas[1] - size[1]) // 2


def painted(class_map: np.ndarray, number: int, strokes: np.ndarray) -> np.ndarray:
    """The map after the brush.

    Args:
        class_map: (height, width) of the photo.
        number: of the class that was painted.
        strokes: bool (height, width) of the editor's picture: the class's mask as it is there now.

    Returns:
        Another map, or the same where nothing was painted.
    """
    size = class_map.shape[1], class_map.shape[0]
    changed = small_mask(class_map, number, strokes.shape[::-1]) != strokes
    if not changed.any():
        return class_map
    where = np.asarray(Image.fromarray(changed.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)) > 0
    now = enlarge(strokes, size)
    after = class_map.copy()
    after[where & now] = number
    after[where & ~now & (class_map == number)] = 0
    return after


def with_class(class_map: np.ndarray, number: int, mask: np.ndarray, *, takes: bool) -> np.ndarray:
    """The map with another mask of a class.

    Args:
        class_map: (height, width).
        number: of the class.
        mask: bool (height, width).
        takes: whether it takes pixels from other classes.
    """
    after = np.where(class_map == number, 0, class_map).astype(class_map.dtype)
    after[mask if takes else mask & (after == 0)] = number
    return after


def without_part(class_map: np.ndarray, x: int, y: int) -> np.ndarray:
    """The map without the connected part of a class that is at a place; the same where nothing is there."""
    number = int(class_map[y, x])
    if not number:
        return class_map
    parts, _ = ndimage.label(class_map == number)
    after = class_map.copy()
    after[parts == parts[y, x]] = 0
    return after
