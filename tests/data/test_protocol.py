import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from drawn_sets import CORNER, LARGE, draw_coco, draw_folder, draw_fss, draw_pascal

from dsvlfs.data.episodes import load_episodes, named_episodes
from dsvlfs.data.named_sets import NAMED_SETS, load_named_set
from dsvlfs.data.protocol import PROTOCOLS, protocol_episodes, sample_episodes, write_episodes
from dsvlfs.errors import InputError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSVLFS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pascal(tmp_path: Path) -> Path:
    return draw_pascal(tmp_path / "VOC2012")


def test_every_named_set_has_a_protocol():
    assert PROTOCOLS.keys() == NAMED_SETS.keys()
    assert (PROTOCOLS["pascal-5i"].episodes, PROTOCOLS["pascal-5i"].seeds) == (1000, 5)
    assert (PROTOCOLS["coco-20i"].episodes, PROTOCOLS["coco-20i"].seeds) == (4000, 5)


def test_a_protocol_has_its_episodes_and_seeds(pascal):
    entries = protocol_episodes("pascal-5i", pascal, fold=2, shots=1)
    assert len(entries) == 5000
    assert Counter(entry["seed"] for entry in entries) == dict.fromkeys(range(5), 1000)
    assert {(entry["data_set"], entry["fold"]) for entry in entries} == {("pascal-5i", 2)}
    # Each of the 10 pairs of a photo and a class in turn.
    assert set(Counter(entry["query"] for entry in entries).values()) == {500}


def test_supports_are_other_photos_of_the_class_each_once(tmp_path):
    rows = load_named_set("fss-1000", draw_fss(tmp_path / "fss"), split="test", fold=None)
    class_of = dict(zip(rows["photo_id"], rows["class_name"]))
    for queries in ("rows", "classes"):
        entries = sample_episodes(rows, shots=5, count=60, seed=0, queries=queries)
        assert Counter(entry["class_name"] for entry in entries) == {"abacus": 30, "zucchini": 30}
        for entry in entries:
            photos = [entry["query"], *entry["support"]]
            assert len(set(photos)) == 6
            assert {class_of[photo] for photo in photos} == {entry["class_name"]}
        assert len({entry["query"] for entry in entries}) > 15


@pytest.mark.parametrize("queries", ["rows", "classes"])
def test_an_episode_depends_on_its_seed_and_number_alone(tmp_path, queries):
    rows = load_named_set("coco-20i", draw_coco(tmp_path / "coco"), split="test", fold=None)
    entries = sample_episodes(rows, shots=2, count=50, seed=3, queries=queries)
    assert entries == sample_episodes(rows, shots=2, count=50, seed=3, queries=queries)
    assert entries[:7] == sample_episodes(rows, shots=2, count=7, seed=3, queries=queries)
    shuffled = rows.select(np.random.default_rng(0).permutation(len(rows)))
    assert entries == sample_episodes(shuffled, shots=2, count=50, seed=3, queries=queries)
    assert entries != sample_episodes(rows, shots=2, count=50, seed=4, queries=queries)


def test_a_class_with_too_few_photos_is_left_out(pascal, tmp_path):
    with pytest.raises(InputError, match="No class has a query and 5 other photos"):
        protocol_episodes("pascal-5i", pascal, fold=0, shots=5)
    root = draw_folder(tmp_path / "folder")
    lines = (root / "metadata.jsonl").read_text().splitlines()
    (root / "metadata.jsonl").write_text("\n".join(lines[:7]))  # of the last class one photo
    entries = protocol_episodes("folder", root, fold=None, shots=1)
    assert {entry["class_name"] for entry in entries} == {"fox", "owl"}


def test_a_written_list_gives_the_same_episodes(pascal, tmp_path):
    entries = protocol_episodes("pascal-5i", pascal, fold=0, shots=1, seeds=2, limit=4)
    write_episodes(tmp_path / "episodes.jsonl", entries)
    assert [json.loads(line) for line in (tmp_path / "episodes.jsonl").read_text().splitlines()] == entries
    read, made = load_episodes(pascal, tmp_path / "episodes.jsonl"), named_episodes(pascal, entries)
    assert len(read) == len(made) == 8
    assert [episode.seed for episode in read] == [0] * 4 + [1] * 4
    for one, other in zip(read, made):
        assert (one.class_name, one.class_names, one.support_ids) == (
            other.class_name,
            other.class_names,
            other.support_ids,
        )
        assert np.array_equal(one.query, other.query)
        assert np.array_equal(one.query_mask, other.query_mask)
    assert len(load_episodes(pascal, tmp_path / "episodes.jsonl", limit=3)) == 3


def test_an_episode_shows_its_masks(pascal):
    entries = [
        {
            "data_set": "pascal-5i",
            "fold": 0,
            "seed": 0,
            "class_name": "aeroplane",
            "query": "2007_000000",
            "support": ["2007_000001"],
        }
    ]
    (episode,) = named_episodes(pascal, entries)
    target, base = np.zeros((2, 72, 96), dtype=bool)
    target[LARGE[1] : LARGE[3], LARGE[0] : LARGE[2]] = True
    base[CORNER[1] : CORNER[3], CORNER[0] : CORNER[2]] = True  # a bus, which the fold trains on
    assert np.array_equal(episode.query_mask, target)
    assert np.array_equal(episode.query_ignore, np.arange(72)[:, None] < np.full((1, 96), 4))
    assert np.array_equal(episode.query_base, base)
    assert np.array_equal(episode.support[0][1], target)
    assert episode.class_names == ("aeroplane", "airplane")
    # Trained on something else: then only the classes that it shares are base classes.
    (episode,) = named_episodes(pascal, entries, trained_classes={"airplane", "train"})
    assert not episode.query_base.any()
    (episode,) = named_episodes(pascal, entries, trained_classes={"bus"})
    assert np.array_equal(episode.query_base, base)
    (episode,) = named_episodes(pascal, [entries[0] | {"fold": None}])
    assert episode.query_base is None


def test_a_folders_masks_and_ignore_masks_are_files(tmp_path):
    root = draw_folder(tmp_path)
    entry = {"data_set": "folder", "fold": None, "seed": 0, "class_name": "fox", "query": "fox_2", "support": ["fox_0"]}
    (episode,) = named_episodes(root, [entry])
    assert np.array_equal(episode.query_ignore, episode.query_mask)
    (root / "masks" / "fox_2.png").unlink()
    with pytest.raises(InputError, match=r"no mask .*fox_2\.png"):
        named_episodes(root, [entry])[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fold": 1}, "Line 2 .* another set or fold"),
        ({"data_set": "coco-20i"}, "Line 2 .* another set or fold"),
        ({"seed": "0"}, "wrong 'seed' .*valid integer"),
        ({"data_set": ["pascal-5i"]}, "wrong 'data_set' .*valid string"),
        ({"query": "2007_999999"}, "have no '2007_999999' with aeroplane"),
        ({"class_name": "gnu"}, "with gnu"),
    ],
)
def test_a_wrong_line_is_named(pascal, tmp_path, change, message):
    entry = protocol_episodes("pascal-5i", pascal, fold=0, shots=1, limit=1)[0]
    entry |= {"class_name": "aeroplane", "query": "2007_000000", "support": ["2007_000001"]}
    write_episodes(tmp_path / "e.jsonl", [entry, entry | change])
    with pytest.raises(InputError, match=message):
        load_episodes(pascal, tmp_path / "e.jsonl")
