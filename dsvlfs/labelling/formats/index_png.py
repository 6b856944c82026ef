"""Label maps: a PNG a photo whose values are the numbers of the classes, with a palette and a list of the classes."""

import json
from pathlib import Path

import numpy as np

from ..colours import class_map_image, palette
from ..labelled import LabelledPhotos
from .coco import known
from .folders import written_folder


def write(photos: LabelledPhotos, folder: Path) -> None:
    """Writes `index_png/`: `labels/STEM.png`, where objects were asked for `objects/STEM.png` in 16 bits,
    `classes.json` (number to name), `labelmap.txt` (name and colour, as PASCAL VOC's and CVAT's tools read it), and
    `figures.json`."""
    figures = {}
    with written_folder(folder / "index_png") as out:
        for photo in photos:
            labels = out / "labels" / f"{photo.stem}.png"
            labels.parent.mkdir(parents=True, exist_ok=True)
            class_map_image(photo.mask.astype(np.uint16), max(2, len(photos.class_names))).save(labels)
            figures[f"labels/{photo.stem}.png"] = {
                "photo": photo.file_name,
                "classes": {name: vars(entry) for name, entry in zip(photos.class_names, photo.figures)},
            }
            if photo.objects is not None:
                objects = out / "objects" / f"{photo.stem}.png"
                objects.parent.mkdir(parents=True, exist_ok=True)
                class_map_image(photo.object_map, 2**16 - 1).save(objects)
                figures[f"labels/{photo.stem}.png"]["objects"] = {
                    str(place): {"class": photos.class_names[region.class_number - 1], **known(region)}
                    for place, region in enumerate(photo.regions(), 1)
                }
        names = dict(enumerate(photos.class_names, 1))
        colours = palette()
        lines = [
            f"{name}:{','.join(map(str, colours[number % 256]))}::"
            for number, name in {0: "background", **names}.items()
        ]
        (out / "classes.json").write_text(json.dumps(names, indent=2) + "\n", encoding="utf-8")
        (out / "labelmap.txt").write_text(
            "# label:color_rgb:parts:actions\n" + "\n".join(lines) + "\n", encoding="utf-8"
        )
        (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
