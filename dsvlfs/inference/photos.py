"""Photos and masks as people give them: files, PIL images and arrays, to RGB images and boolean arrays."""

import io
import os
import threading
import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from ..errors import InputError
from ..files import open_regular, reading_fault
from .mask_values import foreground

Photo = Image.Image | np.ndarray | str | os.PathLike

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "TGA", "TIFF", "WEBP")
"""What is read of Pillow's: pictures alone, and nothing that starts another program. HEIF too, with pillow-heif."""

MAX_PIXELS = 50_000_000
"""Of a photo: what it takes in memory and time on its way grows with them."""

_MAX_BYTES = 320_000_000  # that reading a photo takes: a pixel's, at the peak, of a format or a mode
_BYTES_OF_FORMAT = {"WEBP": 12, "AVIF": 10, "JPEG2000": 10, "HEIF": 7}
_BYTES_OF_MODE = {"1": 4, "L": 4, "P": 4, "RGB": 3}

# Pillow's decoders raise anything for a damaged file: AVIF's RuntimeError, TIFF's KeyError, struct.error.
DECODING_ERRORS = (Exception,)

_ORIENTATION = 0x0112
_MOST_SCANS = 100  # of a progressive JPEG, each of which goes over the whole photo; encoders make about ten
_DEPTHS = (8, 12, 16)
_ROWS = 256  # converted at a time, where NumPy needs several times their memory
_opening = threading.Lock()


def load_photo(source: Photo) -> Image.Image:
    """A photo as RGB, upright.

    Transparent pixels are laid on white. Gray of more than 8 bits is scaled by its depth: 12 bits where the file says
    so, else 8, 12 or 16, whichever holds the largest value.

    Args:
        source: a path, a PIL image, or an array (height, width) or (height, width, 3 or 4): uint8, bool, or float in
            [0, 1]. PIL images and files of floats likewise.

    Raises:
        InputError: it cannot be read, has more than `MAX_PIXELS`, or is transparent everywhere.
    """
    image = _image_of_array(source) if isinstance(source, np.ndarray) else _image_of(source, "photo")
    title = _title(source, "photo")
    try:
        return _as_rgb(_upright(image), title)
    except InputError:
        raise
    except DECODING_ERRORS as error:
        raise InputError(f"{title} cannot be decoded ({error}); give a whole JPEG or PNG.") from error


def load_mask(source: Photo, size: tuple[int, int], *, may_fill: bool = False) -> np.ndarray:
    """A mask; `dsvlfs.inference.mask_values` says what is foreground. A palette's colours count, not its indices.

    Args:
        source: a path, a PIL image, or an array (height, width) or (height, width, channels). What `segment` gives can
            be given back: its mask, or its probability, foreground from 0.5 on.
        size: (width, height) of its photo. A mask of another size with the same proportions is resized.
        may_fill: whether it may cover the whole photo; an array of bool always may.

    Returns:
        bool (height, width).

    Raises:
        InputError: it cannot be read, has other proportions than the photo, is not of two values, is empty, or covers
            all.
    """
    title = _title(source, "mask")
    if isinstance(source, np.ndarray):
        values, may_fill = source, may_fill or source.dtype == bool
        found = values.shape[1::-1]
    else:
        image = _image_of(source, "mask")
        try:
            image = _upright(image)
            if image.has_transparency_data:
                image = image.convert("RGBA")
            elif len(image.getbands()) > 1 or image.mode == "P":
                image = image.convert("RGB")
            values, found = np.asarray(image), image.size
        except DECODING_ERRORS as error:
            raise InputError(f"{title} cannot be decoded ({error}); give a whole PNG.") from error
    if values.ndim in (2, 3) and not _same_proportions(found, size):
        raise InputError(
            f"{title} is {found[0]} x {found[1]} pixels but its photo is {size[0]} x {size[1]}; give a mask of the "
            "photo's size, or of its proportions."
        )
    mask = foreground(values, title)
    if found != size:
        mask = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    if not mask.any():
        raise InputError(
            f"{title} is empty: it has no foreground; mark the object with white, or with any one value and 0 around."
        )
    if mask.all() and not may_fill:
        raise InputError(f"{title} covers the whole photo; mark the object alone, and leave the rest 0.")
    return mask


