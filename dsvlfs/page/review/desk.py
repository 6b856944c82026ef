"""What lies before the person who reviews: the labels of a folder, their photos, and the model where it is asked."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from cachetools import LRUCache
from PIL import Image

from ... import InputError
from ...inference.photos import DECODING_ERRORS
from ...inference.results import Prediction
from ...inference.selection import mask_at_points
from ...labelling.further import further_samples, further_supports
from ...labelling.label_files import decode, read_map
from ...labelling.labeller import Labeller
from ...labelling.photos_source import Photos
from ...labelling.record import Label, Record, Verdict
from ...labelling.request import Request, fitted
from ...labelling.review import worst_first
from ...labelling.verdicts import Verdicts
from ...processes import join_processes
from ..uploads import SUPPORT_SIDE, enlarge, shrink

if TYPE_CHECKING:
    from ... import DSVLFSModel

THUMBNAIL = 200
"""Pixels of a thumbnail's longer side."""
KEPT_THUMBNAILS = 120
KEPT_PHOTOS = 4
FILTERS: dict[str, Verdict | None] = {
    "To look at": None, "Accepted": "accepted", "Drawn": "drawn", "Rejected": "rejected"
}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """A label as a person sees it.

    Args:
        label: as it stood when it was shown.
        class_map: (height, width) of the photo, the numbers of the classes, from 1 on, and 0.
    """

    label: Label
    class_map: np.ndarray


class Desk:
    """The labels of a folder, to be looked over; several pages may share it.

    Args:
        record: of the folder, joined.
        photos: that were labelled.
        request: that they were labelled with.
    """

    def __init__(self, record: Record, photos: Photos, request: Request) -> None:
        self.class_names = tuple(entry.name for entry in request.classes)
        self._record, self._photos, self._request = record, photos, request
        self._verdicts = Verdicts(record, self.class_names)
        self._places = {name: index for index, name in enumerate(photos.names)}
        self._thumbnails: LRUCache[tuple[str, int], Image.Image] = LRUCache(KEPT_THUMBNAILS)
        self._shrunk: LRUCache[str, Image.Image] = LRUCache(KEPT_PHOTOS)
        self._predictions: LRUCache[tuple[str, str, str], Prediction] = LRUCache(1)
        self._model: DSVLFSModel | None = None
        self._labeller: tuple[str, Labeller] | None = None
        self._lock = threading.RLock()

    # The labels -------------------------------------------------------------------------------------------------

    def labels(self) -> list[Label]:
        """Those of photos that are there, as they stand now."""
        with self._lock:
            self._record.refresh()
            return [label for name, label in self._record.labels.items() if name in self._places]

    def order(self, which: str) -> list[str]:
        """The names of the photos whose labels have a verdict (of `FILTERS`), the worst first."""
        return [label.photo for label in worst_first([x for x in self.labels() if x.verdict == FILTERS[which]])]

    def label(self, photo: str) -> Label | None:
        """A photo's label as it stands; None where it is being made again."""
        return self._record.labels.get(photo)

    def look(self, photo: str) -> Look:
        """A label with its map. Raises InputError where there is none, or its mask cannot be read."""
        label = self.label(photo)
        if label is None:
            raise InputError(f"{photo} has no label just now; it is being made.")
        return Look(label, read_map(self._record.folder / label.mask, len(self.class_names)))

    def say(self, look: Look, verdict: Verdict | None, *, is_support: bool = False) -> Look:
        """As `Verdicts.say`."""
        with self._lock:
            label = self._verdicts.say(look.label, verdict, is_support=is_support)
        return self.look(label.photo) if label.mask_stamp != look.label.mask_stamp else replace(look, label=label)

    def draw(self, look: Look, class_map: np.ndarray) -> Look:
        """As `Verdicts.draw`; the same look where the map is the same."""
        if np.array_equal(look.class_map, class_map):
            return look
        photo = self._photo(look.label.photo)
        with self._lock:
            return Look(self._verdicts.draw(look.label, class_map, photo), class_map)

    # Pictures ---------------------------------------------------------------------------------------------------

    def picture(self, photo: str) -> Image.Image:
        """A photo as it is worked on here, RGB."""
        with self._lock:
            if photo not in self._shrunk:
                whole = self._photo(photo)
                self._shrunk[photo] = whole.resize(_within(*whole.size), reducing_gap=2.0)
            return self._shrunk[photo]

    @cached_property
    def canvas(self) -> tuple[int, int]:
        """(width, height) that each photo fits into as it is worked on here."""
        sizes = [_within(label.width, label.height) for label in self.labels()]
        return max(width for width, _ in sizes), max(height for _, height in sizes)

    def thumbnails(self, photos: Sequence[str]) -> list[Image.Image]:
        """Small overlays, made when they are first asked for."""
        return [self._thumbnail(photo) for photo in photos]

    def _thumbnail(self, photo: str) -> Image.Image:
        label = self.label(photo)
        key = photo, label.number if label else -1
        with self._lock:
            if key not in self._thumbnails:
                self._thumbnails[key] = self._small_overlay(label)
            return self._thumbnails[key]

    def _small_overlay(self, label: Label | None) -> Image.Image:
        empty = Image.new("RGB", (THUMBNAIL, THUMBNAIL * 3 // 4), "#888")
        if label is None:
            return empty
        try:
            with Image.open(self._record.folder / label.overlay) as file:
                file.draft("RGB", (THUMBNAIL, THUMBNAIL))
                return shrink(file.convert("RGB"), THUMBNAIL)
        except DECODING_ERRORS:  # gone or damaged; the next run draws it again
            return empty

    def _photo(self, photo: str) -> Image.Image:
        return decode(self._photos.read(self._places[photo]), photo)

    # The model --------------------------------------------------------------------------------------------------

    def mask_at(self, photo: str, x: float, y: float, size: tuple[int, int]) -> np.ndarray:
        """The object at a point, bool of the photo's own size.

        Args:
            photo: its name.
            x, y: in pixels of `picture`.
            size: (width, height) of the photo.

        Raises:
            BaseNotAvailableError: a base cannot be had.
        """
        with self._lock:
            return enlarge(mask_at_points(self._loaded(), self.picture(photo), [(x, y)], []), size)

    def mask_from(self, photo: str, class_name: str, threshold: float) -> np.ndarray:
        """A class's mask at another threshold, bool of the photo's own size, whatever its presence."""
        with self._lock:
            further = further_supports(self._record.labels.values())
            key = photo, class_name, further.made_with
            if key not in self._predictions:
                labeller = self._fitted(further.made_with)
                self._predictions[key] = labeller.ask(self._photo(photo), class_name)
            return self._predictions[key].segmentation(threshold, min_presence=0).mask

    def _fitted(self, made_with: str) -> Labeller:
        """The labeller of a run that would begin now."""
        if self._labeller is None or self._labeller[0] != made_with:
            further = further_supports(self._record.labels.values())
            samples = further_samples(self._photos, self._record.folder, further, self._request)
            labeller = fitted(self._request, join_processes().device, samples, self._loaded())
            self._labeller = made_with, labeller
        return self._labeller[1]

    def _loaded(self) -> DSVLFSModel:
        if self._model is None:
            from ... import DSVLFSModel

            self._model = DSVLFSModel.from_pretrained(self._request.model)
            self._model.to(join_processes().device)
        return self._model


def _within(width: int, height: int) -> tuple[int, int]:
    """A photo's size as it is worked on here."""
    scale = min(1.0, SUPPORT_SIDE / max(width, height))
    return max(1, round(scale * width)), max(1, round(scale * height))
