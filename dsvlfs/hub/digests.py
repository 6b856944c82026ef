"""What a folder of weights held when it was made, and whether it still does.

`digests.json` in the folder keeps each file's size, time and SHA-256. A file whose size and time are the same is taken
for the same, unless a full check is asked for; one of another time, as a copied folder has, is read once.
"""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from ..errors import InputError, WriteError
from ..files import read_json, write_json

RECORD = "digests.json"


class _File(BaseModel):
    size: int
    time: int
    sha256: str


class _Record(BaseModel):
    files: Annotated[dict[str, _File], Field(min_length=1)]


def write_record(folder: Path) -> None:
    """Keeps what a folder's files are now. Raises WriteError."""
    record = _Record(
        files={file.name: _state(file) for file in sorted(folder.iterdir()) if file.is_file() and file.name != RECORD}
    )
    write_json(folder / RECORD, record.model_dump())


def find_damage(folder: Path, *, fully: bool = False) -> str | None:
    """What has changed in a folder since its record was written, in a few words; None where nothing has, or where there
    is no record. Of the Hugging Face cache's folders, whose files lie under their digests, a full check reads those.

    Args:
        folder: of the weights.
        fully: read every file, however it looks.
    """
    if not (folder / RECORD).exists():
        return _hub_damage(folder) if fully else None
    try:
        record = read_json(folder / RECORD, _Record)
    except InputError:
        return f"{RECORD} is damaged"
    times = {}
    for name, kept in record.files.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        state = file.stat()
        if state.st_size != kept.size:
            return f"{name} has another size"
        if fully or state.st_mtime_ns != kept.time:
            if file_digest(file) != kept.sha256:
                return f"{name} has another content"
            times[name] = state.st_mtime_ns
    moved = {name: time for name, time in times.items() if time != record.files[name].time}
    if moved:
        for name, time in moved.items():
            record.files[name].time = time
        with suppress(WriteError):  # a cache that others keep: read again the next time
            write_json(folder / RECORD, record.model_dump())
    return None


def file_digest(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors with their names, types and shapes, in whatever file they lie."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _hub_damage(folder: Path) -> str | None:
    for file in sorted(folder.rglob("*")):
        blob = file.resolve()
        if not file.is_file() or blob.parent.name != "blobs":
            continue
        if len(blob.name) == 64:
            digest = file_digest(blob)
        else:  # git's, of a small file
            content = blob.read_bytes()
            digest = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        if digest != blob.name:
            return f"{file.name} has another content"
    return None


def _state(file: Path) -> _File:
    state = file.stat()
    return _File(size=state.st_size, time=state.st_mtime_ns, sha256=file_digest(file))
