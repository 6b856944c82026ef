"""Labels photos with any number of classes at once: each photo is encoded once, and asked for every class."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ..errors import InputError
from ..inference.calibration import expected_iou
from ..inference.checks import Mode
from ..inference.encoded import Query, Support
from ..inference.photos import Photo, load_photo
from ..inference.results import Prediction, Segmentation
from ..parts.aggregation import Aggregation
from .labels import Figures, PhotoLabels

MOST_CLASSES = 2**16 - 1  # of a map's 16 bits


class Model(Protocol):
    """What is asked of a `DSVLFSModel`."""

    def encode_support(self, examples: Sequence[tuple[Photo, Photo]]) -> Support: ...

    def encode_query(self, photos: Photo) -> Query: ...

    def predict(self, image: Photo | Query, class_name: str, **options: Any) -> dict[Mode, Prediction]: ...

    def segment(self, images: Photo | Query, class_name: str, **options: Any) -> Segmentation: ...


@dataclass(frozen=True)
class Sample:
    """A support photo of one class; a photo with several classes is several samples.

    Args:
        photo: PIL image, array or path.
        mask: of the class in it, as `dsvlfs.inference.photos.load_mask` reads it.
        class_name: what it shows.
    """

    photo: Photo
    mask: Photo
    class_name: str


@dataclass(frozen=True)
class LabelClass:
    """What is to be known of a class beside its samples.

    Args:
        name: such as 'red fox'.
        description: what it looks like.
        threshold: probability from which on a pixel is foreground; None takes the labeller's.
        min_presence: where the presence is lower, its mask is left empty; None takes the labeller's.
    """

    name: str
    description: str | None = None
    threshold: float | None = None
    min_presence: float | None = None


class Labeller:
    """Labels photos with classes that it is shown.

        labeller = Labeller(model).fit([Sample("fox.jpg", "fox_mask.png", "red fox"), ...])
        for labels in labeller.predict(["a.jpg", "b.jpg"]):
            labels.mask("red fox")

    Args:
        model: that segments.
        mode: which prompts the mask decoder is given; None takes both for a class with samples, and the name alone for
            one without.
        threshold, min_presence, aggregation: as `DSVLFSModel.segment` takes them.
    """

    def __init__(
        self,
        model: Model,
        *,
        mode: Mode | None = None,
        threshold: float = 0.5,
        min_presence: float | None = None,
        aggregation: Aggregation | None = None,
    ) -> None:
        self._model = model
        self._mode = mode
        self._threshold = threshold
        self._min_presence = min_presence
        self._aggregation = aggregation
        self._classes: list[tuple[LabelClass, Support | None]] = []

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of their numbers, from 1 on."""
        return tuple(known.name for known, _ in self._classes)

    def fit(self, samples: Iterable[Sample], classes: Iterable[LabelClass] = ()) -> "Labeller":
        """Encodes the samples, each class's together. What was fitted before is forgotten.

        Args:
            samples: of any classes in any order.
            classes: those of which more is known than their samples, or that have none. They come first in the
                numbering, then the samples' others as they appear.

        Returns:
            The labeller itself.

        Raises:
            InputError: there is no class, one is given twice, or a photo, mask or name cannot be used.
        """
        known: dict[str, LabelClass] = {}
        for entry in classes:
            if entry.name in known:
                raise InputError(f"The class '{entry.name}' is given twice; give each once, with all its samples.")
            known[entry.name] = entry
        examples: dict[str, list[tuple[Photo, Photo]]] = {name: [] for name in known}
        for sample in samples:
            known.setdefault(sample.class_name, LabelClass(sample.class_name))
            examples.setdefault(sample.class_name, []).append((sample.photo, sample.mask))
        if not known:
            raise InputError("There is no class to label; give at least one sample, or a class's name.")
        if len(known) > MOST_CLASSES:
            raise InputError(f"There are {len(known):,} classes; give at most {MOST_CLASSES:,}.")
        if self._mode == "visual" and (bare := [name for name in known if not examples[name]]):
            raise InputError(f"Mode visual needs a sample of the class '{bare[0]}'; give one, or another mode.")
        self._classes = [
            (entry, self._model.encode_support(examples[name]) if examples[name] and self._mode != "semantic" else None)
            for name, entry in known.items()
        ]
        return self

    def predict(self, photos: Photo | Iterable[Photo]) -> Iterator[PhotoLabels]:
        """Labels photos one by one, as they are asked for: one is in memory at a time.

        Args:
            photos: PIL images, arrays or paths; one, or any number of them.

        Yields:
            What is on each.

        Raises:
            InputError: a photo cannot be used, or nothing was fitted.
        """
        if isinstance(photos, (str, Image.Image, np.ndarray)) or hasattr(photos, "__fspath__"):
            photos = [photos]
        for photo in photos:
            yield self.label(photo)

    def label(self, photo: Photo) -> PhotoLabels:
        """Labels one photo.

        A pixel that several classes claim goes to the one with the highest calibrated probability; a class whose
        presence is too low claims none.

        Raises:
            InputError: the photo cannot be used, or nothing was fitted.
        """
        if not self._classes:
            raise InputError("The labeller knows no class; give it samples with fit().")
        image = load_photo(photo)
        class_map = np.zeros((image.height, image.width), np.uint8 if len(self._classes) < 256 else np.uint16)
        if len(self._classes) == 1:
            (found,) = (self._model.segment(image, name, **options) for name, options in self._requests())
            class_map[found.mask] = 1
            return PhotoLabels(image, self.class_names, class_map, (_figures(found, found.mask),))
        query = self._model.encode_query(image)
        predictions = []
        for name, options in self._requests():
            cut = {"threshold": options.pop("threshold"), "min_presence": options.pop("min_presence")}
            mode = options.pop("mode")
            predictions.append((self._model.predict(query, name, modes=[mode], **options)[mode], cut))
        figures = _settle(predictions, class_map)
        return PhotoLabels(image, self.class_names, class_map, figures)

    def _requests(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each class's name, and what the model is asked it with."""
        for known, support in self._classes:
            yield (
                known.name,
                {
                    "support": support,
                    "description": known.description,
                    "mode": self._mode or ("semantic" if support is None else "both"),
                    "threshold": self._threshold if known.threshold is None else known.threshold,
                    "min_presence": self._min_presence if known.min_presence is None else known.min_presence,
                    "aggregation": self._aggregation,
                },
            )


def _settle(predictions: Sequence[tuple[Prediction, dict[str, Any]]], class_map: np.ndarray) -> tuple[Figures, ...]:
    """Gives each pixel to the class that is surest of it.

    Args:
        predictions: of each class, and the threshold and least presence of its mask.
        class_map: (height, width) of nought, to be filled.

    Returns:
        The figures of each class's mask, as it is in the map.
    """
    surest = np.zeros(class_map.shape, dtype=np.float32)
    claimed, figures = [], []
    for number, (prediction, cut) in enumerate(predictions, 1):  # one by one: a large photo's maps take much memory
        found = prediction.segmentation(**cut)
        certain = _certain(prediction, found)
        wins = found.mask & (certain > surest)
        class_map[wins] = number
        surest[wins] = certain[wins]
        claimed.append(np.count_nonzero(found.mask))
        figures.append(_figures(found, found.mask))
    kept = np.bincount(class_map.ravel(), minlength=len(predictions) + 1)[1:]
    for place, (prediction, cut) in enumerate(predictions):
        if kept[place] != claimed[place]:
            found, mask = prediction.segmentation(**cut), class_map == place + 1
            expected = None if prediction.calibration is None else expected_iou(mask, _certain(prediction, found))
            figures[place] = _figures(found, mask, expected)
    return tuple(figures)


def _certain(prediction: Prediction, found: Segmentation) -> np.ndarray:
    """The calibrated probability, or the model's own where it has no calibration."""
    return found.probability if prediction.calibration is None else prediction.calibrated()


def _figures(found: Segmentation, mask: np.ndarray, expected: float | None = None) -> Figures:
    """Of a mask that is the result's, or what other classes left of it; then with its own expected IoU."""
    # A model that has no calibration need not have these.
    own = {name: getattr(found, name, None) for name in ("expected_iou", "presence", "is_emptied")}
    return Figures(
        area_percent=100 * float(mask.mean()),
        score=float(found.probability[mask].mean()) if mask.any() else 0.0,
        expected_iou=own["expected_iou"] if expected is None else expected,
        presence=own["presence"],
        is_emptied=bool(own["is_emptied"]),
    )
