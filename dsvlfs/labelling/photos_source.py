"""What photos there are to label: of a folder, in archives, of a data set."""

import os
import tarfile
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Protocol

import fsspec
from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
from datasets import Image as ImageFeature
from datasets.exceptions import DatasetNotFoundError
from PIL import Image, UnidentifiedImageError

from ..errors import InputError
from ..files import PHOTO_SUFFIXES, open_regular

RAW_SUFFIXES = {".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw"}
"""Of cameras' raw files: Pillow would read the small preview in them."""
ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
TABLE_SUFFIXES = (".arrow", ".parquet", ".jsonl", ".json", ".csv")
"""Of files in which a data set may keep its photos."""
LARGEST_FILE = 2**30
"""Bytes of a photo's file at most: an archive of a few kilobytes can hold a file of many gigabytes."""


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


class NoPhotosError(InputError):
    """A folder or archive that holds no photo."""


def is_photo_name(name: str) -> bool:
    """Whether a file's suffix says that it is a photo."""
    return Path(name).suffix.lower() in PHOTO_SUFFIXES


def is_hidden(name: str) -> bool:
    """Whether a file or folder is one that no person put there: a dot file, or what macOS adds to an archive."""
    return name.startswith(".") or name == "__MACOSX"


def holds_photo(content: BinaryIO) -> bool:
    """Whether a file's content is a photo's, by its first bytes, whatever its name."""
    try:
        with Image.open(content, formats=sorted(_signed_formats())):
            return True
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return False
    except Image.DecompressionBombError:
        return True  # its complaint comes with the photo


def find_photos(folder: Path, *, deep: bool = True) -> list[Path]:
    """The photos of a folder, in the order of their paths.

    A photo is what has a photo's suffix, or a photo's content. Hidden files and folders are left out. A folder or file
    that a symbolic link leads to is taken once, by its own path where that is in the folder.

    Args:
        folder: where they are.
        deep: look into its folders too.
    """
    return sorted(_Found(folder, deep, ()).photos)


class FolderPhotos:
    """The photos of a folder and its subfolders and archives, named by their path in it.

    Args:
        folder: where they are.
        exclude: files that are not to be labelled, by whatever path.

    Raises:
        NoPhotosError: there is none.
    """

    def __init__(self, folder: Path, exclude: Collection[Path] = ()) -> None:
        found = _Found(folder, True, exclude)
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
                _count(self.left_out, "damaged archive")
                continue
            places |= {name: (archive, index) for index, name in enumerate(archive.names)}
            for reason, number in archive.left_out.items():
                _count(self.left_out, reason, number)
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
            return _all_of(file, self.names[index])

    def stamp(self, index: int) -> str | None:
        """The file's number, size and time of change."""
        archive, place = self._places[index]
        return file_stamp(self._folder / self.names[index]) if archive is None else archive.stamp(place)

    def path(self, index: int) -> Path | None:
        """The file."""
        return self._folder / self.names[index] if self._places[index][0] is None else None


@dataclass(frozen=True)
class _Member:
    name: str
    stamp: str
    open: Callable[[], BinaryIO]


class ArchivePhotos:
    """The photos in a ZIP or TAR archive.

    Args:
        file: the archive.
        prefix: folder that their names begin with; none where it is empty.

    Raises:
        InputError: it is damaged.
    """

    def __init__(self, file: Path, prefix: str = "") -> None:
        self._file = file
        self.kind = "files"
        self.left_out: dict[str, int] = {}
        members = {}
        for member in self._members():
            parts = [part for part in Path(member.name).parts if part != "/"]
            if any(is_hidden(part) for part in parts):
                continue
            suffix = Path(member.name).suffix.lower()
            if suffix in RAW_SUFFIXES:
                _count(self.left_out, "raw photo")
            elif is_photo_name(member.name) or self._sniffed(member):
                members["/".join([*([prefix] if prefix else []), *parts])] = member
        self.names = list(members)
        self._chosen = list(members.values())

    def read(self, index: int) -> bytes:
        """The encoded file of a photo."""
        with self._explained(), self._chosen[index].open() as content:
            return _all_of(content, self.names[index])

    def stamp(self, index: int) -> str | None:
        """What the archive says of the file, and the archive's own size and time of change."""
        return f"{file_stamp(self._file)} {self._chosen[index].stamp}"

    def path(self, index: int) -> Path | None:
        """None: it is in the archive."""

    def _sniffed(self, member: _Member) -> bool:
        with self._explained(), member.open() as content:
            return holds_photo(BytesIO(content.read(2**16)))

    def _members(self) -> Iterator[_Member]:
        with self._explained():
            if self._file.name.lower().endswith(ZIP_SUFFIXES):
                archive = self._zip = zipfile.ZipFile(self._file)
                for entry in archive.infolist():
                    if not entry.is_dir():
                        yield _Member(entry.filename, str(entry.CRC), lambda e=entry: archive.open(e))
            else:
                archive = self._tar = tarfile.open(self._file)  # noqa: SIM115 (it stays open)
                for entry in archive:
                    if entry.isreg():
                        stamp = f"{entry.offset_data} {entry.mtime}"
                        yield _Member(entry.name, stamp, lambda e=entry: archive.extractfile(e))

    def _explained(self) -> "_ArchiveErrors":
        return _ArchiveErrors(self._file)


