"""Commands that two processes share: they end together, whatever happens to one of them.

The processes are started without a launcher, which would kill one when the other fails and hide its status.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate import PartialState
from drawn_sets import draw_folder

from dsvlfs.errors import InputError
from dsvlfs.processes import PATIENCE, SharedError, all_processes, failing_together, gather, join_processes

ROOT = Path(__file__).parent.parent

EVALUATE = """
import os, sys, time
from test_evaluation import ContrastSegmenter
from dsvlfs import cli
from dsvlfs.errors import InputError
from dsvlfs.measuring import result_table

rank, scenario, root, out = int(os.environ["RANK"]), *sys.argv[1:]

def load(name):
    if scenario == "one has no model" and rank == 1:
        raise InputError("There is no model here.")
    return ContrastSegmenter()

def leaving_late(table):
    time.sleep(3)  # the second process has long been done
    return "done"

cli.running.load_model, result_table.result_table = load, leaving_late
sys.exit(cli.main(["evaluate", "--set", "folder", "--root", root, "--seeds", "1", "--limit", "4", "--out", out]))
"""

LABEL = """
import os, sys
from test_label import BrightnessModel
from dsvlfs.labelling import label
from dsvlfs.cli import main

rank, scenario, photos, out = int(os.environ["RANK"]), *sys.argv[1:]
add = label.LabelFolder.add

def on_a_full_disk(folder, process, *arguments):
    if process == 1:
        raise OSError("No space left on device")
    add(folder, process, *arguments)

label.DSVLFSModel, label.LabelFolder.add = BrightnessModel, on_a_full_disk
sys.exit(main(["label", "--class-name", "fox", "--photos", photos, "--out", out]))
"""


def two_processes(script: str, *arguments: object) -> list[tuple[int, str]]:
    """Exit status and standard error of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = os.pathsep.join(map(str, (ROOT, *(ROOT / "tests" / room for room in ("", "labelling", "measuring")))))
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            env=os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        return [(process.returncode, errors) for process in running for errors in [process.communicate(timeout=200)[1]]]
    finally:
        for process in running:
            process.kill()


def complaints(errors: str) -> list[str]:
    return [line for line in errors.splitlines() if line.startswith("dsvlfs: ")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DSVLFS_CACHE", str(tmp_path / "cache"))
    return draw_folder(tmp_path / "set")


def test_nobody_leaves_before_the_last_one_is_done(folder, tmp_path):
    ended = two_processes(EVALUATE, "all is well", folder, tmp_path / "result.json")
    assert [status for status, _ in ended] == [0, 0], ended
    assert (tmp_path / "result.json").is_file()


@pytest.mark.parametrize(
    ("scenario", "sentence"),
    [("one has no model", "There is no model here."), ("one cannot write", "result.json.part")],
)
def test_what_fails_in_one_process_fails_in_both(folder, tmp_path, scenario, sentence):
    if scenario == "one cannot write":
        (tmp_path / "result.json.part").mkdir()
    (first, errors), (second, others_errors) = two_processes(EVALUATE, scenario, folder, tmp_path / "result.json")
    assert (first, second) == (2, 2), (errors, others_errors)
    (complaint,) = complaints(errors)
    assert sentence in complaint
    assert complaints(others_errors) == []


def test_a_failed_share_of_labels_fails_in_both(folder, tmp_path):
    (first, errors), (second, others_errors) = two_processes(LABEL, "", folder / "images", tmp_path / "labels")
    assert (first, second) == (2, 2), (errors, others_errors)
    assert complaints(errors) == ["dsvlfs: No space left on device"]
    assert (tmp_path / "labels" / "labels-0.jsonl").is_file()  # what the other did is kept


def test_one_process_alone_needs_no_others():
    with all_processes():
        assert gather([1, 2]) == [1, 2]
    with pytest.raises(SharedError, match="wrong"), all_processes(), failing_together():
        raise InputError("wrong")


def test_the_others_are_waited_for_a_day(monkeypatch):
    asked = {}
    monkeypatch.setattr("dsvlfs.processes.PartialState", lambda **options: asked.update(options) or PartialState())
    join_processes()
    assert asked["timeout"] == PATIENCE
    assert PATIENCE.days == 1
