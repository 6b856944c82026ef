"""Labels a data set: a mask of one class for every photo of a folder or of a Hugging Face data set.

The output folder holds `masks/`, `overlays/`, and at the end `annotations.json` (COCO), `dataset/` (for
`datasets.load_dataset`) and `contact_sheet.jpg`. `labels-N.jsonl` has a line for each photo that process N finished,
written after its mask and overlay: what has a line is never done again, so a run that was stopped goes on where it was.
"""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from accelerate import PartialState
from datasets import Dataset, Features, Value, load_dataset
from datasets import Image as ImageFeature
from datasets.exceptions import DatasetNotFoundError
from datasets.utils.logging import disable_progress_bar
from PIL import Image
from tqdm import tqdm

from ..errors import InputError
from ..files import PHOTO_SUFFIXES, read_json, write_json
from ..inference.checks import Mode
from ..inference.photos import DECODING_ERRORS, Photo, load_photo
from ..inference.pictures import contact_sheet, overlay
from ..modeling import DSVLFSModel
from ..parts.aggregation import Aggregation
from ..processes import failing_together, gather, join_processes
from .coco_writing import LabelledPhoto, coco_document

SHEET_TILES = 48


class Photos(Protocol):
    """Photos to label; a name stays the same from run to run. `source` tells them from others of the same names."""

    names: Sequence[str]
    source: str

    def read(self, index: int) -> bytes:
        """The encoded file of a photo."""


