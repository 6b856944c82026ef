"""What a labelled photo is: whose pixels are whose, the objects, and how far each can be believed."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Figures:
    """What to judge a mask by.

    Args:
        area_percent: its share of the photo.
        score: mean probability over it, in [0, 1]; 0 where it is empty.
        expected_iou, presence: of `dsvlfs.inference.results.Segmentation`; None where the model has no calibration.
        is_emptied: whether it was left empty for its presence.
    """

    area_percent: float
    score: float
    expected_iou: float | None = None
    presence: float | None = None
    is_emptied: bool = False


@dataclass(frozen=True)
class ObjectFigures:
    """One object of a class.

    Args:
        class_number: from 1 on, of the classes.
        box: (left, top, width, height) in pixels.
        area: in pixels.
        score: mean probability over it, less where it is small, in [0, 1]: what to rank objects by.
        expected_iou: of its mask; None where the model has no calibration.
    """

    class_number: int
    box: tuple[int, int, int, int]
    area: int
    score: float
    expected_iou: float | None = None


@dataclass(frozen=True)
class PhotoLabels:
    """A labelled photo.

    Args:
        photo: RGB, upright.
        class_names: in the order of their numbers, from 1 on.
        class_map: (height, width), the number of the class that a pixel belongs to; 0 where it belongs to none.
        figures: of each class.
        objects: of all classes, where they were asked for; None where not.
        object_map: uint16 (height, width), the place in `objects`, from 1 on; 0 outside them. Comes with `objects`.
    """

    photo: Image.Image
    class_names: tuple[str, ...]
    class_map: np.ndarray
    figures: tuple[Figures, ...]
    objects: tuple[ObjectFigures, ...] | None = None
    object_map: np.ndarray | None = field(default=None, repr=False)

    def mask(self, class_name: str) -> np.ndarray:
        """The mask of a class, bool (height, width).

        Raises:
            KeyError: there is no such class.
        """
        if class_name not in self.class_names:
            raise KeyError(class_name)
        return self.class_map == self.class_names.index(class_name) + 1

    @property
    def overall(self) -> Figures:
        """Of the whole photo, see `overall`."""
        return overall(self.figures)


def overall(figures: Sequence[Figures]) -> Figures:
    """One set of figures of several classes': the area and the mean score of all masks, the least IoU to expect of
    those that are not empty, the largest presence; emptied where every class was."""
    found = [entry for entry in figures if entry.area_percent > 0]
    area = sum(entry.area_percent for entry in found)
    expected = [entry.expected_iou for entry in found or figures if entry.expected_iou is not None]
    presences = [entry.presence for entry in figures if entry.presence is not None]
    return Figures(
        area_percent=area,
        score=sum(entry.score * entry.area_percent for entry in found) / area if found else 0.0,
        expected_iou=min(expected, default=None),
        presence=max(presences, default=None),
        is_emptied=bool(figures) and all(entry.is_emptied for entry in figures),
    )
