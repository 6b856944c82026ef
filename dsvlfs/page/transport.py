"""What comes to the page over the network, bounded before gradio reads it."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

import anyio
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .store import Store

PREFIX = "/gradio_api/"
EXPECTED = ("api/", "call/", "cancel", "component_server", "queue/join", "reset", "run/", "upload")
"""What the page and programs post to; gradio has more that is of no use here."""

MAX_MESSAGE = 2**20  # bytes of a request that is no file
MAX_PICTURE = 2**24  # bytes of a picture from the editor
MAX_UPLOAD = 2**28  # bytes of the files of one request
MAX_COMING = 2**29  # bytes of an address's uploads that are under way
MAX_COMING_IN_ALL = 2**31
MAX_SECONDS = 180  # for a body to come
SWEEP_AFTER = 2**26  # bytes of uploads after which the folder is looked at


class _RefusedError(Exception):
    """A body is not read to its end; the message is one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Bounds:
    """ASGI middleware: bounds the bodies of requests, and notes whose the uploads are.

    Args:
        app: that gets what is within the bounds.
        store: where uploads go.
    """

    def __init__(self, app: ASGIApp, store: Store) -> None:
        self.app, self.store = app, store
        self._coming: Counter[str] = Counter()  # bytes by address
        self._since_sweep = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it with one sentence."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        wanted = scope["path"].partition(PREFIX)[2]
        if not wanted.startswith(EXPECTED) and not scope["path"].endswith("/login"):
            await PlainTextResponse("There is nothing to send to here.", 404)(scope, receive, send)
            return
        await _Bounded(self, scope, wanted).answer(receive, send)


class _Bounded:
    """One request with a body."""

    def __init__(self, bounds: Bounds, scope: Scope, wanted: str) -> None:
        self.bounds, self.scope = bounds, scope
        self.address = (scope.get("client") or ("",))[0]
        self.is_upload = wanted.startswith("upload")
        self.limit = MAX_UPLOAD if self.is_upload else MAX_PICTURE if wanted.startswith("comp") else MAX_MESSAGE
        self.deadline = time.monotonic() + MAX_SECONDS
        self.size, self.has_answered, self.is_complete = 0, False, False
        self.refused: _RefusedError | None = None
        self.answer_body = b""

    async def answer(self, receive: Receive, send: Send) -> None:
        bounds = self.bounds
        try:
            await bounds.app(self.scope, lambda: self._receive(receive), lambda message: self._send(message, send))
        except _RefusedError as error:
            if not self.has_answered:
                await PlainTextResponse(str(error), error.status)(self.scope, receive, send)
        except ClientDisconnect:  # in the middle of what was sent; the store removes it
            return
        except OSError:
            if self.has_answered or not self.is_upload:
                raise
            sentence = "The page has no room for files just now; try again later."
            await PlainTextResponse(sentence, 507)(self.scope, receive, send)
        finally:
            self._forget()
        if self.is_upload and self.answer_body:
            await anyio.to_thread.run_sync(self._note)

    async def _receive(self, receive: Receive) -> Message:
        if self.is_complete:  # what comes now is that the client is gone
            return await receive()
        with anyio.move_on_after(self.deadline - time.monotonic()):
            message = await receive()
            self._count(len(message.get("body", b"")))
            self.is_complete = not message.get("more_body", False)
            return message
        raise self._refuse(408, f"This did not arrive within {MAX_SECONDS} seconds; send less at a time.")

    def _count(self, size: int) -> None:
        self.size += size
        coming = self.bounds._coming
        coming[self.address] += size
        if self.size > self.limit:
            raise self._refuse(413, f"This has more than {self.limit // 2**20} MiB; send less at a time.")
        if coming[self.address] > MAX_COMING or coming.total() > MAX_COMING_IN_ALL:
            raise self._refuse(503, "Too much is being sent just now; try again in a minute.")

    def _refuse(self, status: int, sentence: str) -> _RefusedError:
        self.refused = _RefusedError(status, sentence)
        return self.refused

    def _forget(self) -> None:
        coming = self.bounds._coming
        coming[self.address] -= self.size
        if coming[self.address] <= 0:
            del coming[self.address]

    async def _send(self, message: Message, send: Send) -> None:
        if self.refused and not self.has_answered:  # in other words than those of who was reading
            raise self.refused
        self.has_answered = True
        if self.is_upload and message["type"] == "http.response.body":
            self.answer_body += message.get("body", b"")
        await send(message)

    def _note(self) -> None:
        """Says whose the uploads are, and looks after the folder now and then."""
        try:
            files: Any = json.loads(self.answer_body)
        except ValueError:  # an error in words
            return
        if isinstance(files, list):
            self.bounds.store.note(self.address, files)
        self.bounds._since_sweep += self.size
        if self.bounds._since_sweep > SWEEP_AFTER:
            self.bounds._since_sweep = 0
            self.bounds.store.sweep()
