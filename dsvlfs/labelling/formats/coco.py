"""COCO's document, which `pycocotools` and most annotation tools read."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_masks

from ... import __version__
from ...files import write_text
from ..labelled import LabelledPhoto, LabelledPhotos, Region

Segmentation = dict[str, Any] | list[list[float]]


def write(photos: LabelledPhotos, folder: Path) -> None:
    """Writes `annotations.json`, masks as run-length codes."""
    write_text(folder / "annotations.json", as_json(coco_document(photos, photos.class_names)))


def coco_document(
    photos: Iterable[LabelledPhoto],
    class_names: str | Sequence[str],
    segmentation: Callable[[np.ndarray], Segmentation] | None = None,
) -> dict[str, Any]:
    """A category a class, an image a photo, and an annotation an object, or a class in a photo.

    `score`, `expected_iou` and `presence` of an annotation, and an image's `labels`, are additions to COCO's fields;
    `labels` has what is known of each class, of those that were left empty too.

    Args:
        photos: read one by one, so that no two masks need be in memory.
        class_names: of the categories, whose ids are from 1 on.
        segmentation: of a mask, bool (height, width); None takes a compressed run-length code.

    Returns:
        What `json.dump` writes.
    """
    names = [class_names] if isinstance(class_names, str) else list(class_names)
    images, annotations = [], []
    for number, photo in enumerate(photos, 1):
        height, width = photo.mask.shape
        image = {"id": number, "file_name": photo.file_name, "width": width, "height": height, "license": 0}
        if photo.figures:
            image["labels"] = {name: vars(figures) for name, figures in zip(names, photo.figures)}
        images.append(image)
        for region in photo.regions():
            code = run_lengths(region.mask)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": region.class_number,
                    "segmentation": code if segmentation is None else segmentation(region.mask),
                    "area": int(coco_masks.area(code)),
                    "bbox": coco_masks.toBbox(code).tolist(),
                    "iscrowd": 0,
                    **known(region),
                }
            )
    return {
        "info": {
            "description": f"Masks of {', '.join(names)}, made by a model",
            "url": "",
            "version": __version__,
            "year": datetime.now(UTC).year,
            "contributor": "dsvlfs",
            "date_created": f"{datetime.now(UTC):%Y-%m-%d}",
        },
        "licenses": [{"id": 0, "name": "that of the photos", "url": ""}],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": n, "name": name, "supercategory": name} for n, name in enumerate(names, 1)],
    }


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """A mask's compressed run-length code, as JSON holds it."""
    code = coco_masks.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": code["counts"].decode("ascii")}


def known(region: Region) -> dict[str, float]:
    """The figures that a region has, rounded."""
    figures = {"score": region.score, "expected_iou": region.expected_iou, "presence": region.presence}
    return {name: round(value, 4) for name, value in figures.items() if value is not None}


def as_json(document: dict[str, Any]) -> str:
    """A document as text, an entry of each list a line."""
    import json

    parts = []
    for key, value in document.items():
        if isinstance(value, list) and value:
            parts.append(f"{json.dumps(key)}: [\n" + ",\n".join(json.dumps(entry) for entry in value) + "\n]")
        else:
            parts.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"
