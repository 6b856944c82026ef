"""The embeddings of names and photos, on the micro model, drawn photos and vectors known by hand."""

import json
import sys

import numpy as np
import pytest
from drawn_packs import draw_photo_folder

from dsvlfs.cli import main
from dsvlfs.data.episodes import load_episodes
from dsvlfs.measuring.analysis.embeddings import (
    Points,
    embed,
    episode_items,
    folder_items,
    mixed,
    retrieval,
    separability,
    spread,
)


@pytest.fixture
def folder(tmp_path):
    """Eight photos of circles and squares; a square is called a block as well. Two episodes."""
    root = draw_photo_folder(tmp_path / "photos", name="{colour} {shape}")
    entries = [json.loads(line) for line in (root / "metadata.jsonl").read_text().splitlines()]
    for entry in entries:
        entry["synonyms"] = [entry["name"]] + ["blue block"] * (entry["name"] == "blue square")
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, entries)))
    lines = [
        {"class_name": shape, "query": f"red_{shape}", "support": [f"orange_{shape}", f"blue_{shape}"]}
        for shape in ("circle", "square")
    ]
    (root / "episodes.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return root


def _points(angles: list[float], classes: str, groups: str, kinds: list[str]) -> Points:
    vectors = np.stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))], axis=1)
    return Points(vectors, *map(np.array, (list(classes), list(groups), kinds)))


def test_separability_and_mixing_of_vectors_known_by_hand():
    apart = _points([0, 2, 4, 90, 93, 96], "aaabbb", "123456", ["look"] * 6)
    assert separability(apart)["nearest"] == 100
    assert separability(apart)["silhouette"] > 0.9
    assert mixed(apart) == {}
    # Two of a's four stand beside b's, where all three of b have an a nearest.
    among = _points([0, 1, 89, 94, 90, 93, 120], "aaaabbb", "1234567", ["look"] * 7)
    assert separability(among)["nearest"] == pytest.approx(100 * 2 / 7)
    assert separability(among)["silhouette"] < 0.6
    assert mixed(among) == {("a", "b"): (2, 4), ("b", "a"): (3, 3)}
    assert mixed(_points([0, 1, 89, 90, 92], "aaabb", "12345", ["look"] * 5)) == {}  # a single point is chance


def test_a_photo_is_no_neighbour_of_itself():
    twice = _points([0, 0, 90, 80], "aabb", "1123", ["look"] * 4)
    own = separability(twice)
    assert own["nearest"] == 100  # of b alone: a has one photo
    alone = _points([0, 90], "ab", "12", ["look"] * 2)
    assert separability(alone) == {"silhouette": None, "nearest": None}


def test_names_are_looked_for_among_other_photos():
    prompts = _points([0, 90, 5], "abb", "xy1", ["class name", "class name", "photo's name"])
    looks = _points([5, 10, 85], "bab", "123", ["look"] * 3)
    found = retrieval(prompts, looks)
    assert found["class name to photo"] == 50  # a's name is nearest to the first, which is b's
    assert found["any wording to photo"] == pytest.approx(100 / 3)  # the third's own photo is left out: a's is nearer
    assert found["photo to class name"] == pytest.approx(200 / 3)


def test_spread_compares_wordings_of_one_photo_and_names_of_classes():
    prompts = _points(
        [0, 60, 90, 0],
        "aaab",
        "111x",
        ["photo's name", "synonym", "definition", "class name"],
    )
    rows = {what: (cosine, pairs) for what, cosine, pairs in spread(prompts)}
    assert rows["a name and its synonyms"] == (pytest.approx(0.5), 1)
    assert rows["a name without and with its definition"] == (pytest.approx(0, abs=1e-9), 1)
    assert "names of different classes" not in rows
    names = _points([0, 60, 90], "aab", "123", ["photo's name"] * 3)
    rows = {what: (cosine, pairs) for what, cosine, pairs in spread(names)}
    assert rows["names of photos of one class"] == (pytest.approx(0.5), 1)
    assert rows["names of photos of different classes"] == (pytest.approx(3**0.5 / 4), 2)


def test_a_silent_projector_gives_a_prompt_a_wording(micro_model, folder):
    micro_model.grounding.basis.normal_()
    items = folder_items(folder, {"circle", "square"})
    assert [item.class_name for item in items].count("square") == 4
    every, looks = embed(micro_model, items)  # it reads the photo: each wording of each
    assert len(looks.classes) == len(items) == 8
    np.testing.assert_allclose(np.linalg.norm(looks.vectors, axis=1), 1, atol=1e-5)
    assert len(every.classes) == sum(len(item.wordings) for item in items)
    micro_model.semantic_encoder.llava.model.multi_modal_projector.linear_2.weight.data.zero_()
    prompts, _ = embed(micro_model, items)
    # Two classes, eight names, a synonym, and the definition of the four circles.
    assert dict(zip(*np.unique(prompts.kinds, return_counts=True))) == {
        "class name": 2,
        "photo's name": 8,
        "synonym": 1,
        "definition": 4,
    }


def test_the_episodes_supports_are_taken_once(folder):
    items = episode_items(load_episodes(folder, folder / "episodes.jsonl"))
    assert [item.class_name for item in items] == ["circle"] * 2 + ["square"] * 2


def test_the_command_writes_a_report(micro_model, folder, tmp_path, monkeypatch, capsys):
    micro_model.grounding.basis.normal_()
    monkeypatch.setattr("dsvlfs.cli.running.load_model", lambda name: micro_model)
    command = ["analyze", "embeddings", "--root", folder, "--episodes", folder / "episodes.jsonl"]
    command += ["--photos", folder, "--out", tmp_path / "report"]
    assert main([str(part) for part in command]) == 0
    assert "Classes that mix, by looks" in capsys.readouterr().out
    data = json.loads((tmp_path / "report" / "report.json").read_text())["data"]
    assert set(data["separability"]) == {"prompts", "looks"}
    assert data["reads_photo"] is True
    for picture in ("prompts", "looks", "together"):
        assert (tmp_path / "report" / f"{picture}.png").exists()


def test_photos_of_other_classes_are_of_no_use(micro_model, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("dsvlfs.cli.running.load_model", lambda name: micro_model)
    one = folder / "one.jsonl"
    one.write_text((folder / "episodes.jsonl").read_text().splitlines()[0])
    command = ["analyze", "embeddings", "--root", folder, "--episodes", one, "--out", tmp_path / "report"]
    assert main([str(part) for part in command]) != 0
    assert "fewer than two" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["matplotlib", "sklearn"])
def test_a_missing_package_is_named(package, micro_model, folder, tmp_path, monkeypatch, capsys):
    for name in list(sys.modules):
        if name in ("dsvlfs.measuring.analysis.embeddings", "dsvlfs.measuring.analysis.plots") or name.startswith(
            f"{package}."
        ):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    command = ["analyze", "embeddings", "--root", folder, "--episodes", folder / "episodes.jsonl"]
    assert main([str(part) for part in [*command, "--out", tmp_path / "report"]]) != 0
    said = capsys.readouterr().err
    assert "dsvlfs[analyze]" in said
    assert len(said.splitlines()) == 1
