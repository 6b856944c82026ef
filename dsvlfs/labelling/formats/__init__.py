"""How labels are written: a file a format, each with `write(photos, folder)`."""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..labelled import LabelledPhotos

ALWAYS = ("coco", "huggingface")
"""Formats that are written whether asked for or not."""

FORMATS = {
    "coco": "coco",
    "coco-polygons": "coco_polygons",
    "cvat": "cvat",
    "huggingface": "huggingface",
    "index-png": "index_png",
    "label-studio": "label_studio",
    "labelme": "labelme",
    "yolo": "yolo",
}
"""The module of each format's name."""


def chosen(names: Sequence[str]) -> list[Callable[["LabelledPhotos", Path], None]]:
    """The writers of some formats, and of those that are always written."""
    modules = [FORMATS[name] for name in dict.fromkeys([*ALWAYS, *names])]
    return [import_module(f".{module}", __name__).write for module in modules]
