"""Encoded supports kept on disk, so that a second command with the same photos and masks encodes none."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from ..errors import BaseNotAvailableError, InputError, WriteError
from ..hub.bases import cache_folder
from .checks import examples_of
from .encoded import Support
from .photos import Photo, load_mask, load_photo

MOST_BYTES = 512 * 2**20
"""Of all supports that are kept; those not used for the longest go first."""

Encode = Callable[[Sequence[tuple[Photo, Photo]]], Support]
"""`DSVLFSModel.encode_support`, or what does the same."""


@dataclass(frozen=True)
class _Encoder:
    """A model's digest, computed once: that reads all weights."""

    device: torch.device
    digest: str

    def encoder_digest(self) -> str:
        return self.digest


def kept_folder() -> Path:
    """`supports` in the folder of the converted bases. Raises BaseNotAvailableError: there is nowhere to keep them."""
    return cache_folder() / "supports"


def encoding_once(model: Any, folder: Path | None = None, most_bytes: int = MOST_BYTES) -> Encode:
    """An `encode_support` that keeps what it encodes, and reads what it has kept.

    Several processes may share the folder. What cannot be kept or read is encoded, and no error.

    Args:
        model: a `DSVLFSModel`; of one that cannot say what it encodes with, nothing is kept.
        folder: of the files; None takes `kept_folder()`.
        most_bytes: of all files in it.
    """
    if not hasattr(model, "encoder_digest"):
        return model.encode_support
    try:
        encoder, place = _Encoder(model.device, model.encoder_digest()), folder or kept_folder()
    except (InputError, BaseNotAvailableError):
        return model.encode_support

    def encode(examples: Sequence[tuple[Photo, Photo]]) -> Support:
        supports = []
        for photo, mask in examples_of(examples):
            image = load_photo(photo)
            foreground = load_mask(mask, image.size)
            file = place / f"{_key(encoder.digest, np.asarray(image), foreground)}.safetensors"
            known = _kept(file, encoder)
            if known is None:
                known = model.encode_support([(image, foreground)])
                _keep(known, file, encoder, most_bytes)
            supports.append(known)
        return Support.join(supports)

    return encode


def _key(encoder: str, photo: np.ndarray, mask: np.ndarray) -> str:
    digest = hashlib.sha256(f"{encoder} {photo.shape}\n".encode())
    digest.update(np.ascontiguousarray(photo).data)
    digest.update(np.packbits(mask).data)
    return digest.hexdigest()


def _kept(file: Path, encoder: _Encoder) -> Support | None:
    with suppress(InputError, OSError):
        if file.exists():  # else reading it would say that it is missing
            known = Support.load(file, encoder)
            with suppress(OSError):
                file.touch()
            return known
    return None


def _keep(support: Support, file: Path, encoder: _Encoder, most_bytes: int) -> None:
    whole = () if support.whole_masks is None else (*support.whole, support.whole_masks)
    size = sum(tensor.nbytes for tensor in (*support.layers, support.masks, *whole))
    if size > most_bytes:
        return
    with suppress(WriteError, OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        support.save(file, encoder)
        # Who finds the lock taken leaves the room to be made to that other process, or to the next command.
        with suppress(Timeout), FileLock(file.parent / ".lock", timeout=0):
            _make_room(file.parent, most_bytes)


def _make_room(folder: Path, most_bytes: int) -> None:
    found = []
    for file in folder.glob("*.safetensors"):
        with suppress(OSError):  # another process has taken it away
            state = file.stat()
            found.append((state.st_mtime_ns, state.st_size, file))
    total = sum(size for _, size, _ in found)
    for _, size, file in sorted(found):
        if total <= most_bytes:
            return
        with suppress(OSError):
            file.unlink()
        total -= size
