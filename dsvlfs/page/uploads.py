"""Uploads, checked before they are used, and the two sizes of a photo on the page."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from .. import InputError
from ..inference.photos import DECODING_ERRORS, load_mask, load_photo

MAX_BYTES = "20mb"  # of a file
MAX_PIXELS = 40_000_000  # of a photo
MAX_QUERIES = 12
MAX_SUPPORTS = 5
SUPPORT_SIDE = 1024  # a support photo is shrunk to it: bounds what the editor sends and what a session keeps
PREVIEW_SIDE = 1280  # a query photo is shrunk to it; only the file of its mask has the photo's own size
EXPIRED = "has expired, for the page keeps uploads an hour at most; add it again"
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")


def read_upload(path: str, kind: str) -> Image.Image:
    """An uploaded image, upright.

    Args:
        kind: what to call it in an error.

    Raises:
        InputError: it is gone, cannot be read or has too many pixels.
    """
    with _opened(path, kind) as file:
        return ImageOps.exif_transpose(file)


def read_photo(path: str, kind: str, side: int | None = None) -> Image.Image:
    """An uploaded photo, RGB and upright.

    Args:
        kind: what to call it in an error.
        side: at most so wide and high; None keeps its own size.

    Raises:
        InputError: it is gone, cannot be read or has too many pixels.
    """
    with _opened(path, kind) as file:
        if side is None:
            return load_photo(file)
        file.draft(None, (2 * side, 2 * side))  # of a JPEG, decodes no more than is needed
        if file.mode.startswith(("I", "F")):  # of many bytes a pixel: not at full size
            file.thumbnail((side, side), Image.Resampling.NEAREST)
        photo = load_photo(file)
    photo.thumbnail((side, side))
    return photo


def read_size(path: str, kind: str) -> tuple[int, int]:
    """(width, height) of an uploaded image, upright.

    Raises:
        InputError: it is gone, cannot be read or has too many pixels.
    """
    with _opened(path, kind) as file:
        turned = file.getexif().get(ExifTags.Base.Orientation, 1) in range(5, 9)
        return file.size[::-1] if turned else file.size


@contextmanager
def _opened(path: str, kind: str) -> Iterator[Image.Image]:
    """An uploaded image before it is decoded; what goes wrong in the block is said in one sentence, too."""
    try:
        with Image.open(path, formats=FORMATS) as file:
            if file.width * file.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            yield file
    except Image.DecompressionBombError as error:
        raise InputError(f"The {kind} has more than {MAX_PIXELS // 10**6} megapixels; scale it down.") from error
    except FileNotFoundError as error:
        raise InputError(
            f"The {kind} has expired, for the page keeps uploads an hour at most; add it again."
        ) from error
    except (*DECODING_ERRORS, MemoryError) as error:
        raise InputError(f"The {kind} cannot be read; choose a whole JPEG, PNG or WebP image.") from error


def titles(kind: str, files: Sequence[str]) -> list[str]:
    """What to call uploads in an error, so that one of several can be told: "query photo fox.jpg"; with its number
    where two have one name.

    Args:
        kind: of all, such as "query photo".
        files: their paths.
    """
    names = [shorten(Path(file).name) for file in files]
    if len(names) == 1:
        return [kind]
    if len(set(names)) == len(names):
        return [f"{kind} {name}" for name in names]
    return [f"{kind} {number}, {name}," for number, name in enumerate(names, 1)]


def shorten(text: str, length: int = 60) -> str:
    """A visitor's text as an error repeats it: its beginning and end."""
    half = length // 2
    return text if len(text) <= length else f"{text[: half - 1]}…{text[len(text) - half :]}"


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


def enlarge(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask in its photo's own size, with smooth edges.

    Args:
        mask: bool (height, width) of the photo as it was worked on.
        size: (width, height) of the photo.
    """
    if mask.shape == size[::-1]:
        return mask
    grown = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(grown) >= 128


def encode_preview(photo: Image.Image) -> bytes:
    """A JPEG for the page, small enough to keep."""
    buffer = io.BytesIO()
    shrink(photo, PREVIEW_SIDE).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def decode_preview(content: bytes) -> Image.Image:
    """The photo of `encode_preview`."""
    return Image.open(io.BytesIO(content)).convert("RGB")
