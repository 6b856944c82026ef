"""The page's own folder of uploads and results: bounded while the page runs, and gone with it.

A page that was killed could not tidy up; the next one that starts does it. A lock, which ends with its process, says
whether a folder is still somebody's.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import InputError

MAX_AGE = 3600  # seconds that an upload or a result is kept
MAX_VISITOR = 2**30  # bytes of an address's uploads
MAX_UPLOADS = 4 * 2**30  # bytes of all uploads
MAX_RESULTS = 2**30  # bytes of what the page made
LEAST = 2**16  # bytes that a file counts for, however small: their number is bounded, too
UNFINISHED = 600  # seconds after which a file that is still being received has been given up
PREFIX = "dsvlfs-page-"


@dataclass(frozen=True)
class _Kept:
    """A file in the folder."""

    path: Path
    size: int
    since: float


class Store:
    """A folder that no other page uses.

    Args:
        parent: of the folder; made where it is missing, and rid of what dead pages left there.

    Raises:
        InputError: nothing can be written there.
    """

    def __init__(self, parent: Path) -> None:
        name = PREFIX + uuid.uuid4().hex
        self._lock = threading.Lock()
        self._owners: dict[Path, str] = {}
        self._in_use: Counter[Path] = Counter()
        self._permanent: frozenset[Path] = frozenset()
        self._owned = FileLock(parent / f"{name}.lock", timeout=10)
        self.folder = parent / name
        self.uploads = self.folder / "files"
        self.work = self.folder / "work"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            remove_abandoned(parent)
            self._owned.acquire()
            self.uploads.mkdir(parents=True)
            self.work.mkdir()
        except OSError as error:
            raise InputError(
                f"The page cannot keep uploads in {parent} ({error.strerror}); set GRADIO_TEMP_DIR to a folder that it "
                "can write to."
            ) from error
        atexit.register(self.close, os.getpid())

    def close(self, process: int | None = None) -> None:
        """Removes the folder.

        Args:
            process: whose it is; a copy of that process leaves it alone.
        """
        if process not in (None, os.getpid()):
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        if not self.folder.exists():  # else an upload came meanwhile, which the next page removes
            Path(self._owned.lock_file).unlink(missing_ok=True)
        self._owned.release()

    def keep(self) -> None:
        """Keeps the files that are there now as long as the page runs."""
        self._permanent = frozenset(kept.path for kept in self._files())

    def note(self, address: str, files: Iterable[str]) -> None:
        """Says whose uploads these files are."""
        with self._lock:
            self._owners.update(dict.fromkeys(map(Path, files), address))

    @contextmanager
    def in_use(self, files: Iterable[str]) -> Iterator[None]:
        """Leaves these files alone meanwhile."""
        files = list(map(Path, files))
        with self._lock:
            self._in_use.update(files)
        try:
            yield
        finally:
            with self._lock:
                self._in_use.subtract(files)
                self._in_use += Counter()

    def sweep(self) -> None:
        """Removes what is too old, and the oldest of what is too much: of an address's uploads, of all uploads, where
        the address that has most goes first, and of the results."""
        files = sorted(self._files(), key=lambda kept: kept.since)
        with self._lock:
            self._owners = {kept.path: self._owners[kept.path] for kept in files if kept.path in self._owners}
            now = time.time()
            fresh = []
            for kept in files:
                unfinished = kept.path.parent == self.uploads
                if now - kept.since <= (UNFINISHED if unfinished else MAX_AGE) or not self._remove(kept):
                    fresh += [] if unfinished else [kept]
            uploads = {owner: [] for owner in self._owners.values()}
            results = []
            for kept in fresh:
                owner = self._owners.get(kept.path)
                (results if owner is None else uploads[owner]).append(kept)
            self._shorten(results, MAX_RESULTS)
            for own in uploads.values():
                self._shorten(own, MAX_VISITOR)
            excess = sum(map(_total, uploads.values())) - MAX_UPLOADS
            while excess > 0:
                largest = max(uploads.values(), key=_total)
                before = _total(largest)
                self._shorten(largest, before - 1)
                excess -= before - _total(largest)
                if _total(largest) == before:  # all of it is in use
                    break

    def _shorten(self, files: list[_Kept], limit: int) -> None:
        """Removes the oldest of some files, which are in order, until they are small enough."""
        excess = _total(files) - limit
        for kept in list(files):
            if excess <= 0:
                break
            if self._remove(kept):
                files.remove(kept)
                excess -= kept.size

    def _remove(self, kept: _Kept) -> bool:
        """Removes a file, unless it is to stay."""
        if kept.path in self._permanent or self._in_use[kept.path]:
            return False
        kept.path.unlink(missing_ok=True)
        self._owners.pop(kept.path, None)
        return True

    def _files(self) -> Iterator[_Kept]:
        """All files; a folder that has been empty for a while goes."""
        for folder, folders, names in os.walk(self.uploads):
            for name in names:
                path = Path(folder, name)
                try:
                    state = path.lstat()
                except FileNotFoundError:
                    continue
                # A copy of a file has its time of change; this is the time since which it is here.
                yield _Kept(path, max(state.st_size, LEAST), state.st_ctime)
            if not folders and not names and folder != str(self.uploads):
                try:
                    if time.time() - Path(folder).stat().st_mtime > UNFINISHED:
                        Path(folder).rmdir()
                except OSError:  # it is not empty any more
                    continue


def _total(files: Iterable[_Kept]) -> int:
    return sum(kept.size for kept in files)


def remove_abandoned(parent: Path) -> None:
    """Removes the folders of pages that have ended without."""
    for lock_file in parent.glob(f"{PREFIX}*.lock"):
        lock = FileLock(lock_file, timeout=0)
        try:
            lock.acquire()
        except (Timeout, OSError):  # it runs, or belongs to somebody else
            continue
        shutil.rmtree(lock_file.with_suffix(""), ignore_errors=True)
        lock.release()
        lock_file.unlink(missing_ok=True)


@cache
def page_store() -> Store:
    """This process's; from now on gradio keeps its files there."""
    parent = os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir(), "gradio")
    store = Store(Path(parent).absolute())
    os.environ["GRADIO_TEMP_DIR"] = str(store.uploads)
    return store
