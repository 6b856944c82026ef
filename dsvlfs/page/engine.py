"""The model as the page uses it: asked once, and what it answered drawn at any threshold.

What is kept between requests is keyed by the content that was sent and bounded, so that nobody meets another's photo.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from cachetools import LRUCache, cached
from PIL import Image

import dsvlfs

from .. import InputError
from ..descriptions.bank import bank_description
from ..descriptions.writers import CheckpointWriter
from ..inference.pictures import heat_map, overlay
from ..inference.results import Prediction, Segmentation
from ..inference.selection import Box, Point, mask_at_points, mask_in_box
from ..labelling.formats.coco import coco_document
from ..labelling.labelled import LabelledPhoto
from .supports import SupportPair
from .uploads import (
    MAX_QUERIES,
    MAX_SUPPORTS,
    PREVIEW_SIDE,
    decode_preview,
    encode_preview,
    enlarge,
    read_photo,
    read_size,
    titles,
)

if TYPE_CHECKING:
    from .. import DSVLFSModel, Query, Support


class Named(Protocol):
    """What has a photo's name."""

    @property
    def name(self) -> str: ...


Report = Callable[[float, str], None]
Turn = Callable[[], AbstractContextManager[None]]
"""A turn for a piece of work, of which one is done at a time (`Visit.turn`)."""

MAX_POINTS = 100  # on an object, and as many beside it

SUPPORTS: LRUCache[str, Support] = LRUCache(64)
QUERIES: LRUCache[str, Query] = LRUCache(MAX_QUERIES)  # some 5 MiB each
DESCRIPTIONS: LRUCache[str, str] = LRUCache(256)


@dataclass(frozen=True)
class Result:
    """What is kept of a query: nothing has to be asked of the model again.

    Args:
        name: of the photo's file.
        class_name: that was asked for.
        preview: of the photo, a JPEG.
        mode: that was asked for.
        predictions: by mode, `mode` among them; of the photo as it was worked on.
        size: (width, height) of the photo's file.
    """

    name: str
    class_name: str
    preview: bytes
    mode: str
    predictions: dict[str, Prediction]
    size: tuple[int, int]

    @property
    def asked(self) -> Prediction:
        """In the mode that was asked for."""
        return self.predictions[self.mode]

    def segmentation(self, threshold: float) -> Segmentation:
        """In the size that the photo was worked on in."""
        return self.asked.segmentation(threshold)

    def mask(self, threshold: float) -> np.ndarray:
        """For a file: bool, in the photo's own size."""
        return enlarge(self.segmentation(threshold).mask, self.size)


@cache
def load_model() -> DSVLFSModel:
    """The model; it keeps nothing of its users and serves them all."""
    return dsvlfs.DSVLFSModel.from_pretrained("dsvlfs-tiny")


def describe(class_name: str, turn: Turn = nullcontext) -> str:
    """What the class looks like: the bank's text, else what the language model says.

    Raises:
        InputError: the name cannot be used.
    """
    name = " ".join(class_name.split())
    if not name:
        raise InputError("Name the class first, such as “penguin”.")
    check_words(name)
    return bank_description(name) or _written(name, turn)


@cached(DESCRIPTIONS, key=lambda name, _: name, lock=Lock())
def _written(name: str, turn: Turn) -> str:
    with turn():
        return CheckpointWriter(load_model()).write(name)


def digest(*arrays: np.ndarray | Image.Image) -> str:
    """Of the content of images and masks."""
    total = hashlib.sha256()
    for array in map(np.asarray, arrays):
        total.update(f"{array.shape} {array.dtype} ".encode())
        total.update(np.ascontiguousarray(array))
    return total.hexdigest()


def encode_supports(pairs: Sequence[SupportPair], turn: Turn = nullcontext) -> Support:
    """Encodes each pair, or remembers it."""
    shots = []
    for pair in pairs:
        with turn():
            shots.append(_encode_shot(*pair))
    return type(shots[0]).join(shots)


@cached(SUPPORTS, key=digest, lock=Lock())
def _encode_shot(photo: Image.Image, mask: np.ndarray) -> Support:
    return load_model().encode_support([(photo, mask)])


@cached(QUERIES, key=digest, lock=Lock())
def _encode_query(photo: Image.Image) -> Query:
    return load_model().encode_query(photo)


