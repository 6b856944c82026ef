"""The model as the page uses it: asked once, and what it answered drawn at any threshold.

What is kept between requests is keyed by the content that was sent and bounded, so that nobody meets another's photo.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from cachetools import LRUCache, cached
from PIL import Image

import dsvlfs

from .. import InputError
from ..descriptions.bank import bank_description
from ..descriptions.writers import CheckpointWriter
from ..inference.pictures import heat_map, overlay
from ..inference.results import Prediction, Segmentation
from ..labelling.coco_writing import LabelledPhoto, coco_document
from .supports import SupportPair
from .uploads import MAX_QUERIES, MAX_SUPPORTS, decode_preview, encode_preview, read_photo

if TYPE_CHECKING:
    from .. import DSVLFSModel, Query, Support

Report = Callable[[float, str], None]


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
        predictions: by mode, `mode` among them.
    """

    name: str
    class_name: str
    preview: bytes
    mode: str
    predictions: dict[str, Prediction]

    @property
    def asked(self) -> Prediction:
        """In the mode that was asked for."""
        return self.predictions[self.mode]

    def segmentation(self, threshold: float) -> Segmentation:
        """In the photo's own size."""
        return self.asked.segmentation(threshold)


@cache
def load_model() -> DSVLFSModel:
    """The model; it keeps nothing of its users and serves them all."""
    return dsvlfs.DSVLFSModel.from_pretrained("dsvlfs-tiny")


def describe(class_name: str) -> str:
    """What the class looks like: the bank's text, else what the language model says.

    Raises:
        InputError: the name cannot be used.
    """
    name = " ".join(class_name.split())
    if not name:
        raise InputError("Name the class first, such as “penguin”.")
    return bank_description(name) or _written(name)


@cached(DESCRIPTIONS, key=str, lock=Lock())
def _written(name: str) -> str:
    return CheckpointWriter(load_model()).write(name)


def digest(*arrays: np.ndarray | Image.Image) -> str:
    """Of the content of images and masks."""
    total = hashlib.sha256()
    for array in map(np.asarray, arrays):
        total.update(f"{array.shape} {array.dtype} ".encode())
        total.update(np.ascontiguousarray(array))
    return total.hexdigest()


def encode_supports(pairs: Sequence[SupportPair]) -> Support:
    """Encodes each pair, or remembers it."""
    shots = [_encode_shot(*pair) for pair in pairs]
    return type(shots[0]).join(shots)


@cached(SUPPORTS, key=digest, lock=Lock())
def _encode_shot(photo: Image.Image, mask: np.ndarray) -> Support:
    return load_model().encode_support([(photo, mask)])


@cached(QUERIES, key=digest, lock=Lock())
def _encode_query(photo: Image.Image) -> Query:
    return load_model().encode_query(photo)


def predict(
    supports: Sequence[SupportPair],
    class_name: str,
    class_description: str,
    query_files: Sequence[str],
    mode: str,
    report: Report = lambda share, text: None,
) -> list[Result]:
    """Segments a class in query photos.

    Args:
        supports: photos with masks; none where `mode` is "semantic".
        report: told the share that is done, and what comes next.

    Raises:
        InputError: something is missing or cannot be used.
    """
    if not class_name.strip():
        raise InputError("Name the class, such as “penguin”.")
    if not query_files:
        raise InputError("Add a query photo: the one to find the class in.")
    if len(query_files) > MAX_QUERIES:
        raise InputError(f"There are {len(query_files)} query photos; give at most {MAX_QUERIES} at a time.")
    if len(supports) > MAX_SUPPORTS:
        raise InputError(f"There are {len(supports)} support photos; give at most {MAX_SUPPORTS}.")
    if not supports and mode != "semantic":
        raise InputError("Add a support photo and mark the object, or choose the prompt “Name”.")
    names = [Path(file).name for file in query_files]
    titles = ["query photo" if len(names) == 1 else f"query photo {name}" for name in names]
    for file, title in zip(query_files, titles):  # all, before the first takes its time
        read_photo(file, title)
    steps = len(names) + 1
    report(0, "Reading the support")
    support = encode_supports(supports) if mode != "semantic" else None
    modes = [mode] if support is None else ["both", "semantic", "visual"] if mode == "both" else [mode]
    results = []
    for number, (file, name, title) in enumerate(zip(query_files, names, titles), 1):
        report(number / steps, f"Looking at the {title}")
        photo = read_photo(file, title)
        encoded = _encode_query(photo)
        predictions = load_model().predict(
            encoded, class_name, support=support, description=class_description.strip() or None, modes=modes
        )
        results.append(Result(name, class_name.strip(), encode_preview(photo), mode, predictions))
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
    text = f"{found.mask.mean():.1%} of the photo" if found.mask.any() else "Nothing reaches the threshold; lower it."
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


def write_masks(results: Sequence[Result], threshold: float, folder: Path) -> list[Path]:
    """A PNG for each result, in its photo's own size."""
    return [
        write_mask(result.segmentation(threshold).mask, folder / f"{Path(name).stem}_mask.png")
        for result, name in zip(results, _distinct_names(results))
    ]


def write_overlays(results: Sequence[Result], threshold: float, folder: Path) -> list[Path]:
    """A JPEG for each result, in the preview's size."""
    files = []
    for result, name in zip(results, _distinct_names(results)):
        file = folder / f"{Path(name).stem}_overlay.jpg"
        draw(result, "mask", threshold, 0.5)[0].save(file, quality=90)
        files.append(file)
    return files


def pack(files: Sequence[Path], archive: Path) -> Path:
    """One file as it is; several in a ZIP archive."""
    if len(files) == 1:
        return files[0]
    with zipfile.ZipFile(archive, "w") as packed:
        for file in files:
            packed.write(file, file.name)
    return archive


def write_coco(results: Sequence[Result], threshold: float, file: Path) -> Path:
    """All masks in one COCO JSON."""

    def photos() -> Iterator[LabelledPhoto]:
        for result, name in zip(results, _distinct_names(results)):
            found = result.segmentation(threshold)
            score = float(found.probability[found.mask].mean()) if found.mask.any() else 0.0
            yield LabelledPhoto(name, found.mask, score)

    file.write_text(json.dumps(coco_document(photos(), results[0].class_name)), encoding="utf-8")
    return file


def _distinct_names(results: Sequence[Result]) -> list[str]:
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
