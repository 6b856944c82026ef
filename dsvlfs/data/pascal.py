"""PASCAL VOC 2012 with SBD's further label maps as an index, one photo and one class a row."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from ..errors import InputError
from ..files import read_text
from ..inference.photos import open_image
from .index_cache import Split, cached_index, file_state, layout_error
from .photos import as_png

# In VOC's order; after its own name, those that COCO gives the same thing.
PASCAL_CLASSES = (
    ("aeroplane", "airplane"),
    ("bicycle",),
    ("bird",),
    ("boat",),
    ("bottle",),
    ("bus",),
    ("car",),
    ("cat",),
    ("chair",),
    ("cow",),
    ("dining table",),
    ("dog",),
    ("horse",),
    ("motorbike", "motorcycle"),
    ("person",),
    ("potted plant",),
    ("sheep",),
    ("sofa", "couch"),
    ("train",),
    ("tv monitor", "tv"),
)
VOC_IGNORE = 255

PASCAL_TREE = "JPEGImages/*.jpg, SegmentationClassAug/*.png (VOC's and SBD's) and ImageSets/Segmentation/val.txt"


def pascal_index(root: Path, split: Split) -> Dataset:
    """VOC's `val.txt`, or every photo with a label map that is not in it.

    Raises:
        InputError: the root is not laid out as `PASCAL_TREE`, or a label map is damaged.
    """
    for folder in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (folder / "JPEGImages").is_dir():
            break
    else:
        raise layout_error("pascal-5i", PASCAL_TREE, root, "JPEGImages")
    maps, val_file = folder / "SegmentationClassAug", folder / "ImageSets" / "Segmentation" / "val.txt"
    for part in (maps, val_file):
        if not part.exists():
            raise layout_error("pascal-5i", PASCAL_TREE, folder, str(part.relative_to(folder)))
    stems = set(read_text(val_file).split())
    if split == "train":
        stems = {file.stem for file in maps.glob("*.png")} - stems
    return cached_index(
        "pascal-5i",
        (folder.resolve(), split, file_state(maps), file_state(val_file)),
        lambda: voc_rows(folder.resolve(), sorted(stems), PASCAL_CLASSES),
    )


def voc_rows(root: Path, stems: Iterable[str], classes: Sequence[Sequence[str]]) -> Iterator[dict[str, Any]]:
    """Rows of VOC2012 in `stems`' order, then by class. `ignore` holds the pixels labelled 255.

    Args:
        root: folder of `JPEGImages` and `SegmentationClassAug`.
        stems: of the photos.
        classes: names of each class from label 1 on.

    Raises:
        InputError: a label map is missing, damaged or no map of labels.
    """
    for stem in stems:
        file = root / "SegmentationClassAug" / f"{stem}.png"
        labels = np.asarray(open_image(file, "label map"))
        found = np.unique(labels)
        if labels.ndim != 2 or not np.isin(found, [*range(len(classes) + 1), VOC_IGNORE]).all():
            raise InputError(
                f"{file} is no label map: give one value a pixel, 0 to {len(classes)} for the classes and {VOC_IGNORE} "
                "for what is ignored."
            )
        ignore = as_png(labels == VOC_IGNORE) if VOC_IGNORE in found else None
        for label in found[(found > 0) & (found < VOC_IGNORE)].tolist():
            mask = labels == label
            yield {
                "photo_id": stem,
                "image": str(root / "JPEGImages" / f"{stem}.jpg"),
                "mask": as_png(mask),
                "ignore": ignore,
                "area": int(mask.sum()),
                "class_index": label - 1,
                "class_name": classes[label - 1][0],
                "class_names": list(classes[label - 1]),
                "definition": "",
            }