class _InTurns:
    """The model, each of whose answers is a piece of work."""

    def __init__(self, turn: Turn) -> None:
        self._model, self._turn = load_model(), turn

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._model, name)
        if not callable(found):
            return found

        def ask(*given: Any, **options: Any) -> Any:
            with self._turn():
                return found(*given, **options)

        return ask


def mask_of_box(photo: Image.Image, box: Box, turn: Turn = nullcontext) -> np.ndarray:
    """The object that fills a box (left, top, right, bottom): bool (height, width)."""
    return mask_in_box(_InTurns(turn), photo, box)


def mask_of_points(
    photo: Image.Image, on: Sequence[Point], beside: Sequence[Point], turn: Turn = nullcontext
) -> np.ndarray:
    """The object that points are on and others are not: bool (height, width)."""
    return mask_at_points(_InTurns(turn), photo, on, beside)


def check_words(class_name: str, class_description: str = "") -> None:
    """Refuses what a prompt must not hold, before anything else is done.

    Raises:
        InputError: the name or the description is missing, too long, or no plain text.
    """
    if not class_name.strip():
        raise InputError("Name the class, such as “penguin”.")
    processor = getattr(load_model(), "processor", None)  # what stands in for a model may have none
    if processor is not None:
        processor.question([(class_name, class_description)])


def check_queries(query_files: Sequence[str], turn: Turn = nullcontext) -> Image.Image:
    """Reads all query photos, before the first takes its time; gives the last.

    Raises:
        InputError: there are none, or too many, or one cannot be used.
    """
    if not query_files:
        raise InputError("Add a query photo: the one to find the class in.")
    if len(query_files) > MAX_QUERIES:
        raise InputError(f"There are {len(query_files)} query photos; give at most {MAX_QUERIES} at a time.")
    for file, kind in zip(query_files, titles("query photo", query_files)):
        with turn():
            photo = read_photo(file, kind, PREVIEW_SIDE)
    return photo


def predict(
    supports: Sequence[SupportPair],
    class_name: str,
    class_description: str,
    query_files: Sequence[str],
    mode: str,
    report: Report = lambda share, text: None,
    turn: Turn = nullcontext,
    *,
    is_whole: bool = True,
) -> list[Result]:
    """Segments a class in query photos.

    Args:
        supports: photos with masks; none where `mode` is "semantic".
        report: told the share that is done, and what comes next.
        turn: for each photo.
        is_whole: where both prompts are asked for, ask for each alone too, to be drawn.

    Raises:
        InputError: something is missing or cannot be used.
    """
    check_words(class_name, class_description)
    if len(supports) > MAX_SUPPORTS:
        raise InputError(f"There are {len(supports)} support photos; give at most {MAX_SUPPORTS}.")
    if not supports and mode != "semantic":
        raise InputError("Add a support photo and mark the object, or choose the prompt “Name”.")
    names = [Path(file).name for file in query_files]
    kinds = titles("query photo", query_files)
    photo = check_queries(query_files, turn)
    steps = len(names) + 1
    report(0, "Reading the support")
    support = encode_supports(supports, turn) if mode != "semantic" else None
    modes = [mode] if support is None else ["both", "semantic", "visual"] if mode == "both" and is_whole else [mode]
    results = []
    for number, (file, name, kind) in enumerate(zip(query_files, names, kinds), 1):
        report(number / steps, f"Looking at the {kind}")
        with turn():
            if len(names) > 1:  # a dozen would be much to keep
                photo = read_photo(file, kind, PREVIEW_SIDE)
            encoded = _encode_query(photo)
            predictions = load_model().predict(
                encoded, class_name, support=support, description=class_description.strip() or None, modes=modes
            )
            size = read_size(file, kind)
            results.append(Result(name, class_name.strip(), encode_preview(photo), mode, predictions, size))
    return results


# Drawing a result ------------------------------------------------------------------------------------------------


def draw(result: Result, view: str, threshold: float, opacity: float) -> tuple[Image.Image, str]:
    """A picture for the page, and the area in words.

    Args:
        view: "mask", "probability" or "votes".
        threshold: of the probability.
        opacity: of what is drawn over the photo.
    """
    photo = decode_preview(result.preview)
    found = result.asked.segmentation(threshold, photo.size)
    shots = len(result.asked.logits)
    if view == "mask":
        picture = overlay(photo, found.mask, opacity)
    else:
        values = found.probability if view == "probability" else found.votes / shots
        picture = heat_map(photo, values, opacity)
    return picture, describe_area(found, shots)


