"""Masks drawn over photos."""

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from .errors import InputError

TINT = (0, 145, 255)
CONTOUR = (255, 255, 255)


def overlay(image: Image.Image, mask: np.ndarray, opacity: float = 0.5) -> Image.Image:
    """Tints the foreground and draws a thin line around it.

    Args:
        image: the photo.
        mask: (height, width) of the photo; bool, or a probability in [0, 1], which tints in proportion and has its
            line at 0.5.
        opacity: of the tint, in [0, 1].

    Returns:
        An RGB image of the photo's size.

    Raises:
        InputError: the mask has another size than the photo.
    """
    if mask.shape != (image.height, image.width):
        raise InputError(
            f"The mask has shape {mask.shape} but the photo is {image.width} x {image.height} pixels; give a mask of "
            f"shape ({image.height}, {image.width})."
        )
    strength = Image.fromarray(np.uint8(255 * opacity * np.clip(mask, 0, 1)))
    tinted = Image.composite(Image.new("RGB", image.size, TINT), image.convert("RGB"), strength)
    foreground = Image.fromarray(np.uint8(255 * (mask >= 0.5)))
    # Dilation by a box; unlike MaxFilter's, its time does not grow with the width.
    radius = 1 + round(min(image.size) / 600)
    grown = foreground.filter(ImageFilter.BoxBlur(radius)).point(lambda value: 255 * (value > 0))
    line = ImageChops.difference(grown, foreground).filter(ImageFilter.GaussianBlur(0.6))
    tinted.paste(CONTOUR, mask=line)
    return tinted
