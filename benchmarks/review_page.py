"""The review page on many labels: how long it takes to open, to go on and to judge, and its memory on the way.

The labels are made by a stand-in that takes what is bright for the class; the page does not ask a model here.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from page import CHROMIUM_FLAGS, resident_mib, served
from PIL import Image

from dsvlfs.cli import main as dsvlfs
from dsvlfs.labelling import request

STEPS = 240
"""Photos that are gone through; every third is accepted."""


class Bright:
    """Stands in for `DSVLFSModel`."""

    @classmethod
    def from_pretrained(cls, name: str) -> "Bright":
        return cls()

    def to(self, device: object) -> None:
        pass

    def encode_support(self, examples: list[Any]) -> int:
        return len(examples)

    def segment(self, image: Image.Image, class_name: str, threshold: float, **options: Any) -> SimpleNamespace:
        probability = np.asarray(image.convert("L"), dtype=np.float32) / 255
        return SimpleNamespace(mask=probability >= threshold, probability=probability)


def make_labels(photos: list[Path], count: int, folder: Path) -> None:
    """Labels `count` photos, which are taken again and again where there are fewer."""
    (folder / "photos").mkdir(parents=True)
    for number in range(count):
        source = photos[number % len(photos)]
        shutil.copyfile(source, folder / "photos" / f"{number:05}.jpg")
    Image.new("L", (40, 30)).save(folder / "support.png")
    mask = np.zeros((30, 40), np.uint8)
    mask[:10] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    request.DSVLFSModel = Bright  # type: ignore[misc]
    words = ["label", "--no-cache", "--class-name", "bright", "--support", folder / "support.png", folder / "mask.png"]
    dsvlfs([*map(str, words), "--photos", str(folder / "photos"), "--out", str(folder / "out")])


def caption(page: Any) -> str:
    return page.locator("#caption :is(input, textarea)").input_value()


def open_page(browser: Any, address: str) -> tuple[Any, float]:
    """A page and the seconds until its first label and its thumbnails are there."""
    page = browser.new_page(viewport={"width": 1360, "height": 900})
    page.set_default_timeout(120_000)
    started = time.perf_counter()
    page.goto(address)
    page.locator("#clickable img").wait_for()
    page.locator("#strip img").first.wait_for()
    page.wait_for_function("document.querySelector('#strip img').naturalWidth > 0")  # those off the edge are lazy
    return page, time.perf_counter() - started


def go_through(page: Any, process: int) -> tuple[list[float], list[float]]:
    """Seconds of each step, and MiB of the server after it."""
    seconds, memory = [], []
    page.wait_for_timeout(2000)
    for step in range(STEPS):
        before, started = caption(page), time.perf_counter()
        page.keyboard.press("a" if step % 3 == 0 else "ArrowRight")
        page.wait_for_function(
            "before => document.querySelector('#caption :is(input, textarea)').value !== before", arg=before
        )
        seconds.append(time.perf_counter() - started)
        memory.append(resident_mib(process))
        page.wait_for_timeout(100)
    return seconds, memory


def main() -> None:
    """Prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos (JPEG)")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--folder", type=Path, help="where the labels are made, or were (default: for this time alone)")
    parser.add_argument("--opened", type=int, default=5, help="times that the page is opened")
    parser.add_argument("--out", type=Path, help="file for the result (JSON)")
    arguments = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        folder = arguments.folder or Path(scratch, "labels")
        labels = folder / "out"
        if not labels.is_dir():
            make_labels(sorted(arguments.photos.glob("*.jpg")), arguments.count, folder)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS)
        with served(["-m", "dsvlfs", "review", str(labels)]) as (address, process):
            opened = []
            for _ in range(arguments.opened):
                page, seconds = open_page(browser, address)
                opened.append(round(seconds, 2))
                page.close()
            page, _ = open_page(browser, address)
            steps, memory = go_through(page, process)
        browser.close()
    quarters = [round(max(memory[place : place + STEPS // 4])) for place in range(0, STEPS, STEPS // 4)]
    result = {
        "labels": arguments.count,
        "open_s": opened,
        "step_s": {"median": round(statistics.median(steps), 2), "p95": round(sorted(steps)[int(0.95 * STEPS)], 2)},
        "memory_mib_by_quarter": quarters,
    }
    print(json.dumps(result, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
