"""A run's classes are kept in its checkpoint under their names."""

import pytest
import torch
import train_micro
from conftest import build_micro_model
from drawn_packs import draw_packs
from safetensors.torch import load_file

from dsvlfs import DSVLFSConfig, InputError
from dsvlfs.parts.class_memory import class_direction
from dsvlfs.training.feature_cache import FeatureCache
from dsvlfs.training.packs import build_cache
from dsvlfs.training.remembering import remember_classes
from dsvlfs.training.settings import TrainingConfig, load_config
from dsvlfs.training.sources import seen_cache

SETTINGS = """
remembers: true
model: {fit_ridge: 10.0}
scenes: {mosaic: 3, photo: 4}
class_supports: 2
steps: 4
text_only_steps: 4
batch_size: 2
warmup_steps: 2
checkpoint_every: 2
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The packs, the settings, and a finished cache."""
    folder = tmp_path_factory.mktemp("remembering")
    packs, config = draw_packs(folder / "packs"), folder / "settings.yaml"
    config.write_text(SETTINGS)
    build_cache(load_config(config), build_micro_model(), packs, folder / "cache")
    return packs, config, folder / "cache"


def test_every_class_of_the_queries_is_solved_from_the_views_that_show_it(drawn, monkeypatch):
    _, _, folder = drawn
    cache, model = FeatureCache(folder), build_micro_model(fit_ridge=10.0)
    read = []

    def solve(views):
        read.append(list(views))
        return class_direction(read[-1])

    monkeypatch.setattr("dsvlfs.training.remembering.class_direction", solve)
    remember_classes(model, cache)
    entries = cache.names("queries").values()
    shown = sorted({item["names"][0] for entry in entries for item in entry["objects"]})
    assert model.config.remembered_classes == shown
    assert model.class_memory.directions.abs().sum(dim=1).all()
    for name, views in zip(shown, read):
        own = [e for e in entries if any(item["names"][0] == name for item in e["objects"])]
        assert len(views) == len(own) > 0
        for positions, share, counted in views:
            assert positions.shape == (16, model.class_memory.directions.shape[1])
            assert share.shape == counted.shape == (16,)
            assert 0 < share.max() <= 1


def test_classes_join_those_that_are_remembered_and_replace_their_own(drawn):
    _, _, folder = drawn
    model = build_micro_model(fit_ridge=10.0, remembered_classes=["unicorn", "CIRCLE"])
    model.class_memory.directions.fill_(5.0)
    remember_classes(model, FeatureCache(folder))
    names = model.config.remembered_classes
    assert names[0] == "unicorn"
    assert "CIRCLE" not in names
    assert len(set(names)) == len(names)
    assert (model.class_memory.directions[0] == 5).all()
    assert not (model.class_memory.directions[1:] == 5).all(dim=1).any()


@pytest.fixture(scope="module")
def run(drawn, tmp_path_factory):
    """A run's folder."""
    (packs, config, cache), out = drawn, tmp_path_factory.mktemp("run")
    train_micro.run("--config", config, "--data-root", packs, "--out", out, "--cache", cache)
    return out


def test_what_a_run_leaves_out_is_not_remembered(drawn):
    _, _, folder = drawn
    shown = {item["names"][0] for entry in FeatureCache(folder).names("queries").values() for item in entry["objects"]}
    left_out = sorted(shown)[0]
    model = build_micro_model(fit_ridge=10.0)
    remember_classes(model, seen_cache(TrainingConfig(left_out_classes=[left_out]), folder))
    assert left_out not in model.config.remembered_classes
    assert model.config.remembered_classes


def test_a_run_keeps_them_through_its_checkpoints(drawn, run):
    _, _, cache = drawn
    fresh = build_micro_model(fit_ridge=10.0)
    remember_classes(fresh, FeatureCache(cache))
    for name in ("last", "final"):
        saved = DSVLFSConfig.from_pretrained(run / name)
        assert saved.remembered_classes == fresh.config.remembered_classes
        again = build_micro_model(fit_ridge=10.0, remembered_classes=saved.remembered_classes)
        again.load_trained(run / name / "model.safetensors")
        torch.testing.assert_close(again.class_memory.directions, fresh.class_memory.directions, rtol=2e-3, atol=1e-3)


def test_ones_own_photos_are_remembered_without_a_step(drawn, run, tmp_path):
    packs, _, _ = drawn
    (tmp_path / "finetune.yaml").write_text(
        "packs: [own_photos]\nextend_names: true\nremembers: true\nsteps: 0\ntext_only_steps: 0\n"
        "scenes: {photo: 6}\nclass_supports: 2\n"
    )
    own = packs / "imagenet_sample" / "train"
    train_micro.run(
        *("--config", tmp_path / "finetune.yaml", "--data-root", own),
        *("--out", tmp_path / "run", "--start-from", run / "final"),
    )
    before, after = (load_file(folder / "final" / "model.safetensors") for folder in (run, tmp_path / "run"))
    learned = {name for name in before if not torch.equal(before[name], after[name])}
    # The names' fit and the memory; the matching and the decoder are as they were.
    assert all(name.startswith(("semantic_encoder.to_prompt", "class_memory")) for name in learned)
    assert "class_memory.directions" in learned
    known = DSVLFSConfig.from_pretrained(tmp_path / "run" / "final").remembered_classes
    assert set(DSVLFSConfig.from_pretrained(run / "final").remembered_classes) <= set(known)


@pytest.mark.parametrize("wrong", ["learns_image: true", "dataset: pascal-5i\nsize: paper"])
def test_it_is_for_packs_and_an_encoder_that_does_not_learn(tmp_path, wrong):
    (tmp_path / "wrong.yaml").write_text("remembers: true\n" + wrong)
    with pytest.raises(InputError, match="remembers"):
        load_config(tmp_path / "wrong.yaml")


def test_what_it_remembers_by_is_not_changed(drawn, tmp_path):
    packs, _, _ = drawn
    model = build_micro_model(fit_ridge=10.0, remembered_classes=["circle"])
    model.save_pretrained(tmp_path / "start")
    (tmp_path / "live.yaml").write_text("learns_image: true\nmodel: {image_lora_rank: 2}\n")
    with pytest.raises(InputError, match="remembers classes"):
        train_micro.run(
            *("--config", tmp_path / "live.yaml", "--data-root", packs),
            *("--out", tmp_path / "run", "--start-from", tmp_path / "start"),
        )
