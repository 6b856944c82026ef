"""The support photos while a person marks them: what the editor holds, and what was clicked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .. import InputError
from ..inference.pictures import TINT, overlay

BRUSH_OPACITY = 0.6
BESIDE = (230, 60, 60)  # the colour of points that are not on the object

EditorValue = dict[str, Any]
SupportPair = tuple[Image.Image, np.ndarray]
Point = tuple[int, int]


@dataclass(frozen=True)
class Draft:
    """A support photo being marked; it is replaced, never changed.

    Args:
        photo: RGB.
        mask: bool (height, width); all False until something is marked.
        corners: of a box, clicked so far.
        inside, beside: points clicked on the object and beside it.
        example: whether the page brought it, rather than the person.
    """

    photo: Image.Image
    mask: np.ndarray
    corners: tuple[Point, ...] = ()
    inside: tuple[Point, ...] = ()
    beside: tuple[Point, ...] = ()
    example: bool = False

    @classmethod
    def of(cls, photo: Image.Image) -> "Draft":
        """With nothing marked."""
        return cls(photo, np.zeros((photo.height, photo.width), dtype=bool))

    def with_mask(self, mask: np.ndarray) -> "Draft":
        """With another mask, and without the clicks that led to the old one."""
        return replace(self, mask=mask, corners=(), inside=(), beside=())


def editor_value(draft: Draft) -> EditorValue:
    """What the editor shows: the photo and, as if the brush had painted it, the mask."""
    layers = []
    if draft.mask.any():
        layer = Image.new("RGB", draft.photo.size, TINT)
        layer.putalpha(Image.fromarray(np.uint8(255 * BRUSH_OPACITY * draft.mask)))
        layers.append(layer)
    return {"background": draft.photo, "layers": layers, "composite": None}


def painted_mask(editor: EditorValue, size: tuple[int, int]) -> np.ndarray:
    """Where the brush has been.

    Args:
        editor: its value.
        size: (width, height) of the photo.

    Returns:
        bool (height, width), all False without strokes.
    """
    mask = np.zeros(size[::-1], dtype=bool)
    for layer in editor["layers"]:
        mask |= np.array(layer.convert("RGBA").resize(size, Image.Resampling.NEAREST).getchannel("A")) > 0
    return mask


def clickable(draft: Draft) -> Image.Image:
    """The photo with its mask and the clicks drawn in, to click on."""
    drawn = overlay(draft.photo, draft.mask)
    pen = ImageDraw.Draw(drawn)
    radius = max(3, round(max(drawn.size) / 110))
    if len(draft.corners) == 2:
        (left, right), (top, bottom) = (sorted(values) for values in zip(*draft.corners))
        pen.rectangle((left, top, right, bottom), outline="white", width=max(2, radius // 2))
    marks = [(draft.corners[:1] if len(draft.corners) == 1 else (), TINT), (draft.inside, TINT), (draft.beside, BESIDE)]
    for points, colour in marks:
        for x, y in points:
            pen.circle((x, y), radius, fill=colour, outline="white", width=max(1, radius // 3))
    return drawn


def marked(drafts: Sequence[Draft]) -> list[SupportPair]:
    """The photos with their masks.

    Raises:
        InputError: nothing is marked in one of them.
    """
    for number, draft in enumerate(drafts, 1):
        if not draft.mask.any():
            which = "the support photo" if len(drafts) == 1 else f"support photo {number}"
            raise InputError(f"Paint over the object in {which}, or mark it with a box or points, or add its mask.")
    return [(draft.photo, draft.mask) for draft in drafts]
