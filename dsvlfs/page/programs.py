"""What programs call: files and numbers in, files and figures out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import InputError
from . import engine
from .supports import SupportPair
from .uploads import MAX_PIXELS, MAX_SUPPORTS, SUPPORT_SIDE, enlarge, read_mask, read_photo, read_size, shorten, titles
from .visits import MODEL_TURNS, written_files


def segment(
    class_name: str, queries: list[str] | None, support_photos: list[str] | None, support_masks: list[str] | None,
    description: str, prompts: str, threshold: float,
) -> Iterator[tuple[list[str], list[str], str, list[dict[str, Any]]]]:  # fmt: skip
    """Segments a class in photos.

    Args:
        class_name: the class, such as "red fox".
        queries: the photos to find it in, 12 at most.
        support_photos: photos that show it, 5 at most; none to ask by name alone.
        support_masks: their masks, in the same order; white, or whatever is not zero, is the object.
        description: what the class looks like; may be empty.
        prompts: "both", "semantic" (the name) or "visual" (the supports).
        threshold: probability from which on a pixel is foreground, or a support votes for it.

    Returns:
        Masks (PNG, 0 and 255, in the photos' own size), overlays, a COCO JSON of all masks, and for each photo its
        name, the mask's area in percent, and the area in percent by number of votes.
    """
    with written_files() as folder:
        if type(threshold) not in (int, float) or not 0 <= threshold <= 1:
            raise InputError(f"The threshold is {shorten(repr(threshold))}; give a number from 0 to 1.")
        if prompts not in ("both", "semantic", "visual"):
            raise InputError("Give the prompts as “both”, “semantic” or “visual”.")
        photo_files, mask_files = support_photos or [], support_masks or []
        if len(photo_files) != len(mask_files):
            raise InputError(
                f"There are {len(photo_files)} support photos and {len(mask_files)} masks; give a mask for each photo."
            )
        if len(photo_files) > MAX_SUPPORTS:
            raise InputError(f"There are {len(photo_files)} support photos; give at most {MAX_SUPPORTS}.")
        engine.check_words(class_name or "", description or "")
        with MODEL_TURNS.visit() as visit:
            supports = _read_supports(photo_files, mask_files, visit.turn) if prompts != "semantic" else []
            results = engine.predict(
                supports, class_name or "", description or "", queries or [], prompts, turn=visit.turn
            )
            masks = engine.write_masks(results, threshold, folder, visit.turn)
            overlays = engine.write_overlays(results, threshold, folder, visit.turn)
            coco = engine.write_coco(results, threshold, folder / "annotations.json", visit.turn)
            with visit.turn():
                report = [engine.report(result, threshold) for result in results]
        yield [str(file) for file in masks], [str(file) for file in overlays], str(coco), report


def _read_supports(photo_files: Sequence[str], mask_files: Sequence[str], turn: engine.Turn) -> list[SupportPair]:
    """Uploaded photos with their masks."""
    supports = []
    for photo_file, photo_kind, mask_file, mask_kind in zip(
        photo_files,
        titles("support photo", photo_files),
        mask_files,
        titles("mask", mask_files),
    ):
        with turn():
            photo = read_photo(photo_file, photo_kind, SUPPORT_SIDE)
            supports.append((photo, read_mask(mask_file, photo, mask_kind)))
    return supports


def mask(
    photo: str, box: list[float] | None, points_on: list[list[float]] | None, points_beside: list[list[float]] | None
) -> Iterator[str]:
    """Makes a mask of one object from a box, or from points.

    Args:
        photo: of the object.
        box: [left, top, right, bottom] in pixels; or null, to give points.
        points_on: [[x, y], ...] in pixels, on the object.
        points_beside: likewise, on what does not belong to it.

    Returns:
        The mask (PNG, 0 and 255), of the photo's size.
    """
    with written_files() as folder:
        if photo is None:
            raise InputError("Give the photo.")
        points = (points_on or [], points_beside or [])
        if box is not None and not _are_numbers(box, 4):
            raise InputError("Give the box as [left, top, right, bottom], in pixels, or null.")
        if not all(isinstance(p, list) and all(_are_numbers(point, 2) for point in p) for p in points):
            raise InputError("Give points as [[x, y], ...], in pixels, or null.")
        if max(map(len, points)) > engine.MAX_POINTS:
            raise InputError(f"There are {max(map(len, points))} points; give at most {engine.MAX_POINTS}.")
        with MODEL_TURNS.visit() as visit:
            with visit.turn():
                size = read_size(photo, "photo")
                image = read_photo(photo, "photo", SUPPORT_SIDE)
            found = _mask_of_marks(image, size, box, *points, visit.turn)
            with visit.turn():
                file = engine.write_mask(enlarge(found, size), folder / f"{Path(photo).stem}_mask.png")
        yield str(file)


def _mask_of_marks(
    image: Image.Image,
    size: tuple[int, int],
    box: list[float] | None,
    on: list[Any],
    beside: list[Any],
    turn: engine.Turn,
) -> np.ndarray:
    """The object in a photo that has been shrunk, by marks on the photo of a size (width, height)."""
    across, down = image.width / size[0], image.height / size[1]
    if box is not None:
        left, top, right, bottom = box
        return engine.mask_of_box(image, (left * across, top * down, right * across, bottom * down), turn)
    for x, y in on + beside:
        if not (0 <= x <= size[0] and 0 <= y <= size[1]):
            raise InputError(f"The point [{x:g}, {y:g}] is outside the photo, which has {size[0]} x {size[1]} pixels.")
    on, beside = ([(x * across, y * down) for x, y in points] for points in (on, beside))
    return engine.mask_of_points(image, on, beside, turn)


def _are_numbers(values: object, count: int) -> bool:
    """Whether these are so many numbers that pixels can be counted with: not NaN, not infinite."""
    return (
        isinstance(values, list)
        and len(values) == count
        and all(type(value) in (int, float) and abs(value) <= MAX_PIXELS for value in values)
    )
