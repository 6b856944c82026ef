"""Labels a data set: what classes are where in every photo of a folder, an archive or a Hugging Face data set.

The output folder holds `masks/`, `overlays/`, the record (`dsvlfs.labelling.record`), and at the end what the formats
write of all labels, and a contact sheet. What has a line in the record is not done again, unless its photo has another
content since, its mask is gone or damaged, or it is asked for.
"""

import fnmatch
import hashlib
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..errors import InputError, WriteError
from ..files import write_image
from ..inference.photos import DECODING_ERRORS, load_photo, open_image
from ..processes import failing_together, gather, join_processes
from . import formats
from .colours import class_map_image, class_map_of
from .labelled import LabelledPhoto, LabelledPhotos
from .labeller import Labeller
from .labels import PhotoLabels
from .names import result_stems, shown
from .photo_files import file_stamp
from .photos_source import Photos
from .record import Label, Record, figures_of
from .request import Request, fitted
from .review import draw_overlay, write_sheet

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
        unreadable: names of photos that could not be read.
        left_out: why files are no photos to label, and how many.
    """

    labelled: int = 0
    empty: int = 0
    emptied: int = 0
    before: int = 0
    unreadable: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{_photos(self.labelled)} labelled"]
        details = [f"{self.empty} left empty"] if self.empty else []
        details += [f"{self.emptied} with a class that is hardly there left out"] if self.emptied else []
        parts[0] += f" ({', '.join(details)})" if details else ""
        parts += [f"{self.before} labelled before"] if self.before else []
        parts += [f"{len(self.unreadable)} skipped: unreadable"] if self.unreadable else []
        parts += [f"{number} skipped: {reason}" for reason, number in sorted(self.left_out.items())]
        return "; ".join(parts)


def label_photos(
    photos: Photos, place: str, request: Request, out: Path, *, redo: Sequence[str] = (), to: Sequence[str] = ()
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

    Returns:
        What was done; standard error names the photos that could not be read.

    Raises:
        InputError: the folder holds labels made with other settings or of other photos, or an example cannot be used.
    """
    state = join_processes()
    record = Record(out, {**request.settings(), "photos": photos.kind}, place)
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
        outdated = gather(outdated)
        with failing_together():
            record.forget(outdated)
            before = sum(name in record.labels for name in photos.names)
        with failing_together():
            done = _label_share(photos, request, record, state.device, is_shown=state.is_main_process)
        summary = _added(gather([done]), before, photos)
        with failing_together():
            if state.is_main_process:
                finish(photos, record, [entry.name for entry in request.classes], to)
    return summary


def finish(photos: Photos, record: Record, class_names: Sequence[str], to: Sequence[str] = ()) -> None:
    """Writes what is made of all labels together: the formats, and the contact sheet.

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

        def one_by_one() -> Iterator[LabelledPhoto]:
            for index, label in zip(indices, labels):
                yield _labelled(photos, index, label, record.folder, class_names)

        for index, label in zip(indices, labels):
            _mend_overlay(photos, index, label, record.folder, len(class_names))
        everything = LabelledPhotos(class_names, one_by_one, len(labels))
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
    changed, damaged = [], []
    known = [(i, record.labels[name]) for i, name in enumerate(photos.names) if name in record.labels]
    for index, label in known:
        if not _same_content(photos, index, label):
            changed.append(label)
        elif label.photo in asked or not _is_whole(record.folder, label):
            damaged.append(label)
    if record.labels and record.place != (before := record.place_before):
        if 2 * len(changed) >= len(known):
            raise InputError(
                f"{record.folder} holds labels of other photos ({before}); give another --out, or delete that folder."
            )
        record.write_settings()
    return changed + damaged


def _same_content(photos: Photos, index: int, label: Label) -> bool:
    stamp = photos.stamp(index)
    if stamp is not None and stamp == label.stamp:
        return True
    try:
        return hashlib.sha256(photos.read(index)).hexdigest() == label.digest
    except (InputError, OSError):  # perhaps for now: its label stays
        return True


def _is_whole(folder: Path, label: Label) -> bool:
    """Whether a label's files can be read; a person may have changed them."""
    files = [(label.mask, label.mask_stamp)]
    if label.objects is not None:
        files.append((label.objects, label.objects_stamp))
    for name, stamp in files:
        now = file_stamp(folder / name)
        if now is None:
            return False
        if now != stamp:
            try:
                with Image.open(folder / name) as image:
                    image.verify()
                with Image.open(folder / name) as image:
                    image.load()
                    if image.size != (label.width, label.height):
                        return False
            except DECODING_ERRORS:
                return False
    return True


