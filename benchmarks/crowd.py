"""The page among honest and hostile visitors, with the packaged model: how long honest ones wait with and without a
hostile one beside them, and what many of both leave behind.

All come from one address, which is the worst case: the page shares its time among addresses first.
"""

import argparse
import itertools
import json
import multiprocessing
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from gradio_client import Client, handle_file
from page import request, resident_mib, served
from PIL import Image

from dsvlfs.page.examples import EXAMPLES

HONEST = 7
IN_FLIGHT = 10  # of the hostile visitor
LONGEST = 300  # characters of a sentence

Request = dict[str, Any]


def hostile_requests(folder: Path) -> list[Callable[[int], Request]]:
    """Kinds of requests that cost much or cannot be answered; each takes a number that makes it differ.

    Args:
        folder: for the files that they send.
    """
    flat, noise, damaged = folder / "flat.png", folder / "noise.jpg", folder / "damaged.png"
    Image.new("L", (8000, 5000), 90).save(flat)  # 40 megapixels in some kilobytes
    values = np.random.default_rng(0).integers(0, 256, (3600, 4800, 3), dtype=np.uint8)
    Image.fromarray(values).save(noise, quality=95)  # as large a file as the page takes
    damaged.write_bytes(flat.read_bytes()[:3000])
    mask = folder / "mask.png"
    half = np.zeros((5000, 8000), dtype=np.uint8)
    half[:, :4000] = 255
    Image.fromarray(half).save(mask)

    def segment(number: int, **change: Any) -> Request:
        return {**request(number), **change}

    def mark(file: Path, box: Any = None, on: Any = None, beside: Any = None) -> Request:
        return {
            "photo": handle_file(file), "box": box, "points_on": on, "points_beside": beside, "api_name": "/mask"
        }  # fmt: skip

    words = "It has a round body, two long legs, a short tail and many feathers of several colours. "
    return [
        lambda n: segment(n, description=("\N{PENGUIN}" * 2000)),
        lambda n: segment(n, description=f"{n} {words * 25}"[:2000]),
        lambda n: segment(
            n, queries=[handle_file(flat)] * 12, support_photos=[handle_file(flat)] * 5,
            support_masks=[handle_file(mask)] * 5,
        ),
        lambda n: segment(n, queries=[handle_file(noise)]),
        lambda n: mark(flat, None, [[n % 8000, 4000], [10, 10]], [[7000, 100]]),
        lambda n: mark(flat, [n % 4000, 0, 8000, 5000]),
        lambda n: {"class_name": f"thing of kind {n}", "api_name": "/describe"},
        lambda n: mark(flat, [10**40, 0, "a", None]),
        lambda n: segment(n, class_name="<SEM_prompt>", threshold="half"),
        lambda n: segment(n, queries=[handle_file(damaged)]),
    ]  # fmt: skip


