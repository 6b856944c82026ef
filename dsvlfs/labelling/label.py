"""Labels a data set: what classes are where in every photo of a folder, an archive or a Hugging Face data set.

The output folder holds `masks/`, `overlays/`, the record (`dsvlfs.labelling.record`), and at the end what the formats
write of all labels, and a contact sheet. What has a line in the record is not done again, unless its photo has another
content since, its mask is gone or damaged, it is asked for, or there are further supports since
(`dsvlfs.labelling.further`). What a person has accepted or drawn is never done again.
"""

import fnmatch
import hashlib
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..errors import InputError, WriteError
from ..processes import failing_together, gather, join_processes
from . import formats
from .further import further_samples, further_supports, set_aside
from .label_files import decode, is_a_persons, is_whole, mend_overlay, read_label, same_content, write_label
from .labelled import LabelledPhoto, LabelledPhotos
from .labeller import Labeller
from .names import result_stems
from .photos_source import Photos
from .record import Label, Record
from .request import Request, fitted
from .review import write_sheet

WAIT = 0.5
"""Seconds between two looks at what another run is at."""


@dataclass
class Summary:
    """What a run did, in all its processes.

    Args:
        labelled: photos.
        empty: those of them where no class was found.
        emptied: those of them where a mask was left empty for its presence.
        before: photos that had a label already.
        held: those of them that a person has accepted or drawn.
        unreadable: names of photos that could not be read.
        left_out: why files are no photos to label, and how many.
    """

    labelled: int = 0
    empty: int = 0
    emptied: int = 0
    before: int = 0
    held: int = 0
    unreadable: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{_photos(self.labelled)} labelled"]
        details = [f"{self.empty} left empty"] if self.empty else []
        details += [f"{self.emptied} with a class that is hardly there left out"] if self.emptied else []
        parts[0] += f" ({', '.join(details)})" if details else ""
        before = f"{self.before} labelled before" + (f" ({self.held} of them by a person's word)" if self.held else "")
        parts += [before] if self.before else []
        parts += [f"{len(self.unreadable)} skipped: unreadable"] if self.unreadable else []
        parts += [f"{number} skipped: {reason}" for reason, number in sorted(self.left_out.items())]
        return "; ".join(parts)


def label_photos(
    photos: Photos,
    place: str,
    request: Request,
    out: Path,
    *,
    redo: Sequence[str] = (),
    to: Sequence[str] = (),
    command: dict[str, Any] | None = None,
) -> Summary:
    """Labels the photos that have no label yet, in as many processes as Accelerate started, and together with other
    runs on the same folder.

    Args:
        photos: to label.
        place: where they are.
        request: what to look for.
        out: folder for the results.
        redo: names of photos to label again; `*` and `?` stand for any characters.
        to: further formats.
        command: what does the same again, for `dsvlfs review`.

    Returns:
        What was done; standard error names the photos that could not be read.

    Raises:
        InputError: the folder holds labels made with other settings or of other photos, or an example cannot be used.
    """
    state = join_processes()
    record = Record(out, {**request.settings(), "photos": photos.kind}, place, command)
    with ExitStack() as joined:
        with failing_together():
            record.check()
            _check_names(photos, redo)
        with failing_together():
            if state.is_main_process:
                for part in ("masks", "overlays"):
                    (out / part).mkdir(parents=True, exist_ok=True)
        with failing_together():
            joined.enter_context(record.joined())
        outdated: list[Label] = []
        with failing_together():
            if state.is_main_process:
                outdated = _outdated(photos, record, redo)
                record.note_command()
                for label in outdated:
                    if label.is_held:
                        set_aside(out, label)
        outdated = gather(outdated)
        with failing_together():
            record.forget(outdated)
            labels = [record.labels[name] for name in photos.names if name in record.labels]
        with failing_together():
            done = _label_share(photos, request, record, state.device, is_shown=state.is_main_process)
        summary = _added(gather([done]), labels, photos)
        with failing_together():
            if state.is_main_process:
                finish(photos, record, [entry.name for entry in request.classes], to)
    return summary


def finish(photos: Photos, record: Record, class_names: Sequence[str], to: Sequence[str] = ()) -> None:
    """Writes what is made of all labels together: the formats, less the labels that a person has rejected, and the
    contact sheet.

    Args:
        photos: to label; those that have no label are left out.
        record: of the labels.
        class_names: in the order of their numbers.
        to: formats beside those that are always written.
    """
    with record.finishing():
        indices = [index for index, name in enumerate(photos.names) if name in record.labels]
        labels = [record.labels[photos.names[index]] for index in indices]
        if not labels:
            return

        for index, label in zip(indices, labels):
            mend_overlay(photos, index, label, record.folder, len(class_names))
        right = [(index, label) for index, label in zip(indices, labels) if label.verdict != "rejected"]

        def one_by_one() -> Iterator[LabelledPhoto]:
            for index, label in right:
                yield read_label(photos, index, label, record.folder, class_names)

        everything = LabelledPhotos(class_names, one_by_one, len(right))
        for write in formats.chosen(to):
            write(everything, record.folder)
        write_sheet(record.folder / "contact_sheet.jpg", labels, record.folder)


