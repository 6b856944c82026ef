"""Commands that two processes share: they end together, whatever happens to one of them.

There is no launcher, which would kill one when the other fails and hide its status.
"""

import os
import time
from pathlib import Path

import pytest
from accelerate import PartialState
from drawn_sets import draw_folder
from forked import run_two_processes
from stand_ins import ContrastSegmenter

from dsvlfs import cli
from dsvlfs.errors import InputError
from dsvlfs.measuring import result_table
from dsvlfs.processes import PATIENCE, SharedError, all_processes, failing_together, gather, join_processes


def evaluate_command(scenario: str, root: Path, out: Path) -> int:
    def load(name: str) -> ContrastSegmenter:
        if scenario == "one has no model" and os.environ["RANK"] == "1":
            raise InputError("There is no model here.")
        return ContrastSegmenter()

    def leaving_late(result: dict) -> str:
        time.sleep(3)  # the second process has long been done
        return "done"

    def full(file: Path, content: dict) -> None:
        raise OSError("No space left on device")

    cli.running.load_model, result_table.result_table = load, leaving_late
    if scenario == "one cannot write":
        cli.evaluate.write_json = full
    command = ["evaluate", "--set", "folder", "--root", root, "--seeds", 1, "--limit", 4, "--out", out]
    return cli.main([*map(str, command)])


def complaints(errors: str) -> list[str]:
    return [line for line in errors.splitlines() if line.startswith("dsvlfs: ")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DSVLFS_CACHE", str(tmp_path / "cache"))
    return draw_folder(tmp_path / "set")


def test_nobody_leaves_before_the_last_one_is_done(folder, tmp_path):
    ended = run_two_processes(evaluate_command, "all is well", folder, tmp_path / "result.json")
    assert [status for status, _ in ended] == [0, 0], ended
    assert (tmp_path / "result.json").is_file()


@pytest.mark.parametrize(
    ("scenario", "sentence"),
    [("one has no model", "There is no model here."), ("one cannot write", "No space left on device")],
)
def test_what_fails_in_one_process_fails_in_both(folder, tmp_path, scenario, sentence):
    (first, errors), (second, others_errors) = run_two_processes(
        evaluate_command, scenario, folder, tmp_path / "result.json"
    )
    assert (first, second) == (2, 2), (errors, others_errors)
    (complaint,) = complaints(errors)
    assert sentence in complaint
    assert complaints(others_errors) == []


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