class FolderPhotos:
    """The photos of a folder and its subfolders, named by their path in it.

    Args:
        folder: where they are.

    Raises:
        InputError: there is none, or two differ in their suffix alone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.source = str(folder.resolve())
        files = (file for file in folder.rglob("*") if file.suffix.lower() in PHOTO_SUFFIXES and file.is_file())
        self.names = sorted(file.relative_to(folder).as_posix() for file in files)
        if not self.names:
            raise InputError(f"The folder {folder} holds no photos ({', '.join(sorted(PHOTO_SUFFIXES))}).")
        by_stem: dict[str, str] = {}
        for name in self.names:
            # Some file systems take 'Fox' and 'fox' for one name.
            other = by_stem.setdefault(Path(name).with_suffix("").as_posix().casefold(), name)
            if other != name:
                raise InputError(f"The masks of {other} and {name} would have the same name; rename one.")

    def read(self, index: int) -> bytes:
        """The encoded file of a photo."""
        return (self._folder / self.names[index]).read_bytes()


class DatasetPhotos:
    """The photos of a Hugging Face data set, named by their number.

    Args:
        name: of the data set on the hub, or a local folder that `datasets.load_dataset` reads.
        split: of the data set.
        column: that holds the photos.

    Raises:
        InputError: there is no such data set, split or column.
    """

    def __init__(self, name: str, split: str, column: str) -> None:
        try:
            dataset = load_dataset(name, split=split)
        except (DatasetNotFoundError, OSError, ValueError) as error:
            raise InputError(
                f"{name} is neither a folder of photos nor a data set with a split '{split}' "
                f"({type(error).__name__}); check the name, or the network."
            ) from error
        if not isinstance(dataset.features.get(column), ImageFeature):
            images = [key for key, feature in dataset.features.items() if isinstance(feature, ImageFeature)]
            raise InputError(
                f"The data set {name} has no images in a column '{column}'; give another one"
                f" ({', '.join(images) or 'it has none'})."
            )
        self._images = dataset.select_columns([column]).cast_column(column, ImageFeature(decode=False))
        self._column = column
        self.source = f"{Path(name).resolve() if Path(name).is_dir() else name}, {split}, {column}"
        digits = max(6, len(str(len(dataset))))
        self.names = [f"{index:0{digits}d}" for index in range(len(dataset))]

    def read(self, index: int) -> bytes:
        """The encoded file of a photo."""
        entry = self._images[index][self._column]
        if entry is None:
            raise InputError(f"The data set has no photo at {self.names[index]}.")
        return entry["bytes"] if entry["bytes"] is not None else Path(entry["path"]).read_bytes()


@dataclass(frozen=True)
class Request:
    """What to look for, and how.

    Args:
        class_name: what to label.
        examples: support photos with their masks, files.
        description: what the class looks like.
        mode: which prompts the mask decoder is given.
        threshold: probability from which on a pixel is foreground, or a shot votes for it.
        min_presence: where the presence is lower, the mask is left empty; None takes the model's.
        aggregation: how several examples become one mask; None takes the model's.
        model: the checkpoint's name.
    """

    class_name: str
    examples: Sequence[tuple[Path, Path]]
    description: str | None = None
    mode: Mode = "both"
    threshold: float = 0.5
    min_presence: float | None = None
    aggregation: Aggregation | None = None
    model: str = "dsvlfs-tiny"

    def settings(self) -> dict[str, Any]:
        """What two runs must share to write into one folder; examples count by their content."""
        digests = [[hashlib.sha256(file.read_bytes()).hexdigest() for file in pair] for pair in self.examples]
        return {**asdict(self), "examples": digests}


@dataclass(frozen=True)
class Label:
    """A line of `labels-N.jsonl`.

    Args:
        photo: its name.
        mask, overlay: files, relative to the output folder.
        area_percent: the foreground's share of the photo.
        score: mean probability over the mask, in [0, 1]; 0 where it is empty.
    """

    photo: str
    mask: str
    overlay: str
    area_percent: float
    score: float


@dataclass
class LabelFolder:
    """The output folder.

    Args:
        path: made where it is missing.
        settings: of `Request.settings`, and the photos' source.

    Raises:
        InputError: it holds labels made with other settings.
    """

    path: Path
    settings: dict[str, Any]
    labels: dict[str, Label] = field(init=False)

    def __post_init__(self) -> None:
        file = self.path / "settings.json"
        self.labels = self._read_labels()
        if self.labels:
            before = read_json(file)
            if changed := [name for name, value in self.settings.items() if before.get(name) != value]:
                raise InputError(
                    f"{self.path} holds labels made with other settings ({', '.join(changed)}); give another --out, or "
                    "delete that folder."
                )

    def begin(self) -> None:
        """Makes the folders and writes the settings."""
        for part in ("masks", "overlays"):
            (self.path / part).mkdir(parents=True, exist_ok=True)
        write_json(self.path / "settings.json", self.settings)

    def reread(self) -> None:
        """Takes in what other processes finished."""
        self.labels = self._read_labels()

    def add(self, process: int, name: str, photo: Image.Image, mask: np.ndarray, probability: np.ndarray) -> None:
        """Writes a photo's mask and overlay, then its line."""
        stem = Path(name).with_suffix("")
        label = Label(
            photo=name,
            mask=f"masks/{stem.as_posix()}.png",
            overlay=f"overlays/{stem.as_posix()}.jpg",
            area_percent=round(100 * float(mask.mean()), 3),
            score=round(float(probability[mask].mean()), 4) if mask.any() else 0.0,
        )
        for file in (self.path / label.mask, self.path / label.overlay):
            file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask.astype(np.uint8) * 255).save(self.path / label.mask)
        overlay(photo, mask).save(self.path / label.overlay, quality=85)
        with (self.path / f"labels-{process}.jsonl").open("ab+") as file:
            # A run that was killed may have left half a line.
            if file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                file.write(b"\n")
            file.write(json.dumps(asdict(label)).encode() + b"\n")
        self.labels[name] = label

    def finish(self, photos: Photos, class_name: str) -> None:
        """Writes the COCO document, the data set and the contact sheet of all labels, in the photos' order."""
        indices = [index for index, name in enumerate(photos.names) if name in self.labels]
        labels = [self.labels[photos.names[index]] for index in indices]
        masks = (LabelledPhoto(label.photo, self._mask(label), label.score) for label in labels)
        write_json(self.path / "annotations.json", coco_document(masks, class_name))
        self._write_dataset(photos, indices, class_name)
        picked = [labels[i] for i in np.unique(np.linspace(0, len(labels) - 1, SHEET_TILES).round().astype(int))]
        pictures = (
            (Image.open(self.path / label.overlay), f"{label.photo}  {label.area_percent:.1f} %") for label in picked
        )
        contact_sheet(pictures).save(self.path / "contact_sheet.jpg", quality=88)

    def _mask(self, label: Label) -> np.ndarray:
        with Image.open(self.path / label.mask) as image:
            return np.array(image) > 0

    def _write_dataset(self, photos: Photos, indices: Sequence[int], class_name: str) -> None:
        features = Features(
            {
                "image": ImageFeature(),
                "mask": ImageFeature(),
                "photo": Value("string"),
                "class_name": Value("string"),
                "area_percent": Value("float32"),
                "score": Value("float32"),
            }
        )

        def rows() -> Iterator[dict[str, Any]]:
            for index in indices:
                label = self.labels[photos.names[index]]
                yield {
                    "image": {"bytes": photos.read(index), "path": Path(label.photo).name},
                    "mask": {"bytes": (self.path / label.mask).read_bytes(), "path": Path(label.mask).name},
                    "photo": label.photo,
                    "class_name": class_name,
                    "area_percent": label.area_percent,
                    "score": label.score,
                }

        folder = self.path / "dataset"
        folder.mkdir(exist_ok=True)
        disable_progress_bar()  # a second's work, after the photos' own bar
        with tempfile.TemporaryDirectory(dir=self.path) as scratch:
            dataset = Dataset.from_generator(rows, features=features, cache_dir=scratch)
            partial = Path(scratch) / "train.parquet"
            dataset.to_parquet(partial)
            del dataset  # its files are mapped
            partial.replace(folder / "train.parquet")

    def _read_labels(self) -> dict[str, Label]:
        labels = {}
        for file in sorted(self.path.glob("labels-*.jsonl")):
            for line in file.read_text(encoding="utf-8").splitlines():
                try:
                    label = Label(**json.loads(line))
                except (ValueError, TypeError):  # half a line
                    continue
                labels[label.photo] = label
        return labels


