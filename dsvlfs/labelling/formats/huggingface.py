"""A Hugging Face data set: Parquet with the photos in it, and a card that the hub's viewer reads."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from datasets.utils.logging import disable_progress_bar
from huggingface_hub import DatasetCard, DatasetCardData, HfApi
from huggingface_hub.errors import HfHubHTTPError

from ... import __version__
from ...errors import InputError
from ...files import whole_file, write_text
from ..colours import class_map_image
from ..labelled import LabelledPhoto, LabelledPhotos
from ..labels import overall

FOLDER = "dataset"
SCRATCH = ".scratch"
SIZES = ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write(photos: LabelledPhotos, folder: Path) -> None:
    """Writes `dataset/`: `train.parquet`, and the card as `README.md`."""
    out = folder / FOLDER
    out.mkdir(exist_ok=True)
    disable_progress_bar()  # a second's work, after the photos' own bar
    scratch = folder / SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)  # of a killed run
    try:
        with whole_file(out / "train.parquet") as partial:
            dataset = Dataset.from_generator(
                _rows, features=_features(), cache_dir=str(scratch), gen_kwargs={"photos": photos}, fingerprint="labels"
            )
            dataset.to_parquet(partial)
            del dataset  # its files are mapped
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    write_text(out / "README.md", _card(photos))


def push_to_hub(folder: Path, repo_id: str, *, private: bool | None = None, token: str | bool | None = None) -> str:
    """Sends a written data set to a repository of the Hugging Face hub, made where it is missing.

    Args:
        folder: that `write` wrote into.
        repo_id: "user/name".
        private: of a new repository.
        token: None takes that of the machine's login.

    Returns:
        The commit's address.

    Raises:
        InputError: the hub cannot be reached, or refuses.
    """
    api = HfApi(token=token)
    try:
        repo_id = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True).repo_id
        return api.upload_folder(
            repo_id=repo_id, repo_type="dataset", folder_path=folder / FOLDER, commit_message="Upload labels"
        ).commit_url
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise InputError(
            f"The data set could not be sent to {repo_id} ({error}); log in with 'hf auth login', or check the name "
            "and the network."
        ) from error


def _features() -> Features:
    figures = {
        "area_percent": Value("float32"),
        "score": Value("float32"),
        "expected_iou": Value("float32"),
        "presence": Value("float32"),
        "is_emptied": Value("bool"),
    }
    thing = {
        "class_name": Value("string"),
        "class_number": Value("int32"),
        "box": List(Value("int32"), length=4),
        "area": Value("int64"),
        "score": Value("float32"),
        "expected_iou": Value("float32"),
    }
    return Features(
        {
            "image": ImageFeature(),
            "mask": ImageFeature(),
            "overlay": ImageFeature(),
            "photo": Value("string"),
            "class_name": Value("string"),
            **figures,
            "classes": List({"class_name": Value("string"), "class_number": Value("int32"), **figures}),
            "objects": List(thing),
            "object_map": ImageFeature(),
        }
    )


def _rows(photos: LabelledPhotos) -> Iterator[dict[str, Any]]:
    return (_row(photo, list(photos.class_names)) for photo in photos)


def _row(photo: LabelledPhoto, names: list[str]) -> dict[str, Any]:
    stem = photo.stem.rpartition("/")[2]
    objects = [
        {**vars(entry), "class_name": names[entry.class_number - 1], "box": list(entry.box)}
        for entry in photo.objects or ()
    ]
    return {
        "image": {"bytes": photo.read(), "path": photo.file_name.rpartition("/")[2]},
        "mask": {"bytes": _png(class_map_image(photo.mask, len(names))), "path": f"{stem}.png"},
        "overlay": None if photo.overlay is None else {"bytes": photo.overlay(), "path": f"{stem}.jpg"},
        "photo": photo.file_name,
        "class_name": ", ".join(names),
        **vars(overall(photo.figures)),
        "classes": [
            {"class_name": name, "class_number": number, **vars(entry)}
            for number, (name, entry) in enumerate(zip(names, photo.figures), 1)
        ],
        "objects": objects,
        "object_map": (
            None
            if photo.object_map is None
            else {"bytes": _png(class_map_image(photo.object_map, 2**16 - 1)), "path": f"{stem}.png"}
        ),
    }


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _card(photos: LabelledPhotos) -> str:
    size = next((name for limit, name in SIZES if len(photos) < limit), "n>1M")
    data = DatasetCardData(
        task_categories=["image-segmentation"],
        size_categories=[size],
        tags=["few-shot segmentation", "pseudo labels"],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "train.parquet"}]}],
    )
    values = "255 where it is" if len(photos.class_names) == 1 else "the class's number where one is"
    classes = "\n".join(f"| {number} | {name} |" for number, name in enumerate(photos.class_names, 1))
    return str(
        DatasetCard(
            f"""---
{data.to_yaml()}
---

# Masks of {len(photos)} photos

Made by a model (dsvlfs {__version__}), not by hand: `expected_iou` says how far a mask can be believed, the least first
are the ones to look over.

| number | class |
| --- | --- |
{classes}

| column | what it holds |
| --- | --- |
| `image`, `photo` | the photo, and its name |
| `mask` | {values}, 0 elsewhere |
| `overlay` | the photo with its masks drawn in |
| `area_percent`, `score` | the masks' share of the photo, and their mean probability |
| `expected_iou`, `presence` | the least IoU to expect of its masks, and the largest presence of a class, a score |
| `is_emptied` | whether the masks were left empty because too little spoke for the classes being there |
| `classes` | the same of each class |
| `objects`, `object_map` | each object (`box` is left, top, width, height), and its number from 1 on in a map |
"""
        )
    )
