"""What people accepted in one of Label Studio's projects, as a labelling project of dsvlfs: photos, masks and
`project.yaml`, which `dsvlfs label --project` reads too."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from dsvlfs.files import read_text, write_bytes, write_image, write_text
from dsvlfs.labelling.project import MOST_SUPPORTS, ProjectClass, read_project

Supports = dict[str, list[dict[str, str]]]
"""The photo and the mask of each support, by class, the newest last."""


class Accepted:
    """The newest supports of each class, at most `MOST_SUPPORTS`.

    Args:
        folder: that they are in; made when there is one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "project.yaml"

    def classes(self) -> dict[str, ProjectClass]:
        """Each class that has supports, by its name."""
        return {entry.name: entry for entry in read_project(self.file)} if any(self._read().values()) else {}

    def keep(self, annotation: int, photo: Path, masks: Mapping[str, np.ndarray]) -> None:
        """Takes an annotation's masks as supports, instead of those that it had.

        Args:
            annotation: its number in Label Studio.
            photo: file.
            masks: bool (height, width) of the photo, by class; one that shows nothing, or all, is no support.
        """
        supports = self._without({annotation})
        shown = {name: mask for name, mask in masks.items() if mask.any() and not mask.all()}
        if shown:
            copy = f"photos/{annotation}{photo.suffix}"
            self._place(copy)
            write_bytes(self.folder / copy, photo.read_bytes())
        for number, (name, mask) in enumerate(shown.items(), 1):
            file = f"masks/{annotation}-{number}.png"
            self._place(file)
            write_image(self.folder / file, Image.fromarray(mask.astype(np.uint8) * 255))
            supports[name] = [*supports.get(name, []), {"photo": copy, "mask": file}][-MOST_SUPPORTS:]
        self._write(supports)

    def forget(self, annotations: Collection[int]) -> None:
        """Takes annotations' masks away."""
        self._write(self._without(annotations))

    def _without(self, annotations: Collection[int]) -> Supports:
        stems = {str(number) for number in annotations}
        return {
            name: [entry for entry in entries if Path(entry["photo"]).stem not in stems]
            for name, entries in self._read().items()
        }

    def _read(self) -> Supports:
        if not self.file.is_file():
            return {}
        classes: dict[str, dict[str, Any]] = yaml.safe_load(read_text(self.file))["classes"]
        return {name: entry["supports"] for name, entry in classes.items()}

    def _write(self, supports: Supports) -> None:
        """Writes the project, and removes what it names no longer."""
        if not self.folder.is_dir():
            return
        classes = {name: {"supports": entries} for name, entries in supports.items() if entries}
        write_text(self.file, yaml.safe_dump({"classes": classes}, sort_keys=False, allow_unicode=True))
        named = {entry[kind] for entries in supports.values() for entry in entries for kind in ("photo", "mask")}
        for file in (*self.folder.glob("photos/*"), *self.folder.glob("masks/*")):
            if file.relative_to(self.folder).as_posix() not in named:
                file.unlink(missing_ok=True)

    def _place(self, name: str) -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
