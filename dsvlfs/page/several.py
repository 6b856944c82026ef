"""Several classes in one photo: asked one after another, and each pixel given to the class that is surest of it."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import InputError
from ..inference.pictures import TINT, heat_map, overlay
from ..labelling.colours import class_map_image
from ..labelling.formats.coco import coco_document
from ..labelling.labelled import LabelledPhoto
from ..labelling.labels import Figures
from ..labelling.settling import settle
from . import engine
from .engine import Report, Result, Turn
from .supports import SupportPair
from .uploads import decode_preview, shorten

MAX_CLASSES = 5
MAX_ALL_SUPPORTS = 10  # of all classes together: they are what a session keeps

COLOURS = (TINT, (230, 140, 0), (0, 158, 115), (204, 90, 167), (240, 228, 66))
"""Of the classes, in their order; they can be told apart by people who see colours otherwise, too."""


@dataclass(frozen=True)
class AskedClass:
    """What to look for.

    Args:
        name, description: as `engine.predict` takes them.
        supports: photos with masks; a class that has none is looked for by its name.
    """

    name: str
    description: str
    supports: Sequence[SupportPair]


@dataclass(frozen=True)
class SharedResult:
    """What is kept of a query photo in which several classes were looked for.

    Args:
        parts: of each class.
    """

    parts: tuple[Result, ...]

    @property
    def name(self) -> str:
        """Of the photo's file."""
        return self.parts[0].name

    @property
    def class_names(self) -> list[str]:
        """In the order of their numbers, from 1 on."""
        return [part.class_name for part in self.parts]

    def settled(self, threshold: float, size: tuple[int, int] | None = None) -> tuple[np.ndarray, tuple[Figures, ...]]:
        """Whose pixels are whose.

        Args:
            threshold: of the probability, for all classes.
            size: (width, height); None takes that which the photo was worked on in.

        Returns:
            The numbers of the classes, uint8 (height, width), and the figures of each.
        """
        predictions = [part.asked if size is None else replace(part.asked, size=size) for part in self.parts]
        class_map = np.zeros(predictions[0].size[::-1], np.uint8)
        cut = {"threshold": threshold, "min_presence": None}
        return class_map, settle([(prediction, cut) for prediction in predictions], class_map)


AnyResult = Result | SharedResult


def predict(
    classes: Sequence[AskedClass],
    query_files: Sequence[str],
    mode: str,
    report: Report = lambda share, text: None,
    turn: Turn = nullcontext,
) -> list[AnyResult]:
    """Segments classes in query photos; a photo is encoded once for all of them.

    Args:
        classes: of one, this is `engine.predict`.
        mode: "both", "visual" or "semantic".
        turn: for each class in each photo.

    Raises:
        InputError: something is missing or cannot be used.
    """
    if len(classes) == 1:
        (only,) = classes
        supports = [] if mode == "semantic" else only.supports
        return list(engine.predict(supports, only.name, only.description, query_files, mode, report, turn))
    _check(classes, mode)
    engine.check_queries(query_files, turn)
    steps, results = len(query_files) * len(classes), []
    for number, file in enumerate(query_files):
        parts: list[Result] = []
        for place, entry in enumerate(classes):
            report((number * len(classes) + place) / steps, f"Looking for {shorten(entry.name)}")
            own = "semantic" if not entry.supports else mode
            supports = [] if own == "semantic" else entry.supports
            parts += engine.predict(supports, entry.name, entry.description, [file], own, turn=turn, is_whole=False)
        # One preview of the photo is enough.
        results.append(SharedResult(tuple(replace(part, preview=parts[0].preview) for part in parts)))
    return results


def _check(classes: Sequence[AskedClass], mode: str) -> None:
    """Raises InputError where classes cannot be looked for together."""
    if len(classes) > MAX_CLASSES:
        raise InputError(f"There are {len(classes)} classes; give at most {MAX_CLASSES}.")
    names = set()
    for number, entry in enumerate(classes, 1):
        name = " ".join(entry.name.split()).casefold()
        if not name:
            raise InputError(f"Class {number} has no name; name it, or remove it.")
        if name in names:
            raise InputError(f"Two classes are named “{shorten(entry.name)}”; name one otherwise, or remove it.")
        names.add(name)
        engine.check_words(entry.name, entry.description)
        if mode == "visual" and not entry.supports:
            raise InputError(f"“{shorten(entry.name)}” has no support photo; add one, or choose the prompt “Both”.")


# Drawing ---------------------------------------------------------------------------------------------------------


