"""Uploads, checked before they are used, and the two sizes of a photo on the page."""

import io

import numpy as np
from PIL import Image, ImageOps

from .. import InputError
from ..inference.photos import DECODING_ERRORS, load_mask, load_photo

MAX_BYTES = "20mb"  # of a file
MAX_PIXELS = 40_000_000  # of a photo
MAX_QUERIES = 12
MAX_SUPPORTS = 5
SUPPORT_SIDE = 1024  # a support photo is shrunk to it: bounds what the editor sends and what a session keeps
PREVIEW_SIDE = 1280  # a result is shown in it; its mask has the photo's own size


def read_upload(path: str, kind: str) -> Image.Image:
    """An uploaded image, upright.

    Args:
        kind: what to call it in an error.

    Raises:
        InputError: it cannot be read or has too many pixels.
    """
    try:
        with Image.open(path) as file:
            if file.width * file.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            return ImageOps.exif_transpose(file)
    except Image.DecompressionBombError as error:
        raise InputError(f"The {kind} has more than {MAX_PIXELS // 10**6} megapixels; scale it down.") from error
    except DECODING_ERRORS as error:
        raise InputError(f"The {kind} cannot be read; choose a whole JPEG, PNG or WebP image.") from error


def read_photo(path: str, kind: str) -> Image.Image:
    """An uploaded photo, RGB and upright, in its own size.

    Raises:
        InputError: it cannot be read or has too many pixels.
    """
    return load_photo(read_upload(path, kind))


def shrink(photo: Image.Image, side: int) -> Image.Image:
    """A copy, at most `side` wide and high."""
    copy = photo.copy()
    copy.thumbnail((side, side))
    return copy


def read_mask(path: str, photo: Image.Image, kind: str = "mask") -> np.ndarray:
    """An uploaded mask, brought to the size of its photo, which may have been shrunk.

    Returns:
        bool (height, width).

    Raises:
        InputError: it cannot be read, has other proportions than the photo, or is empty.
    """
    mask = read_upload(path, kind)
    if abs(mask.width * photo.height - mask.height * photo.width) > max(mask.size):
        raise InputError(f"The {kind} has other proportions than its support photo; choose the mask of that photo.")
    return load_mask(mask.resize(photo.size, Image.Resampling.NEAREST), photo.size)


def encode_preview(photo: Image.Image) -> bytes:
    """A JPEG for the page, small enough to keep."""
    buffer = io.BytesIO()
    shrink(photo, PREVIEW_SIDE).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def decode_preview(content: bytes) -> Image.Image:
    """The photo of `encode_preview`."""
    return Image.open(io.BytesIO(content)).convert("RGB")
