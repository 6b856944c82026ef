"""The image encoder inside the step: LoRA on its layers, learned from pixels that are kept in place of features."""

import json
from pathlib import Path

import pytest
import torch
import train_micro
from conftest import build_micro_model
from drawn_packs import draw_packs
from safetensors.torch import load_file

from dsvlfs import DSVLFSModel
from dsvlfs.errors import InputError
from dsvlfs.training.alignment import read_objects
from dsvlfs.training.feature_cache import PIXELS, FeatureCache
from dsvlfs.training.live_images import with_image_layers
from dsvlfs.training.packs import build_cache
from dsvlfs.training.sampling import EpisodeDataset, collate
from dsvlfs.training.settings import load_config

SETTINGS = """
scenes: {mosaic: 3, photo: 2, cutouts: 2, single: 2, blank: 1}
class_supports: 2
fit_shots: 3
steps: 6
text_only_steps: 6
batch_size: 2
warmup_steps: 2
checkpoint_every: 2
log_every: 2
learning_rate: 1.0e-2
"""
ADAPTED = {"fit_loss_weight": 0.5, "image_lora_rank": 2, "image_lora_layers": ["query", "fc2"], "fit_ridge": 10.0}
LIVE = SETTINGS + "learns_image: true\nmodel: " + json.dumps(ADAPTED)


@pytest.fixture(scope="module")
def packs(tmp_path_factory) -> Path:
    return draw_packs(tmp_path_factory.mktemp("packs"))


@pytest.fixture(scope="module")
def folders(packs, tmp_path_factory) -> dict[str, Path]:
    """A cache of features and one of pixels, with the settings they were built with."""
    built = {}
    for name, settings in (("features", SETTINGS), ("pixels", LIVE)):
        built[name] = folder = tmp_path_factory.mktemp(name)
        (folder / "settings.yaml").write_text(settings)
        build_cache(load_config(folder / "settings.yaml"), build_micro_model(**ADAPTED), packs, folder)
    return built


def _batch(folder: Path, **changes: object):
    settings = {"kind_weights": {"mosaic": 1}, "visual_only": 0.3, "semantic_only": 0.3, "misnamed": 0.0}
    settings |= {"description_share": 0.0, "fit_shots": 3, "length": 12, "seed": 0} | changes
    episodes = EpisodeDataset(FeatureCache(folder), **settings)
    return collate([episodes[i] for i in range(12)])


@pytest.mark.parametrize("fit_shots", [1, 3])
def test_a_batch_of_pixels_becomes_the_one_of_features(folders, fit_shots):
    model = build_micro_model(**ADAPTED)
    wanted = _batch(folders["features"], fit_shots=fit_shots)
    made = with_image_layers(model, _batch(folders["pixels"], fit_shots=fit_shots))
    assert made.features.keys() == wanted.features.keys()
    for name, layer in wanted.features.items():
        torch.testing.assert_close(made.features[name], layer, rtol=2e-2, atol=2e-2)
    for layer, own in zip(wanted.support_layers, made.support_layers, strict=True):
        torch.testing.assert_close(own, layer, rtol=2e-2, atol=2e-2)
    assert (wanted.fit is None) == (fit_shots == 1)
    if wanted.fit is not None:
        there = torch.arange(wanted.fit.masks.shape[1]) < wanted.fit.shots[:, None]
        for layer, own in zip(wanted.fit.layers, made.fit.layers, strict=True):
            torch.testing.assert_close(own[there], layer[there], rtol=2e-2, atol=2e-2)


def test_without_a_support_grid_all_is_on_that_of_the_first_layer(packs, tmp_path):
    settings = ADAPTED | {"support_grid": None, "correlation_layers": ["image.2", "vision.6"]}
    model = build_micro_model(**settings)
    batches = []
    for name, text in (("features", SETTINGS), ("pixels", LIVE)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "settings.yaml").write_text(text)
        build_cache(load_config(folder / "settings.yaml"), model, packs, folder)
        batches.append(_batch(folder))
    wanted, made = batches[0], with_image_layers(model, batches[1])
    assert {layer.shape[-2:] for layer in wanted.support_layers} == {(3, 3)}
    assert wanted.support_mask.shape[-2:] == made.support_mask.shape[-2:] == (3, 3)
    assert wanted.support_mask.max() > 0.5
    for layer, own in zip(wanted.support_layers, made.support_layers, strict=True):
        torch.testing.assert_close(own, layer, rtol=2e-2, atol=2e-2)


def test_every_matrix_gets_a_gradient_and_the_base_none(folders):
    model = build_micro_model(**ADAPTED)
    with torch.no_grad():
        for name, parameter in model.image_encoder.adapter.named_parameters():
            if name.endswith("up"):
                parameter.normal_(std=0.02)
    batch = with_image_layers(model, _batch(folders["pixels"], visual_only=1.0, semantic_only=0.0))
    query = [batch.features[name] for name in model.config.correlation_layers]
    model.request_fit.score(query, *batch.fit[:2], 4, batch.fit.shots).square().sum().backward()
    read = [b for number, b in enumerate(model.image_encoder.adapter.blocks, start=1) if number <= 2]
    assert all(parameter.grad.abs().max() > 0 for block in read for parameter in block.parameters())
    assert all(parameter.grad is None for parameter in model.image_encoder.backbone.parameters())


