"""The review page in a browser, served by a process of its own, which may be killed."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

PROGRAM = [sys.executable, str(Path(__file__).parents[1] / "labelling" / "colour_dsvlfs.py")]
RED, GREEN = (255, 0, 0), (0, 255, 0)
PATIENCE = 120  # seconds


def draw(file: Path, red: int, green: int) -> None:
    """A photo (120 x 90) whose left is red and whose right is green, so many pixels."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (120, 90))
    image.paste(RED, (0, 0, red, 90))
    image.paste(GREEN, (120 - green, 0, 120, 90))
    image.paste((98, 255, 0), (110 - green, 0, 120 - green, 90))  # green, hardly
    image.save(file)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled folder of five photos and two classes; the second photo has another shape."""
    folder = tmp_path_factory.mktemp("labels")
    for number, name in enumerate("abcde"):
        draw(folder / "photos" / f"{name}.png", 20 + 10 * number, 30)
    Image.open(folder / "photos" / "b.png").rotate(90, expand=True).save(folder / "photos" / "b.png")
    draw(folder / "support.png", 50, 50)
    support = np.asarray(Image.open(folder / "support.png"))
    for name, colour in (("red", RED), ("green", GREEN)):
        Image.fromarray(np.uint8(255 * (support == colour).all(-1))).save(folder / f"{name}.png")
    entries = [f"  {name}: {{supports: [{{photo: support.png, mask: {name}.png}}]}}" for name in ("red", "green")]
    (folder / "project.yaml").write_text("\n".join(["classes:", *entries]))
    words = ["label", "--no-cache", "--project", folder / "project.yaml", "--photos", folder / "photos"]
    subprocess.run(
        [*PROGRAM, *map(str, words), "--out", str(folder / "out")], check=True, capture_output=True, timeout=PATIENCE
    )
    return folder / "out"


@pytest.fixture
def labelled(labels: Path, tmp_path: Path) -> Path:
    """Their own for each test."""
    return Path(shutil.copytree(labels, tmp_path / "out"))


@contextmanager
def served(out: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The page's process and address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([*PROGRAM, "review", str(out), "--port", str(port)], stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            assert process.poll() is None, "the page has ended"
            with suppress(OSError), urllib.request.urlopen(address):
                break
            assert time.monotonic() < deadline, "the page does not come"
            time.sleep(0.2)
        yield process, address
    finally:
        process.kill()
        process.wait()


@contextmanager
def opened(chromium: Any, address: str) -> Iterator[Any]:
    person = chromium.new_context(viewport={"width": 1360, "height": 900})
    page = person.new_page()
    page.set_default_timeout(90_000)
    page.goto(address)
    page.locator("#strip img").first.wait_for()
    page.locator("#clickable img").wait_for()
    try:
        yield page
    finally:
        person.close()


def text(page: Any, elem_id: str) -> str:
    return page.locator(f"#{elem_id} :is(input, textarea)").input_value()


def wait_until(page: Any, holds: Callable[[], bool]) -> None:
    for _ in range(600):
        if holds():
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"still {text(page, 'caption')} | {text(page, 'progress')}")


def says(page: Any, words: str) -> None:
    wait_until(page, lambda: words in text(page, "progress"))


def shows(page: Any, words: str) -> None:
    wait_until(page, lambda: words in text(page, "caption"))


def stroke(page: Any) -> None:
    """Paints across the middle of the photo, which takes a press for the brush."""
    page.locator("#tools label").nth(1).click()
    page.locator("#support canvas").first.wait_for()
    page.wait_for_timeout(1500)  # the editor draws
    box = page.locator("#support canvas").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y - 20)
    page.mouse.down()
    page.mouse.move(x, y + 20, steps=4)
    page.mouse.up()


def record(out: Path) -> dict[str, dict[str, Any]]:
    lines = [line for file in out.glob("labels-*.jsonl") for line in file.read_text().splitlines()]
    entries = sorted(map(json.loads, lines), key=lambda entry: entry["number"])
    return {entry["photo"]: entry for entry in entries}


def mask(out: Path, stem: str) -> np.ndarray:
    return np.asarray(Image.open(out / "masks" / f"{stem}.png"))


def current(page: Any) -> str:
    """The stem of the photo that is shown."""
    return text(page, "caption").partition(": ")[2].partition(".png")[0]


def test_five_photos_in_under_ten_clicks(labelled, chromium):
    clicks = 0
    with served(labelled) as (_, address), opened(chromium, address) as page:

        def click(button: str) -> str:
            nonlocal clicks
            judged, clicks = current(page), clicks + 1
            page.locator(f"button#{button}").click()
            return judged

        says(page, "5 to look at")
        accepted = click("accept")
        says(page, "4 to look at, 1 accepted")
        wait_until(page, lambda: current(page) != accepted)
        before = mask(labelled, current(page))
        clicks += 2
        stroke(page)
        says(page, "1 drawn")
        drawn = click("support-too")
        says(page, "1 further support")
        wait_until(page, lambda: current(page) != drawn)
        rejected = click("reject")
        says(page, "1 rejected")
        after = mask(labelled, drawn)
        assert (after != before).any()
        assert set(np.unique(after[after != before])) == {1}  # the class that was chosen
        kept = {stem: mask(labelled, stem) for stem in (accepted, drawn)}
        click("again")
        says(page, "3 to look at")  # the rejected one, too
        says(page, "Results in")
    assert clicks < 10
    entries = record(labelled)
    support = entries[f"{drawn}.png"]
    assert (support["verdict"], support["is_support"]) == ("drawn", True)
    made_with = {name: entry["made_with"] for name, entry in entries.items() if entry["verdict"] is None}
    assert len(made_with) == 3
    assert f"{rejected}.png" in made_with
    assert set(made_with.values()) == {str(support["number"])}
    for stem, values in kept.items():
        np.testing.assert_array_equal(mask(labelled, stem), values)


def test_every_word_has_a_key(labelled, chromium):
    with served(labelled) as (_, address), opened(chromium, address) as page:

        def press(key: str, words: str) -> None:
            page.keyboard.press(key)
            says(page, words)
            page.wait_for_timeout(700)  # the editor shows the next

        first = current(page)
        press("a", "4 to look at, 1 accepted")
        press("u", "5 to look at")
        assert current(page) == first
        page.keyboard.press("ArrowRight")
        shows(page, "2 of 5")
        second = current(page)
        page.keyboard.press("ArrowLeft")
        shows(page, "1 of 5")
        press("e", "1 drawn")
        assert not mask(labelled, first).any()
        wait_until(page, lambda: current(page) == second)
        press("r", "1 rejected")
        third = current(page)
        page.keyboard.press("2")
        page.wait_for_timeout(700)
        before = mask(labelled, third)
        press("+", "2 drawn")
        after = mask(labelled, third)
        assert np.count_nonzero(after == 1) == np.count_nonzero(before == 1)
        page.keyboard.press("x")
        clickable = page.locator("#clickable img")
        clickable.wait_for()
        page.wait_for_timeout(700)
        box = clickable.bounding_box()
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)  # on nothing
        page.wait_for_timeout(700)
        np.testing.assert_array_equal(mask(labelled, third), after)
        press("s", "1 further support")
        page.keyboard.press("a")
        page.keyboard.press("a")  # twice at once: says nothing of what comes next
        says(page, "1 accepted")
        page.wait_for_timeout(1500)
        assert "1 accepted" in text(page, "progress")


def test_a_server_that_is_killed_loses_nothing(labelled, chromium):
    with served(labelled) as (process, address), opened(chromium, address) as page:
        accepted = current(page)
        page.keyboard.press("a")
        says(page, "1 accepted")
        wait_until(page, lambda: current(page) != accepted)
        page.wait_for_timeout(700)
        drawn = current(page)
        stroke(page)
        says(page, "1 drawn")
        os.kill(process.pid, signal.SIGKILL)
    values = mask(labelled, drawn)
    with served(labelled) as (_, address), opened(chromium, address) as page:
        says(page, "3 to look at, 1 accepted, 1 drawn")
        page.locator("#which label", has_text="Drawn").click()
        wait_until(page, lambda: current(page) == drawn)
    np.testing.assert_array_equal(mask(labelled, drawn), values)
    assert {entry["verdict"] for entry in record(labelled).values()} == {None, "accepted", "drawn"}