class Hostile:
    """One visitor who asks for much, again and again, in a process of their own.

    Args:
        address: of the page.
        folder: for the files that they send.
        sessions: as how many visitors they come.
    """

    def __init__(self, address: str, folder: Path, sessions: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.go, self.end, self.answers = context.Event(), context.Event(), context.Manager().dict()
        self.resting = context.Semaphore(0)
        given = (address, folder, sessions, self.go, self.end, self.resting, self.answers)
        self.process = context.Process(target=_be_hostile, args=given, daemon=True)
        self.process.start()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Keeps `IN_FLIGHT` requests under way meanwhile, and waits for the last to be answered."""
        self._await_rest()
        self.go.set()
        yield
        self.go.clear()
        self._await_rest()
        for _ in range(IN_FLIGHT):
            self.resting.release()

    def _await_rest(self) -> None:
        for _ in range(IN_FLIGHT):
            self.resting.acquire()

    def leave(self) -> dict[str, int]:
        """Ends; how often which answer came."""
        self.end.set()
        self.go.set()
        self.process.join()
        return dict(self.answers)


def _be_hostile(
    address: str, folder: Path, sessions: int, go: Any, end: Any, resting: Any, answers: dict[str, int]
) -> None:
    clients = [Client(address, verbose=False) for _ in range(sessions)]
    kinds, numbers, counts = hostile_requests(folder), itertools.count(), Counter()

    def work(place: int) -> None:
        for turn in itertools.count():
            if not go.is_set():
                resting.release()
                go.wait()
            if end.is_set():
                return
            kind = kinds[(place + turn) % len(kinds)]
            counts[outcome(clients[place % sessions], kind(next(numbers)))] += 1
            answers.update(counts)

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        list(pool.map(work, range(IN_FLIGHT)))


def outcome(client: Client, asked: Request) -> str:
    """ "answered", "refused" with a sentence, or what else came."""
    try:
        client.predict(**asked)
        return "answered"
    except Exception as error:
        text = str(error)
        return (
            "refused" if 10 < len(text) <= LONGEST and "\n" not in text and text != "None" else f"other: {text[:200]}"
        )


class Honest:
    """A visitor with photos of their own, one request at a time."""

    def __init__(self, address: str, number: int, folder: Path) -> None:
        self.client = Client(address, verbose=False)
        self.number, self.file = number, folder / f"honest-{number}.png"
        self.photo = np.asarray(Image.open(EXAMPLES[number % len(EXAMPLES)].query_file).convert("RGB"))
        self.asked = itertools.count(1)

    def ask(self) -> float:
        """Seconds until a request is answered, for a photo that nobody has sent before."""
        Image.fromarray(np.roll(self.photo, (self.number, next(self.asked)), (0, 1))).save(self.file)
        started = time.perf_counter()
        self.client.predict(**{**request(self.number), "queries": [handle_file(self.file)]})
        return time.perf_counter() - started


def waiting(address: str, folder: Path, rounds: int, each: int, sessions: int) -> dict[str, Any]:
    """The 95th percentile of honest visitors' seconds, alone and with a hostile one, turn by turn."""
    people = [Honest(address, number, folder) for number in range(HONEST)]
    hostile = Hostile(address, folder, sessions)
    seconds: dict[str, list[float]] = {"alone": [], "beside": []}

    def all_ask() -> list[float]:
        with ThreadPoolExecutor(HONEST) as pool:
            return [s for own in pool.map(lambda who: [who.ask() for _ in range(each)], people) for s in own]

    all_ask()  # what is done once
    ratios = []
    for _ in range(rounds):
        alone = all_ask()
        with hostile.at_work():
            time.sleep(2)  # until it is at its work
            beside = all_ask()
        seconds["alone"] += alone
        seconds["beside"] += beside
        ratios.append(round(float(np.percentile(beside, 95) / np.percentile(alone, 95)), 2))
        print(json.dumps({"ratio": ratios[-1], "hostile": dict(hostile.answers)}), flush=True)
    p95 = {name: float(np.percentile(values, 95)) for name, values in seconds.items()}
    return {
        "honest_visitors": HONEST,
        "honest_requests": len(seconds["alone"]),
        "hostile_in_flight": IN_FLIGHT,
        "hostile_sessions": sessions,
        "p95_alone_s": round(p95["alone"], 2),
        "p95_beside_s": round(p95["beside"], 2),
        "ratio": round(p95["beside"] / p95["alone"], 2),
        "ratio_of_each_round": ratios,
        "median_alone_s": round(float(np.median(seconds["alone"])), 2),
        "median_beside_s": round(float(np.median(seconds["beside"])), 2),
        "hostile_answers": hostile.leave(),
    }


def mixed(address: str, process: int, store: Path, folder: Path, clients: int, requests: int) -> dict[str, Any]:
    """Visitors of whose requests three in ten are hostile: whether the others get their own masks, and what is left."""
    kinds = hostile_requests(folder)
    people = [Client(address, verbose=False) for _ in range(clients)]
    expected = [_mask(people[0].predict(**request(number))) for number in range(len(EXAMPLES))]
    chance = random.Random(0)
    plan = [(number, chance.random() < 0.3) for number in range(clients * requests)]
    counts: Counter[str] = Counter()
    resident, stored = [], []

    def live(place: int) -> None:
        for number, is_hostile in plan[place::clients]:
            if is_hostile:
                counts[f"hostile {outcome(people[place], kinds[number % len(kinds)](number))}"] += 1
            else:
                mask = _mask(people[place].predict(**request(number)))
                counts["honest, own mask" if np.array_equal(mask, expected[number % 3]) else "honest, another's"] += 1
            if place == 0:
                resident.append(resident_mib(process))
                stored.append(sum(file.stat().st_size for file in store.rglob("*") if file.is_file()) / 2**20)

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(live, range(clients)))
    quarter = max(1, len(resident) // 4)
    return {
        "clients": clients,
        "requests": len(plan),
        "answers": dict(counts),
        "memory_mib_first_quarter": round(float(np.mean(resident[:quarter]))),
        "memory_mib_last_quarter": round(float(np.mean(resident[-quarter:]))),
        "memory_mib_peak": round(max(resident)),
        "stored_mib_peak": round(max(stored)),
    }


def _mask(answer: tuple[Any, ...]) -> np.ndarray:
    return np.asarray(Image.open(answer[0][0]))


def main() -> None:
    """Prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4, help="alone and beside a hostile visitor, in turns")
    parser.add_argument("--each", type=int, default=5, help="requests of each honest visitor in a round")
    parser.add_argument("--sessions", type=int, default=1, help="as how many visitors the hostile one comes")
    parser.add_argument("--clients", type=int, default=8, help="of the mixed crowd")
    parser.add_argument("--requests", type=int, default=100, help="of each of them; 0 leaves the mixed crowd out")
    parser.add_argument("--out", type=Path, help="file for the result (JSON)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, store = Path(name, "sent"), Path(name, "store")
        folder.mkdir()
        with served(GRADIO_TEMP_DIR=str(store)) as (address, process):
            result = waiting(address, folder, arguments.rounds, arguments.each, arguments.sessions)
            print(json.dumps(result), flush=True)
            if arguments.requests:
                result |= mixed(address, process, store, folder, arguments.clients, arguments.requests)
        result["left_after_its_end"] = sum(file.is_file() for file in store.rglob("*"))
    print(json.dumps(result, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
