"""The page while it is served: its folder is looked after, and gone when it ends."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from types import FrameType
from typing import Any

import anyio
import gradio as gr
from starlette.middleware import Middleware

from .store import Store
from .style import NAME_PARTS, THEME
from .transport import Bounds
from .uploads import MAX_BYTES

MAX_THREADS = 96  # those that wait for a turn, and some more

SWEEP_EVERY = 30  # seconds


def sweeping(store: Store) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """A lifespan for the server: sweeps the folder again and again."""

    async def sweep() -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            await anyio.to_thread.run_sync(store.sweep)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        task = asyncio.create_task(sweep())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    return lifespan


def end_well(store: Store) -> None:
    """Removes the folder where the process is asked to end, as by a container's stop."""

    def end(number: int, frame: FrameType | None) -> None:
        store.close()
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)


def launch_page(page: gr.Blocks, store: Store, css: str, **options: Any) -> None:
    """Serves a page within its bounds.

    Args:
        page: to serve.
        store: where its uploads go.
        css: of its own.
        options: of `gr.Blocks.launch`.
    """
    page.launch(
        allowed_paths=[str(store.work)],
        app_kwargs={"middleware": [Middleware(Bounds, store=store)], "lifespan": sweeping(store)},
        css=css,
        enable_monitoring=False,
        max_file_size=MAX_BYTES,
        max_threads=MAX_THREADS,
        run_history=False,
        ssr_mode=False,  # a proxy in front would take uploads past `Bounds`
        theme=THEME,
        **{"js": NAME_PARTS, **options},
    )