class _ArchiveErrors:
    """Turns what a damaged archive raises into one sentence."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RuntimeError) and "password" in str(error):
            raise InputError(f"The archive {self._file} has a password; unpack it first.") from None
        damaged = (zipfile.BadZipFile, tarfile.TarError, EOFError, RuntimeError, NotImplementedError, OSError)
        # zlib, bz2 and lzma have errors of their own, and no base class.
        if isinstance(error, damaged) or type(error).__name__ in ("error", "LZMAError"):
            raise InputError(
                f"The archive {self._file} cannot be read ({error}); get it again, or unpack it."
            ) from error


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
                return _all_of(content, self.names[index])
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


def file_stamp(file: Path) -> str | None:
    """What changes when a file is replaced or written to; None where there is no such file."""
    try:
        known = file.stat()
    except OSError:
        return None
    return f"{known.st_size} {known.st_mtime_ns} {known.st_ino} {known.st_ctime_ns}"


class _Found:
    """A walk through a folder: the photos and archives, and what was left out.

    Args:
        folder: where it begins; its folders come before what links lead to.
        deep: whether it goes into folders.
        exclude: files that are left out, by whatever path.
    """

    def __init__(self, folder: Path, deep: bool, exclude: Collection[Path]) -> None:
        self.photos: list[Path] = []
        self.archives: list[Path] = []
        self.left_out: dict[str, int] = {}
        self._excluded = {_identity(file.stat()) for file in exclude if file.is_file()}
        self._seen: set[tuple[int, int]] = set()
        folders, links = [folder], []
        while folders or links:
            if folders:
                folders += self._enter(folders.pop(), deep, links)
            elif (link := links.pop()).is_dir():
                folders += [link] if deep else []
            elif link.is_file():
                self._take(link, once=True)
            elif is_photo_name(link.name):
                _count(self.left_out, "broken link")

    def _enter(self, folder: Path, deep: bool, links: list[Path]) -> list[Path]:
        """Takes what is in a folder; returns its folders, and adds to the links."""
        try:
            identity = _identity(folder.stat())
            with os.scandir(folder) as listing:
                entries = sorted((entry for entry in listing if not is_hidden(entry.name)), key=lambda e: e.name)
        except OSError:
            _count(self.left_out, "closed folder")
            return []
        if identity in self._seen:
            return []
        self._seen.add(identity)
        links += [folder / entry.name for entry in reversed(entries) if entry.is_symlink()]
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                self._take(folder / entry.name, once=False)
        return [folder / e.name for e in reversed(entries) if deep and e.is_dir(follow_symlinks=False)]

    def _take(self, file: Path, once: bool) -> None:
        identity = _identity(file.stat())
        lower = file.name.lower()
        if identity in self._excluded:
            _count(self.left_out, "support")
        elif once and identity in self._seen:
            return
        elif lower.endswith((*ZIP_SUFFIXES, *TAR_SUFFIXES)):
            self.archives.append(file)
        elif file.suffix.lower() in RAW_SUFFIXES:
            _count(self.left_out, "raw photo")
        elif is_photo_name(file.name) or _sniff(file):
            self.photos.append(file)
        self._seen.add(identity)


def _sniff(file: Path) -> bool:
    try:
        with file.open("rb") as content:
            return holds_photo(content)
    except OSError:
        return False


def _identity(known: os.stat_result) -> tuple[int, int]:
    return known.st_dev, known.st_ino


def _signed_formats() -> set[str]:
    """Formats that Pillow knows by their first bytes, and reads itself."""
    Image.init()
    unread = {"EPS", "WMF", "PDF", "MPEG", "FITS", "HDF5", "GRIB", "BUFR"}  # by other programs, or not photos
    return {name for name, (_, accept) in Image.OPEN.items() if accept is not None} - unread


def _all_of(content: BinaryIO, name: str) -> bytes:
    read = content.read(LARGEST_FILE + 1)
    if len(read) > LARGEST_FILE:
        raise InputError(f"The photo {name} is larger than {LARGEST_FILE >> 30} GiB; scale it down first.")
    return read


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


def reasons(left_out: dict[str, int]) -> str:
    """Why files were left out, in brackets; nothing where none was."""
    if not left_out:
        return ""
    parts = (f"{number} {reason}{'' if number == 1 else 's'}" for reason, number in sorted(left_out.items()))
    return f" (left out: {', '.join(parts)})"


def _count(counts: dict[str, int], reason: str, number: int = 1) -> None:
    counts[reason] = counts.get(reason, 0) + number
