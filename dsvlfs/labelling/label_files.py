"""A photo's label on the disk: its files, written, read and looked after."""

import hashlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import InputError
from ..files import write_image
from ..inference.photos import DECODING_ERRORS, load_photo, open_image
from .colours import class_map_image, class_map_of
from .labelled import LabelledPhoto
from .labels import PhotoLabels
from .names import shown
from .photo_files import file_stamp
from .photos_source import Photos
from .record import Label, figures_of
from .review import draw_overlay

MOST_OBJECTS = 2**16 - 1
"""Of an object map's 16 bits."""


def same_content(photos: Photos, index: int, label: Label) -> bool:
    stamp = photos.stamp(index)
    if stamp is not None and stamp == label.stamp:
        return True
    try:
        return hashlib.sha256(photos.read(index)).hexdigest() == label.digest
    except (InputError, OSError):  # perhaps for now: its label stays
        return True


def is_a_persons(folder: Path, label: Label) -> bool:
    """Whether a person has accepted or drawn a label, or changed its mask's file since in some other way."""
    if label.is_held:
        return True
    now = file_stamp(folder / label.mask)
    # Size and time alone: a folder that was moved, or copied with its times, is what it was.
    return now is not None and now.split()[:2] != label.mask_stamp.split()[:2]


def is_whole(folder: Path, label: Label) -> bool:
    """Whether a label's files can be read; a person may have changed them."""
    files = [(label.mask, label.mask_stamp)]
    if label.objects is not None:
        files.append((label.objects, label.objects_stamp))
    for name, stamp in files:
        now = file_stamp(folder / name)
        if now is None:
            return False
        if now != stamp:
            try:
                with Image.open(folder / name) as image:
                    image.verify()
                with Image.open(folder / name) as image:
                    image.load()
                    if image.size != (label.width, label.height):
                        return False
            except DECODING_ERRORS:
                return False
    return True


def write_label(folder: Path, name: str, stem: str, labels: PhotoLabels, digest: str, stamp: str | None) -> Label:
    """Writes a photo's files, and returns its label."""
    classes = len(labels.class_names)
    mask, overlay, objects = f"masks/{stem}.png", f"overlays/{stem}.jpg", f"objects/{stem}.png"
    for file in (folder / mask, folder / overlay):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_image(folder / mask, class_map_image(labels.class_map, classes))
    if labels.object_map is not None:
        (folder / objects).parent.mkdir(parents=True, exist_ok=True)
        write_image(folder / objects, class_map_image(labels.object_map, MOST_OBJECTS))
    write_image(folder / overlay, draw_overlay(labels.photo, labels.class_map, classes), quality=85)
    return Label(
        photo=name,
        digest=digest,
        stamp=stamp,
        mask=mask,
        overlay=overlay,
        mask_stamp=file_stamp(folder / mask) or "",
        objects=None if labels.object_map is None else objects,
        objects_stamp=None if labels.object_map is None else file_stamp(folder / objects),
        width=labels.photo.width,
        height=labels.photo.height,
        **figures_of(labels),
    )


def read_label(photos: Photos, index: int, label: Label, folder: Path, class_names: Sequence[str]) -> LabelledPhoto:
    """A label with its masks from the disk."""
    return LabelledPhoto(
        file_name=shown(label.photo),
        mask=read_map(folder / label.mask, len(class_names)),
        figures=[label.classes[name] for name in class_names],
        objects=label.found,
        object_map=None if label.objects is None else read_map(folder / label.objects, MOST_OBJECTS),
        stem=label.stem,
        read=lambda: photos.read(index),
        overlay=(folder / label.overlay).read_bytes,
        path=photos.path(index),
    )


def read_map(file: Path, classes: int) -> np.ndarray:
    try:
        with Image.open(file) as image:
            return class_map_of(image, classes)
    except DECODING_ERRORS as error:
        raise InputError(f"The mask {file} cannot be read ({error}); run again, and it is made again.") from error


def mend_overlay(photos: Photos, index: int, label: Label, folder: Path, classes: int) -> None:
    """Draws an overlay again that is gone or damaged."""
    file = folder / label.overlay
    try:
        with Image.open(file) as image:
            image.load()
    except DECODING_ERRORS:
        photo = decode(photos.read(index), label.photo)
        write_image(file, draw_overlay(photo, read_map(folder / label.mask, classes), classes), quality=85)


def decode(content: bytes, name: str) -> Image.Image:
    stream = BytesIO(content)
    stream.filename = name  # what errors call it
    image = open_image(stream, "photo")
    image.filename = name
    return load_photo(image)
