"""The commands that open the page, train, and look after a checkpoint: arguments in, one call, one sentence of what is
wrong. What they call has tests of its own."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from dsvlfs import BaseNotAvailableError, InputError
from dsvlfs.cli import main
from dsvlfs.hub import bases
from dsvlfs.page import layout
from dsvlfs.training import run as training_run

ROOT = Path(__file__).parents[2]
TRAIN = ["train", "--config", "settings.yaml", "--data-root", "data", "--out", "run"]


def sentence(capsys: pytest.CaptureFixture) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("dsvlfs: ")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], (None, None, None)),
        (["--host", "0.0.0.0", "--port", "9000", "--share"], ("0.0.0.0", 9000, True)),
    ],
)
def test_demo_serves_the_page_where_asked(monkeypatch, given, expected):
    served = []
    monkeypatch.setattr(layout, "serve", lambda **options: served.append(options))
    assert main(["demo", *given]) == 0
    assert served == [dict(zip(("server_name", "server_port", "share"), expected))]


def test_a_port_that_is_taken_is_said(monkeypatch, capsys):
    monkeypatch.setattr(layout, "end_well", lambda store: None)  # the tests' process ends as it did
    monkeypatch.setattr(layout.events, "first_results", lambda: None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["demo", "--host", "127.0.0.1", "--port", port]) == 2
    assert "give another --port" in sentence(capsys)
    with pytest.raises(SystemExit):
        main(["demo", "--port", "70000"])
    assert "not between 1 and 65535" in capsys.readouterr().err


def test_the_page_is_served_with_an_example_segmented(monkeypatch):
    done = []
    monkeypatch.setattr(layout, "end_well", lambda store: None)
    monkeypatch.setattr(layout.events, "first_results", lambda: done.append("segmented"))
    monkeypatch.setattr(layout, "launch", lambda **options: done.append(options))
    layout.serve(server_port=1)
    assert done == ["segmented", {"server_port": 1}]


def test_without_gradio_demo_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "dsvlfs.page.layout")
    assert main(["demo"]) == 2
    assert "pip install 'dsvlfs[demo]'" in sentence(capsys)


def test_bases_names_each_ones_folder(monkeypatch, capsys):
    monkeypatch.setattr(bases, "resolve_base", lambda name: Path("bases", name))
    assert main(["bases"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{name}: bases/{name}" for name in bases.PINNED_BASES]

    def unavailable(name: str) -> Path:
        raise BaseNotAvailableError("It cannot be fetched.")

    monkeypatch.setattr(bases, "resolve_base", unavailable)
    assert main(["bases"]) == 2
    assert sentence(capsys) == "It cannot be fetched."


def test_card_takes_results_in(tmp_path, capsys):
    card, result = tmp_path / "README.md", tmp_path / "result.json"
    card.write_text("---\nlibrary_name: dsvlfs\n---\n# Mine\n")
    result.write_text(json.dumps({"miou": 61.26, "fb_iou": 70.0, "episodes": 5}))
    assert main(["card", str(card), f"my = photos={result}", "--model-name", "mine"]) == 0
    written = ModelCard.load(card)
    assert [r.metric_value for r in written.data.eval_results] == [61.3, 70.0]
    assert {r.dataset_name for r in written.data.eval_results} == {"my = photos"}
    assert (written.data.model_name, written.text.strip()) == ("mine", "# Mine")
    result.write_text("{}")
    assert main(["card", str(card), f"photos={result}"]) == 2
    assert "lacks the field 'miou'" in sentence(capsys)
    with pytest.raises(SystemExit):
        main(["card", str(card), str(result)])
    assert "is not DATA=RESULT.json" in capsys.readouterr().err


def test_a_checkpoint_that_is_none_is_not_calibrated(tmp_path, capsys):
    assert main(["calibrate", str(tmp_path), "--data-root", str(tmp_path)]) == 2
    assert "config.json" in sentence(capsys)


def test_train_hands_on_what_is_given(monkeypatch):
    called = []
    monkeypatch.setattr(training_run, "train", lambda *given, **options: called.append((given, options)))
    assert main([*TRAIN, "--fold", "2", "--start-from", "other", "--resume"]) == 0
    options = {"fold": 2, "cache": None, "start_from": Path("other"), "resume": True}
    assert called == [((Path("settings.yaml"), Path("data"), Path("run")), options)]


def test_every_process_says_what_ended_its_training(monkeypatch, capsys):
    def train(*_: object, **__: object) -> None:
        raise InputError("The photo a.jpg cannot be read.")

    monkeypatch.setattr(training_run, "train", train)
    monkeypatch.setenv("RANK", "1")
    assert main(TRAIN) == 2
    assert sentence(capsys) == "The photo a.jpg cannot be read."


def test_trainings_doors_are_one():
    doors = (["train/train.py"], ["-m", "dsvlfs.training"], ["-m", "dsvlfs", "train"])
    running = [
        subprocess.Popen([sys.executable, *door, "--help"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for door in doors
    ]
    said = [process.communicate(timeout=200)[0] for process in running]
    assert all(process.returncode == 0 for process in running)
    assert "--resume" in said[0]
    assert said[0] == said[1] == said[2]
