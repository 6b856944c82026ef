"""Label Studio's tasks with pre-annotations: brush masks, which its annotators correct."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from ... import __version__
from ..colours import tint
from ..labelled import LabelledPhoto, LabelledPhotos
from .coco import known
from .folders import written_folder

WORD = 8  # bits of a value
SIZES = (3, 4, 8, 16)  # bits that a run's length is written in, in turns as the codes 0 to 3 say


def write(photos: LabelledPhotos, folder: Path) -> None:
    """Writes `label_studio/`: `tasks.json` to import, and `config.xml` for the project's labelling interface.

    The tasks' photos are files of Label Studio's local storage, by their path in the folder of photos: that folder is
    to be the document root, or the paths are to be replaced by the addresses of where the photos are.
    """
    with written_folder(folder / "label_studio") as out:
        with (out / "tasks.json").open("w", encoding="utf-8") as file:
            for number, photo in enumerate(photos):
                file.write(",\n" if number else "[\n")
                json.dump(_task(photo, photos.class_names), file)
            file.write("\n]\n")
        (out / "config.xml").write_text(_config(photos.class_names), encoding="utf-8")


def brush_runs(mask: np.ndarray) -> list[int]:
    """A mask in Label Studio's code of a brush: the bytes of the RGBA values of its pixels, row by row, 255 or 0, in
    runs (the format of the npm package @thi.ng/rle-pack).

    Args:
        mask: bool (height, width).
    """
    flat = mask.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=not flat[0]))
    lengths = np.diff(starts, append=flat.size) * 4  # four channels a pixel
    longest = 1 << SIZES[3]
    bits = [f"{flat.size * 4:032b}", f"{WORD - 1:05b}", *(f"{size - 1:04b}" for size in SIZES)]
    for start, length in zip(starts.tolist(), lengths.tolist()):
        value = "11111111" if flat[start] else "00000000"
        while length:
            part = min(length, longest)
            code = next(code for code, size in enumerate(SIZES) if part <= 1 << size)
            bits.append(f"1{code:02b}{part - 1:0{SIZES[code]}b}{value}")
            length -= part
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return [int(text[place : place + 8], 2) for place in range(0, len(text), 8)]


def brush_regions(
    photo: LabelledPhoto, class_names: Sequence[str], control: str = "class", image: str = "photo"
) -> list[dict[str, Any]]:
    """A photo's label as the `result` of a prediction.

    Args:
        photo: with its label.
        class_names: in the order of their numbers, from 1 on.
        control, image: the names of the tags `BrushLabels` and `Image` in the project's labelling interface.
    """
    height, width = photo.mask.shape
    result = []
    for number, region in enumerate(photo.regions(), 1):
        figures = known(region)
        result.append(
            {
                "id": f"region-{number}",
                "type": "brushlabels",
                "from_name": control,
                "to_name": image,
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "score": figures["score"],
                "value": {
                    "format": "rle",
                    "rle": brush_runs(region.mask),
                    "brushlabels": [class_names[region.class_number - 1]],
                },
                "meta": {"text": [f"{name} {value}" for name, value in figures.items()]},
            }
        )
    return result


def _task(photo: LabelledPhoto, class_names: Sequence[str]) -> dict[str, Any]:
    result = brush_regions(photo, class_names)
    scores = [entry["score"] for entry in result]
    labels = {name: vars(figures) for name, figures in zip(class_names, photo.figures)}
    return {
        "data": {"photo": f"/data/local-files/?d={quote(photo.file_name)}", "labels": labels},
        "predictions": [
            {"model_version": f"dsvlfs {__version__}", "score": min(scores, default=0.0), "result": result}
        ],
    }


def _config(class_names: Sequence[str]) -> str:
    labels = "\n".join(
        f'    <Label value={quoteattr(name)} background="#{bytes(tint(number, len(class_names))).hex()}"/>'
        for number, name in enumerate(class_names, 1)
    )
    return (
        "<View>\n"
        '  <Image name="photo" value="$photo" zoom="true"/>\n'
        '  <BrushLabels name="class" toName="photo">\n'
        f"{labels}\n"
        "  </BrushLabels>\n"
        "</View>\n"
    )
