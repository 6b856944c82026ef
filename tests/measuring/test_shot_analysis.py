"""`dsvlfs analyze shots`, on drawn photos and a toy model."""

import argparse
import json

import numpy as np
import pytest
from conftest import build_micro_model
from drawn_packs import draw_photo_folder

from dsvlfs import InputError
from dsvlfs.cli import main
from dsvlfs.data.episodes import Episode, load_episodes
from dsvlfs.measuring.analysis import shots
from dsvlfs.measuring.metrics import SegmentationMetrics, count_episode

COLOURS = ("red", "blue", "green", "orange", "purple", "brown", "pink")


def _arguments(**changes) -> argparse.Namespace:
    return argparse.Namespace(**({"mode": "both", "others": None, "root": None} | changes))


@pytest.fixture
def drawn(tmp_path):
    """A folder of photos, and three episodes of two classes with five supports each; the last is a mosaic."""
    root = draw_photo_folder(tmp_path / "photos", COLOURS)

    def of(shape: str, query: str) -> dict:
        support = [f"{colour}_{shape}" for colour in COLOURS if colour != query][:5]
        return {"class_name": shape, "query": f"{query}_{shape}", "support": support}

    lines = [of("circle", "red"), of("square", "blue"), of("square", "red")]
    (root / "episodes.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return load_episodes(root, root / "episodes.jsonl")


def _photo(level: int) -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros((8, 8), dtype=bool)
    mask[:3, :3] = True
    return np.full((8, 8, 3), level, np.uint8), mask


def _episode(supports: int, query_photos: tuple[str, ...] = ("q",)) -> Episode:
    image, mask = _photo(0)
    return Episode(
        class_name="fox",
        query=image,
        query_mask=mask,
        support=[_photo(i) for i in range(supports)],
        support_ids=tuple(f"{i}:fox" for i in range(supports)),
        class_names=("fox",),
        query_photos=query_photos,
    )


def test_shots_are_the_episodes_own_then_others_of_its_class_and_none_of_the_query():
    pool = {"fox": {str(i): _photo(i) for i in range(14)}, "owl": {"9": _photo(9), "o": _photo(99)}}
    episode = _episode(5, ("7", "9"))
    chosen = shots.choose_shots(episode, pool, pool, np.random.default_rng(0))
    assert chosen.keys[:5] == [f"{i}:fox" for i in range(5)]
    assert len(chosen.sets["10"]) == len(set(chosen.sets["10"])) == 10
    assert not {"7:fox", "9:fox", "9:owl"} & set(chosen.keys)
    assert {name: len(places) for name, places in chosen.sets.items() if name.isdigit()} == {
        str(count): count for count in shots.COUNTS
    }


def test_each_bad_set_is_four_good_supports_and_what_it_says():
    pool = {"fox": {}, "owl": {"o": _photo(99)}}
    chosen = shots.choose_shots(_episode(5), pool, pool, np.random.default_rng(0))
    assert list(chosen.sets) == ["1", "2", "3", "5", "4 good", "mask inverted", "mask moved", "another class"]
    image, mask = _photo(4)
    bad = {}
    for name in ("mask inverted", "mask moved", "another class"):
        *good, last = chosen.sets[name]
        assert good == chosen.sets["4 good"]
        bad[name] = chosen.examples[last]
    for name, wrong in (("mask inverted", ~mask), ("mask moved", np.roll(mask, (4, 4), axis=(0, 1)))):
        np.testing.assert_array_equal(bad[name][0], image)
        np.testing.assert_array_equal(bad[name][1], wrong)
    np.testing.assert_array_equal(bad["another class"][0], _photo(99)[0])


def test_too_few_supports_are_measured_as_far_as_they_go():
    chosen = shots.choose_shots(_episode(2), {"fox": {}}, {"fox": {}}, np.random.default_rng(0))
    assert list(chosen.sets) == ["1", "2"]


def test_what_is_measured_is_what_the_model_predicts(drawn):
    model = build_micro_model()
    model.add_shot_attention()
    measured = shots.measure(model, drawn, [], "both")
    assert {name for name, _ in measured} == {"1", "2", "3", "5", "4 good", *shots._BAD}
    for aggregation in shots.AGGREGATIONS:
        counts = []
        for episode in drawn:
            support = model.encode_support(episode.support[:3])
            found = model.segment(episode.query, episode.class_name, support=support, aggregation=aggregation)
            counts.append(count_episode(episode.class_name, found.mask, episode.query_mask))
        assert measured["3", aggregation].miou() == pytest.approx(SegmentationMetrics(counts).miou(), abs=1e-3)


def test_the_report_has_tables_a_picture_and_what_was_not_measured(drawn, tmp_path, micro_model):
    report = shots.run(micro_model, drawn, _arguments(mode="visual"))
    report.write(tmp_path / "report")
    first, second = report.tables
    assert list(first.columns) == ["supports", "votes", "logits", "joint"]
    assert [row[0] for row in first.rows] == ["1", "2", "3", "5"]
    assert first.rows[0][1] == first.rows[0][2] == first.rows[0][3]  # one support
    assert [row[0] for row in second.rows] == ["4 good", "another class", "mask inverted", "mask moved"]
    assert any("learned no attention" in finding for finding in report.findings)
    assert any("photos for 10 supports" in finding for finding in report.findings)
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"report.json", "report.md", "shots.png"}
    rows = json.loads((tmp_path / "report" / "report.json").read_text())["data"]["rows"]
    assert len(rows) == 3 * 8


def test_supports_of_another_class_may_come_from_another_file(drawn, tmp_path, micro_model):
    root = tmp_path / "photos"
    circles = [drawn[0]]
    report = shots.run(micro_model, circles, _arguments())
    assert [row[0] for row in report.tables[1].rows] == ["4 good", "mask inverted", "mask moved"]
    assert any("another class" in finding for finding in report.findings)
    report = shots.run(micro_model, circles, _arguments(root=root, others=root / "episodes.jsonl"))
    assert report.tables[1].rows[1][0] == "another class"


def test_the_command_writes_a_report(drawn, tmp_path, micro_model, monkeypatch, capsys):
    monkeypatch.setattr("dsvlfs.cli.running.load_model", lambda name: micro_model)
    root = tmp_path / "photos"
    files = ["--root", root, "--episodes", root / "episodes.jsonl", "--others", root / "episodes.jsonl"]
    command = ["analyze", "shots", *files, "--limit", 1, "--mode", "visual", "--out", tmp_path / "report"]
    assert main([str(part) for part in command]) == 0
    assert "another class" in capsys.readouterr().out
    data = json.loads((tmp_path / "report" / "report.json").read_text())["data"]
    assert {row["supports"] for row in data["rows"]} >= {"1", "5", "mask moved"}
    assert (tmp_path / "report" / "shots.png").exists()


def test_nothing_measured_gets_a_sentence():
    with pytest.raises(InputError, match="more supports"):
        shots.report({}, 0, "both")
