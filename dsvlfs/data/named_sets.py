"""The field's data sets by name, from the folders that people have on disk: which photos, which classes, which fold.

No list of another project is needed or shipped: the splits follow from the data's own lists and from the folds'
definitions.

| name | test classes of a fold | training photos | test photos |
| --- | --- | --- | --- |
| `pascal-5i` | 5 in VOC's order from 5 x fold on (Shaban et al. 2017) | maps in `SegmentationClassAug` but not in VOC's `val.txt` | VOC's `val.txt` |
| `coco-20i` | every 4th from `fold` on (Nguyen and Todorovic 2019) | train2014 | val2014 |
| `coco-20i-exclusive` | likewise; where objects overlap, a pixel is of the smallest one's class alone | train2014 | val2014 |
| `fss-1000` | (no folds) the classes of the test list | all other classes | the test classes' |
| `lvis-92i` | every 10th from `fold` on, of val's classes with two photos or more (Liu et al. 2024, Matcher) | train | val |
| `folder` | every 4th from `fold` on, by name | lines without `split` or with `"split": "train"` | likewise "test" |
| `labels` | (no folds) every class | (none) | all |

Without a fold, every class is in either split: for training on a whole data set and testing on another.

A training photo that also shows a test class stays, and there the test class's pixels are background, for a row has only
its own class's mask: so do Shaban et al. 2017, PFENet (`util/dataset.py`) and HSNet (`data/pascal.py`); BAM leaves such
photos out. As in PFENet, in PASCAL and COCO a photo counts for a class that covers at least 2,048 of its pixels.
"""  # noqa: E501 (a table)

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from datasets import Dataset, Image

from ..errors import InputError
from .coco_reading import COCO_CLASSES, coco_index, lvis_index
from .fss import fss_index
from .index_cache import INDEX_FEATURES, Split, layout_error
from .label_maps import labels_index
from .pascal import PASCAL_CLASSES, pascal_index
from .photos import load_photo_folder


@dataclass(frozen=True)
class NamedSet:
    """What sets one data set apart from the others.

    Args:
        name: of the set.
        folds: their number; 0 where the set has its own test classes.
        index: rows of every class in a split's photos (`INDEX_FEATURES`), given root and split.
        test_classes: class indices of a fold's test, given root and fold; None without folds.
        smallest_area: pixels of its class that a row needs to count.
        classes: names by class index, where they are known without the data.
    """

    name: str
    folds: int
    index: Callable[[Path, Split], Dataset]
    test_classes: Callable[[Path, int], set[int]] | None = None
    smallest_area: int = 0
    classes: tuple[tuple[str, ...], ...] | None = None


def load_named_set(name: str, root: Path, *, split: Split, fold: int | None) -> Dataset:
    """One split of one fold; a row (`dsvlfs.data.photos.FEATURES`) is a photo and a class in it.

    Args:
        name: "pascal-5i", "coco-20i", "coco-20i-exclusive", "fss-1000", "lvis-92i", "folder" or "labels".
        root: its folder; each set's layout is in its error message and in docs/measure.md.
        split: "train" gives the rows of the classes that the fold trains on, "test" those of its test classes.
        fold: from 0 on; None takes every class. FSS-1000 has none.

    Returns:
        A dataset that reads photos on access. Its index, masks included, is built at the first use and kept in the
        cache folder (`dsvlfs.hub.bases.cache_folder`).

    Raises:
        InputError: the name, the fold or the root's layout is wrong, or no row is left.
    """
    classes = split_classes(name, root, split=split, fold=fold)
    index = load_index(name, root, split)
    kept = np.isin(index["class_index"][:], sorted(classes))
    if smallest := NAMED_SETS[name].smallest_area:
        kept &= np.array(index["area"][:]) >= smallest
    if not kept.any():
        raise InputError(f"No photo in {root} shows a {split} class of {_title(name, fold)} large enough.")
    return index.select(np.flatnonzero(kept)).remove_columns(["class_index", "area"])


def load_index(name: str, root: Path, split: Split) -> Dataset:
    """Rows of every class in the split's photos, however small, with `class_index` and `area` (pixels, or None).

    Raises:
        InputError: there is no such set, or the root is not laid out as it.
    """
    return named_set(name).index(root, split)


def split_classes(name: str, root: Path, *, split: Split, fold: int | None) -> set[int]:
    """Class indices of a split of a fold.

    Raises:
        InputError: there is no such set or fold, or the root is not laid out as it.
    """
    test = _test_classes(name, root, fold)
    present = set(load_index(name, root, split)["class_index"][:])
    if test is None:
        return present
    return present & test if split == "test" else present - test