def draw(result: AnyResult, view: str, threshold: float, opacity: float) -> tuple[Image.Image, str, str]:
    """A picture for the page, what was found in words, and a legend, which is empty where there is one class.

    Args:
        view: "mask", "probability" or "votes"; the latter two of the class that has most of it at each pixel.
    """
    if isinstance(result, Result):
        return *engine.draw(result, view, threshold, opacity), ""
    photo = decode_preview(result.parts[0].preview)
    class_map, figures = result.settled(threshold, photo.size)
    if view == "mask":
        picture = _tinted(photo, class_map, opacity)
    else:
        values = np.zeros(class_map.shape, np.float32)
        for part in result.parts:
            found = part.asked.segmentation(threshold, photo.size)
            own = found.probability if view == "probability" else found.votes / len(part.asked.logits)
            np.maximum(values, own, out=values)
        picture = heat_map(photo, values, opacity)
    there = [name for name, entry in zip(result.class_names, figures) if entry.area_percent]
    words = f"{len(there)} of {len(figures)} classes found, on {(class_map > 0).mean():.1%} of the photo"
    return picture, words, _legend(result.class_names, figures)


def thumbnail(result: AnyResult, threshold: float) -> Image.Image:
    """A small overlay."""
    if isinstance(result, Result):
        return engine.thumbnail(result, threshold)
    photo = decode_preview(result.parts[0].preview)
    photo.thumbnail((240, 240))
    return _tinted(photo, result.settled(threshold, photo.size)[0], 0.5)


def draw_prompts(result: AnyResult) -> tuple[Image.Image | None, Image.Image | None]:
    """As `engine.draw_prompts`; of several classes there are none."""
    return engine.draw_prompts(result) if isinstance(result, Result) else (None, None)


def _tinted(photo: Image.Image, class_map: np.ndarray, opacity: float) -> Image.Image:
    for number, colour in enumerate(COLOURS, 1):
        if (mask := class_map == number).any():
            photo = overlay(photo, mask, opacity, colour)
    return photo


def _legend(names: Sequence[str], figures: Sequence[Figures]) -> str:
    """Markup: a colour, a name and figures a class."""
    rows = []
    for name, colour, entry in zip(names, COLOURS, figures):
        if entry.area_percent:
            said = f"{entry.area_percent:.1f} %"
            if entry.expected_iou is not None:
                said += f" · expected IoU {entry.expected_iou:.0%}"
        else:
            said = "not found" if entry.presence is None else f"not found (presence {entry.presence:.0%})"
        swatch = f'<span class="swatch" style="background: rgb{colour}" aria-hidden="true"></span>'
        rows.append(f"<li>{swatch}<b>{html.escape(shorten(name))}</b> {said}</li>")
    return f'<ul class="legend" aria-label="Classes">{"".join(rows)}</ul>'


# Files to take away ----------------------------------------------------------------------------------------------


def write_masks(results: Sequence[AnyResult], threshold: float, folder: Path, turn: Turn = nullcontext) -> list[Path]:
    """A PNG for each result, in its photo's own size; of several classes with their numbers, of which `classes.json`
    says the names."""
    one = [result for result in results if isinstance(result, Result)]
    if one:
        return engine.write_masks(one, threshold, folder, turn)
    files, shared = [], _shared(results)
    for result, name in zip(shared, engine.distinct_names(shared)):
        with turn():
            class_map, _ = _enlarged(result, threshold)
            files.append(folder / f"{Path(name).stem}_classes.png")
            class_map_image(class_map, len(result.parts)).save(files[-1])
    files.append(folder / "classes.json")
    files[-1].write_text(json.dumps(dict(enumerate(shared[0].class_names, 1)), ensure_ascii=False), encoding="utf-8")
    return files


def write_coco(results: Sequence[AnyResult], threshold: float, file: Path, turn: Turn = nullcontext) -> Path:
    """All masks in one COCO JSON, a category a class."""
    one = [result for result in results if isinstance(result, Result)]
    if one:
        return engine.write_coco(one, threshold, file, turn)
    shared = _shared(results)

    def photos() -> Iterator[LabelledPhoto]:
        for result, name in zip(shared, engine.distinct_names(shared)):
            with turn():
                class_map, figures = _enlarged(result, threshold)
                yield LabelledPhoto(name, class_map, figures=figures)

    document: dict[str, Any] = coco_document(photos(), shared[0].class_names)
    file.write_text(json.dumps(document), encoding="utf-8")
    return file


def _shared(results: Sequence[AnyResult]) -> list[SharedResult]:
    return [result for result in results if isinstance(result, SharedResult)]


def _enlarged(result: SharedResult, threshold: float) -> tuple[np.ndarray, tuple[Figures, ...]]:
    """`SharedResult.settled`, the map in the size of the photo's file."""
    class_map, figures = result.settled(threshold)
    size = result.parts[0].size
    if class_map.shape != size[::-1]:
        class_map = np.asarray(Image.fromarray(class_map).resize(size, Image.Resampling.NEAREST))
    return class_map, figures
