"""labelme's JSON: a file a photo, to correct the masks by hand."""

import json
import os
from pathlib import Path
from typing import Any

from ..labelled import LabelledPhoto, LabelledPhotos
from ..polygons import pixel_polygons
from .coco import known
from .folders import photo_file, written_folder

VERSION = "5.5.0"
"""Of labelme, whose fields these are."""


def write(photos: LabelledPhotos, folder: Path) -> None:
    """Writes `labelme/STEM.json`, and `labels.txt` for labelme's `--labels`. A photo that is no file of a folder is
    written beside its JSON. The parts of a region have one `group_id`; its figures are further fields."""
    place = folder / "labelme"
    with written_folder(place) as out:
        for photo in photos:
            file = out / f"{photo.stem}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            if photo.path is None:
                image = photo_file(photo)
                (out / image).write_bytes(photo.read())
                path = Path(image).name
            else:
                path = Path(os.path.relpath(photo.path.resolve(), (place / photo.stem).parent.resolve())).as_posix()
            content = json.dumps(_content(photo, photos.class_names, path), indent=1)
            file.write_text(content + "\n", encoding="utf-8")
        names = "".join(f"{name}\n" for name in photos.class_names)
        (out / "labels.txt").write_text(names, encoding="utf-8")


def _content(photo: LabelledPhoto, class_names: list[str], path: str) -> dict[str, Any]:
    shapes = []
    for group, region in enumerate(photo.regions(), 1):
        rings = pixel_polygons(region.mask)
        for ring in rings:
            shapes.append(
                {
                    "label": class_names[region.class_number - 1],
                    "points": ring.tolist(),
                    "group_id": group if len(rings) > 1 else None,
                    "description": "",
                    "shape_type": "polygon",
                    "flags": {},
                    "mask": None,
                    **known(region),
                }
            )
    height, width = photo.mask.shape
    named = list(zip(class_names, photo.figures))
    return {
        "version": VERSION,
        "flags": {f"{name}: left empty for its presence": True for name, figures in named if figures.is_emptied},
        "shapes": shapes,
        "imagePath": path,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
        "figures": {name: vars(figures) for name, figures in named},
    }
