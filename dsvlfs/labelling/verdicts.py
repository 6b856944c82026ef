"""A person's word on the labels of a folder: accepted, rejected, drawn, a further support.

Each word is a line of the record, written when it is said; what was drawn is in `masks/` before its line is. What the
model had made of a drawn photo is kept in `.work/before/`, to go back to.
"""

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import InputError
from ..files import write_bytes, write_image, write_text
from .colours import class_map_image
from .label_files import MOST_OBJECTS, read_map
from .labels import overall
from .photo_files import file_stamp
from .record import WORK, Label, Record, Verdict, line_of, parsed, rounded
from .redrawing import redrawn_figures, redrawn_objects
from .review import draw_overlay

WHOLE = 99.999
"""Percent of a photo from which on a mask counts as all of it."""
PATIENCE = 30.0
"""Seconds that a drawing waits for a run that is labelling the photo."""


class Verdicts:
    """What a person says of the labels in a folder.

    Args:
        record: of the folder, joined.
        class_names: in the order of their numbers, from 1 on.
    """

    def __init__(self, record: Record, class_names: Sequence[str]) -> None:
        self.record = record
        self.class_names = tuple(class_names)

    def say(self, label: Label, verdict: Verdict | None, *, is_support: bool = False) -> Label:
        """Accepts or rejects a label, or takes that back.

        Args:
            label: as the person saw it; one that was drawn stays so when it is accepted.
            verdict: None takes a verdict back, and what was drawn with it.
            is_support: whether it is a further support, too.

        Returns:
            What stands in the record.

        Raises:
            InputError: the photo is being labelled again, or has been; or a support would show nothing, or all.
        """
        if is_support and label.area_percent == 0:
            raise InputError(f"The mask of {label.photo} is empty, and shows nothing; draw it, or use another photo.")
        if is_support and max(entry.area_percent for entry in label.classes.values()) > WHOLE:
            raise InputError(
                f"The mask of {label.photo} covers the whole photo; a support shows what is beside it, too."
            )
        if verdict is None and label.verdict == "drawn" and (restored := self._restored(label)) is not None:
            return restored
        if verdict == "accepted" and label.verdict == "drawn":
            verdict = "drawn"
        said = self.record.change(label, lambda: replace(label, verdict=verdict, is_support=is_support))
        if said is None:
            raise InputError(f"{label.photo} has been labelled again since, or is just now; look at it again.")
        return said

    def draw(self, label: Label, class_map: np.ndarray, photo: Image.Image) -> Label:
        """Takes a person's drawing for a photo's label; a run that is at the photo is waited for, and loses to it.

        Args:
            label: as the person saw it.
            class_map: (height, width) of the photo, the numbers of the classes, from 1 on, and 0.
            photo: RGB, for the overlay.

        Returns:
            What stands in the record.

        Raises:
            InputError: the map is not of the photo's size, or a run is at the photo for more than `PATIENCE` seconds.
            WriteError: it cannot be written.
        """
        if class_map.shape != (label.height, label.width):
            raise InputError(f"The drawing is not of the size of {label.photo}; load the page again.")
        picture = draw_overlay(photo, class_map, len(self.class_names))
        deadline = time.monotonic() + PATIENCE
        while (drawn := self._drawn(label, class_map, picture)) is None:
            if time.monotonic() > deadline:
                raise InputError(f"{label.photo} is being labelled again; draw on it when that is done.")
            time.sleep(0.1)
            self.record.refresh()
            label = self.record.labels.get(label.photo, label)
        return drawn

    def _drawn(self, label: Label, class_map: np.ndarray, picture: Image.Image) -> Label | None:
        folder, classes = self.record.folder, len(self.class_names)

        def make() -> Label:
            before = read_map(folder / label.mask, classes)
            objects = None if label.objects is None else read_map(folder / label.objects, MOST_OBJECTS)
            if label.verdict != "drawn":
                self._keep(label)
            write_image(folder / label.mask, class_map_image(class_map.astype(before.dtype), classes))
            found, stamp = label.found, None
            if label.objects is not None and objects is not None:
                found, objects = redrawn_objects(label.found or (), objects, class_map)
                write_image(folder / label.objects, class_map_image(objects, MOST_OBJECTS))
                stamp = file_stamp(folder / label.objects)
            write_image(folder / label.overlay, picture, quality=85)
            figures = redrawn_figures([label.classes[name] for name in self.class_names], before, class_map)
            return replace(
                label,
                **asdict(rounded(overall(figures))),
                classes={name: rounded(entry) for name, entry in zip(self.class_names, figures)},
                found=None if found is None else list(found),
                mask_stamp=file_stamp(folder / label.mask) or "",
                objects_stamp=stamp,
                verdict="drawn",
                is_support=label.is_support and bool(class_map.any()),
            )

        return self.record.change(label, make)

    def _keep(self, label: Label) -> None:
        """Keeps what the model made."""
        place = self._kept_at(label)
        place.mkdir(parents=True, exist_ok=True)
        for name, file in self._kept_files(label, place):
            write_bytes(file, name.read_bytes())
        write_text(place / "label.json", line_of(replace(label, verdict=None, is_support=False)) + "\n")

    def _restored(self, label: Label) -> Label | None:
        """The label as the model had made it; None where that is not kept."""
        place = self._kept_at(label)
        line = place / "label.json"
        kept = parsed(line.read_bytes()) if line.is_file() else None
        if kept is None or kept.mask != label.mask:
            return None

        def make() -> Label:
            for file, source in self._kept_files(label, place):
                write_bytes(file, source.read_bytes())
            (self.record.folder / label.overlay).unlink(missing_ok=True)  # the next run draws it again
            mask = file_stamp(self.record.folder / kept.mask) or ""
            objects = None if kept.objects is None else file_stamp(self.record.folder / kept.objects)
            return replace(kept, mask_stamp=mask, objects_stamp=objects)

        return self.record.change(label, make)

    def _kept_at(self, label: Label) -> Path:
        name = hashlib.sha256(os.fsencode(label.photo)).hexdigest()[:24]
        return self.record.folder / WORK / "before" / name

    def _kept_files(self, label: Label, place: Path) -> list[tuple[Path, Path]]:
        """Each file of a label, and where what the model made of it is kept."""
        files = [(self.record.folder / label.mask, place / "mask.png")]
        if label.objects is not None:
            files.append((self.record.folder / label.objects, place / "objects.png"))
        return files
