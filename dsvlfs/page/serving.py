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

from .store import Store

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