def _check_names(photos: Photos, redo: Sequence[str]) -> None:
    for pattern in redo:
        if not fnmatch.filter(photos.names, pattern):
            raise InputError(f"There is no photo '{pattern}' to label again; give its path in the folder.")


def _outdated(photos: Photos, record: Record, redo: Sequence[str]) -> list[Label]:
    """The labels that do not hold any more.

    Raises:
        InputError: the labels are of other photos.
    """
    asked = {name for pattern in redo for name in fnmatch.filter(photos.names, pattern)}
    known = [(i, record.labels[name]) for i, name in enumerate(photos.names) if name in record.labels]
    changed = [label for index, label in known if not same_content(photos, index, label)]
    gone = {label.photo for label in changed}
    whole = [label for _, label in known if label.photo not in gone and is_whole(record.folder, label)]
    gone |= {label.photo for _, label in known} - {label.photo for label in whole}
    made_with = further_supports(whole).made_with
    due = [label for label in whole if label.photo in asked and not label.is_held]
    due += [label for label in whole if label.made_with != made_with and not is_a_persons(record.folder, label)]
    if record.labels and record.place != (before := record.place_before):
        if 2 * len(changed) >= len(known):
            raise InputError(
                f"{record.folder} holds labels of other photos ({before}); give another --out, or delete that folder."
            )
        record.write_settings()
    gone |= {label.photo for label in due}
    return [label for _, label in known if label.photo in gone]


def _label_share(photos: Photos, request: Request, record: Record, device: Any, *, is_shown: bool) -> Summary:
    """Labels what no other process does."""
    summary = Summary()
    todo = [index for index, name in enumerate(photos.names) if name not in record.labels]
    if not todo:
        return summary
    further = further_supports(record.labels.values())
    labeller = fitted(request, device, further_samples(photos, record.folder, further, request))
    stems = result_stems(photos.names, {name: label.stem for name, label in record.labels.items()})
    waits = False
    with tqdm(total=len(todo), unit="photo", disable=not is_shown) as bar:
        while todo:
            busy = []
            for index in todo:
                name = photos.names[index]
                claimed = record.claim(name)
                if claimed is None:
                    busy.append(index)
                    continue
                bar.update()
                if claimed:
                    try:
                        _label_one(photos, index, stems[name], labeller, record, summary, further.made_with)
                    except BaseException:  # the other processes come to the next exchange, and are told there
                        record.let_go()
                        raise
            todo = busy
            if todo:
                if not waits and is_shown:
                    bar.write("dsvlfs: waiting for another run on the same folder", file=sys.stderr)
                waits = True
                time.sleep(WAIT)
    return summary


def _label_one(
    photos: Photos, index: int, stem: str, labeller: Labeller, record: Record, summary: Summary, made_with: str
) -> None:
    name = photos.names[index]
    try:
        stamp = photos.stamp(index)  # before the content: what changes meanwhile is noticed the next time
        content = photos.read(index)
        labels = labeller.label(decode(content, name))
    except WriteError:
        raise
    except (InputError, OSError) as error:
        with tqdm.external_write_mode(file=sys.stderr):
            print(f"dsvlfs: {error}", file=sys.stderr)
        record.fail(name)
        summary.unreadable.append(name)
        return
    made = write_label(record.folder, name, stem, labels, hashlib.sha256(content).hexdigest(), stamp)
    record.add(replace(made, made_with=made_with))
    summary.labelled += 1
    summary.empty += not labels.class_map.any()
    summary.emptied += any(entry.is_emptied for entry in labels.figures)


def _added(shares: Sequence[Summary], before: Sequence[Label], photos: Photos) -> Summary:
    return Summary(
        labelled=sum(share.labelled for share in shares),
        empty=sum(share.empty for share in shares),
        emptied=sum(share.emptied for share in shares),
        before=len(before),
        held=sum(label.is_held for label in before),
        unreadable=sorted({name for share in shares for name in share.unreadable}),
        left_out=photos.left_out,
    )


def _photos(number: int) -> str:
    return f"{number} photo{'' if number == 1 else 's'}"
