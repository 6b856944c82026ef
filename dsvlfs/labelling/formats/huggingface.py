"""A Hugging Face data set: Parquet with the photos in it, and a card."""

import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from datasets.utils.logging import disable_progress_bar

from ...files import whole_file
from ..colours import class_map_image
from ..labelled import LabelledPhotos


def write(photos: LabelledPhotos, folder: Path) -> None:
    """Writes `dataset/`, for `datasets.load_dataset`."""
    out = folder / "dataset"
    out.mkdir(exist_ok=True)
    disable_progress_bar()  # a second's work, after the photos' own bar
    with tempfile.TemporaryDirectory(dir=folder / ".work") as scratch, whole_file(out / "train.parquet") as partial:
        dataset = Dataset.from_generator(
            _rows, features=_features(), cache_dir=scratch, gen_kwargs={"photos": photos}, fingerprint="labels"
        )
        dataset.to_parquet(partial)
        del dataset  # its files are mapped


def _features() -> Features:
    return Features(
        {
            "image": ImageFeature(),
            "mask": ImageFeature(),
            "photo": Value("string"),
            "class_name": Value("string"),
            "area_percent": Value("float32"),
            "score": Value("float32"),
        }
    )


def _rows(photos: LabelledPhotos) -> Iterator[dict[str, Any]]:
    names: Sequence[str] = photos.class_names
    for photo in photos:
        mask = io.BytesIO()
        class_map_image(photo.mask, len(names)).save(mask, "PNG")
        name = photo.file_name.rpartition("/")[2]
        yield {
            "image": {"bytes": photo.read(), "path": name},
            "mask": {"bytes": mask.getvalue(), "path": f"{photo.stem.rpartition('/')[2]}.png"},
            "photo": photo.file_name,
            "class_name": ", ".join(names),
            "area_percent": sum(entry.area_percent for entry in photo.figures),
            "score": photo.figures[0].score,
        }
