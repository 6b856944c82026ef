"""Masks as a COCO document, which `pycocotools` and most annotation tools read."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_masks


@dataclass(frozen=True)
class LabelledPhoto:
    """A photo's mask of one class.

    Args:
        file_name: of the photo.
        mask: bool (height, width).
        score: mean probability over the mask, in [0, 1].
    """

    file_name: str
    mask: np.ndarray
    score: float


def coco_document(photos: Iterable[LabelledPhoto], class_name: str) -> dict[str, Any]:
    """One category, an image a photo, and an annotation for each photo whose mask is not empty.

    A mask stays one annotation in several pieces (`iscrowd` 0), as a compressed run-length code; `score` is an addition
    to COCO's fields.

    Args:
        photos: read one by one, so that no two masks need be in memory.
        class_name: of the category.

    Returns:
        What `json.dump` writes.
    """
    images, annotations = [], []
    for number, photo in enumerate(photos, 1):
        height, width = photo.mask.shape
        images.append({"id": number, "file_name": photo.file_name, "width": width, "height": height})
        if not photo.mask.any():
            continue
        code = coco_masks.encode(np.asfortranarray(photo.mask, dtype=np.uint8))
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": 1,
                "segmentation": {"size": [height, width], "counts": code["counts"].decode("ascii")},
                "area": int(coco_masks.area(code)),
                "bbox": coco_masks.toBbox(code).tolist(),
                "iscrowd": 0,
                "score": round(photo.score, 4),
            }
        )
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": class_name, "supercategory": class_name}],
    }
