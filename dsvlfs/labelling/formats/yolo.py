"""YOLO's segmentation layout: a text file a photo, a line an object, its polygon in shares of the photo's sides."""

from pathlib import Path

import numpy as np
import yaml

from ..labelled import LabelledPhoto, LabelledPhotos
from ..polygons import pixel_polygons
from .folders import photo_file, written_folder

INSIDE = 0.25
"""Where in a pixel a polygon's points are: some readers cut the fraction off, others round it."""


def write(photos: LabelledPhotos, folder: Path) -> None:
    """Writes `yolo/`: `data.yaml`, `images/train/` with the photos, `labels/train/`. A photo without objects has an
    empty file. The format has no place for figures: a number more a line would be read as a place."""
    with written_folder(folder / "yolo") as out:
        for photo in photos:
            image, labels = out / "images/train" / photo_file(photo), out / f"labels/train/{photo.stem}.txt"
            for file, content in ((image, photo.read()), (labels, _lines(photo).encode("ascii"))):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
        content = {
            "path": ".",
            "train": "images/train",
            "val": "images/train",
            "names": dict(enumerate(photos.class_names)),
        }
        (out / "data.yaml").write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _lines(photo: LabelledPhoto) -> str:
    height, width = photo.mask.shape
    lines = []
    for region in photo.regions():
        for ring in pixel_polygons(region.mask, joined=photo.objects is not None):
            shares = np.clip((ring + INSIDE) / (width, height), 0, 1)
            lines.append(f"{region.class_number - 1} {' '.join(f'{value:.6f}' for value in shares.ravel())}\n")
    return "".join(lines)
