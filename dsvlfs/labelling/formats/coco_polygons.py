"""COCO's document with polygons, which a person can edit in most tools."""

from pathlib import Path

import numpy as np

from ...files import write_text
from ..labelled import LabelledPhotos
from ..polygons import edge_polygons
from .coco import as_json, coco_document


def write(photos: LabelledPhotos, folder: Path) -> None:
    """Writes `annotations_polygons.json`."""
    write_text(folder / "annotations_polygons.json", as_json(coco_document(photos, photos.class_names, _polygons)))


def _polygons(mask: np.ndarray) -> list[list[float]]:
    return [np.round(ring, 2).ravel().tolist() for ring in edge_polygons(mask)]