def _label_share(photos: Photos, request: Request, record: Record, device: Any, *, is_shown: bool) -> Summary:
    """Labels what no other process does."""
    summary = Summary()
    todo = [index for index, name in enumerate(photos.names) if name not in record.labels]
    if not todo:
        return summary
    labeller = fitted(request, device)
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
                        _label_one(photos, index, stems[name], labeller, record, summary)
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


def _label_one(photos: Photos, index: int, stem: str, labeller: Labeller, record: Record, summary: Summary) -> None:
    name = photos.names[index]
    try:
        stamp = photos.stamp(index)  # before the content: what changes meanwhile is noticed the next time
        content = photos.read(index)
        labels = labeller.label(_decode(content, name))
    except WriteError:
        raise
    except (InputError, OSError) as error:
        with tqdm.external_write_mode(file=sys.stderr):
            print(f"dsvlfs: {error}", file=sys.stderr)
        record.fail(name)
        summary.unreadable.append(name)
        return
    record.add(_write(record.folder, name, stem, labels, hashlib.sha256(content).hexdigest(), stamp))
    summary.labelled += 1
    summary.empty += not labels.class_map.any()
    summary.emptied += any(entry.is_emptied for entry in labels.figures)


def _write(folder: Path, name: str, stem: str, labels: PhotoLabels, digest: str, stamp: str | None) -> Label:
    """Writes a photo's files, and returns its label."""
    classes = len(labels.class_names)
    mask, overlay, objects = f"masks/{stem}.png", f"overlays/{stem}.jpg", f"objects/{stem}.png"
    for file in (folder / mask, folder / overlay):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_image(folder / mask, class_map_image(labels.class_map, classes))
    if labels.object_map is not None:
        (folder / objects).parent.mkdir(parents=True, exist_ok=True)
        write_image(folder / objects, class_map_image(labels.object_map, 2**16 - 1))
    write_image(folder / overlay, draw_overlay(labels.photo, labels.class_map, classes), quality=85)
    return Label(
        photo=name,
        digest=digest,
        stamp=stamp,
        mask=mask,
        overlay=overlay,
        mask_stamp=file_stamp(folder / mask) or "",
        objects=None if labels.object_map is None else objects,
        objects_stamp=None if labels.object_map is None else file_stamp(folder / objects),
        width=labels.photo.width,
        height=labels.photo.height,
        **figures_of(labels),
    )


def _labelled(photos: Photos, index: int, label: Label, folder: Path, class_names: Sequence[str]) -> LabelledPhoto:
    """A label with its masks from the disk."""
    return LabelledPhoto(
        file_name=shown(label.photo),
        mask=_map(folder / label.mask, len(class_names)),
        figures=[label.classes[name] for name in class_names],
        objects=label.found,
        object_map=None if label.objects is None else _map(folder / label.objects, 2**16 - 1),
        stem=label.stem,
        read=lambda: photos.read(index),
        overlay=(folder / label.overlay).read_bytes,
        path=photos.path(index),
    )


def _map(file: Path, classes: int) -> np.ndarray:
    try:
        with Image.open(file) as image:
            return class_map_of(image, classes)
    except DECODING_ERRORS as error:
        raise InputError(f"The mask {file} cannot be read ({error}); run again, and it is made again.") from error


def _mend_overlay(photos: Photos, index: int, label: Label, folder: Path, classes: int) -> None:
    """Draws an overlay again that is gone or damaged."""
    file = folder / label.overlay
    try:
        with Image.open(file) as image:
            image.load()
    except DECODING_ERRORS:
        photo = _decode(photos.read(index), label.photo)
        write_image(file, draw_overlay(photo, _map(folder / label.mask, classes), classes), quality=85)


def _decode(content: bytes, name: str) -> Image.Image:
    stream = BytesIO(content)
    stream.filename = name  # what errors call it
    image = open_image(stream, "photo")
    image.filename = name
    return load_photo(image)


def _added(shares: Sequence[Summary], before: int, photos: Photos) -> Summary:
    return Summary(
        labelled=sum(share.labelled for share in shares),
        empty=sum(share.empty for share in shares),
        emptied=sum(share.emptied for share in shares),
        before=before,
        unreadable=sorted({name for share in shares for name in share.unreadable}),
        left_out=photos.left_out,
    )


def _photos(number: int) -> str:
    return f"{number} photo{'' if number == 1 else 's'}"
