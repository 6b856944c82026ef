"""Whole runs of the micro model: killed, divided between processes, with and without a cache."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import train_micro
from drawn_packs import draw_packs, draw_photo_folder
from drawn_sets import draw_coco, draw_folder, draw_fss, draw_lvis, draw_pascal
from forked import run_process, run_two_processes
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dsvlfs import InputError

CACHED = """
scenes: {mosaic: 3, photo: 2, cutouts: 2, single: 2}
class_supports: 2
steps: 6
text_only_steps: 3
batch_size: 4
micro_batch_size: 2
warmup_steps: 2
checkpoint_every: 2
log_every: 3
"""

# Micro-batches of one, so that some have no semantic prompt and some no visual one.
LIVE = """
dataset: folder
steps: 4
batch_size: 4
micro_batch_size: 1
warmup_steps: 2
validation_every: 2
validation_episodes: 5
validation_pictures: 2
checkpoint_every: 4
log_every: 1
"""


MINIATURE = """
dataset: {name}
steps: 20
text_only_steps: 0
batch_size: 2
visual_only: 0
semantic_only: 0
misnamed: 0
learning_rate: 3.0e-3
warmup_steps: 2
validation_every: 20
validation_episodes: 4
checkpoint_every: 20
log_every: 10
"""


@pytest.fixture(autouse=True)
def _index_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DSVLFS_CACHE", str(tmp_path / "indices"))


def _status(options: list[object], kill_at: tuple[str, int] | None = None) -> int:
    """Of a run in a process of its own."""
    return run_process(train_micro.run_command, options, kill_at)[0]


def _lines(run: Path, log: str = "losses.jsonl") -> list[dict]:
    return [json.loads(line) for line in (run / log).read_text().splitlines()]


def _assert_same_losses(run: Path, other: Path, tolerance: float) -> None:
    mine, others = _lines(run), _lines(other)
    assert [line["step"] for line in mine] == [line["step"] for line in others]
    for line, other_line in zip(mine, others):
        assert line.keys() == other_line.keys()
        for name in line.keys() - {"seconds"}:
            assert line[name] == pytest.approx(other_line[name], abs=tolerance), (line["step"], name)


def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path):
    (tmp_path / "settings.yaml").write_text(CACHED)
    options = ["--config", tmp_path / "settings.yaml", "--data-root", draw_packs(tmp_path / "packs")]
    options += ["--cache", tmp_path / "cache"]
    # All in processes of one thread: a key's bias has no gradient but rounding's, which AdamW blows up.
    assert _status([*options, "--out", tmp_path / "whole"]) == 0
    killed = tmp_path / "killed"
    options += ["--out", killed]

    # In the second save, between the old state's leaving its place and the new one's taking it.
    assert _status(options, ("last", 2)) == -signal.SIGKILL
    assert not (killed / "last").exists()
    assert [line["step"] for line in _lines(killed)] == [3]
    # In the same save once more, when some of its files are written.
    options.append("--resume")
    assert _status(options, ("progress.json", 1)) == -signal.SIGKILL
    assert (killed / "last.part" / "model.safetensors").exists()
    assert not (killed / "last.part" / "progress.json").exists()
    assert _status(options) == 0

    _assert_same_losses(killed, tmp_path / "whole", 1e-6)
    for file in ("model.safetensors", "optimizer.safetensors"):
        whole, resumed = (load_file(run / "last" / file) for run in (tmp_path / "whole", killed))
        torch.testing.assert_close(resumed, whole, rtol=0, atol=1e-5)


def test_two_processes_learn_what_one_does(tmp_path):
    (tmp_path / "settings.yaml").write_text(LIVE)
    options = ["--config", tmp_path / "settings.yaml", "--data-root", draw_photo_folder(tmp_path / "photos"), "--out"]
    train_micro.run(*options, tmp_path / "one")
    ended = run_two_processes(train_micro.run_command, [*options, tmp_path / "two"])
    assert [status for status, _ in ended] == [0, 0], ended

    _assert_same_losses(tmp_path / "two", tmp_path / "one", 1e-5)
    validations = [_lines(tmp_path / run, "validation.jsonl") for run in ("one", "two")]
    assert [line["step"] for line in validations[0]] == [2, 4]
    for mine, other in zip(*validations):
        assert mine == pytest.approx(other, abs=0.5)  # a pixel on the decoder's grid may fall to either side
    one, two = (load_file(tmp_path / run / "last" / "optimizer.safetensors") for run in ("one", "two"))
    torch.testing.assert_close(two, one, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "fold", "draw"),
    [
        ("pascal-5i", 1, draw_pascal),
        ("coco-20i", 3, draw_coco),
        ("fss-1000", None, draw_fss),
        ("lvis-92i", 4, draw_lvis),
        ("folder", 2, draw_folder),
    ],
)
def test_a_miniature_of_each_data_set_is_learned_from(tmp_path, name, fold, draw):
    (tmp_path / "settings.yaml").write_text(MINIATURE.format(name=name))
    options = ["--config", tmp_path / "settings.yaml", "--data-root", draw(tmp_path / "set"), "--out", tmp_path / "run"]
    train_micro.run(*options, *(() if fold is None else ("--fold", fold)))
    assert [line["step"] for line in _lines(tmp_path / "run")] == [10, 20]
    losses = [line["loss"] for line in _lines(tmp_path / "run")]
    assert losses[1] < losses[0]
    assert [line["step"] for line in _lines(tmp_path / "run", "validation.jsonl")] == [20]


def test_a_validation_is_shown_and_the_best_is_kept(tmp_path):
    (tmp_path / "settings.yaml").write_text(LIVE)
    run = tmp_path / "run"
    photos = draw_photo_folder(tmp_path / "photos")
    train_micro.run("--config", tmp_path / "settings.yaml", "--data-root", photos, "--out", run)
    figures = {line["step"]: line["validation_miou"] for line in _lines(run, "validation.jsonl")}
    assert all(0 <= figure <= 100 for figure in figures.values())
    assert json.loads((run / "last" / "progress.json").read_text())["best"] == max(figures.values())
    best, final = (load_file(run / name / "model.safetensors") for name in ("best", "final"))
    same = all(torch.equal(best[name], final[name]) for name in final)
    assert same == (figures[4] > figures[2])
    picture = np.asarray(Image.open(run / "pictures" / "000004.png"))
    assert picture.shape == (2 * 256, 3 * 256, 3)
    curves = EventAccumulator(str(run / "curves"), size_guidance={"images": 0}).Reload()
    assert [event.step for event in curves.Scalars("loss")] == [1, 2, 3, 4]
    assert [event.step for event in curves.Scalars("validation_miou")] == [2, 4]
    assert [event.step for event in curves.Images("validation")] == [2, 4]


def test_a_damaged_photo_is_one_sentence(tmp_path):
    (tmp_path / "settings.yaml").write_text(LIVE)
    photos = draw_photo_folder(tmp_path / "photos")
    for file in (photos / "images").iterdir():
        file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(InputError, match="cannot be read"):
        train_micro.run("--config", tmp_path / "settings.yaml", "--data-root", photos, "--out", tmp_path / "run")
