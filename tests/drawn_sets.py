"""Miniatures of the field's data sets in their real layouts, drawn. Each class is a colour, each photo 96 x 72."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

SIZE = (96, 72)


def draw_photo(file: Path, boxes: dict[int, tuple[int, int, int, int]]) -> np.ndarray:
    """Draws a box (left, top, right, bottom) for each class index, and returns the map of indices + 1."""
    labels = np.zeros((SIZE[1], SIZE[0]), dtype=np.uint8)
    photo = np.full((SIZE[1], SIZE[0], 3), 128, dtype=np.uint8)
    for index, (left, top, right, bottom) in boxes.items():
        labels[top:bottom, left:right] = index + 1
        photo[top:bottom, left:right] = [index * 53 % 256, index * 101 % 256, index * 29 % 256]
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo).save(file)
    return labels


LARGE, CORNER = (4, 4, 60, 60), (64, 60, 90, 70)  # 3,136 and 260 pixels


def draw_pascal(root: Path) -> Path:
    """VOC2012: of each class two test photos and two training photos, with class (index + 5) % 20 in a corner; the
    first test photo of each has an ignored border."""
    maps = root / "SegmentationClassAug"
    maps.mkdir(parents=True)
    val = []
    for index in range(20):
        for number in range(4):
            stem = f"2007_{index:02}{number:04}"
            labels = draw_photo(root / "JPEGImages" / f"{stem}.jpg", {index: LARGE, (index + 5) % 20: CORNER})
            if number == 0:
                labels[:4] = 255
            Image.fromarray(labels).save(maps / f"{stem}.png")
            if number < 2:
                val.append(stem)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("\n".join(val) + "\n")
    return root


def draw_coco(root: Path, year: str = "2014") -> Path:
    """COCO: of the first 8 categories three photos in each split, with the next category in a corner as run lengths."""
    (root / "annotations").mkdir(parents=True)
    from dsvlfs.data.coco_reading import COCO_CLASSES

    for split in ("train", "val"):
        images, annotations = [], []
        for index in range(8):
            for number in range(3):
                image_id = 1000 * (split == "val") + 10 * index + number + 1
                stem = f"{image_id:012}" if year == "2017" else f"COCO_{split}2014_{image_id:012}"
                draw_photo(root / f"{split}{year}" / f"{stem}.jpg", {index: LARGE, index + 1: CORNER})
                images.append({"id": image_id, "file_name": f"{stem}.jpg", "width": SIZE[0], "height": SIZE[1]})
                left, top, right, bottom = LARGE
                halves = [(left, top, 30, bottom), (30, top, right, bottom)]  # two instances, one category
                annotations += [
                    {"category_id": 2 * index + 1, "segmentation": [[a, b, c, b, c, d, a, d]]} for a, b, c, d in halves
                ]
                corner = np.zeros((SIZE[1], SIZE[0]), dtype=np.uint8, order="F")
                corner[CORNER[1] : CORNER[3], CORNER[0] : CORNER[2]] = 1
                crowd = coco_mask.encode(corner)
                crowd["counts"] = crowd["counts"].decode()
                annotations.append({"category_id": 2 * index + 3, "segmentation": crowd, "iscrowd": 1})
                for annotation in annotations[-3:]:
                    annotation["image_id"] = image_id
        content = {
            "info": {"year": int(year), "pages": [1, 2.5, None]},
            "images": images,
            "annotations": annotations,
            # Ids with gaps, as COCO's.
            "categories": [{"id": 2 * i + 1, "name": names[0]} for i, names in enumerate(COCO_CLASSES)],
        }
        (root / "annotations" / f"instances_{split}{year}.json").write_text(json.dumps(content))
    return root


def draw_fss(root: Path) -> Path:
    """FSS-1000: five classes of ten photos, two of them the test's; masks have soft edges."""
    for index, name in enumerate(("ab_wheel", "abacus", "bat", "cup", "zucchini")):
        for number in range(1, 11):
            labels = draw_photo(root / name / f"{number}.jpg", {index: LARGE})
            mask = np.where(labels > 0, 255, 0).astype(np.uint8)
            mask[LARGE[3]] = 100  # below half of white
            Image.fromarray(mask).save(root / name / f"{number}.png")
    (root / "fss_test_set.txt").write_text("abacus\nzucchini\n")
    return root


def draw_lvis(root: Path) -> Path:
    """LVIS v1: 20 categories of two photos in each split, and one of a single photo in each."""
    left, top, right, bottom = LARGE
    for split in ("train", "val"):
        images, annotations = [], []
        for category in range(1, 22):
            for number in range(1 if category == 21 else 2):
                image_id = 1000 * (split == "val") + 10 * category + number
                folder = "val2017" if split == "val" and number else "train2017"  # LVIS's val has photos of both
                draw_photo(root / folder / f"{image_id:012}.jpg", {category: LARGE})
                images.append(
                    {
                        "id": image_id,
                        "coco_url": f"http://images.cocodataset.org/{folder}/{image_id:012}.jpg",
                        "width": SIZE[0],
                        "height": SIZE[1],
                    }
                )
                polygon = [left, top, right, top, right, bottom, left, bottom]
                annotations.append({"image_id": image_id, "category_id": category, "segmentation": [polygon]})
        categories = [
            {"id": i, "name": f"thing_{i}", "synonyms": [f"thing_{i}", f"object_{i}"], "def": f"the {i}th thing"}
            for i in range(1, 22)
        ]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"lvis_v1_{split}.json").write_text(json.dumps(content))
    return root


def draw_folder(root: Path) -> Path:
    """A folder of one's own: four classes of three photos; those of the last photo are the test's alone."""
    (root / "masks").mkdir(parents=True)
    lines = []
    for index, name in enumerate(("fox", "owl", "pot", "sock")):
        for number in range(3):
            stem = f"{name}_{number}"
            mask = draw_photo(root / "images" / f"{stem}.jpg", {index: LARGE}) > 0
            Image.fromarray(mask).save(root / "masks" / f"{stem}.png")
            line = {"image": f"images/{stem}.jpg", "mask": f"masks/{stem}.png", "name": name}
            lines.append(line | ({"split": "test", "ignore": f"masks/{stem}.png"} if number == 2 else {}))
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return root
