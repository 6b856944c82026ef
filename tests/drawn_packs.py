"""Miniature training packs in the real packs' layout, drawn."""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("circle", "square")
COLOURS = ("red", "blue", "green", "orange")


def _draw(shape: str, colour: str, size: int = 64) -> tuple[Image.Image, Image.Image]:
    image, mask = Image.new("RGB", (size, size), "gray"), Image.new("L", (size, size))
    box = (size // 5, size // 4, size * 3 // 4, size * 4 // 5)
    for canvas, fill in ((image, colour), (mask, 255)):
        pen = ImageDraw.Draw(canvas)
        (pen.ellipse if shape == "circle" else pen.rectangle)(box, fill=fill)
    return image, mask


def draw_photo_folder(folder: Path, colours: tuple[str, ...] = COLOURS, name: str = "{shape}") -> Path:
    """A folder of photos, one a colour and shape, whose class is `name`."""
    lines = []
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for shape in SHAPES:
        for colour in colours:
            stem = f"{colour}_{shape}"
            image, mask = _draw(shape, colour)
            image.save(folder / "images" / f"{stem}.png")
            mask.save(folder / "masks" / f"{stem}.png")
            lines.append(
                {
                    "image": f"images/{stem}.png",
                    "mask": f"masks/{stem}.png",
                    "name": name.format(colour=colour, shape=shape),
                    "definition": "round" if shape == "circle" else "",
                    "hypernyms": [shape, "shape"],
                }
            )
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def draw_episodes(folder: Path) -> Path:
    """A photo folder with `episodes.jsonl`: two circles and two squares to find, by one support each."""
    draw_photo_folder(folder)
    lines = [
        {"class_name": shape, "query": f"{colour}_{shape}", "support": [f"orange_{shape}"]}
        for shape in SHAPES
        for colour in COLOURS[:2]
    ]
    (folder / "episodes.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def draw_packs(root: Path) -> Path:
    """Every pack that `dsvlfs/training/packs.py` reads."""
    draw_photo_folder(root / "imagenet_sample" / "train", name="{colour} {shape}")
    draw_photo_folder(root / "clothing_sample", COLOURS[:2], name="{colour} {shape}")
    coco = root / "coco_sample"
    (coco / "train2017").mkdir(parents=True)
    (coco / "annotations").mkdir()
    image, _ = _draw("square", "blue")
    image.save(coco / "train2017" / "1.png")
    box = [12, 16, 48, 16, 48, 51, 12, 51]
    content = {
        "images": [{"id": 1, "file_name": "1.png", "width": 64, "height": 64}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "segmentation": [box], "iscrowd": 0}],
        "categories": [{"id": 3, "name": "square"}],
    }
    (coco / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    streets = root / "camvid_sample"
    for part in ("images", "labels"):
        (streets / part).mkdir(parents=True)
    image, mask = _draw("circle", "red")
    image.save(streets / "images" / "a.png")
    Image.fromarray(np.where(np.array(mask) > 0, 0, 11).astype(np.uint8)).save(streets / "labels" / "a.png")
    (streets / "classes.json").write_text(json.dumps({"0": "circle"}))
    stamps = root / "stamps"
    (stamps / "images").mkdir(parents=True)
    image, mask = _draw("circle", "blue")
    image.putalpha(mask)
    image.save(stamps / "images" / "c.png")
    entry = {"image": "images/c.png", "name": "A circle (round)", "category": "things/shape"}
    (stamps / "metadata.jsonl").write_text(json.dumps(entry))
    return root
