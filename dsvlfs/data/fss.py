"""FSS-1000 as an index, one photo and its class a row."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from ..files import read_text
from ..inference.photos import open_image
from .index_cache import Split, cached_index, file_state, layout_error
from .photos import as_png

FSS_TREE = (
    "a folder for each class (in fewshot_data/, in data/ or in the root) of N.jpg with N.png, and the list of the test "
    "classes, fss_test_set.txt (as the data set's authors publish it) or splits/test.txt"
)


def fss_index(root: Path, split: Split) -> Dataset:
    """The classes of the test list, or all others (train and validation).

    Raises:
        InputError: the root is not laid out as `FSS_TREE`, or a mask is damaged.
    """
    for parent in (root / "fewshot_data" / "fewshot_data", root / "fewshot_data", root / "data", root):
        folders = sorted(file.parent for file in parent.glob("*/1.jpg"))
        if folders:
            break
    else:
        raise layout_error("fss-1000", FSS_TREE, root, "folder CLASS with 1.jpg")
    for test_list in (root / "fss_test_set.txt", root / "splits" / "test.txt"):
        if test_list.is_file():
            break
    else:
        raise layout_error("fss-1000", FSS_TREE, root, "fss_test_set.txt")
    test = set(read_text(test_list).split())
    chosen = {i: folder.resolve() for i, folder in enumerate(folders) if (folder.name in test) == (split == "test")}
    key = (parent.resolve(), split, file_state(test_list), *(file_state(folder) for folder in chosen.values()))
    return cached_index("fss-1000", key, lambda: fss_rows(chosen))


def fss_rows(folders: Mapping[int, Path]) -> Iterator[dict[str, Any]]:
    """Rows of FSS-1000's class folders, each of `N.jpg` with its mask `N.png`, foreground from half of white on.

    Args:
        folders: by class index.

    Raises:
        InputError: a mask is missing or damaged.
    """
    for index, folder in folders.items():
        name = folder.name.replace("_", " ")
        for photo in sorted(folder.glob("*.jpg"), key=lambda file: (len(file.stem), file.stem)):
            mask = np.asarray(open_image(photo.with_suffix(".png"), "mask").convert("L")) >= 128
            if mask.any():
                yield {
                    "photo_id": f"{folder.name}/{photo.stem}",
                    "image": str(photo),
                    "mask": as_png(mask),
                    "ignore": None,
                    "area": int(mask.sum()),
                    "class_index": index,
                    "class_name": name,
                    "class_names": [name],
                    "definition": "",
                }
