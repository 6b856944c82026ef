"""The analysis of descriptions on the micro model and drawn photos."""

import json

import numpy as np
import pytest
from drawn_packs import draw_episodes

from dsvlfs.cli import main
from dsvlfs.data.episodes import load_episodes
from dsvlfs.descriptions.made_up import made_up_names
from dsvlfs.descriptions.spoiled import Spoiler
from dsvlfs.measuring.analysis.description_effects import RIGHT, TOLD, UNKNOWN, measure, report, variants

TEXTS = {"circle": "red round shape", "square": "blue shape"}


@pytest.fixture
def root(tmp_path):
    return draw_episodes(tmp_path / "photos")


def test_each_variant_changes_what_it_says():
    asked = _variants(TEXTS)
    assert next(iter(asked)) == RIGHT
    assert asked[RIGHT] == ("circle", "red round shape")
    assert asked["name only"] == ("circle", None)
    assert asked["first third"] == ("circle", "red")
    assert asked["another's"] == ("circle", "blue shape")
    assert asked["another's, and its name"] == ("square", "blue shape")
    assert asked["right, then another's"] == ("circle", "red round shape blue shape")
    assert len(asked["noise words"].description.split()) == 3
    word = asked[UNKNOWN].name
    assert word in made_up_names()
    assert asked[UNKNOWN].description is None
    assert asked[TOLD] == (word, "red round shape")
    long = {"circle": "round " * 200, "square": "blue " * 300}
    assert len(_variants(long)["right, then another's"].description) == 2000
    assert asked == _variants(TEXTS)


def _variants(texts):
    return variants("circle", texts["circle"], Spoiler(texts), np.random.default_rng(0))


def test_rows_are_what_the_model_predicts(micro_model, root):
    episodes = load_episodes(root, root / "episodes.jsonl")
    metrics = measure(micro_model, episodes, TEXTS)
    assert {mode for _, mode in metrics} == {"both", "semantic"}
    shared = whole = 0
    for episode in (episode for episode in episodes if episode.class_name == "circle"):
        mask = micro_model.segment(episode.query, "circle", description=TEXTS["circle"], mode="semantic").mask
        shared += (mask & episode.query_mask).sum()
        whole += (mask | episode.query_mask).sum()
    assert metrics[RIGHT, "semantic"].iou_by_class()["circle"] == pytest.approx(shared / whole)
    shown = report(metrics, len(episodes), len(episodes))
    assert len(shown.tables[0].rows) == len(metrics) == 18
    assert shown.pictures["descriptions"].width > 100


def test_the_command_needs_two_described_classes(root, tmp_path, micro_model, monkeypatch, capsys):
    monkeypatch.setattr("dsvlfs.cli.running.load_model", lambda name: micro_model)
    (tmp_path / "texts.json").write_text(json.dumps({"circle": "red"}))
    command = ["analyze", "descriptions", "--root", str(root), "--episodes", str(root / "episodes.jsonl")]
    command += ["--out", str(tmp_path / "report"), "--descriptions", str(tmp_path / "texts.json")]
    assert main(command) == 2
    assert "Fewer than two" in capsys.readouterr().err
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    assert main(command) == 0
    assert (tmp_path / "report" / "descriptions.png").exists()
    assert "right description" in (tmp_path / "report" / "report.md").read_text()
