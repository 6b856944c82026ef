"""Which files are photos: by their suffix or their content, and none that no person put there."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from ..errors import InputError
from ..files import PHOTO_SUFFIXES
from ..inference.photos import readable_formats

RAW_SUFFIXES = {".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw"}
"""Of cameras' raw files: Pillow would read the small preview in them."""
ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
LARGEST_FILE = 2**30
"""Bytes of a photo's file at most: an archive of a few kilobytes can hold a file of many gigabytes."""


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
        with Image.open(content, formats=_signed_formats()):
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
    return sorted(FoundPhotos(folder, deep, ()).photos)


def file_stamp(file: Path) -> str | None:
    """What changes when a file is replaced or written to; None where there is no such file."""
    try:
        known = file.stat()
    except OSError:
        return None
    return f"{known.st_size} {known.st_mtime_ns} {known.st_ino} {known.st_ctime_ns}"


class FoundPhotos:
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
                count(self.left_out, "broken link")

    def _enter(self, folder: Path, deep: bool, links: list[Path]) -> list[Path]:
        """Takes what is in a folder; returns its folders, and adds to the links."""
        try:
            identity = _identity(folder.stat())
            with os.scandir(folder) as listing:
                entries = sorted((entry for entry in listing if not is_hidden(entry.name)), key=lambda e: e.name)
        except OSError:
            count(self.left_out, "closed folder")
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
            count(self.left_out, "support")
        elif once and identity in self._seen:
            return
        elif lower.endswith((*ZIP_SUFFIXES, *TAR_SUFFIXES)):
            self.archives.append(file)
        elif file.suffix.lower() in RAW_SUFFIXES:
            count(self.left_out, "raw photo")
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


def _signed_formats() -> list[str]:
    """Formats that are read, and known by their first bytes."""
    Image.init()
    return [name for name in readable_formats() if Image.OPEN[name][1] is not None]


def all_of(content: BinaryIO, name: str) -> bytes:
    read = content.read(LARGEST_FILE + 1)
    if len(read) > LARGEST_FILE:
        raise InputError(f"The photo {name} is larger than {LARGEST_FILE >> 30} GiB; scale it down first.")
    return read


def reasons(left_out: dict[str, int]) -> str:
    """Why files were left out, in brackets; nothing where none was."""
    if not left_out:
        return ""
    parts = (f"{number} {reason}{'' if number == 1 else 's'}" for reason, number in sorted(left_out.items()))
    return f" (left out: {', '.join(parts)})"


def count(counts: dict[str, int], reason: str, number: int = 1) -> None:
    counts[reason] = counts.get(reason, 0) + number
