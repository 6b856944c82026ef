"""COCO's document as CVAT imports it ("COCO 1.0"): figures as attributes, masks as run-length codes."""

from pathlib import Path

from ..labelled import LabelledPhotos
from .coco import as_json, coco_document
from .folders import written_folder

FIGURES = ("score", "expected_iou", "presence")


def write(photos: LabelledPhotos, folder: Path) -> None:
    """Writes `cvat/annotations/instances_default.json`; CVAT finds the photos by the names that they were uploaded
    with. Of the figures it keeps those whose names are attributes of a label of the task."""
    document = coco_document(photos, photos.class_names)
    for annotation in document["annotations"]:
        annotation["attributes"] = {"occluded": False, **{name: annotation.pop(name, None) for name in FIGURES}}
    with written_folder(folder / "cvat") as out:
        (out / "annotations").mkdir()
        (out / "annotations" / "instances_default.json").write_text(as_json(document), encoding="utf-8")
