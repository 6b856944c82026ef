"""Files written whole or not at all.

What is written goes to a hidden folder beside its place, onto the disk, and takes its place at the end. A killed
process leaves at most that hidden folder, which the next one that writes the same file takes over.
"""

import errno
import hashlib
import io
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import DiskFullError, InputError, WriteError
from .reading import FORBIDDEN, reading_fault

if TYPE_CHECKING:
    from PIL.Image import Image

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_text(file: Path, text: str) -> None:
    """Writes all of a file or nothing, in UTF-8. Raises WriteError."""
    write_bytes(file, text.encode())


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Writes all of a file or nothing. Raises WriteError."""
    import json

    write_text(file, json.dumps(content, indent=2) + "\n")


def write_bytes(file: Path, content: bytes) -> None:
    """Writes all of a file or nothing. Raises WriteError."""
    with whole_file(file) as partial, _explained(file):
        partial.write_bytes(content)


def write_image(file: Path, image: "Image", **options: Any) -> None:
    """Writes all of an image or nothing. Raises WriteError.

    Args:
        file: whose suffix says the format.
        image: PIL's.
        options: of PIL's `save`, such as `quality`.
    """
    from PIL import Image

    encoded = io.BytesIO()  # Pillow does not notice when a disk takes a part of what it writes itself
    image.save(encoded, format=Image.registered_extensions()[file.suffix.lower()], **options)
    write_bytes(file, encoded.getvalue())


def append_line(file: Path, line: str) -> None:
    """Adds a line to a file, all of it or nothing, onto the disk; half a line that a killed process left is taken off.

    Raises:
        WriteError: it cannot be written.
    """
    with _explained(file), file.open("ab+") as stream:
        _lock(stream.fileno(), wait=True)
        end = _end_of_lines(stream)
        stream.truncate(end)
        try:
            stream.write(line.encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        except OSError:
            with suppress(OSError):
                os.ftruncate(stream.fileno(), end)
            raise


def _end_of_lines(stream: BinaryIO) -> int:
    """Where the last whole line of a file ends."""
    end = stream.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 2**16)
        stream.seek(start)
        if (place := stream.read(end - start).rfind(b"\n")) >= 0:
            return start + place + 1
        end = start
    return 0


@contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """A path to write to in place of `file`, which takes its content at the end, and is as it was where the body fails.

    Args:
        file: what is no regular file (a device, a pipe) is written to as it is.

    Raises:
        WriteError: it cannot be written.
    """
    with whole_files(file) as (partial,):
        yield partial


@contextmanager
def whole_files(*files: Path) -> Iterator[tuple[Path, ...]]:
    """As `whole_file`, of several that belong together: none takes its content before all are on the disk. They take it
    in their order.

    Raises:
        WriteError: one cannot be written.
    """
    with ExitStack() as stack:
        hidden = []
        for file in files:
            with _explained(file):
                target = Path(os.path.realpath(file))
            hidden.append(_Hidden(target))
            stack.callback(hidden[-1].close)
        with _explained(files[0], only_full=True):
            yield tuple(entry.path for entry in hidden)
        for step in (_Hidden.finish, _Hidden.place):
            for entry in hidden:
                step(entry)
        for folder in {entry.file.parent for entry in hidden}:
            _onto_disk(folder)


@contextmanager
def whole_contents(folder: Path, *, last: str) -> Iterator[Path]:
    """An empty folder to write into; its files take their places in `folder`, and none before all are on the disk.
    What else is in `folder` stays.

    Args:
        folder: made where it is missing.
        last: name of the file that comes last.

    Raises:
        WriteError: one cannot be written.
    """
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        scratch = _Scratch(folder / ".part")
    try:
        with _explained(folder, only_full=True):
            yield scratch.path
        with _explained(folder):
            _all_onto_disk(scratch.path)
            names = [file.relative_to(scratch.path) for file in scratch.path.rglob("*") if file.is_file()]
            for name in sorted(names, key=lambda name: (str(name) == last, name)):
                (folder / name).parent.mkdir(exist_ok=True)
                os.replace(scratch.path / name, folder / name)
            _onto_disk(folder)
    finally:
        scratch.close()


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to fill in place of `folder`, which it replaces at the end; where the body fails, `folder` is as
    it was. One process at a time may do so.

    A process that was killed between the two renames leaves no `folder`: `recover_folder` brings it back.

    Raises:
        WriteError: it cannot be written.
    """
    partial, old = folder.with_name(f"{folder.name}.part"), _old(folder)
    with _explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        recover_folder(folder)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
    try:
        with _explained(folder, only_full=True):
            yield partial
        with _explained(folder):
            _all_onto_disk(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    with _explained(folder):
        if folder.exists():
            os.replace(folder, old)
        os.replace(partial, folder)
        _onto_disk(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(folder: Path) -> None:
    """Brings a folder back that a process was killed over while it replaced it, and takes away what is left over."""
    old = _old(folder)
    if not folder.exists() and old.exists():
        os.replace(old, folder)
    shutil.rmtree(old, ignore_errors=True)


def _old(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.old")


class _Scratch:
    """A hidden folder that is this process's alone, until it is closed.

    Args:
        path: where it should be; another where another process has it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = self._claim()
        if self._lock is None:
            self.path = path.with_name(f"{path.stem}-{secrets.token_hex(4)}{path.suffix}")
            self.path.mkdir()

    def _claim(self) -> int | None:
        """A descriptor that holds the folder, made or emptied; None where another process holds it."""
        self.path.mkdir(exist_ok=True)
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except OSError:  # another user's; gone meanwhile; Windows opens no folders
            return None
        with suppress(OSError):
            # Whoever held it may have taken it away meanwhile.
            if _lock(descriptor, wait=False) and os.path.samestat(os.fstat(descriptor), os.stat(self.path)):
                for left in self.path.iterdir():
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
                return descriptor
        os.close(descriptor)
        return None

    def close(self) -> None:
        """Takes away what is left."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)


class _Hidden:
    """A file's stand-in, in a scratch folder beside it: some writers make further files on their way. `path` is where
    it is, or where the file is if that is a device or a pipe."""

    def __init__(self, file: Path) -> None:
        self.file = self.path = file
        self._scratch: _Scratch | None = None
        with _explained(file):
            if file.is_dir():
                raise IsADirectoryError
            if file.exists() and not file.is_file():
                return
            # A name of 255 bytes has no room for more.
            mark = hashlib.sha256(os.fsencode(file.name)).hexdigest()[:12]
            self._scratch = _Scratch(file.with_name(f".{mark}.part"))
            self.path = self._scratch.path / file.name

    def finish(self) -> None:
        """Waits until it is on the disk."""
        if self._scratch is not None:
            with _explained(self.file):
                _all_onto_disk(self._scratch.path)

    def place(self) -> None:
        """Gives it the file's name."""
        if self._scratch is not None:
            with _explained(self.file):
                os.replace(self.path, self.file)

    def close(self) -> None:
        """Takes away what is left."""
        if self._scratch is not None:
            self._scratch.close()


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Whether this process now holds an open file until it closes it; never where the system has no such locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _all_onto_disk(folder: Path) -> None:
    """Waits until all of a folder is on the disk."""
    rights = folder.stat().st_mode
    for file in folder.rglob("*"):
        if file.is_file():  # some writers leave one that its owner alone may read
            file.chmod(rights & 0o666)
        _onto_disk(file)
    _onto_disk(folder)


def _onto_disk(path: Path) -> None:
    """Waits until a file's content, or a folder's list of names, is on the disk."""
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR
    try:
        descriptor = os.open(path, flags)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in _NO_ROOM or error.errno == errno.EIO:
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _explained(path: Path, *, only_full: bool = False) -> Iterator[None]:
    """Turns an OSError into a WriteError of a path; of a body that does more than write to it, a full disk alone."""
    try:
        yield
    except OSError as error:
        if only_full and error.errno not in _NO_ROOM:
            raise
        raise write_error(path, error) from error
    except ValueError as error:  # a NUL, or half a surrogate pair
        if only_full or isinstance(error, InputError):
            raise
        raise WriteError(f"The path {path} holds a character that no path can; give another.") from None


def write_error(path: Path, error: OSError) -> WriteError:
    """Why a file or folder could not be written, in one sentence."""
    if error.errno in _NO_ROOM:
        return DiskFullError(
            f"The disk is full, or a limit on file sizes is reached: {path} could not be written and is as it was; "
            "make room and run again."
        )
    if error.errno in FORBIDDEN:
        return WriteError(f"{path} cannot be written: you may not write there; give another place.")
    if error.errno == errno.ENAMETOOLONG:
        return WriteError(f"{path} cannot be written: its name is too long; rename what it is named after.")
    if isinstance(error, IsADirectoryError):
        return WriteError(f"{path} is a folder; give the name of a file.")
    if isinstance(error, FileNotFoundError):
        return WriteError(f"There is no folder {path.parent} to write {path.name} to; make it first.")
    return WriteError(f"{path} cannot be written ({error.strerror or error}); give another place.")


def os_error(error: OSError) -> InputError:
    """An error that nobody foresaw, in one sentence."""
    path = Path(os.fsdecode(error.filename)) if error.filename else None
    if error.errno in _NO_ROOM:
        return write_error(path or Path("a file"), error)
    return InputError(f"{path or 'A file'} cannot be used: {reading_fault(error)}.")