def _same_proportions(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes are one size scaled, but for the rounding of its sides."""
    if one[0] == other[0] or one[1] == other[1]:
        return one == other
    return abs(one[0] * other[1] - one[1] * other[0]) <= max(one)


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


def open_image(source: str | os.PathLike | BinaryIO, kind: str) -> Image.Image:
    """Opens and decodes an image.

    Args:
        source: path of a file, or a file's bytes as a stream.
        kind: what to call it in an error.

    Raises:
        InputError: it is missing, may not be read, or is damaged, too large or no image.
    """
    title = _title(source, kind)
    stream = source if isinstance(source, io.IOBase) else open_regular(source, kind)
    with stream:
        try:
            with _opening, warnings.catch_warnings():  # of what is refused below; they know no threads
                warnings.simplefilter("ignore")
                image = Image.open(stream, formats=readable_formats())
            _check_pixels(image.size, title)
            _check_bytes(image, title)
            if image.info.get("progressive"):
                _check_scans(stream, title)
            image.load()
            return image
        except InputError:
            raise
        except Image.DecompressionBombError:
            raise InputError(_too_large(title, "far more")) from None
        except DECODING_ERRORS as error:
            raise InputError(_undecodable(stream, title)) from error


def _undecodable(stream: BinaryIO, title: str) -> str:
    """Why no image came of a stream."""
    what = "cannot be read: it is damaged, cut short, or no image"
    try:
        if stream.seek(0, os.SEEK_END) == 0:
            what = "is empty"
        elif _is_heif(stream) and "HEIF" not in readable_formats():
            return f"{title} is a HEIF; pip install 'dsvlfs[heif]' to read it, or save a JPEG."
    except OSError as error:  # a disk that fails, or a file that is none
        return f"{title} cannot be read: {reading_fault(error)}."
    return f"{title} {what}; give a whole JPEG or PNG."


@cache
def readable_formats() -> tuple[str, ...]:
    """`FORMATS`, and what further packages read."""
    if find_spec("pillow_heif") is None:
        return FORMATS
    import pillow_heif

    pillow_heif.register_heif_opener()
    return (*FORMATS, "HEIF")


def _is_heif(stream: BinaryIO) -> bool:
    stream.seek(0)
    return stream.read(12)[4:] in (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1", b"ftypmsf1", b"ftypheim")


def _check_pixels(size: tuple[int, int], title: str) -> None:
    pixels = size[0] * size[1]
    if not pixels:
        raise InputError(f"{title} has no pixels; give another.")
    if pixels > MAX_PIXELS:
        raise InputError(_too_large(title, f"{pixels / 1e6:.0f} million pixels,"))


def _check_bytes(image: Image.Image, title: str) -> None:
    bytes_of_pixel = _BYTES_OF_FORMAT.get(image.format, _BYTES_OF_MODE.get(image.mode, 8))
    needed = image.width * image.height * max(bytes_of_pixel, 7 if image.has_transparency_data else 0)
    if needed > _MAX_BYTES:
        raise InputError(
            f"{title} is a {image.format} of {image.width * image.height / 1e6:.0f} million pixels, which takes more "
            f"than {_MAX_BYTES / 1e6:.0f} MB to read; scale it down, or save it as a JPEG, first."
        )


def _too_large(title: str, pixels: str) -> str:
    return f"{title} has {pixels} more than the {MAX_PIXELS / 1e6:.0f} million that are read; scale it down first."


def _check_scans(stream: BinaryIO, title: str) -> None:
    """Raises InputError for a progressive JPEG that goes over its pixels again and again."""
    place, scans = stream.tell(), 0
    stream.seek(0)
    while chunk := stream.read(2**20):
        scans += chunk.count(b"\xff\xda")
    stream.seek(place)
    if scans > _MOST_SCANS:
        raise InputError(f"{title} is a JPEG of {scans} scans, more than {_MOST_SCANS}; save it again.")


def _upright(image: Image.Image) -> Image.Image:
    """As the camera was held. A damaged EXIF says nothing of that."""
    try:
        turned = image.getexif().get(_ORIENTATION, 1) not in (None, 1)
    except DECODING_ERRORS:
        turned = False
    return ImageOps.exif_transpose(image) if turned else image


def _as_rgb(image: Image.Image, title: str) -> Image.Image:
    if image.mode == "F":
        values = np.asarray(image)
        _check_values(values, f"{title} holds")
        return _gray(values, lambda rows: (rows * 255).round())
    if image.mode.startswith("I"):
        values = np.asarray(image)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65_535:
            raise InputError(f"{title} holds values from {low} to {high}; give 8 or 16 bits.")
        bits = next(depth for depth in _DEPTHS if high < 2**depth)
        if _stored_bits(image) == 12:
            bits = 12
        return _gray(values, lambda rows: (rows.astype(np.float32) * (255 / (2**bits - 1))).round())
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    alpha = image.getchannel("A")
    lowest, highest = alpha.getextrema()
    if highest == 0:
        raise InputError(f"{title} is transparent everywhere; save it without its alpha channel.")
    if lowest == 255:
        return image.convert("RGB")
    ground = Image.new("RGB", image.size, "white")
    for top in range(0, image.height, _ROWS):
        box = (0, top, image.width, min(top + _ROWS, image.height))
        ground.paste(image.crop(box).convert("RGB"), box, alpha.crop(box))
    return ground


def _stored_bits(image: Image.Image) -> int | None:
    """What a TIFF says of its depth."""
    tags = getattr(image, "tag_v2", None) or {}
    bits = tags.get(258)
    return bits[0] if isinstance(bits, tuple) and bits else bits


def _gray(values: np.ndarray, scaled: Callable[[np.ndarray], np.ndarray]) -> Image.Image:
    """RGB of gray values (height, width), which `scaled` brings to 0 to 255."""
    result = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), _ROWS):
        result[top : top + _ROWS] = scaled(values[top : top + _ROWS])
    return Image.fromarray(result).convert("RGB")


def _image_of(source: Image.Image | str | os.PathLike, kind: str) -> Image.Image:
    if isinstance(source, Image.Image):
        _check_pixels(source.size, _title(source, kind))
        return source
    if isinstance(source, (str, os.PathLike)):
        return open_image(source, kind)
    raise InputError(f"A {kind} is of type {type(source).__name__}; give a path, a PIL image or a NumPy array.")


def _image_of_array(array: np.ndarray) -> Image.Image:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or 0 in array.shape:
        raise InputError(
            f"A photo array has shape {array.shape}; give (height, width) or (height, width, 3), uint8 or in [0, 1]."
        )
    _check_pixels((array.shape[1], array.shape[0]), "A photo array")
    if array.dtype != np.uint8:
        if array.dtype != bool:
            _check_values(array, f"A photo array is {array.dtype}")
        array = (array * np.float32(255)).round().astype(np.uint8)
    return Image.fromarray(array.squeeze(-1) if array.shape[2:] == (1,) else array)


def _check_values(array: np.ndarray, what: str) -> None:
    """Raises InputError unless values are floats from 0 to 1."""
    if array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1:
        return
    values = f" from {array.min():g} to {array.max():g}" if array.dtype.kind in "iuf" else ""
    raise InputError(f"{what}{values}; give uint8, bool, or float from 0 to 1, such as values / their largest.")


def _title(source: object, kind: str) -> str:
    """What to call a photo or mask in an error."""
    if isinstance(source, (str, os.PathLike)):
        return f"The {kind} {Path(source)}"
    name = getattr(source, "filename", None)
    return f"The {kind} {name}" if isinstance(name, (str, os.PathLike)) and name else f"The {kind} given"
