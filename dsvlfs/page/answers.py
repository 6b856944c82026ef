"""Every request to the page gets its answer or one sentence that says why not: what is sent is looked at before gradio
does, and what fails is told in the page's own words."""

from __future__ import annotations

import html
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import anyio
import gradio as gr
from gradio.block_function import BlockFunction
from gradio.blocks import Block

from .. import BaseNotAvailableError, InputError
from .sessions import Sessions
from .store import Store
from .turns import HAS_LEFT, VISITOR, BusyError, Visitor
from .uploads import EXPIRED, shorten

OWN_FAULT = "The page could not do this, by a fault of its own; try again, or with other photos."
MAX_SESSIONS = 100  # whose photos and results are kept; ten supports and twelve results are some 60 MiB
PAUSE = 1.0  # seconds before who asks too much is told so, lest they ask again at once


class Page(gr.Blocks):
    """`gr.Blocks` whose requests end in a result or in a sentence.

    Args:
        store: where uploads are.
        quick: a turn for an event that does not go through gradio's queue.
        options: of `gr.Blocks`.
    """

    def __init__(self, *, store: Store, quick: Callable[[], AbstractContextManager[None]], **options: Any) -> None:
        self._store, self._quick, self._sessions = store, quick, Sessions(MAX_SESSIONS)
        super().__init__(**options)

    async def process_api(
        self,
        block_fn: BlockFunction | int,
        inputs: list[Any],
        state: Any = None,
        request: Any = None,
        iterator: Any = None,
        session_hash: str | None = None,
        event_id: str | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """As gradio's, but what is raised is a `gr.Error` for who asked."""
        block_fn = self.fns[block_fn] if isinstance(block_fn, int) else block_fn
        client = getattr(request, "client", None)
        visitor = Visitor(client.host if client else "", session_hash or "")
        VISITOR.set(visitor)
        event = self._queue.event_ids_to_events.get(event_id or "")
        HAS_LEFT.set(lambda: event is not None and not event.alive)
        try:
            files = [] if iterator else [path for value in inputs for path in _paths(value)]
            with self._store.in_use(files), self._sessions.using(self.state_holder, visitor), ExitStack() as stack:
                if not block_fn.queue:
                    await anyio.to_thread.run_sync(stack.enter_context, self._quick(), limiter=self.limiter)
                return await super().process_api(
                    block_fn, inputs, state, request, iterator, session_hash, event_id, **options
                )
        except Exception as error:
            sentence = _sentence(error)
            if isinstance(error.__cause__ or error, BusyError):
                await anyio.sleep(PAUSE)
            if block_fn.api_visibility == "private":  # for a person: the page takes markup for its own
                sentence = html.escape(sentence, quote=False)
            raise gr.Error(sentence, duration=None, print_exception=False) from error

    async def preprocess_data(
        self, block_fn: BlockFunction, inputs: list[Any], state: Any, explicit_call: bool = False
    ) -> list[Any]:
        """As gradio's, but what cannot be used is named first.

        Raises:
            InputError: an input is of a wrong kind, or a file has expired.
        """
        if len(inputs) < len(block_fn.inputs):
            raise InputError(f"{len(inputs)} inputs were sent; send {len(block_fn.inputs)}.")
        for block, value in zip(block_fn.inputs, inputs):
            if value is not None and not block.stateful:
                self._check(state[block._id] if state is not None and block._id in state else block, value)
        try:
            return await super().preprocess_data(block_fn, inputs, state, explicit_call)
        except Exception as error:  # gradio's own say much about its insides
            for known in (error, error.__cause__):
                if isinstance(known, InputError):
                    raise known from error
            named = " and ".join(f"“{block.label}”" for block in block_fn.inputs if getattr(block, "label", None))
            raise InputError(
                f"One of the inputs {shorten(named, 160)} cannot be used; send what the page sends."
            ) from error

    def _check(self, block: Block, value: Any) -> None:
        """Raises InputError where a component cannot have this value."""
        label = getattr(block, "label", None) or "An input"
        if isinstance(block, gr.Textbox) and not _is_text(value):
            raise InputError(f"“{label}” is not text; send text.")
        if isinstance(block, (gr.Number, gr.Slider)) and not (
            type(value) in (int, float) and block.minimum <= value <= block.maximum
        ):
            raise InputError(f"“{label}” is no number from {block.minimum:g} to {block.maximum:g}; send one.")
        if isinstance(block, gr.Radio) and value not in (choices := [choice for _, choice in block.choices]):
            raise InputError(f"“{label}” is none of {', '.join(map(str, choices))}; send one of these.")
        if isinstance(block, (gr.File, gr.Gallery, gr.UploadButton)):
            for path in _paths(value):
                self._check_file(label, path)

    def _check_file(self, label: str, path: str) -> None:
        if path.startswith(("http://", "https://")):
            raise InputError(f"“{label}” holds an address; the page fetches nothing: send the photo itself.")
        uploaded = Path(path).is_relative_to(self._store.uploads) and ".." not in Path(path).parts
        if uploaded and not os.path.exists(path):
            raise InputError(f"“{label}”: {shorten(Path(path).name)} {EXPIRED}.")


def _sentence(error: Exception) -> str:
    """What to tell who asked. The traceback of a fault of the page's own goes to its log."""
    if isinstance(error, gr.Error):
        return error.message
    if isinstance(error, (InputError, BusyError, BaseNotAvailableError)):
        return str(error)
    traceback.print_exception(error)
    return OWN_FAULT


def _is_text(value: object) -> bool:
    """Whether it is text that can be written: half of a surrogate pair cannot."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _paths(value: object) -> Iterator[str]:
    """Of all files in what was sent, however it is nested."""
    open_values = [value]
    while open_values:
        value = open_values.pop()
        if isinstance(value, dict):
            if isinstance(value.get("path"), str):
                yield value["path"]
            open_values += value.values()
        elif isinstance(value, list):
            open_values += value
