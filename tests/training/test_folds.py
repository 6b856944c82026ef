"""PASCAL-5i's folds and classes to choose on, from one cache of drawn photos."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import train_micro
from conftest import build_micro_model
from drawn_sets import draw_pascal
from PIL import Image

from dsvlfs.data.named_sets import NAMED_SETS
from dsvlfs.errors import InputError
from dsvlfs.training.feature_cache import FeatureCache
from dsvlfs.training.packs import build_cache
from dsvlfs.training.sampling import EpisodeDataset, collate
from dsvlfs.training.settings import load_config

SETTINGS = """
packs: [VOC2012]
fold: 1
scenes: {photo: 40}
class_supports: 2
kind_weights: {photo: 1}
fit_shots: 3
model: {fit_ridge: 10.0}
steps: 2
text_only_steps: 2
batch_size: 2
left_out_classes: [cow, dog]
validation_every: 2
validation_episodes: 4
"""
FOLD_1 = {"bus", "car", "cat", "chair", "cow"}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    voc = draw_pascal(root / "VOC2012")
    for file in (voc / "SegmentationClassAug").iterdir():  # every training photo has pixels that do not count
        labels = np.array(Image.open(file))
        labels[:4] = 255
        Image.fromarray(labels).save(file)
    (root / "settings.yaml").write_text(SETTINGS)
    return root


@pytest.fixture(scope="module")
def cache(root, tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSVLFS_CACHE", str(tmp_path_factory.mktemp("indices")))
        folder = tmp_path_factory.mktemp("cache")
        build_cache(load_config(root / "settings.yaml"), build_micro_model(), root, folder)
    return folder


def episodes(cache: FeatureCache, **changes: object) -> EpisodeDataset:
    settings = {"length": 40, "seed": 0, "kind_weights": {"photo": 1.0}, "description_share": 0.0, "misnamed": 0.0}
    return EpisodeDataset(cache, visual_only=0.0, semantic_only=0.0, **(settings | changes))


def test_every_class_has_its_share_of_queries_and_supports(cache):
    whole = FeatureCache(cache)
    asked = [entry["objects"][0]["names"][0] for entry in whole.names("queries").values()]
    assert len(asked) == 40
    supports = [entry["names"][0] for entry in whole.names("supports").values()]
    classes = {names[0] for names in NAMED_SETS["pascal-5i"].classes}
    assert sorted(supports) == sorted([*classes, *classes])
    shown = [item for entry in whole.names("queries").values() for item in entry["objects"]]
    assert {item["names"][0] for item in shown} == classes


def test_only_classes_that_a_query_shows_take_turns(cache, monkeypatch):
    names = FeatureCache.names

    def with_another(self, part):
        known = names(self, part)
        if part == "supports":
            first = next(iter(known))
            known[first] = known[first] | {"names": ["unicorn"]}
        return known

    monkeypatch.setattr(FeatureCache, "names", with_another)
    taking_turns = episodes(FeatureCache(cache), in_turns=True)
    wanted = [taking_turns[i].wanted_name for i in range(21)]
    assert "unicorn" not in wanted
    assert len(set(wanted)) >= 19


def test_classes_that_are_left_out_are_background(cache):
    whole, left = FeatureCache(cache), FeatureCache(cache, without=FOLD_1)
    assert not {entry["names"][0] for entry in left.names("supports").values()} & FOLD_1
    for stem, entry in left.names("queries").items():
        every = whole.names("queries")[stem]["objects"]
        assert entry["objects"] == [item for item in every if item["names"][0] not in FOLD_1]
    drawn = episodes(left)
    asked = {drawn[i].class_name for i in range(40)}
    assert asked
    assert not asked & FOLD_1
    # A mask is found by its place among all of the query's, whichever are left out.
    only = episodes(FeatureCache(cache, only={"dog"}), in_turns=True)
    for i in range(4):
        episode = only[i]
        rng = np.random.default_rng((0, i))
        draw = only.draw(rng, "dog")
        place = next(o["place"] for o in whole.names("queries")[draw.query]["objects"] if o["names"] == ["dog"])
        mask = whole.load("queries", draw.query)["masks"][place].float() / 255
        torch.testing.assert_close(episode.target * episode.counted, mask, atol=0.02, rtol=0)


def test_pixels_that_do_not_count_are_kept(cache):
    counted = [episodes(FeatureCache(cache))[i].counted for i in range(20)]
    assert all(0 <= share.min() <= share.max() == 1 for share in counted)
    assert any(share.min() == 0 for share in counted)


def test_the_fit_reads_further_supports_of_other_photos(cache):
    drawn = episodes(FeatureCache(cache), fit_shots=3)
    batch = collate([drawn[i] for i in range(12)])
    assert batch.fit is not None
    assert batch.fit.masks.shape[:2] == (12, batch.fit.shots.max())
    assert {1} < set(batch.fit.shots.tolist()) <= {1, 2}  # each class has two supports
    for i, count in enumerate(batch.fit.shots.tolist()):
        assert torch.equal(batch.fit.masks[i, 0], batch.support_mask[i])
        assert count > 1 or torch.equal(batch.fit.masks[i, 1], batch.fit.masks[i, 0])
    assert collate([episodes(FeatureCache(cache))[i] for i in range(4)]).fit is None


def test_a_fold_is_trained_and_chosen_on_classes_that_it_leaves_out(root, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("DSVLFS_CACHE", str(tmp_path / "cache"))
    options = ("--config", root / "settings.yaml", "--data-root", root, "--cache", cache)
    train_micro.run(*options, "--out", tmp_path / "run", "--fold", "0")
    (line,) = map(json.loads, (tmp_path / "run" / "validation.jsonl").read_text().splitlines())
    assert 0 <= line["validation_miou"] <= 100
    assert (tmp_path / "run" / "best" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("packs: [nowhere]", "packs names 'nowhere'"),
        ("packs: VOC2012", "give a list of names"),
        ("fold: 4\npacks: [VOC2012]", "no fold 4"),
        ("model: {no_such: 1}", "no setting no_such"),
    ],
)
def test_settings_that_cannot_be_are_named(root, cache, tmp_path, settings, message, monkeypatch):
    monkeypatch.setenv("DSVLFS_CACHE", str(tmp_path / "cache"))
    kept = "".join(line + "\n" for line in SETTINGS.splitlines() if line.split(":")[0] not in settings)
    (tmp_path / "settings.yaml").write_text(kept + settings)
    with pytest.raises(InputError, match=message):
        train_micro.run(
            *("--config", tmp_path / "settings.yaml", "--data-root", root, "--cache", cache, "--out", tmp_path / "run")
        )
