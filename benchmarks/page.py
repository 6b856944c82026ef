"""The page's times and memory, with the packaged model: the wait for the first result, what a second query costs, and
many clients at once."""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from gradio_client import Client, handle_file
from PIL import Image

from dsvlfs.page.examples import EXAMPLES

ROOT = Path(__file__).parents[1]
CHROMIUM_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


@contextmanager
def served(command: Sequence[str] = ("app.py",), **settings: str) -> Iterator[tuple[str, int]]:
    """Serves a page in a process of its own; gives its address and process id.

    Args:
        command: that Python runs.
        settings: environment variables.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port), **settings}
    server = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if server.poll() is not None:
                    raise SystemExit(f"{' '.join(command)} ended; run it alone to see why") from None
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}", server.pid
    finally:
        server.terminate()
        server.wait()


def resident_mib(process: int) -> float:
    """Memory of a process."""
    line = next(line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def first_results(address: str) -> dict[str, float]:
    """In Chromium: from the first paint to the example's result, which needs no click, and what a click then takes."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(300_000)
        page.goto(address)
        page.wait_for_function("document.querySelector('#overlay img')?.complete")
        shown = page.evaluate("performance.now()")
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        page.locator("#support canvas").first.wait_for()
        page.wait_for_timeout(2000)
        page.locator("#class-name :is(input, textarea)").fill("king penguin")  # for another picture than the first
        source = page.locator("#overlay img").get_attribute("src")
        started = time.perf_counter()
        page.locator("#segment").click()
        page.locator(f"#overlay img:not([src='{source}'])").wait_for()
        click = time.perf_counter() - started
        browser.close()
    return {"first_paint_to_result_s": round((shown - paint) / 1000, 2), "click_to_result_s": round(click, 2)}


def request(number: int, shots: int = 1) -> dict[str, Any]:
    """A request for an example's class in its query photo; supports turn with the number."""
    example = EXAMPLES[number % len(EXAMPLES)]
    photo, mask = map(handle_file, example.shot)
    return {
        "class_name": example.class_name,
        "queries": [handle_file(example.query_file)],
        "support_photos": [photo] * shots,
        "support_masks": [mask] * shots,
        "description": "",
        "prompts": "both",
        "threshold": 0.5,
        "api_name": "/segment",
    }


def second_query(address: str, repeats: int) -> dict[str, float]:
    """Seconds of a first request, whose support and class are new; of the next one with the same for another photo; and
    of the same photo once more. All photos are of one size."""
    client = Client(address, verbose=False)
    example = EXAMPLES[1]
    mask = np.asarray(Image.open(example.shot[1]))
    photo = np.asarray(Image.open(example.query_file).convert("RGB"))
    seconds: dict[str, list[float]] = {"first": [], "second": [], "again": []}
    client.predict(**request(0))
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats):
            changed = mask.copy()
            changed[:2, : 2 + repeat] = 255  # another mask each time, which nobody has sent before
            files = [Path(folder, f"{name}-{repeat}.png") for name in ("mask", "photo", "other")]
            Image.fromarray(changed).save(files[0])
            for file, turned in zip(files[1:], (photo, photo[:, ::-1])):  # and other photos
                Image.fromarray(np.roll(turned, repeat + 1, axis=1)).save(file)
            asked = {
                **request(1),
                "class_name": f"{example.class_name} {repeat}",
                "support_masks": [handle_file(files[0])],
            }
            for name, file in zip(seconds, (files[1], files[2], files[2])):
                started = time.perf_counter()
                client.predict(**{**asked, "queries": [handle_file(file)]})
                seconds[name].append(time.perf_counter() - started)
    ratios = [statistics.median(a / b for a, b in zip(seconds[n], seconds["first"])) for n in ("second", "again")]
    return {
        **{f"{name}_query_s": round(statistics.median(values), 2) for name, values in seconds.items()},
        "second_to_first": round(ratios[0], 2),
        "again_to_first": round(ratios[1], 2),
    }


def crowd(address: str, process: int, clients: int, requests: int) -> dict[str, Any]:
    """Several clients at once, each with its own class; their masks are compared to those that one alone gets."""
    alone = Client(address, verbose=False)
    expected = [_mask(alone.predict(**request(number))) for number in range(len(EXAMPLES))]
    people = [Client(address, verbose=False) for _ in range(clients)]

    def ask(number: int) -> bool:
        return np.array_equal(_mask(people[number % clients].predict(**request(number))), expected[number % 3])

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(ask, range(2 * clients)))
        before, started = resident_mib(process), time.perf_counter()
        right = sum(pool.map(ask, range(requests)))
        seconds = time.perf_counter() - started
    after = resident_mib(process)
    return {
        "clients": clients,
        "requests": requests,
        "answered_with_their_own": right,
        "requests_per_minute": round(60 * requests / seconds, 1),
        "memory_before_mib": round(before),
        "memory_after_mib": round(after),
        "memory_growth_percent": round(100 * (after / before - 1), 1),
    }


def _mask(answer: tuple[Any, ...]) -> np.ndarray:
    return np.asarray(Image.open(answer[0][0]))


def main() -> None:
    """Prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5, help="of the first and second query")
    parser.add_argument("--out", type=Path, help="file for the result (JSON)")
    arguments = parser.parse_args()
    with served() as (address, process):
        result = first_results(address) if shutil.which("chromium") else {}
        print(json.dumps(result), flush=True)
        result |= second_query(address, arguments.repeats)
        print(json.dumps(result), flush=True)
        result |= crowd(address, process, arguments.clients, arguments.requests)
    print(json.dumps(result, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
