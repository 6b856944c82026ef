"""Masks and maps drawn over photos."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from ..errors import InputError

_VIEWED = 12_000_000  # pixels
TINT = (0, 145, 255)
CONTOUR = (255, 255, 255)


def overlay(
    image: Image.Image, mask: np.ndarray, opacity: float = 0.5, tint: tuple[int, int, int] = TINT
) -> Image.Image:
    """Tints the foreground and draws a thin line around it.

    Args:
        image: the photo.
        mask: (height, width) of the photo; bool, or a probability in [0, 1], which tints in proportion and has its
            line at 0.5.
        opacity: of the tint, in [0, 1].
        tint: its colour.

    Returns:
        An RGB image of the photo's size.

    Raises:
        InputError: the mask has another size than the photo.
    """
    _check_size(image, mask, "mask")
    strength = Image.fromarray(np.uint8(255 * opacity * np.clip(mask, 0, 1)))
    tinted = Image.composite(Image.new("RGB", image.size, tint), image.convert("RGB"), strength)
    foreground = Image.fromarray(np.uint8(255 * (mask >= 0.5)))
    # Dilation by a box; unlike MaxFilter's, its time does not grow with the width.
    radius = 1 + round(min(image.size) / 600)
    grown = foreground.filter(ImageFilter.BoxBlur(radius)).point(lambda value: 255 * (value > 0))
    line = ImageChops.difference(grown, foreground).filter(ImageFilter.GaussianBlur(0.6))
    tinted.paste(CONTOUR, mask=line)
    return tinted


def for_viewing(image: Image.Image, mask: np.ndarray) -> tuple[Image.Image, np.ndarray]:
    """A photo and its mask (height, width) as they are, or smaller by a whole number where they have more pixels than a
    screen shows: a picture of them takes time by its size."""
    factor = math.ceil(math.sqrt(image.width * image.height / _VIEWED))
    return (image, mask) if factor <= 1 else (image.reduce(factor), mask[::factor, ::factor])


def heat_map(image: Image.Image, values: np.ndarray, opacity: float = 0.75) -> Image.Image:
    """Lays colours over the photo in grey: dark blue for 0, over magenta and orange, to pale yellow for 1.

    Args:
        image: the photo.
        values: (height, width) of the photo, in [0, 1].
        opacity: of the colours, in [0, 1].

    Returns:
        An RGB image of the photo's size.

    Raises:
        InputError: the values have another size than the photo.
    """
    _check_size(image, values, "map")
    grey = image.convert("L").convert("RGB")
    levels = Image.fromarray(np.uint8(255 * np.clip(values, 0, 1)))
    levels.putpalette(_HEAT.tobytes())
    return Image.blend(grey, levels.convert("RGB"), opacity)


def contact_sheet(
    pictures: Iterable[tuple[Image.Image, str]], *, columns: int = 6, tile: int = 220, gap: int = 8
) -> Image.Image:
    """Pictures in rows with a line of text below each, to look over many at once.

    Args:
        pictures: each with its text, which is cut where it is too long.
        columns: pictures in a row.
        tile: side of the square that a picture is fitted into, in pixels.
        gap: between pictures, in pixels.

    Returns:
        An RGB image.
    """
    tiles = []
    for picture, text in pictures:
        canvas = Image.new("RGB", (tile, tile + _TEXT_HEIGHT), "white")
        canvas.paste(ImageOps.pad(picture.convert("RGB"), (tile, tile), color=(238, 238, 238)))
        pen = ImageDraw.Draw(canvas)
        while pen.textlength(text) > tile and len(text) > 1:
            text = text[:-2] + "…"
        pen.text((0, tile + 2), text, fill="black")
        tiles.append(canvas)
    rows = -(-len(tiles) // columns)
    width = min(columns, len(tiles))
    sheet = Image.new("RGB", (gap + width * (tile + gap), gap + rows * (tile + _TEXT_HEIGHT + gap)), "white")
    for number, canvas in enumerate(tiles):
        row, column = divmod(number, columns)
        sheet.paste(canvas, (gap + column * (tile + gap), gap + row * (tile + _TEXT_HEIGHT + gap)))
    return sheet


def _check_size(image: Image.Image, values: np.ndarray, kind: str) -> None:
    if values.shape != (image.height, image.width):
        raise InputError(
            f"The {kind} has shape {values.shape} but the photo is {image.width} x {image.height} pixels; give a "
            f"{kind} of shape ({image.height}, {image.width})."
        )


def _colour_ramp(stops: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """(256, 3) uint8, straight from colour to colour."""
    positions = np.linspace(0, 255, len(stops))
    return np.stack([np.interp(np.arange(256), positions, channel) for channel in zip(*stops)], axis=1).astype(np.uint8)


_HEAT = _colour_ramp([(8, 8, 40), (76, 18, 110), (168, 42, 100), (232, 100, 50), (250, 190, 60), (252, 252, 190)])
_TEXT_HEIGHT = 18
