"""Annotation tools' files as supports: COCO's JSON, and labelme's."""

import base64
import json
from collections import defaultdict
from io import BytesIO
from pathlib import Path
from typing import Annotated, NotRequired

import numpy as np
from PIL import Image, ImageDraw
from pydantic import BaseModel, FailFast, Field

from ..data.run_lengths import union_mask
from ..data.schemas import Annotation, CocoFile
from ..errors import InputError
from ..files import read_json, read_text
from .supports import Drawn, SupportPhoto

LARGEST_SIDE = 2**16
"""Pixels of a photo's side at most: a file may say anything."""


def annotated_classes(path: Path, shots: int) -> dict[str, list[SupportPhoto]]:
    """The supports that annotation files have.

    Args:
        path: COCO's JSON, labelme's, or a folder of labelme's.
        shots: of a class at most; of more, those that show most of it.

    Returns:
        By class, in the order of the file's categories, or of their names.

    Raises:
        InputError: it is no such file, or a photo that it annotates is not beside it.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    found: dict[str, list[tuple[float, SupportPhoto]]] = {}
    for file in files:
        fields = read_json(file).keys()
        if {"images", "annotations", "categories"} <= fields:
            read = _coco(file, shots)
        elif "shapes" in fields:
            read = _labelme(file)
        else:
            raise InputError(f"{file} is neither COCO's nor labelme's; give a file that one of them wrote.")
        for name, supports in read.items():
            found.setdefault(name, []).extend(supports)
    order = found if len(files) == 1 else sorted(found)
    return {
        name: [support for _, support in sorted(found[name], key=lambda entry: -entry[0])[:shots]] for name in order
    }


class _Annotation(Annotation):
    iscrowd: NotRequired[int]
    area: NotRequired[float]


class _CocoFile(CocoFile):
    annotations: Annotated[list[_Annotation], FailFast()]


def _coco(file: Path, shots: int) -> dict[str, list[tuple[float, SupportPhoto]]]:
    """Supports by class, each with the share of its photo that the class covers; crowds are not counted."""
    content = read_json(file, _CocoFile)
    photos = {entry["id"]: entry for entry in content["images"]}
    segmentations: dict[int, dict[int, list]] = defaultdict(lambda: defaultdict(list))
    areas: dict[tuple[int, int], float] = defaultdict(float)
    for entry in content["annotations"]:
        photo = photos.get(entry["image_id"])
        if photo is None:
            raise InputError(f"{file} annotates the photo {entry['image_id']}, which it does not list; mend it.")
        if entry.get("iscrowd") or not entry["segmentation"]:
            continue
        segmentations[entry["category_id"]][photo["id"]].append(entry["segmentation"])
        areas[entry["category_id"], photo["id"]] += entry.get("area", 0) / (photo["width"] * photo["height"])
    found = {}
    for category in content["categories"]:
        of_class = segmentations.get(category["id"], {})
        largest = sorted(of_class, key=lambda photo_id, number=category["id"]: -areas[number, photo_id])[:shots]
        supports = []
        for photo_id in largest:
            photo = photos[photo_id]
            try:
                mask = union_mask(of_class[photo_id], photo["height"], photo["width"])
            except InputError as error:
                raise InputError(f"The photo {photo['file_name']} in {file}: {error}") from None
            support = SupportPhoto(_coco_photo(file, photo["file_name"]), Drawn(file, mask))
            supports.append((areas[category["id"], photo_id], support))
        if supports:
            found[category["name"]] = supports
    return found


def _coco_photo(file: Path, name: str) -> Path:
    """Where a photo is that COCO's file names: beside it, or in the folders that such files stand beside."""
    split = file.stem.removeprefix("instances_")
    parents = (file.parent, file.parent / "images", file.parent.parent, file.parent.parent / "images")
    for folder in (*parents, file.parent.parent / split, file.parent.parent / "images" / split):
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"The photo {name} that {file} annotates is not beside it; put the photos into {file.parent}.")


class _Shape(BaseModel):
    label: str
    points: list[tuple[float, float]] = Field(max_length=100_000)
    shape_type: str = "polygon"
    mask: str | None = None


class _Labelme(BaseModel):
    imagePath: str  # noqa: N815 (labelme's name)
    imageHeight: int = Field(gt=0, lt=LARGEST_SIDE)  # noqa: N815
    imageWidth: int = Field(gt=0, lt=LARGEST_SIDE)  # noqa: N815
    shapes: list[_Shape]


def _labelme(file: Path) -> dict[str, list[tuple[float, SupportPhoto]]]:
    """Supports by class, each with the share of its photo that the class covers."""
    try:
        content = _Labelme.model_validate(json.loads(read_text(file)))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        first = error.errors()[0] if hasattr(error, "errors") else {"loc": ("JSON",), "msg": error}
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{file} is not as labelme writes it ({place}: {first['msg']}); mend it.") from None
    photo = file.parent / content.imagePath.replace("\\", "/")
    if not photo.is_file():
        photo = photo.parent.parent / "images" / photo.name
    if not photo.is_file():
        raise InputError(f"The photo {content.imagePath} that {file} annotates is not there; put it beside the file.")
    masks: dict[str, np.ndarray] = {}
    for shape in content.shapes:
        drawn = _drawn(shape, content.imageWidth, content.imageHeight, file)
        masks[shape.label] = masks[shape.label] | drawn if shape.label in masks else drawn
    return {
        name: [(float(mask.mean()), SupportPhoto(photo, Drawn(file, mask)))]
        for name, mask in sorted(masks.items())
        if mask.any()
    }


def _drawn(shape: _Shape, width: int, height: int, file: Path) -> np.ndarray:
    """A shape's pixels, bool (height, width): of what has an area."""
    image = Image.new("1", (width, height))
    pen, points = ImageDraw.Draw(image), shape.points
    if shape.shape_type == "mask" and shape.mask and len(points) == 2:
        try:
            with Image.open(BytesIO(base64.b64decode(shape.mask)), formats=["PNG"]) as crop:
                image.paste(crop.convert("1"), (int(points[0][0]), int(points[0][1])))
        except (ValueError, OSError, SyntaxError) as error:
            raise InputError(f"{file} has a mask of '{shape.label}' that cannot be read ({error}); mend it.") from None
    elif shape.shape_type == "rectangle" and len(points) == 2:
        (left, right), (top, bottom) = (sorted(values) for values in zip(*points))
        pen.rectangle((left, top, right, bottom), fill=1)
    elif shape.shape_type == "circle" and len(points) == 2:
        (x, y), edge = points
        pen.circle((x, y), float(np.hypot(edge[0] - x, edge[1] - y)), fill=1)
    elif shape.shape_type in ("polygon", "") and len(points) > 2:
        pen.polygon(points, fill=1, outline=1)
    return np.array(image)