def thumbnail(result: Result, threshold: float) -> Image.Image:
    """A small overlay."""
    photo = decode_preview(result.preview)
    photo.thumbnail((240, 240))
    return overlay(photo, result.asked.segmentation(threshold, photo.size).mask)


def report(result: Result, threshold: float) -> dict[str, object]:
    """The photo's name, and areas in percent: the mask's, and that of each number of votes."""
    found, shots = result.segmentation(threshold), len(result.asked.logits)
    by_votes = {str(votes): round(100 * float((found.votes == votes).mean()), 3) for votes in range(shots + 1)}
    return {"name": result.name, "area_percent": round(100 * float(found.mask.mean()), 3), "percent_by_votes": by_votes}


def draw_prompts(result: Result) -> tuple[Image.Image | None, Image.Image | None]:
    """What the name alone and the support alone make of the photo; None for one that was not used."""
    photo = decode_preview(result.preview)
    photo.thumbnail((480, 480))
    return tuple(
        heat_map(photo, prediction.segmentation(size=photo.size).probability)
        if (prediction := result.predictions.get(mode))
        else None
        for mode in ("semantic", "visual")
    )


def describe_area(found: Segmentation, shots: int) -> str:
    """The foreground's share of the photo, and of several shots the votes, in words; or why there is none."""
    if found.is_emptied:
        return f"The class does not seem to be in this photo (presence {found.presence:.0%}): the mask is left empty."
    text = "" if found.is_name_heard else "The name does not fit the example and was left out. "
    text += f"{found.mask.mean():.1%} of the photo" if found.mask.any() else "Nothing reaches the threshold; lower it."
    if found.expected_iou is not None:
        text += f" · expected IoU {found.expected_iou:.0%} · presence {found.presence:.0%}"
    if shots > 1:
        counts = ", ".join(f"{votes}: {(found.votes == votes).mean():.1%}" for votes in range(shots, 0, -1))
        text += f" · votes of {shots}: {counts}"
    return text


# Files to take away ----------------------------------------------------------------------------------------------


def write_mask(mask: np.ndarray, file: Path) -> Path:
    """A PNG, 0 and 255."""
    Image.fromarray(mask.astype(np.uint8) * 255).save(file)
    return file


def write_masks(results: Sequence[Result], threshold: float, folder: Path, turn: Turn = nullcontext) -> list[Path]:
    """A PNG for each result, in its photo's own size."""
    files = []
    for result, name in zip(results, distinct_names(results)):
        with turn():
            files.append(write_mask(result.mask(threshold), folder / f"{Path(name).stem}_mask.png"))
    return files


def write_overlays(results: Sequence[Result], threshold: float, folder: Path, turn: Turn = nullcontext) -> list[Path]:
    """A JPEG for each result, in the preview's size."""
    files = []
    for result, name in zip(results, distinct_names(results)):
        files.append(folder / f"{Path(name).stem}_overlay.jpg")
        with turn():
            draw(result, "mask", threshold, 0.5)[0].save(files[-1], quality=90)
    return files


def pack(files: Sequence[Path], archive: Path) -> Path:
    """One file as it is; several in a ZIP archive."""
    if len(files) == 1:
        return files[0]
    with zipfile.ZipFile(archive, "w") as packed:
        for file in files:
            packed.write(file, file.name)
    return archive


def write_coco(results: Sequence[Result], threshold: float, file: Path, turn: Turn = nullcontext) -> Path:
    """All masks in one COCO JSON."""

    def photos() -> Iterator[LabelledPhoto]:
        for result, name in zip(results, distinct_names(results)):
            with turn():
                found = result.segmentation(threshold)
                score = float(found.probability[found.mask].mean()) if found.mask.any() else 0.0
                yield LabelledPhoto(name, result.mask(threshold), score)

    file.write_text(json.dumps(coco_document(photos(), results[0].class_name)), encoding="utf-8")
    return file


def distinct_names(results: Sequence[Named]) -> list[str]:
    """The photos' names, numbered where two have the same stem."""
    names: list[str] = []
    for result in results:
        stem, suffix = Path(result.name).stem, Path(result.name).suffix
        taken = {Path(name).stem.casefold() for name in names}
        name, number = result.name, 2
        while Path(name).stem.casefold() in taken:
            name, number = f"{stem}-{number}{suffix}", number + 1
        names.append(name)
    return names