def open_photos(name: str, split: str, column: str) -> Photos:
    """A folder of photos, or else a data set.

    Raises:
        InputError: it is neither.
    """
    folder = Path(name)
    if folder.is_dir() and any(file.suffix.lower() in PHOTO_SUFFIXES for file in folder.rglob("*")):
        return FolderPhotos(folder)
    return DatasetPhotos(name, split, column)


def label_photos(photos: Photos, request: Request, out: Path) -> int:
    """Labels the photos that have no label yet, in as many processes as Accelerate started.

    Args:
        photos: to label.
        request: what to look for.
        out: folder for the results.

    Returns:
        How many photos could not be read, in all processes; standard error names them.

    Raises:
        InputError: the folder holds labels made with other settings, or an example cannot be used.
    """
    state = join_processes()
    with failing_together():  # all have seen the same list before any adds to it
        folder = LabelFolder(out, {**request.settings(), "photos": photos.source})
        todo = [index for index, name in enumerate(photos.names) if name not in folder.labels]
    with failing_together():
        if state.is_main_process:
            folder.begin()
    with failing_together():
        unreadable = _label_share(photos, todo[state.process_index :: state.num_processes], request, folder, state)
    unreadable = sum(gather([unreadable]))
    with failing_together():
        if state.is_main_process:
            folder.reread()
            if folder.labels.keys() & set(photos.names):
                folder.finish(photos, request.class_name)
    return unreadable


def _label_share(
    photos: Photos, share: Sequence[int], request: Request, folder: LabelFolder, state: PartialState
) -> int:
    """Labels these photos, and returns how many could not be read."""
    if not share:
        return 0
    model = DSVLFSModel.from_pretrained(request.model)
    model.to(state.device)
    support = model.encode_support(request.examples) if request.mode != "semantic" else None
    unreadable = 0
    title = f"process 1 of {state.num_processes}" if state.num_processes > 1 else None
    for index in tqdm(share, unit="photo", desc=title, disable=not state.is_main_process):
        name = photos.names[index]
        try:
            photo = load_photo(_decode(photos.read(index), name))
        except (InputError, OSError) as error:
            with tqdm.external_write_mode(file=sys.stderr):
                print(f"dsvlfs: {error}", file=sys.stderr)
            unreadable += 1
            continue
        result = model.segment(
            photo,
            request.class_name,
            support=support,
            description=request.description,
            mode=request.mode,
            threshold=request.threshold,
            min_presence=request.min_presence,
            aggregation=request.aggregation,
        )
        folder.add(state.process_index, name, photo, result.mask, result.probability)
    return unreadable


def _decode(content: bytes, name: str) -> Photo:
    try:
        image = Image.open(BytesIO(content))
        image.load()
        return image
    except (*DECODING_ERRORS, Image.DecompressionBombError) as error:
        raise InputError(f"The photo {name} cannot be read ({error}); give a whole JPEG or PNG.") from error
