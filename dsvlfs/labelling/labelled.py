"""Photos as they are labelled on the disk, for whatever reads them one by one: formats, and the sheet to review."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .labels import Figures, ObjectFigures, PhotoLabels


@dataclass(frozen=True)
class Region:
    """What becomes one annotation: an object, or where objects were not asked for all of a class in a photo.

    Args:
        class_number: from 1 on.
        mask: bool (height, width) of the photo, not empty.
        score: mean probability over it, in [0, 1].
        expected_iou, presence: None where the model has no calibration; the presence is the class's.
    """

    class_number: int
    mask: np.ndarray
    score: float
    expected_iou: float | None
    presence: float | None


@dataclass(frozen=True)
class LabelledPhoto:
    """A photo and its label.

    Args:
        file_name: of the photo, as text.
        mask: (height, width), the numbers of the classes, from 1 on, and 0; or bool, of a single class.
        score: of a single class's mask that has no figures.
        figures: of each class.
        objects, object_map: of `PhotoLabels`.
        stem: path, without a suffix, that results of this photo are named by; None where it is the photo's own.
        read: gives the photo's encoded file.
        overlay: gives a picture of the photo with its masks, encoded.
        path: of the photo, where it is a file of its own.
    """

    file_name: str
    mask: np.ndarray
    score: float = 0.0
    figures: Sequence[Figures] = ()
    objects: Sequence[ObjectFigures] | None = None
    object_map: np.ndarray | None = None
    stem: str | None = None
    read: Callable[[], bytes] | None = field(default=None, repr=False)
    overlay: Callable[[], bytes] | None = field(default=None, repr=False)
    path: Path | None = None

    @classmethod
    def of(cls, file_name: str, labels: PhotoLabels) -> "LabelledPhoto":
        """What a labeller says of a photo, without a file."""
        return cls(
            file_name,
            labels.class_map,
            figures=labels.figures,
            objects=labels.objects,
            object_map=labels.object_map,
        )

    def regions(self) -> Iterator[Region]:
        """Its annotations, one mask in memory at a time."""
        if self.objects is not None:
            for place, entry in enumerate(self.objects, 1):
                presence = self.figures[entry.class_number - 1].presence if self.figures else None
                yield Region(entry.class_number, self.object_map == place, entry.score, entry.expected_iou, presence)
            return
        for number in np.unique(self.mask):
            if number:
                mask = self.mask == number
                known = self.figures[int(number) - 1] if self.figures else Figures(100 * float(mask.mean()), self.score)
                yield Region(int(number), mask, known.score, known.expected_iou, known.presence)

    def __post_init__(self) -> None:
        if self.stem is None:
            object.__setattr__(self, "stem", self.file_name.rpartition(".")[0] or self.file_name)


@dataclass(frozen=True)
class LabelledPhotos:
    """All of them; each time they are gone through they are read anew.

    Args:
        class_names: in the order of their numbers, from 1 on.
        photos: makes a new pass over the photos, in their order.
        count: how many they are.
    """

    class_names: Sequence[str]
    photos: Callable[[], Iterator[LabelledPhoto]]
    count: int

    def __iter__(self) -> Iterator[LabelledPhoto]:
        return self.photos()

    def __len__(self) -> int:
        return self.count
