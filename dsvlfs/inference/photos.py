"""Photos and masks as people give them: files, PIL images and arrays, to RGB images and boolean arrays."""

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..errors import InputError

Photo = Image.Image | np.ndarray | str | os.PathLike

# Pillow's decoders raise any of these for a damaged file: AVIF's, RuntimeError.
DECODING_ERRORS = (OSError, ValueError, SyntaxError, RuntimeError, EOFError)


def load_photo(source: Photo) -> Image.Image:
    """A photo as RGB, upright.

    Args:
        source: a path, a PIL image, or an array (height, width) or (height, width, 3 or 4): uint8, bool, or float in
            [0, 1]. 16-bit gray is scaled to 8 bits.

    Raises:
        InputError: it cannot be read.
    """
    image = _image_of_array(source) if isinstance(source, np.ndarray) else _image_of(source, "photo")
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            values = np.asarray(image)
            if image.mode != "I" or values.max() > 255:  # Pillow would clip to white
                values = values / 257
            image = Image.fromarray(values.clip(0, 255).round().astype(np.uint8))
        return image.convert("RGB")
    except DECODING_ERRORS as error:
        raise InputError(f"The photo {_name(source)} cannot be decoded ({error}); give a whole JPEG or PNG.") from error


def load_mask(source: Photo, size: tuple[int, int]) -> np.ndarray:
    """A mask, foreground wherever it is above zero.

    Of several channels, any above zero counts; but where an alpha channel (the last of 2 or 4) is not opaque
    everywhere, it alone counts. A palette's colours count, not its indices.

    Args:
        source: a path, a PIL image, or an array (height, width) or (height, width, channels).
        size: (width, height) of its photo.

    Returns:
        bool (height, width).

    Raises:
        InputError: it cannot be read, has another size than the photo, or is empty.
    """
    if isinstance(source, np.ndarray):
        values = source
    else:
        image = _image_of(source, "mask")
        try:
            image = ImageOps.exif_transpose(image)
            if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or (image.mode == "P" and "transparency" in image.info):
                image = image.convert("RGBA")
            elif len(image.getbands()) > 1 or image.mode == "P":
                image = image.convert("RGB")
            values = np.asarray(image)
        except DECODING_ERRORS as error:
            raise InputError(f"The mask {_name(source)} cannot be decoded ({error}); give a whole PNG.") from error
    mask = _foreground(values)
    if mask.shape != (size[1], size[0]):
        raise InputError(
            f"The mask {_name(source)} is {mask.shape[1]} x {mask.shape[0]} pixels but its photo is "
            f"{size[0]} x {size[1]}; give a mask of the photo's size."
        )
    if not mask.any():
        raise InputError(f"The mask {_name(source)} is empty; mark the object with values other than zero.")
    return mask


def context_box(mask: np.ndarray, context: float) -> tuple[int, int, int, int]:
    """Square of `context` times the longer side of the mask's bounding box about its centre, cut at the photo's edge:
    (left, top, right, bottom) in pixels."""
    ys, xs = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
    left, right, top, bottom = xs[0], xs[-1] + 1, ys[0], ys[-1] + 1
    half = max(right - left, bottom - top) * context / 2
    x, y = (left + right) / 2, (top + bottom) / 2
    height, width = mask.shape
    return (
        int(max(0, x - half)),
        int(max(0, y - half)),
        int(min(width, np.ceil(x + half))),
        int(min(height, np.ceil(y + half))),
    )


def open_image(path: str | os.PathLike, kind: str) -> Image.Image:
    """Opens and decodes an image file.

    Args:
        kind: what to call it in an error.

    Raises:
        InputError: it is missing, damaged, too large or no image.
    """
    try:
        image = Image.open(path)
        image.load()
        return image
    except FileNotFoundError:
        raise InputError(f"There is no {kind} {path}; check the path.") from None
    except Image.DecompressionBombError as error:
        raise InputError(f"The {kind} {path} is too large ({error}); scale it down first.") from error
    except DECODING_ERRORS as error:
        raise InputError(
            f"The {kind} {path} cannot be read: it is damaged, cut short, or no image; give a whole JPEG or PNG."
        ) from error


def _image_of(source: Image.Image | str | os.PathLike, kind: str) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, (str, os.PathLike)):
        return open_image(source, kind)
    raise InputError(f"A {kind} is of type {type(source).__name__}; give a path, a PIL image or a NumPy array.")


def _image_of_array(array: np.ndarray) -> Image.Image:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or 0 in array.shape:
        raise InputError(
            f"A photo array has shape {array.shape}; give (height, width) or (height, width, 3), uint8 or in [0, 1]."
        )
    if array.dtype == bool or (array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1):
        array = (array * 255.0).round().astype(np.uint8)
    if array.dtype != np.uint8:
        values = f" from {array.min():g} to {array.max():g}" if array.dtype.kind in "iuf" else ""
        raise InputError(f"A photo array is {array.dtype}{values}; give uint8, bool, or float from 0 to 1.")
    return Image.fromarray(array.squeeze(-1) if array.shape[2:] == (1,) else array)


def _foreground(values: np.ndarray) -> np.ndarray:
    """`load_mask`'s rule for values (height, width) or (height, width, channels)."""
    if values.ndim not in (2, 3) or values.dtype.kind not in "biuf":
        raise InputError(
            f"A mask array has shape {values.shape} and is {values.dtype}; give numbers (height, width) or "
            "(height, width, channels)."
        )
    if values.ndim == 2:
        return values > 0
    if values.shape[2] in (2, 4):
        colours, alpha = values[..., :-1], values[..., -1]
        opaque = 255 if values.dtype.kind in "iu" else 1
        # An opaque image with an alpha channel is drawn in its colours.
        values = alpha[..., None] if (alpha < opaque).any() else colours
    return (values > 0).any(axis=-1)


def _name(source: Photo) -> str:
    if isinstance(source, (str, os.PathLike)):
        return str(Path(source))
    return getattr(source, "filename", None) or "given"
