"""What is labelled already, and who labels what: so that a run goes on where another stopped, and two share the work.

`labels-N.jsonl` has a line for each photo that run N finished, written after its files. `.work/` holds a lock that is
held for moments, one that each run holds as long as it lives (the system lets go of it whatever ends the run), and what
each run is at.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from ..errors import InputError
from ..files import append_line, read_json, write_json, write_text
from .labels import Figures, ObjectFigures, PhotoLabels

WORK = ".work"

Verdict = Literal["accepted", "drawn", "rejected"]
"""What a person says of a label: it is right; it is as they drew it; it is wrong."""


@dataclass(frozen=True)
class Label:
    """A line of `labels-N.jsonl`: a photo's label.

    Args:
        photo: its name.
        digest: SHA-256 of its file.
        mask, overlay: files, relative to the output folder.
        mask_stamp: what changes when the mask's file is written to.
        width, height: of the photo, upright.
        area_percent, score, expected_iou, presence, is_emptied: of `PhotoLabels.overall`.
        classes: figures of each class.
        stamp: what changes with the photo's content, and is quicker to know.
        objects: file of the object map, where objects were asked for.
        found: the objects.
        number: grows from label to label; of two for one photo the larger counts.
        verdict: of a person; None where nobody has looked at it.
        is_support: whether the photo and its mask are further supports of what is labelled later.
        made_with: which further supports it was made with (`further_supports`).
    """

    photo: str
    digest: str
    mask: str
    overlay: str
    mask_stamp: str
    width: int
    height: int
    area_percent: float
    score: float
    expected_iou: float | None
    presence: float | None
    is_emptied: bool
    classes: dict[str, Figures]
    stamp: str | None = None
    objects: str | None = None
    objects_stamp: str | None = None
    found: list[ObjectFigures] | None = None
    number: int = 0
    verdict: Verdict | None = None
    is_support: bool = False
    made_with: str = ""

    @property
    def is_held(self) -> bool:
        """Whether a person has accepted or drawn it: then no run makes it again."""
        return self.verdict in ("accepted", "drawn")

    @property
    def stem(self) -> str:
        """What the photo's files are named by."""
        return self.mask.removeprefix("masks/").removesuffix(".png")


_LABEL = TypeAdapter(Label)


def line_of(label: Label) -> str:
    """A label as it stands in its file: ASCII, so that any name can stand in it."""
    return json.dumps(asdict(label))


def figures_of(labels: PhotoLabels) -> dict[str, Any]:
    """The fields of a `Label` that say how far it can be believed, rounded."""
    return {
        **asdict(rounded(labels.overall)),
        "classes": {name: rounded(entry) for name, entry in zip(labels.class_names, labels.figures)},
        "found": None if labels.objects is None else [rounded(entry) for entry in labels.objects],
    }


