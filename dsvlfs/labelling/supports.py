"""Support photos, and the ways to say which of their pixels show the class: a mask's file, a box, points, a drawing."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from ..errors import InputError
from ..inference.photos import load_mask, load_photo, open_image
from ..inference.selection import Box, Point, mask_at_points, mask_in_box

if TYPE_CHECKING:
    from ..modeling import DSVLFSModel


class Mark(Protocol):
    """Where the class is in a support photo."""

    @property
    def files(self) -> Sequence[Path]:
        """The files that say so."""

    def settings(self) -> dict[str, Any]:
        """What makes two marks the same, files by their content."""

    def mask(self, photo: Image.Image, model: "DSVLFSModel | None") -> np.ndarray:
        """bool (height, width) of the photo. Raises InputError; ValueError where it needs a model and is given none."""


@dataclass(frozen=True)
class MaskFile:
    """A mask's file.

    Args:
        file: as `load_mask` reads it.
        value: the class's in an index image, which may hold others; None takes all that is foreground.
    """

    file: Path
    value: int | None = None

    @property
    def files(self) -> Sequence[Path]:
        return [self.file]

    def settings(self) -> dict[str, Any]:
        return {"mask": digest(self.file), "value": self.value}

    def mask(self, photo: Image.Image, model: "DSVLFSModel | None") -> np.ndarray:
        if self.value is None:
            return load_mask(self.file, photo.size)
        image = open_image(self.file, "mask")
        if len(image.getbands()) > 1 or image.mode == "F":
            raise InputError(
                f"The mask {self.file} holds colours, not the numbers of classes; leave the mask's value out."
            )
        values = np.asarray(image)
        if not (values == self.value).any():
            held = ", ".join(str(value) for value in np.unique(values)[:10])
            raise InputError(f"The mask {self.file} has no pixel of the value {self.value}; it holds {held}.")
        return load_mask(values == self.value, photo.size)


@dataclass(frozen=True)
class InBox:
    """A box around the object: (left, top, right, bottom) in pixels."""

    box: Box

    @property
    def files(self) -> Sequence[Path]:
        return []

    def settings(self) -> dict[str, Any]:
        return {"box": self.box}

    def mask(self, photo: Image.Image, model: "DSVLFSModel | None") -> np.ndarray:
        return mask_in_box(_needed(model), photo, self.box)


@dataclass(frozen=True)
class AtPoints:
    """Points on the object, and points beside it: (x, y) in pixels."""

    inside: tuple[Point, ...]
    beside: tuple[Point, ...] = ()

    @property
    def files(self) -> Sequence[Path]:
        return []

    def settings(self) -> dict[str, Any]:
        return {"inside": self.inside, "beside": self.beside}

    def mask(self, photo: Image.Image, model: "DSVLFSModel | None") -> np.ndarray:
        for x, y in (*self.inside, *self.beside):
            if not (0 <= x < photo.width and 0 <= y < photo.height):
                raise InputError(
                    f"The point {x:g}, {y:g} is outside the photo, which is {photo.width} x {photo.height} pixels."
                )
        return mask_at_points(_needed(model), photo, self.inside, self.beside)


@dataclass(frozen=True)
class Drawn:
    """What an annotation tool's file says.

    Args:
        file: that says so.
        drawing: bool (height, width).
    """

    file: Path
    drawing: np.ndarray = field(repr=False)

    @property
    def files(self) -> Sequence[Path]:
        return [self.file]

    def settings(self) -> dict[str, Any]:
        return {"drawn": hashlib.sha256(np.packbits(self.drawing).tobytes()).hexdigest()}

    def mask(self, photo: Image.Image, model: "DSVLFSModel | None") -> np.ndarray:
        return load_mask(self.drawing, photo.size)


@dataclass(frozen=True)
class SupportPhoto:
    """A support photo of one class, as files.

    Args:
        photo: its file.
        mark: where the class is in it.
    """

    photo: Path
    mark: Mark

    @property
    def files(self) -> list[Path]:
        """All that it is made of."""
        return [self.photo, *self.mark.files]

    def settings(self) -> dict[str, Any]:
        """What makes two supports the same, files by their content."""
        return {"photo": digest(self.photo), **self.mark.settings()}

    def check(self) -> None:
        """Raises InputError where its files cannot be used, as far as that is known without a model."""
        photo = load_photo(self.photo)
        if not isinstance(self.mark, (InBox, AtPoints)):
            self.mark.mask(photo, None)

    def load(self, model: "DSVLFSModel | None") -> tuple[Image.Image, np.ndarray]:
        """The photo and its mask.

        Args:
            model: for a box or points; a mask needs none.

        Raises:
            InputError: a file cannot be used.
        """
        photo = load_photo(self.photo)
        return photo, self.mark.mask(photo, model)


def digest(file: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _needed(model: "DSVLFSModel | None") -> "DSVLFSModel":
    if model is None:
        raise ValueError("A box or points become a mask by a model.")
    return model
