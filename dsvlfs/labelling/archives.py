"""The photos in an archive."""

import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from ..errors import InputError
from .photo_files import RAW_SUFFIXES, ZIP_SUFFIXES, all_of, count, file_stamp, holds_photo, is_hidden, is_photo_name


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
                count(self.left_out, "raw photo")
            elif is_photo_name(member.name) or self._sniffed(member):
                members["/".join([*([prefix] if prefix else []), *parts])] = member
        self.names = list(members)
        self._chosen = list(members.values())

    def read(self, index: int) -> bytes:
        """The encoded file of a photo."""
        with self._explained(), self._chosen[index].open() as content:
            return all_of(content, self.names[index])

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
