"""Labels photos with any number of classes at once: each photo is encoded once, and asked for every class."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ..errors import InputError
from ..inference.checks import Mode
from ..inference.encoded import Query, Support
from ..inference.kept_supports import encoding_once
from ..inference.photos import Photo, load_photo
from ..inference.results import Prediction, Segmentation
from ..parts.aggregation import Aggregation
from .closer import CloserPrediction, views_of
from .labels import PhotoLabels
from .settling import AnyPrediction, Cut, figures_of, objects_in, settle

MOST_CLASSES = 2**16 - 1  # of a map's 16 bits
GLANCE = 448
"""Pixels of the longer side at which it is seen whether a class is in a photo at all."""


class Model(Protocol):
    """What is asked of a `DSVLFSModel`."""

    def encode_support(self, examples: Sequence[tuple[Photo, Photo]]) -> Support: ...

    def encode_query(self, photos: Photo) -> Query: ...

    def predict(
        self, image: Photo | Query, class_name: str, *arguments: Any, **options: Any
    ) -> dict[Mode, Prediction]: ...

    def segment(self, images: Photo | Query, class_name: str, *arguments: Any, **options: Any) -> Segmentation: ...


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
        instances: tell the objects of a class apart (`dsvlfs.labelling.instances`). For that a photo in which there is
            any class is looked at closer, in four more views, each encoded once for all classes.
        alike: the classes look alike and a photo seldom shows several, as cows and sheep: a photo is left to the class
            whose presence is largest, and to those nearly as present.
        keeps_supports: encode each sample once for all processes (`dsvlfs.inference.kept_supports`).
    """

    def __init__(
        self,
        model: Model,
        *,
        mode: Mode | None = None,
        threshold: float = 0.5,
        min_presence: float | None = None,
        aggregation: Aggregation | None = None,
        instances: bool = False,
        alike: bool = False,
        keeps_supports: bool = False,
    ) -> None:
        self._model = model
        self._encode_support = encoding_once(model) if keeps_supports else model.encode_support
        self._instances = instances
        self._alike = alike
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
            (entry, self._encode_support(examples[name]) if examples[name] and self._mode != "semantic" else None)
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
        if len(self._classes) == 1 and not self._instances:
            (found,) = (self._model.segment(image, name, **options) for name, options in self._requests())
            class_map[found.mask] = 1
            return PhotoLabels(image, self.class_names, class_map, (figures_of(found, found.mask),))
        predictions = self._ask(image, range(len(self._classes)))
        if self._instances:
            predictions = self._look_closer(image, predictions)
        cuts = [
            Cut(threshold=options["threshold"], min_presence=options["min_presence"]) for _, options in self._requests()
        ]
        asked = list(zip(predictions, cuts))
        figures = settle(asked, class_map, alike=self._alike)
        if not self._instances:
            return PhotoLabels(image, self.class_names, class_map, figures)
        objects, object_map = objects_in(asked, figures, class_map)
        class_map[object_map == 0] = 0
        shares = 100 * np.bincount(class_map.ravel(), minlength=len(cuts) + 1)[1:] / class_map.size
        figures = tuple(replace(entry, area_percent=float(share)) for entry, share in zip(figures, shares))
        return PhotoLabels(image, self.class_names, class_map, figures, objects, object_map)

    def ask(self, photo: Photo, class_name: str) -> Prediction:
        """What the model says of one class in a photo, without the others: a mask at any threshold.

        Raises:
            InputError: the photo cannot be used, or no such class was fitted.
        """
        if class_name not in self.class_names:
            raise InputError(f"The labeller knows no class '{class_name}'; give it samples with fit().")
        return self._ask(load_photo(photo), [self.class_names.index(class_name)])[0]

    def _ask(self, image: Image.Image, places: Iterable[int]) -> list[Prediction]:
        """What the model says of some classes in a photo, which is encoded once."""
        query, requests = self._model.encode_query(image), list(self._requests())
        predictions = []
        for place in places:
            name, options = requests[place]
            mode = options["mode"]
            kept = {key: options[key] for key in ("support", "description", "aggregation")}
            predictions.append(self._model.predict(query, name, modes=[mode], **kept)[mode])
        return predictions

    def _look_closer(self, image: Image.Image, predictions: Sequence[Prediction]) -> list[AnyPrediction]:
        """The predictions, those of classes that are there at all with closer looks."""
        scale = min(1.0, GLANCE / max(image.size))
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        there = [
            place
            for place, (prediction, (_, options)) in enumerate(zip(predictions, self._requests()))
            if not prediction.segmentation(0.5, size, min_presence=options["min_presence"]).is_emptied
        ]
        looked: list[AnyPrediction] = list(predictions)
        if there:
            views = views_of(*image.size)
            closer = list(zip(*(self._ask(image.crop(view), there) for view in views)))
            for place, found in zip(there, closer):
                looked[place] = CloserPrediction(predictions[place], views, found)
        return looked

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
