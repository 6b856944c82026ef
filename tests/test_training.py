"""Scenes, episodes and the training script, on drawn packs and a toy model."""

import json
import sys

import numpy as np
import pytest
import torch
from cache_features import training_scenes
from config import TrainingConfig, load_config
from conftest import build_micro_model
from drawn_packs import draw_packs
from safetensors.torch import load_file

import train
from dsvlfs import InputError
from dsvlfs.data.feature_cache import FeatureCache
from dsvlfs.data.sampling import EpisodeDataset, collate
from dsvlfs.data.scenes import SceneComposer

SETTINGS = """
scenes: {mosaic: 3, photo: 2, cutouts: 2, single: 2}
scene_supports: 2
steps: 6
text_only_steps: 3
batch_size: 2
warmup_steps: 2
checkpoint_every: 2
log_every: 2
"""


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    return draw_packs(tmp_path_factory.mktemp("packs"))


@pytest.fixture(scope="module")
def cache(packs, tmp_path_factory):
    """A finished cache, and the settings it was built with."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / "settings.yaml").write_text(SETTINGS)
    train.build_cache(load_config(folder / "settings.yaml"), build_micro_model(), packs, folder)
    return folder


def _episodes(cache, **changes) -> EpisodeDataset:
    settings = {
        "length": 40,
        "seed": 0,
        "kind_weights": TrainingConfig().kind_weights,
        "visual_only": 0.25,
        "semantic_only": 0.25,
        "description_share": 0.5,
        "misnamed": 0.0,
    }
    return EpisodeDataset(FeatureCache(cache), **(settings | changes))


@pytest.mark.parametrize("kind", SceneComposer.kinds)
def test_a_scene_is_made_by_its_seed_alone(packs, kind):
    first, again = (training_scenes(packs).compose(kind, (1, 2)) for _ in range(2))
    assert first.image.tobytes() == again.image.tobytes()
    assert first.objects
    for item in first.objects:
        assert item.mask.shape == (first.image.height, first.image.width)
        assert item.mask.dtype == bool


def test_objects_of_a_scene_do_not_overlap(packs):
    composer = training_scenes(packs)
    for seed in range(8):
        for kind in ("mosaic", "cutouts"):
            assert np.sum([item.mask for item in composer.compose(kind, (seed,)).objects], axis=0).max() == 1


def test_an_episode_is_made_by_its_number_alone(cache):
    first, again = _episodes(cache), _episodes(cache)
    list(again[i] for i in range(5))  # what was asked for before does not matter
    for index in (7, 23):
        a, b = first[index], again[index]
        assert a.class_name == b.class_name
        torch.testing.assert_close(a.features, b.features, rtol=0, atol=0)
        torch.testing.assert_close(a.support_layers, b.support_layers, rtol=0, atol=0)


def test_episodes_ask_for_what_their_target_shows(cache):
    episodes = [_episodes(cache)[i] for i in range(40)]
    assert {(e.use_semantic, e.use_visual) for e in episodes} == {(True, True), (True, False), (False, True)}
    for episode in episodes:
        assert episode.target.max() > 0.5
        if episode.use_visual:
            assert episode.support_mask.sum() > 0
            assert any(layer.abs().sum() > 0 for layer in episode.support_layers)


def test_the_shares_of_single_prompts_are_kept(cache):
    only_visual = _episodes(cache, visual_only=1.0, semantic_only=0.0)
    assert all(only_visual[i].use_visual and not only_visual[i].use_semantic for i in range(10))
    batch = collate([_episodes(cache, visual_only=0.0, semantic_only=1.0)[i] for i in range(4)])
    assert batch.use_semantic.all()
    assert not batch.use_visual.any()
    assert len(batch.names) == 4


def test_a_misnamed_episode_keeps_its_support_and_target(cache):
    settings = {"visual_only": 0.0, "semantic_only": 0.0}
    right, wrong = _episodes(cache, **settings), _episodes(cache, misnamed=1.0, **settings)
    pairs = [(right[i], wrong[i]) for i in range(20)]
    assert any(a.class_name != b.class_name for a, b in pairs)
    for a, b in pairs:
        torch.testing.assert_close(a.support_layers, b.support_layers, rtol=0, atol=0)
        if a.class_name == b.class_name:
            continue
        torch.testing.assert_close(a.target, b.target, rtol=0, atol=0)
        assert b.description is None


def _train(monkeypatch, cache, packs, out, *options: str) -> None:
    monkeypatch.setattr(train, "DSVLFSModel", lambda config: build_micro_model())
    arguments = ["--config", cache / "settings.yaml", "--data-root", packs, "--out", out, "--cache", cache, *options]
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
    train.main()


def test_a_stopped_run_goes_on_to_the_same_weights(cache, packs, tmp_path, monkeypatch):
    _train(monkeypatch, cache, packs, tmp_path / "straight")
    whole = train.save_state

    def save_and_stop(*arguments):
        whole(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "save_state", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        _train(monkeypatch, cache, packs, tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        _train(monkeypatch, cache, packs, tmp_path / "stopped", "--resume")
    monkeypatch.setattr(train, "save_state", whole)
    _train(monkeypatch, cache, packs, tmp_path / "stopped", "--resume")
    straight, stopped = (
        [json.loads(line) for line in (tmp_path / run / "losses.jsonl").read_text().splitlines()]
        for run in ("straight", "stopped")
    )
    assert [entry["step"] for entry in stopped] == [2, 4, 6]
    for mine, other in zip(straight, stopped):
        assert mine["loss"] == pytest.approx(other["loss"], abs=1e-6)
    straight, stopped = (load_file(tmp_path / run / "last" / "model.safetensors") for run in ("straight", "stopped"))
    torch.testing.assert_close(straight, stopped, atol=1e-5, rtol=0)


def test_the_learning_rate_rises_and_falls():
    config = TrainingConfig(steps=1000, warmup_steps=100)
    factors = [train.learning_rate_factor(step, config) for step in (0, 99, 100, 550, 999)]
    assert factors == pytest.approx([0.01, 1.0, 1.0, 0.5, 1 / 900], abs=1e-3)


def test_a_setting_that_there_is_not_is_named(tmp_path):
    (tmp_path / "wrong.yaml").write_text("stepz: 3")
    with pytest.raises(InputError, match="stepz"):
        load_config(tmp_path / "wrong.yaml")


@pytest.mark.parametrize("setting", ["size: large", "steps: many", "warmup_steps: 0", "scenes: {mosaics: 3}", "[1, 2]"])
def test_settings_that_cannot_be_are_named(tmp_path, setting):
    (tmp_path / "wrong.yaml").write_text(setting)
    with pytest.raises(InputError):
        load_config(tmp_path / "wrong.yaml")


def test_a_cache_of_other_settings_is_refused(cache, packs):
    with pytest.raises(InputError, match="other settings"):
        train.build_cache(TrainingConfig(), build_micro_model(), packs, cache)


def test_a_run_is_neither_overwritten_nor_resumed_as_another(tmp_path):
    train._open_run(tmp_path / "run", TrainingConfig(), resume=False)
    with pytest.raises(InputError, match="holds a run already"):
        train._open_run(tmp_path / "run", TrainingConfig(), resume=False)
    with pytest.raises(InputError, match="other settings"):
        train._open_run(tmp_path / "run", TrainingConfig(steps=7), resume=True)
    with pytest.raises(InputError, match="no run"):
        train._open_run(tmp_path / "none", TrainingConfig(), resume=True)