class Record:
    """The record of an output folder, as one run keeps it.

    Args:
        folder: made where it is missing.
        settings: what two runs must share to write into one folder.
        place: where the photos are, which may change.
        command: what made the labels, to make more of them; None where it was no command.
    """

    def __init__(
        self, folder: Path, settings: dict[str, Any], place: str, command: dict[str, Any] | None = None
    ) -> None:
        self.folder = folder
        self.labels: dict[str, Label] = {}
        self.place = place
        self._command = command
        self._settings = json.loads(json.dumps(settings))
        self._work = folder / WORK
        self._lock = FileLock(self._work / "lock")
        self._mine: FileLock | None = None
        self._run = -1
        self._read: dict[Path, tuple[int, int]] = {}  # of each journal: its number on the disk, bytes taken in
        self._newest = 0
        self._failed: list[str] = []
        self._gone: dict[str, int] = {}  # photos' labels up to this number do not count

    def check(self) -> None:
        """Takes in what is labelled already, and changes nothing.

        Raises:
            InputError: the folder holds labels made with other settings.
        """
        self.refresh()
        settings = self.folder / "settings.json"
        if not self.labels and not (settings.is_file() and self._is_shared()):
            return
        if changed := sorted(_differences(read_json(settings), self._settings)):
            raise InputError(
                f"{self.folder} holds labels made with other settings ({', '.join(changed)}); give another --out, or "
                "delete that folder."
            )

    @property
    def place_before(self) -> str | None:
        """Where the photos were in the runs before."""
        file = self.folder / "settings.json"
        return read_json(file).get("place") if file.is_file() else None

    def write_settings(self) -> None:
        """Writes what later runs are compared with."""
        write_json(self.folder / "settings.json", {**self._settings, "place": self.place, "command": self._command})

    def note_command(self) -> None:
        """Writes down what makes the labels now, where that is a command and another one than before."""
        if self._command and read_json(self.folder / "settings.json").get("command") != self._command:
            self.write_settings()

    def _is_shared(self) -> bool:
        """Whether another run is at work in the folder."""
        for file in self._work.glob("live-*"):
            lock = _taken(file)
            if lock is None:
                return True
            lock.release()
        return False

    @contextmanager
    def joined(self) -> Iterator[None]:
        """This run among those that label into the folder, under a number that no other live one has.

        Raises:
            InputError: as `check`.
        """
        self._work.mkdir(parents=True, exist_ok=True)
        with self._lock:
            self.check()
            if not self.labels:
                self.write_settings()
            self._run = 0
            while (mine := _taken(self._live(self._run))) is None:
                self._run += 1
            self._mine = mine
        try:
            yield
        finally:
            with self._lock:
                self._claim_file(self._run).unlink(missing_ok=True)
                mine.release()

    def forget(self, labels: Iterable[Label]) -> None:
        """Takes labels that do not hold any more out of the record; a newer one of the same photo stays."""
        for label in labels:
            self._gone[label.photo] = max(self._gone.get(label.photo, 0), label.number)
            if self.labels.get(label.photo) == label:
                del self.labels[label.photo]
        if not self._gone:
            return
        with self._lock:
            for journal in self._journals():
                # Another live run's file is its own; what is gone stays in it, and a newer line counts.
                lock = None if (run := _number_of(journal)) == self._run else _taken(self._live(run))
                if run == self._run or lock:
                    lines = [parsed(line) for line in journal.read_bytes().split(b"\n")]
                    kept = [label for label in lines if label and not self._is_gone(label)]
                    write_text(journal, "".join(f"{line_of(label)}\n" for label in kept))
                if lock:
                    lock.release()
            self.refresh()

    def claim(self, photo: str) -> bool | None:
        """Asks for a photo to label.

        Returns:
            True: it is this run's. None: another run is at it. False: it is labelled, or another run cannot read it.
        """
        with self._lock:
            self.refresh()
            if photo in self.labels:
                return False
            for at, failed in self._others():
                if photo in failed:
                    return False
                if photo == at:
                    return None
            self._note(photo)
            return True

    def fail(self, photo: str) -> None:
        """Tells the other runs that a photo cannot be read, as long as this one lives."""
        self._failed.append(photo)
        with self._lock:
            self._note(None)

    def let_go(self) -> None:
        """Lets the other runs have the photo that this one is at."""
        with self._lock, suppress(OSError):  # of a full disk's, an empty claim says the same
            self._note(None)

    def _note(self, photo: str | None) -> None:
        self._claim_file(self._run).write_text(json.dumps([photo, self._failed]))

    def _others(self) -> Iterator[tuple[str | None, list[str]]]:
        """What the other live runs are at, and what they cannot read."""
        for file in self._work.glob("claim-*"):
            if (run := _number_of(file)) == self._run:
                continue
            if lock := _taken(self._live(run)):  # its run is dead
                lock.release()
                continue
            with suppress(ValueError):
                yield tuple(json.loads(file.read_text()))

    def add(self, label: Label) -> None:
        """Writes a label's line; the photo's files are there already."""
        with self._lock:
            self.refresh()
            self._append(label)

    def _append(self, label: Label) -> Label:
        self._newest += 1
        label = replace(label, number=self._newest)
        append_line(self._journal(self._run), line_of(label))
        self.labels[label.photo] = label
        return label

    def change(self, before: Label, make: Callable[[], Label]) -> Label | None:
        """Puts another label in the place of one, unless it has changed since or another run is making it again.

        Args:
            before: the label as it was seen.
            make: writes the photo's files and gives the other one; no run touches the photo meanwhile.

        Returns:
            What stands there now; None where `before` does not any more, and nothing was changed.
        """
        with self._lock:
            self.refresh()
            is_busy = any(at == before.photo for at, _ in self._others())
            if is_busy or self.labels.get(before.photo) != before:
                return None
            return self._append(make())

    def refresh(self) -> None:
        """Takes in the lines that were written since."""
        for journal in self._journals():
            with suppress(FileNotFoundError), journal.open("rb") as file:
                known = os.fstat(file.fileno())
                inode, start = self._read.get(journal, (known.st_ino, 0))
                if inode != known.st_ino or start > known.st_size:
                    start = 0
                file.seek(start)
                new = file.read()
                whole = new.rfind(b"\n") + 1
                self._read[journal] = (known.st_ino, start + whole)
                for line in new[:whole].split(b"\n"):
                    if label := parsed(line):
                        self._take(label)

    def _take(self, label: Label) -> None:
        self._newest = max(self._newest, label.number)
        before = self.labels.get(label.photo)
        if not self._is_gone(label) and (before is None or before.number < label.number):
            self.labels[label.photo] = label

    def _is_gone(self, label: Label) -> bool:
        return label.number <= self._gone.get(label.photo, -1)

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """For what is made of all labels: one run at a time."""
        with FileLock(self._work / "finish"):
            self.refresh()
            yield

    def _journals(self) -> list[Path]:
        return sorted(self.folder.glob("labels-*.jsonl"), key=_number_of)

    def _journal(self, run: int) -> Path:
        return self.folder / f"labels-{run}.jsonl"

    def _claim_file(self, run: int) -> Path:
        return self._work / f"claim-{run}"

    def _live(self, run: int) -> Path:
        return self._work / f"live-{run}"


def _taken(file: Path) -> FileLock | None:
    """The lock on a file; None where another holds it."""
    lock = FileLock(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock


def _number_of(file: Path) -> int:
    number = file.stem.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def parsed(line: bytes) -> Label | None:
    """A line's label; None for half a line."""
    try:
        return _LABEL.validate_python(json.loads(line))  # pydantic's own JSON has no names that are not UTF-8
    except ValueError:
        return None


def rounded(entry: Any) -> Any:
    """Figures as they stand in a line: four digits."""
    return type(entry)(
        **{name: round(value, 4) if isinstance(value, float) else value for name, value in vars(entry).items()}
    )


def _differences(before: dict[str, Any], now: dict[str, Any]) -> set[str]:
    """The names of the settings that differ; a class's by their own names where the classes are the same."""
    apart = {"classes", "place", "command"}
    names = {name for name in (before.keys() | now.keys()) - apart if before.get(name) != now.get(name)}
    old, new = before.get("classes", {}), now.get("classes", {})
    if list(old) != list(new):
        return names | {"classes"}
    return names | {key for name in new for key in new[name] if old[name].get(key) != new[name][key]}
