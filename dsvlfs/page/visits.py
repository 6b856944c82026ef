"""What every request to the page goes through: a turn, a folder for its files, and messages for who asked."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr

from .. import BaseNotAvailableError, InputError
from .store import page_store
from .turns import BusyError, Turns

MODEL_TURNS = Turns(per_session=8, per_address=24, in_all=32, time_limit=180)
QUICK_TURNS = Turns(per_session=8, per_address=24, in_all=32, time_limit=60)
"""For what does not ask the model: reading, drawing and writing photos."""


@contextmanager
def quick_turn() -> Iterator[None]:
    """A request that is one short piece of work."""
    with QUICK_TURNS.visit() as visit, visit.turn():
        yield


@contextmanager
def errors_on_page() -> Iterator[None]:
    """Shows what the user can mend as a message, and leaves the fields as they are."""
    try:
        yield
    except (InputError, BaseNotAvailableError, BusyError) as error:
        raise gr.Error(str(error), duration=None, print_exception=False) from error


def warn(sentence: str) -> None:
    """Shows a message that keeps nobody from going on; the page would take markup in it for its own."""
    gr.Warning(html.escape(sentence, quote=False))


@contextmanager
def written_files() -> Iterator[Path]:
    """A folder until gradio has taken its files over, which it does at the `yield` of an event."""
    with errors_on_page(), tempfile.TemporaryDirectory(dir=page_store().work) as folder:
        yield Path(folder)