def training_class_names(name: str, root: Path | None, fold: int | None) -> set[str]:
    """Every name of the classes that a fold trains on, in lower case.

    Args:
        root: of the set; None where it is not at hand, which PASCAL and COCO do not need.

    Raises:
        InputError: there is no such set or fold, or its classes cannot be known without its root.
    """
    data_set = named_set(name)
    if data_set.classes is not None:
        test = _test_classes(name, Path(), fold) or ()
        return {n.lower() for i, names in enumerate(data_set.classes) if i not in test for n in names}
    if root is None:
        raise InputError(f"The classes of {name} are known from its data alone; give its folder too.")
    classes = split_classes(name, root, split="train", fold=fold)
    names_of = class_names(load_index(name, root, "train"))
    return {n.lower() for i in classes for n in names_of[i]}


def class_names(index: Dataset) -> dict[int, tuple[str, ...]]:
    """Names of each class of an index, by class index."""
    return {i: tuple(names) for i, names in zip(index["class_index"][:], index["class_names"][:])}


def named_set(name: str) -> NamedSet:
    """A data set by name.

    Raises:
        InputError: there is none.
    """
    if name not in NAMED_SETS:
        raise InputError(f"There is no data set '{name}'; choose one of {', '.join(NAMED_SETS)}.")
    return NAMED_SETS[name]


def _test_classes(name: str, root: Path, fold: int | None) -> set[int] | None:
    data_set = named_set(name)
    if fold is None:
        return None
    if data_set.test_classes is None or fold not in range(data_set.folds):
        which = f"give 0 to {data_set.folds - 1}" if data_set.folds else "it has none, leave it out"
        raise InputError(f"{name} has no fold {fold}; {which}.")
    return data_set.test_classes(root, fold)


def _title(name: str, fold: int | None) -> str:
    return name if fold is None else f"{name}, fold {fold}"


def _pascal_test_classes(_: Path, fold: int) -> set[int]:
    return set(range(5 * fold, 5 * fold + 5))


def _coco_test_classes(_: Path, fold: int) -> set[int]:
    return set(range(fold, len(COCO_CLASSES), 4))


def _lvis_test_classes(root: Path, fold: int) -> set[int]:
    indices, photos = np.unique(load_index("lvis-92i", root, "test")["class_index"][:], return_counts=True)
    eligible = indices[photos >= 2]
    return set(eligible[fold : len(eligible) // 10 * 10 : 10].tolist())


_FOLDER_TREE = (
    "images/*, masks/*.png and metadata.jsonl, a photo a line, such as "
    '{"image": "images/a.jpg", "mask": "masks/a.png", "name": "fox"}'
)


def _folder_index(root: Path, split: Split) -> Dataset:
    if not (root / "metadata.jsonl").is_file():
        raise layout_error("folder", _FOLDER_TREE, root, "metadata.jsonl")
    rows = load_photo_folder(root.resolve(), split)
    photos: dict[str, str] = {}
    for photo_id, image in zip(rows["photo_id"], rows.cast_column("image", Image(decode=False))["image"]):
        if photos.setdefault(photo_id, image["path"]) != image["path"]:
            raise InputError(
                f"{photos[photo_id]} and {image['path']} have the same name, which episodes tell photos apart by; "
                "rename one."
            )
    order = _folder_classes(root)
    return (
        rows.add_column("class_index", [order[name] for name in rows["class_name"]])
        .add_column("area", [None] * len(rows))
        .cast(INDEX_FEATURES)
    )


def _folder_classes(root: Path) -> dict[str, int]:
    names = sorted(set(load_photo_folder(root.resolve())["class_name"]))
    return {name: index for index, name in enumerate(names)}


def _folder_test_classes(root: Path, fold: int) -> set[int]:
    return set(range(fold, len(_folder_classes(root)), 4))


NAMED_SETS = {
    data_set.name: data_set
    for data_set in (
        NamedSet("pascal-5i", 4, pascal_index, _pascal_test_classes, smallest_area=2048, classes=PASCAL_CLASSES),
        NamedSet("coco-20i", 4, coco_index, _coco_test_classes, smallest_area=2048, classes=COCO_CLASSES),
        NamedSet(
            "coco-20i-exclusive",
            4,
            partial(coco_index, exclusive=True),
            _coco_test_classes,
            smallest_area=2048,
            classes=COCO_CLASSES,
        ),
        NamedSet("fss-1000", 0, fss_index),
        NamedSet("lvis-92i", 10, lvis_index, _lvis_test_classes),
        NamedSet("folder", 4, _folder_index, _folder_test_classes),
        NamedSet("labels", 0, labels_index),
    )
}
