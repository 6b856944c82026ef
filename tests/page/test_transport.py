"""What comes over the network, before gradio sees it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from dsvlfs.page import transport
from dsvlfs.page.store import Store
from dsvlfs.page.transport import Bounds


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    yield store
    store.close()


@pytest.fixture
def client(store: Store, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    monkeypatch.setattr(transport, "MAX_UPLOAD", 1000)
    monkeypatch.setattr(transport, "MAX_MESSAGE", 100)

    async def answer(request: Request) -> JSONResponse:
        try:
            size = len(await request.body())
        except Exception:  # as fastapi does
            return JSONResponse("There was an error parsing the body", 400)
        if "full" in request.url.query:
            raise OSError(28, "No space left on device")
        return JSONResponse([str(store.uploads / "a" / "photo.png")] if "upload" in request.url.path else size)

    routes = [Route("/{path:path}", answer, methods=["GET", "POST"])]
    app = Starlette(routes=routes, middleware=[Middleware(Bounds, store=store)])
    return TestClient(app)


def test_what_is_within_the_bounds_passes(client, store):
    assert client.get("/anything").status_code == 200
    assert client.post("/gradio_api/queue/join", content=bytes(100)).json() == 100
    assert client.post("/below/gradio_api/call/mask", content=bytes(10)).json() == 10
    assert client.post("/gradio_api/upload", content=bytes(1000)).status_code == 200
    assert store._owners == {store.uploads / "a" / "photo.png": "testclient"}


def test_what_is_too_much_is_refused_in_a_sentence(client, monkeypatch):
    for path, size in (("queue/join", 101), ("upload", 1001)):
        answer = client.post(f"/gradio_api/{path}", content=bytes(size))
        assert answer.status_code == 413
        assert answer.text.startswith("This has more than")
    monkeypatch.setattr(transport, "MAX_COMING", 500)
    answer = client.post("/gradio_api/upload", content=bytes(600))
    assert (answer.status_code, answer.text[:8]) == (503, "Too much")
    assert client.post("/gradio_api/upload", content=bytes(500)).status_code == 200  # nothing is held against anyone


def test_what_the_page_does_not_use_is_not_there(client):
    for path in ("/gradio_api/process_recording", "/gradio_api/vibe-edit/", "/", "/gradio_api"):
        assert client.post(path, content=b"x").status_code == 404


def test_a_full_disk_is_a_sentence(client):
    answer = client.post("/gradio_api/upload?full", content=b"x")
    assert (answer.status_code, answer.text) == (507, "The page has no room for files just now; try again later.")


def test_a_body_that_does_not_come_is_given_up(store, monkeypatch):
    monkeypatch.setattr(transport, "MAX_SECONDS", 0.05)
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await receive()

    async def ask() -> None:
        messages = [{"type": "http.request", "body": b"a", "more_body": True}]

        async def receive() -> dict[str, Any]:
            return messages.pop() if messages else await asyncio.Event().wait()

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/gradio_api/upload", "client": ("here", 1), "headers": []}
        await Bounds(app, store)(scope, receive, send)

    asyncio.run(ask())
    assert sent[0]["status"] == 408
    assert b"did not arrive" in sent[1]["body"]
