"""What photos there are to label: of a folder, in archives, of a data set."""

import os
import zipfile
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import fsspec
from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
from datasets import Image as ImageFeature
from datasets.exceptions import DatasetNotFoundError

from ..errors import InputError
from ..files import open_regular
from .archives import ArchivePhotos
from .photo_files import TAR_SUFFIXES, ZIP_SUFFIXES, FoundPhotos, NoPhotosError, all_of, count, file_stamp, reasons

TABLE_SUFFIXES = (".arrow", ".parquet", ".jsonl", ".json", ".csv")
"""Of files in which a data set may keep its photos."""


class Photos(Protocol):
    """Photos to label.

    Args:
        names: one each, the same from run to run.
        kind: what two sources must share so that the names of one can be those of the other.
        left_out: why some files are not among them, and how many.
    """

    names: Sequence[str]
    kind: str
    left_out: dict[str, int]

    def read(self, index: int) -> bytes:
        """The encoded file of a photo. Raises InputError or OSError where it cannot be had."""

    def stamp(self, index: int) -> str | None:
        """What changes with a photo's content, and is quicker to know than that; None where there is no such thing."""

    def path(self, index: int) -> Path | None:
        """Where a photo is, if it is a file of its own."""


class FolderPhotos:
    """The photos of a folder and its subfolders and archives, named by their path in it.

    Args:
        folder: where they are.
        exclude: files that are not to be labelled, by whatever path.

    Raises:
        NoPhotosError: there is none.
    """

    def __init__(self, folder: Path, exclude: Collection[Path] = ()) -> None:
        found = FoundPhotos(folder, True, exclude)
        self._folder = folder
        self.kind = "files"
        self.left_out = found.left_out
        places: dict[str, tuple[ArchivePhotos | None, int]] = {
            file.relative_to(folder).as_posix(): (None, 0) for file in sorted(found.photos)
        }
        for file in sorted(found.archives):
            try:
                archive = ArchivePhotos(file, file.relative_to(folder).as_posix())
            except InputError:
                count(self.left_out, "damaged archive")
                continue
            places |= {name: (archive, index) for index, name in enumerate(archive.names)}
            for reason, number in archive.left_out.items():
                count(self.left_out, reason, number)
        self.names = list(places)  # an archive's in its own order, in which it is quick to read
        self._places = list(places.values())
        if not self.names:
            raise NoPhotosError(f"The folder {folder} holds no photos{reasons(self.left_out)}.")

    def read(self, index: int) -> bytes:
        """The encoded file of a photo."""
        archive, place = self._places[index]
        if archive is not None:
            return archive.read(place)
        with open_regular(self._folder / self.names[index], "photo") as file:
            return all_of(file, self.names[index])

    def stamp(self, index: int) -> str | None:
        """The file's number, size and time of change."""
        archive, place = self._places[index]
        return file_stamp(self._folder / self.names[index]) if archive is None else archive.stamp(place)

    def path(self, index: int) -> Path | None:
        """The file."""
        return self._folder / self.names[index] if self._places[index][0] is None else None


class DatasetPhotos:
    """The photos of a Hugging Face data set, named by their number.

    Args:
        name: of the data set on the hub, or a local folder that `datasets` reads.
        split: of the data set.
        column: that holds the photos.

    Raises:
        InputError: there is no such data set, split or column.
    """

    def __init__(self, name: str, split: str, column: str) -> None:
        dataset = _load(name, split)
        if not isinstance(dataset.features.get(column), ImageFeature):
            images = [key for key, feature in dataset.features.items() if isinstance(feature, ImageFeature)]
            raise InputError(
                f"The data set {name} has no images in a column '{column}'; give another one"
                f" ({', '.join(images) or 'it has none'})."
            )
        self._images = dataset.select_columns([column]).cast_column(column, ImageFeature(decode=False))
        self._column = column
        self._fingerprint = dataset._fingerprint
        self.kind = f"data set, {split}, {column}"
        self.left_out: dict[str, int] = {}

    @cached_property
    def names(self) -> Sequence[str]:
        """The photos' numbers."""
        digits = max(6, len(str(len(self._images))))
        return [f"{index:0{digits}d}" for index in range(len(self._images))]

    def read(self, index: int) -> bytes:
        """The encoded file of a photo."""
        entry = self._images[index][self._column]
        if entry is None or (entry["bytes"] is None and not entry["path"]):
            raise InputError(f"The data set has no photo at {self.names[index]}.")
        if entry["bytes"] is not None:
            return entry["bytes"]
        try:
            with fsspec.open(entry["path"], "rb") as content:  # an archive's is 'zip://photo.jpg::photos.zip'
                return all_of(content, self.names[index])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"The photo {self.names[index]} of the data set cannot be had ({error}).") from error

    def stamp(self, index: int) -> str | None:
        """What `datasets` knows the data set's content by."""
        return self._fingerprint

    def path(self, index: int) -> Path | None:
        """None: it is in the data set."""


def open_photos(name: str, split: str, column: str, exclude: Collection[Path] = ()) -> Photos:
    """A folder of photos, an archive of them, or else a data set.

    Args:
        name: of any of them.
        split, column: of a data set.
        exclude: files that are not to be labelled, by whatever path.

    Raises:
        InputError: it is neither, or holds no photo.
    """
    place = Path(name)
    if os.path.isfile(name):
        if not place.name.lower().endswith((*ZIP_SUFFIXES, *TAR_SUFFIXES)):
            raise InputError(f"{name} is one file; give the folder that it is in, an archive, or a data set's name.")
        photos = ArchivePhotos(place)
        if not photos.names:
            raise NoPhotosError(f"The archive {name} holds no photos{reasons(photos.left_out)}.")
        return photos
    if os.path.isdir(name) and not _is_saved_dataset(place):
        try:
            return FolderPhotos(place, exclude)
        except NoPhotosError:
            if not any(file.suffix in TABLE_SUFFIXES for file in place.rglob("*")):
                raise
    return DatasetPhotos(name, split, column)


def _is_saved_dataset(folder: Path) -> bool:
    """Whether `Dataset.save_to_disk` made a folder."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _load(name: str, split: str) -> Dataset:
    try:
        if not _is_saved_dataset(Path(name)):
            return load_dataset(name, split=split)
        saved = load_from_disk(name)
        if isinstance(saved, DatasetDict):
            if split not in saved:
                raise ValueError(f"no split {split}")
            return saved[split]
        return saved
    except (DatasetNotFoundError, OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{name} is neither a folder of photos nor a data set with a split '{split}' "
            f"({type(error).__name__}); check the name, or the network."
        ) from error