def test_a_run_trains_the_image_encoder_and_inference_sees_it(folders, packs, tmp_path):
    options = ("--config", folders["pixels"] / "settings.yaml", "--data-root", packs, "--cache", folders["pixels"])
    train_micro.run(*options, "--out", tmp_path / "run")
    saved = load_file(tmp_path / "run" / "last" / "model.safetensors")
    learned = {name: tensor for name, tensor in saved.items() if name.startswith("image_encoder.")}
    assert learned.keys() == {
        f"image_encoder.adapter.blocks.{block}.{role}.{part}"
        for block in range(3)
        for role in ("query", "fc2")
        for part in ("down", "up")
    }
    start = build_micro_model(**ADAPTED).trained_state_dict()  # of the same seed
    assert not any(torch.equal(tensor, start[name]) for name, tensor in learned.items())

    pixels = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    model = build_micro_model(**ADAPTED)
    plain = model.image_encoder(pixels)
    model.load_trained(tmp_path / "run" / "last" / "model.safetensors")
    adapted = model.image_encoder(pixels)
    model.image_encoder.merge()
    model.image_encoder.merge()  # nothing is added twice
    merged = model.image_encoder(pixels)
    assert model.trained_state_dict().keys() == saved.keys()
    model.load_trained(tmp_path / "run" / "last" / "model.safetensors")  # the same once more
    unlearned = build_micro_model(**ADAPTED)
    unlearned.image_encoder.merge()
    with pytest.raises(InputError, match="has merged its own LoRA"):
        unlearned.load_trained(tmp_path / "run" / "last" / "model.safetensors")
    for name, layer in adapted.items():
        assert (layer - plain[name]).abs().max() > 1e-3
        torch.testing.assert_close(merged[name], layer, rtol=1e-4, atol=1e-4)


def test_what_was_trained_of_the_image_encoder_is_kept_where_it_learns_no_more(folders, packs, tmp_path):
    options = ("--data-root", packs, "--out")
    pixels = ("--cache", folders["pixels"])
    train_micro.run("--config", folders["pixels"] / "settings.yaml", *options, tmp_path / "first", *pixels)
    (tmp_path / "further.yaml").write_text(SETTINGS)
    further = ("--config", tmp_path / "further.yaml", "--start-from", tmp_path / "first" / "last")
    train_micro.run(*further, *options, tmp_path / "second")
    first, second = (load_file(tmp_path / run / "last" / "model.safetensors") for run in ("first", "second"))
    changed = {name for name in first if not torch.equal(first[name], second[name])}
    assert changed
    assert not any(name.startswith("image_encoder.") for name in changed)
    with pytest.raises(InputError, match="was built with other settings"):
        train_micro.run(*further, *options, tmp_path / "third", *pixels)
    with pytest.raises(InputError, match="was built with other settings"):
        train_micro.run(*further, *options, tmp_path / "third", "--cache", folders["features"])
    (tmp_path / "shots.yaml").write_text(SETTINGS.replace("fit_shots: 3", "max_shots: 3") + "semantic_only: 0\n")
    shots = ("--config", tmp_path / "shots.yaml", *further[2:], *options, tmp_path / "shots", "--cache")
    with pytest.raises(InputError, match="keeps pixels"):
        train_micro.run(*shots, folders["pixels"])
    with pytest.raises(InputError, match="trained otherwise"):
        train_micro.run(*shots, folders["features"])
    train_micro.run(*shots, tmp_path / "second" / "cache")


def test_names_can_be_fitted_to_a_cache_of_pixels_by_the_layers_it_holds(folders):
    model, cache = build_micro_model(**ADAPTED), FeatureCache(folders["pixels"])
    cache.check(model, ["vision.5"])
    with pytest.raises(InputError, match="keeps pixels"):
        cache.check(model, ["image.2", "vision.5"])
    assert read_objects(model.config, cache).features.isfinite().all()
    model.config.grounding_layers = ["image.2", "vision.5"]
    with pytest.raises(InputError, match=r"in place of image\.2"):
        read_objects(model.config, cache)


@pytest.mark.parametrize("kind", ["features", "pixels"])
def test_the_loss_of_the_fit_is_logged_where_it_is_taken(folders, packs, tmp_path, kind):
    options = ("--config", folders[kind] / "settings.yaml", "--data-root", packs)
    train_micro.run(*options, "--out", tmp_path / "run")
    for line in (tmp_path / "run" / "losses.jsonl").read_text().splitlines():
        assert ("fit_loss" in json.loads(line)) == (kind == "pixels")


def test_an_image_encoder_without_lora_cannot_learn(folders, packs, tmp_path):
    (tmp_path / "settings.yaml").write_text(SETTINGS + "learns_image: true\n")
    with pytest.raises(InputError, match="image_lora_rank above 0"):
        train_micro.run("--config", tmp_path / "settings.yaml", "--data-root", packs, "--out", tmp_path / "run")
    build_micro_model().save_pretrained(tmp_path / "start")
    options = ("--config", folders["pixels"] / "settings.yaml", "--data-root", packs, "--out", tmp_path / "run")
    with pytest.raises(InputError, match="start has no LoRA on its image encoder"):
        train_micro.run(*options, "--start-from", tmp_path / "start")


def test_the_adapter_is_for_a_dinov2(micro_model):
    with pytest.raises(InputError, match="set it to 0"):
        DSVLFSModel(_sam_config(micro_model), load_bases=False)


def _sam_config(model: DSVLFSModel):
    import paper_like

    config = paper_like.config()
    config.update({"image_lora_rank": 2})
    return config


def test_pixels_are_kept_in_place_of_features(folders):
    cache = FeatureCache(folders["pixels"])
    for part in ("queries", "supports"):
        for stem in cache.names(part):
            tensors = cache.load(part, stem)
            assert PIXELS in tensors
            assert not {"image.2", "image.3", "layer.0"} & tensors.keys()
