"""Many at once, some of them hostile: everyone else is answered, with what is their own."""

import json
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from page_browser import ramp
from PIL import Image

from dsvlfs.errors import LONGEST
from dsvlfs.page import visits


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A photo, one of 12 megapixels, one that is damaged, and a text."""
    Image.new("RGB", (80, 60), "gray").save(tmp_path / "photo.png")
    Image.new("L", (4000, 3000), 90).save(tmp_path / "flat.png")
    (tmp_path / "damaged.png").write_bytes((tmp_path / "flat.png").read_bytes()[:3000])
    (tmp_path / "text.png").write_text("no photo")
    return {file.stem: str(file) for file in tmp_path.iterdir()}


def hostile_requests(files: dict[str, str]) -> list[dict[str, Any]]:
    """What costs much or cannot be answered."""
    segment = {"class_name": "ball", "prompts": "semantic", "threshold": 0.5, "api_name": "/segment"}
    segment |= {"support_photos": [], "support_masks": []}
    photo, flat = handle_file(files["photo"]), handle_file(files["flat"])
    marks = {"points_on": None, "points_beside": None, "api_name": "/mask"}
    return [
        {**segment, "queries": [flat] * 3},
        {**segment, "queries": [photo] * 13},
        {**segment, "queries": [photo, handle_file(files["damaged"])]},
        {**segment, "queries": [handle_file(files["text"])]},
        {**segment, "queries": [photo], "description": "x " * 900},
        {**segment, "queries": [photo], "class_name": "<SEM_prompt><script>alert(1)</script>"},
        {**segment, "queries": [photo], "threshold": "half"},
        {"photo": flat, "box": [0, 0, 4000, 3000], **marks},
        {"photo": flat, "box": [10**40, None, "a", {}], **marks},
        {"photo": photo, "box": "box", **marks},
    ]


def test_honest_visitors_among_hostile_ones_get_their_own(app, model, address, files):
    kinds, chance = hostile_requests(files), random.Random(0)
    store = app.page_store()

    def live(place: int) -> list[str]:
        client, name, told = Client(address, verbose=False), ("left", "ball")[place % 2], []
        for number in range(10):
            if chance.random() < 0.3:
                try:
                    client.predict(**kinds[(place + 3 * number) % len(kinds)])
                except AppError as error:
                    told.append(str(error))
                continue
            threshold = 0.05 + (10 * place + number) / 100
            queries = [handle_file(files["photo"])]
            masks, *_ = client.predict(name, queries, [], [], "", "semantic", threshold, api_name="/segment")
            mask = np.asarray(Image.open(masks[0])) > 0
            assert (mask == (ramp((80, 60), name) >= threshold)).mean() > 0.98  # the threshold's own column apart
        return told

    with ThreadPoolExecutor(8) as pool:
        told = [sentence for own in pool.map(live, range(8)) for sentence in own]
    assert told
    for sentence in told:
        assert 10 < len(sentence) <= LONGEST
        assert "\n" not in sentence
    wait_until(lambda: visits.MODEL_TURNS._under_way.total() == 0)
    wait_until(lambda: list(store.work.iterdir()) == [])
    assert visits.MODEL_TURNS._used == {}


def test_one_visitor_has_a_bounded_number_of_requests_under_way(app, model, address, files, monkeypatch):
    go_on = threading.Event()
    predict = model.predict

    def slow(image: Any, class_name: str, **options: Any) -> Any:
        if class_name == "slow":
            assert go_on.wait(60)
        return predict(image, class_name, **options)

    monkeypatch.setattr(model, "predict", slow)
    hostile, honest = Client(address, verbose=False), Client(address, verbose=False)

    def ask(client: Client, name: str) -> Any:
        queries = [handle_file(files["photo"])]
        return client.submit(name, queries, [], [], "", "semantic", 0.5, api_name="/segment")

    asked = [ask(hostile, "slow") for _ in range(10)]
    wait_until(lambda: sum(job.done() for job in asked) == 2 and visits.MODEL_TURNS._under_way.total() == 8)
    refused = [str(job.exception()) for job in asked if job.done()]
    assert refused == ["You have 8 requests under way already; wait until one of them is answered."] * 2
    other = ask(honest, "ball")
    wait_until(lambda: visits.MODEL_TURNS._under_way.total() == 9)  # it is let in
    go_on.set()
    assert len(other.result(60)) == 4
    assert [query["class_name"] for query in model.queries][:2] == ["slow", "ball"]  # right after the one at work
    assert sum(job.exception() is None for job in asked) == 8


def test_who_leaves_is_not_worked_for(app, model, address, files, monkeypatch):
    begun, go_on, predict, page = threading.Event(), threading.Event(), model.predict, f"{address}gradio_api"

    def slow(image: Any, class_name: str, **options: Any) -> Any:
        begun.set()
        assert go_on.wait(60)
        return predict(image, class_name, **options)

    monkeypatch.setattr(model, "predict", slow)
    upload = httpx.post(f"{page}/upload", files={"files": ("a.png", Path(files["photo"]).read_bytes())}).json()[0]
    photo = {"path": upload, "meta": {"_type": "gradio.FileData"}}
    data = ["left", [photo] * 12, [], [], "", "semantic", 0.5]
    event = httpx.post(f"{page}/call/segment", json={"data": data}).json()["event_id"]
    assert begun.wait(60)
    with pytest.raises(httpx.ReadTimeout):  # and closes the connection
        httpx.get(f"{page}/call/segment/{event}", timeout=0.5)
    wait_until(lambda: all(not found.alive for found in app.demo._queue.event_ids_to_events.values()))
    go_on.set()
    wait_until(lambda: visits.MODEL_TURNS._under_way.total() == 0)
    assert len(model.queries) == 1  # what had begun


def test_a_request_whose_time_is_over_says_so(app, model, address, files, monkeypatch):
    monkeypatch.setattr(visits.MODEL_TURNS, "time_limit", -1)
    with pytest.raises(AppError, match="the waiting included, and was given up; try again later"):
        Client(address, verbose=False).predict(
            "ball", [handle_file(files["photo"])], [], [], "", "semantic", 0.5, api_name="/segment"
        )


def test_uploads_are_noted_and_removed_in_their_time(app, address, files, monkeypatch):
    store = app.page_store()
    upload = httpx.post(f"{address}gradio_api/upload", files={"files": ("a.png", Path(files["photo"]).read_bytes())})
    path = Path(upload.json()[0])
    wait_until(lambda: store._owners.get(path) == "127.0.0.1")
    behind = {"X-Forwarded-For": "192.0.2.7"}  # a proxy on this machine is believed
    httpx.post(f"{address}gradio_api/upload", files={"files": ("c.png", b"c")}, headers=behind)
    wait_until(lambda: "192.0.2.7" in store._owners.values())
    page = json.loads(httpx.get(f"{address}config").text)
    shown = [Path(file) for file in _paths(page) if Path(file).is_relative_to(store.uploads)]
    assert shown
    now = time.time()
    monkeypatch.setattr("dsvlfs.page.store.time.time", lambda: now + 4000)
    store.sweep()
    assert not path.exists()
    assert all(file.exists() for file in shown)  # the page needs them
    answer = httpx.post(f"{address}gradio_api/upload", files={"files": ("b.png", bytes(21 * 10**6))})
    assert answer.status_code == 413


def _paths(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["path"]] if isinstance(value.get("path"), str) else []
        return own + [path for inner in value.values() for path in _paths(inner)]
    return [path for inner in value for path in _paths(inner)] if isinstance(value, list) else []


def wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(6000):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it never held")
