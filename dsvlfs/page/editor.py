"""Gradio's image editor, with a bound on what a visitor sends through it."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from typing import Any
from unittest.mock import patch

import gradio as gr
from gradio.components.base import server
from gradio.components.image_editor import EditorDataBlobs
from PIL import Image

from .. import InputError
from ..inference.photos import DECODING_ERRORS
from .uploads import FORMATS

MAX_EDITED_PIXELS = 4 * 2**20  # of a picture; the editor shows photos of a quarter of it at most
MAX_LAYERS = 4
MAX_KEPT = 2**28  # bytes of the pictures that have come and whose event has not
LEAST_KEPT = 2**16  # bytes that an entry counts for, however small

_KEPT: OrderedDict[str, EditorDataBlobs] = OrderedDict()
_LOCK = threading.Lock()


with patch("gradio.component_meta.create_or_modify_pyi"):  # it would write a stub of the class beside this file

    class MarksEditor(gr.ImageEditor):
        """An image editor that tells what was painted: its layers, as PIL images."""

        is_template = True  # shown as gradio's own

        @property
        def blob_storage(self) -> OrderedDict[str, EditorDataBlobs]:
            """Pictures that have come and whose event has not: those of all sessions, as one bound holds for them."""
            return _KEPT

        @blob_storage.setter
        def blob_storage(self, storage: dict[str, EditorDataBlobs]) -> None:
            """Gradio's constructor would give each editor its own."""

        def preprocess(self, payload: Any) -> dict[str, Any] | None:
            """What is to be read of the pictures is read; the background's size alone is looked at.

            Raises:
                InputError: a picture cannot be read, or is larger than the editor makes one.
            """
            if payload is None:
                return None
            if payload.id is not None:
                with _LOCK:
                    payload = _KEPT.pop(payload.id, EditorDataBlobs(background=None, layers=[], composite=None))
            layers = [layer for layer in payload.layers or [] if layer is not None]
            if len(layers) > MAX_LAYERS:
                raise InputError(
                    f"The editor sent {len(layers)} layers; it has {MAX_LAYERS} at most: load the page again."
                )
            background = None if payload.background is None else _open(payload.background)
            return {
                "background": background,
                "layers": [_open(layer, decode=True) for layer in layers],
                "composite": None,
            }

        @server
        def accept_blobs(self, data: Any) -> None:
            """Takes a picture for an event that follows; what the editor would not send is left out."""
            number, key = str(data.data["index"] or "0"), str(data.data["id"])
            if len(key) > 100 or (data.data["type"] == "layer" and number not in map(str, range(MAX_LAYERS))):
                return
            with _LOCK:
                super().accept_blobs(data)
                _KEPT.move_to_end(key)
                while sum(map(_size, _KEPT.values())) > MAX_KEPT:
                    _KEPT.popitem(last=False)


def _size(kept: EditorDataBlobs) -> int:
    return max(LEAST_KEPT, sum(len(part or b"") for part in (kept.background, kept.composite, *kept.layers)))


def _open(picture: Any, decode: bool = False) -> Image.Image:
    """A picture as the editor sends it, bytes or a file's path, of a bounded size."""
    try:
        image = Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture.path, formats=FORMATS)
        if image.width * image.height > MAX_EDITED_PIXELS:
            raise InputError(
                f"A picture of {image.width} x {image.height} pixels came from the editor, which shows at most "
                f"{MAX_EDITED_PIXELS / 1e6:.0f} megapixels; load the page again."
            )
        if decode:
            image.load()
        return image
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError("What was painted has expired, for the page keeps it an hour at most; paint again.") from error
    except DECODING_ERRORS as error:
        raise InputError("What was painted cannot be read; load the page again.") from error
