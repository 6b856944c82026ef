"""What a person looks over: overlays, and a sheet of those that have most to gain."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..files import write_image
from ..inference.pictures import contact_sheet, overlay
from .colours import tint
from .names import shown
from .record import Label

OVERLAY_SIDE = 1600
"""Pixels of an overlay's longer side at most."""
SHEET_TILES = 48


def draw_overlay(photo: Image.Image, class_map: np.ndarray, classes: int) -> Image.Image:
    """The photo with each class in its colour, not larger than `OVERLAY_SIDE`.

    Args:
        photo: RGB.
        class_map: (height, width), the numbers of the classes, from 1 on, and 0.
        classes: how many there are.
    """
    small = photo.copy()
    small.thumbnail((OVERLAY_SIDE, OVERLAY_SIDE))
    numbers = Image.fromarray(class_map).resize(small.size, Image.Resampling.NEAREST)
    fitted = np.asarray(numbers)
    for number in [n for n in np.unique(fitted) if n] or [1]:
        small = overlay(small, fitted == number, tint=tint(int(number), classes))
    return small


def worst_first(labels: Sequence[Label]) -> list[Label]:
    """Labels by how much of what was found of their classes is likely to be wrong in them, the most first: where a
    correction gains most.

    Of a class that is found, its area times what its IoU is expected to lack; of one that is not, its presence times
    its mean area where it is. Each is a share of all that was found of the class, so that no class counts for its size.
    """
    areas: dict[str, list[float]] = {}
    for label in labels:
        for name, known in label.classes.items():
            areas.setdefault(name, []).append(known.area_percent)
    total = {name: sum(own) for name, own in areas.items()}
    mean = {name: total[name] / max(1, sum(area > 0 for area in own)) for name, own in areas.items()}

    def wrong(label: Label) -> float:
        share = 0.0
        for name, known in label.classes.items():
            if known.area_percent > 0:
                believed = known.score if known.expected_iou is None else known.expected_iou
                lacks = known.area_percent * (1 - believed)
            else:
                lacks = (known.presence or 0.0) * mean[name]
            share += lacks / total[name] if total[name] else 0.0
        return share

    return sorted(labels, key=wrong, reverse=True)


def write_sheet(file: Path, labels: Sequence[Label], folder: Path) -> None:
    """Writes a contact sheet of the `SHEET_TILES` worst.

    Args:
        file: to write.
        labels: of all photos.
        folder: that their overlays are in.
    """
    pictures = ((_opened(folder / label.overlay), _caption(label)) for label in worst_first(labels)[:SHEET_TILES])
    write_image(file, contact_sheet(pictures), quality=88)


def _opened(file: Path) -> Image.Image:
    with Image.open(file) as picture:
        picture.load()
        return picture


def _caption(label: Label) -> str:
    figures = f"{label.area_percent:.1f} %"
    if label.is_emptied:
        figures = f"emptied, presence {label.presence:.2f}"
    elif label.area_percent == 0:
        figures = "empty"
    elif label.expected_iou is not None:
        figures += f"  IoU {100 * label.expected_iou:.0f} %"
    return f"{figures}  {shown(label.photo)}"
