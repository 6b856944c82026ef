"""Folders that formats write: anew each time, but for files that a person has changed since."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...files import recover_folder, whole_folder
from ..labelled import LabelledPhoto
from ..names import shown
from ..photo_files import is_photo_name

WRITTEN = ".written"
"""Digests of the files as they were written."""


@contextmanager
def written_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to fill in place of `folder`, which it replaces at the end. Files of `folder` that a person has
    changed since they were written stay as they are, as far as they are written again.

    Raises:
        WriteError: it cannot be written.
    """
    recover_folder(folder)
    with whole_folder(folder) as new:
        yield new
        now = {file.relative_to(new).as_posix(): _digest(file) for file in sorted(new.rglob("*")) if file.is_file()}
        for name, before in _written(folder).items():
            if name in now and (folder / name).is_file() and _digest(folder / name) != before:
                shutil.copyfile(folder / name, new / name)
        (new / WRITTEN).write_text(json.dumps(now, indent=0), encoding="utf-8")


def photo_file(photo: LabelledPhoto) -> str:
    """The name of a photo's copy: as its results are named, with its own suffix."""
    suffix = Path(photo.file_name).suffix if is_photo_name(photo.file_name) else ""
    return photo.stem + shown(suffix or _suffix_of(photo.read()))


def _suffix_of(content: bytes) -> str:
    """By the content, of a photo whose name has none."""
    import io

    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif"}.get(image.format, f".{image.format.lower()}")


def _written(folder: Path) -> dict[str, str]:
    try:
        content = json.loads((folder / WRITTEN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while piece := content.read(2**20):
            digest.update(piece)
    return digest.hexdigest()
