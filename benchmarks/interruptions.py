"""Runs that are broken off: `dsvlfs label` and training killed at random moments, a disk that fills, two runs at once.
Each is finished by the same command and compared with one that nobody disturbed. The model is a stand-in of the tests,
so that it is the files that are tried."""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import load_file

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "labelling"), str(TESTS / "training")]

import kill_runs  # noqa: E402
import train_micro  # noqa: E402
from drawn_packs import draw_packs  # noqa: E402
from forked import run_process  # noqa: E402
from test_label import arguments, draw, label_on_a_full_disk  # noqa: E402
from test_training_runs import CACHED  # noqa: E402

from dsvlfs.cli import main as command  # noqa: E402


def killed_labelling(folder: Path, count: int, seed: int) -> list[str]:
    """Of `tests/labelling/kill_runs.py`."""
    script = TESTS / "labelling" / "kill_runs.py"
    done = subprocess.run(
        [sys.executable, script, folder, str(count), str(seed)], capture_output=True, text=True, check=False
    )
    said = done.stdout.strip().splitlines() or [done.stderr[-300:]]
    return [] if said == ["nothing lost, nothing done twice"] else said


def killed_training(folder: Path, count: int, seed: int) -> list[str]:
    """A run that is killed `count` times as it goes, each time a little later, and one that is not: the same losses and
    weights."""
    chance, faults = random.Random(seed), []
    settings = CACHED.replace("steps: 6", "steps: 600").replace("checkpoint_every: 2", "checkpoint_every: 1")
    (folder / "settings.yaml").write_text(settings.replace("text_only_steps: 3", "text_only_steps: 300"))
    given = ["--config", folder / "settings.yaml", "--data-root", draw_packs(folder / "packs")]
    given += ["--cache", folder / "cache", "--out"]
    if run_process(train_micro.run_command, [*given, folder / "whole"])[0]:
        return ["the undisturbed run failed"]
    kills, run = 0, folder / "killed"
    while kills < count:
        again = ["--resume"] if (run / "training.json").is_file() else []
        pid = os.fork()
        if pid == 0:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            import torch

            torch.set_num_threads(1)
            os._exit(train_micro.run_command([*given, run, *again]))
        time.sleep(chance.uniform(0.5, 2))
        os.kill(pid, signal.SIGKILL)
        if not os.WIFSIGNALED(os.waitpid(pid, 0)[1]):
            break  # it was done
        kills += 1
    again = ["--resume"] if (run / "training.json").is_file() else []
    if not (run / "final").exists() and run_process(train_micro.run_command, [*given, run, *again])[0]:
        return [f"after {kills} kills the run cannot be resumed"]
    whole, own = (
        [json.loads(line) for line in (folder / name / "losses.jsonl").read_text().splitlines()]
        for name in ("whole", "killed")
    )
    if [line["step"] for line in whole] != [line["step"] for line in own]:
        faults.append("steps are missing or done twice in losses.jsonl")
    if any(abs(a["loss"] - b["loss"]) > 1e-5 for a, b in zip(whole, own)):
        faults.append("losses differ")
    weights = [load_file(folder / name / "final" / "model.safetensors") for name in ("whole", "killed")]
    if any((weights[0][name] - tensor).abs().max() > 1e-4 for name, tensor in weights[1].items()):
        faults.append("weights differ")
    return [*faults, *([] if kills == count else [f"the run was done after {kills} kills"])]


def full_disk(folder: Path, count: int, seed: int) -> list[str]:
    """A labelling run in which no file may grow beyond a random size, finished afterwards where there is room."""
    chance, faults = random.Random(seed), []
    photos = folder / "photos"
    photos.mkdir()
    noise = np.random.default_rng(seed)
    for number in range(6):
        Image.fromarray(noise.integers(0, 255, (240, 320, 3), np.uint8)).save(photos / f"{number}.png")
    given = arguments(photos, folder / "out")[:-2]
    for number in range(count):
        out, limit = folder / f"out{number}", round(10 ** chance.uniform(2, 4.7))
        status, told = run_process(label_on_a_full_disk, [*given, "--out", str(out)], limit)
        said = [line for line in told.splitlines() if line.startswith("dsvlfs: ")]
        if status not in (0, 2) or (status == 2 and "disk is full" not in " ".join(said)):
            faults.append(f"limit {limit}: exit status {status}, {said}")
        for file in [*out.rglob("*.png"), *out.rglob("*.jpg")]:
            try:
                Image.open(file).load()
            except OSError:
                faults.append(f"limit {limit}: {file.name} is half made")
        if run_process(_label, [*given, "--out", str(out)])[0]:
            faults.append(f"limit {limit}: the run cannot be finished")
    return faults


def two_at_once(folder: Path, count: int, seed: int) -> list[str]:
    """Two runs of one command on one folder."""
    faults = []
    photos = folder / "photos"
    names = [draw(photos / f"{number:02d}.png", bright=number).name for number in range(30)]
    for number in range(count):
        out = folder / f"out{number}"
        pids = []
        for _ in range(2):
            pid = os.fork()
            if pid == 0:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                os._exit(kill_runs.main(kill_runs.arguments(folder, out)))
            pids.append(pid)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        done = [line["photo"] for line in kill_runs.lines(out)]
        if statuses != [0, 0]:
            faults.append(f"pair {number}: exit statuses {statuses}")
        if sorted(done) != names:
            faults.append(f"pair {number}: {len(done)} labels of {len(set(done))} photos, not 30")
    return faults


def _label(given: list[str]) -> int:
    from test_label import BrightnessModel

    from dsvlfs.labelling import request

    request.DSVLFSModel = BrightnessModel
    return command(given)


WAYS: dict[str, tuple[Callable[[Path, int, int], list[str]], int]] = {
    "label killed": (killed_labelling, 40),
    "training killed": (killed_training, 40),
    "disk full": (full_disk, 20),
    "two at once": (two_at_once, 10),
}


def main() -> None:
    """Prints what went wrong in each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=WAYS, nargs="+", default=list(WAYS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name in arguments.only:
        way, count = WAYS[name]
        with tempfile.TemporaryDirectory() as folder:
            os.environ["DSVLFS_CACHE"] = f"{folder}/cache"
            Path(folder, "run").mkdir()
            if name == "two at once":
                support = Image.new("RGB", (20, 20))
                support.paste((255, 0, 0), (5, 5, 15, 15))
                support.save(Path(folder, "run", "support.png"))
            start = time.perf_counter()
            faults = way(Path(folder, "run"), count, arguments.seed)
            print(
                f"{name}, {count} times: {'; '.join(faults) or 'nothing lost, nothing done twice'}"
                f" ({time.perf_counter() - start:.0f} s)",
                flush=True,
            )


if __name__ == "__main__":
    main()
