"""Scenes, episodes and the training script, on drawn packs and a toy model."""

import json
from pathlib import Path
from types import SimpleNamespace

import paper_like
import pytest
import torch
import train_micro
from accelerate import Accelerator
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType
from conftest import build_micro_model
from drawn_packs import draw_packs
from PIL import Image
from safetensors.torch import load_file, save_file

from dsvlfs import DSVLFSModel, InputError
from dsvlfs.cli import main
from dsvlfs.descriptions.made_up import made_up_names
from dsvlfs.files import checked
from dsvlfs.hub.checkpoint_files import write_tensors
from dsvlfs.hub.config_schema import Settings
from dsvlfs.training import run
from dsvlfs.training.class_texts import describe_classes
from dsvlfs.training.episode_losses import build_model
from dsvlfs.training.feature_cache import FeatureCache
from dsvlfs.training.packs import build_cache
from dsvlfs.training.run_folder import RunFolder
from dsvlfs.training.sampling import EpisodeDataset, collate
from dsvlfs.training.schedule import StepPlan, dropout_seed, learning_rate_factor
from dsvlfs.training.settings import TrainingConfig, load_config

CONFIGS = Path(__file__).parents[2] / "train" / "configs"

SETTINGS = """
scenes: {mosaic: 3, photo: 2, cutouts: 2, single: 2, blank: 1}
class_supports: 2
steps: 6
text_only_steps: 3
batch_size: 2
warmup_steps: 2
checkpoint_every: 2
log_every: 2
"""

WHOLE = SETTINGS.replace("text_only_steps: 3", "text_only_steps: 0")


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    return draw_packs(tmp_path_factory.mktemp("packs"))


@pytest.fixture(scope="module")
def cache(packs, tmp_path_factory):
    """A finished cache, and the settings it was built with."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / "settings.yaml").write_text(SETTINGS)
    build_cache(load_config(folder / "settings.yaml"), build_micro_model(), packs, folder)
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


def test_an_episode_is_made_by_its_number_alone(cache):
    first, again = _episodes(cache), _episodes(cache)
    list(again[i] for i in range(5))  # what was asked for before does not matter
    for index in (7, 23):
        a, b = first[index], again[index]
        assert a.class_name == b.class_name
        torch.testing.assert_close(a.features, b.features, rtol=0, atol=0)
        torch.testing.assert_close(a.support_layers, b.support_layers, rtol=0, atol=0)


def test_a_supports_layers_are_in_the_configs_order_however_many(tmp_path):
    FeatureCache(tmp_path)  # makes its folders
    layers = {f"layer.{number}": torch.full((1, 3, 3), number) for number in range(12)}
    write_tensors(tmp_path / "supports" / "photo-0.safetensors", layers | {"mask": torch.zeros(3, 3)})
    entry = {"names": ["dot"], "photo_id": "0", "definition": "", "area": 0.1}
    (tmp_path / "supports" / "photo-0.json").write_text(json.dumps(entry))
    (tmp_path / "queries" / "photo-0.json").write_text(json.dumps({"kind": "blank", "objects": []}))
    loaded, _ = _episodes(tmp_path, kind_weights={"blank": 1.0}).load_support("photo-0")
    assert [int(layer[0, 0, 0]) for layer in loaded] == list(range(12))


@pytest.mark.parametrize(("noise", "count"), [(0.1, 1), (0.5, 1), (0.67, 2), (0.9, 4), (1.0, 4)])
def test_a_class_has_as_many_descriptions_of_no_help_as_make_up_their_share(cache, noise, count, monkeypatch):
    monkeypatch.setattr("dsvlfs.training.class_texts.bank_description", lambda name: f"like {name} and nothing else")
    described = describe_classes(FeatureCache(cache), noise)
    assert described == describe_classes(FeatureCache(cache), noise)
    for name, (right, *spoiled) in described.items():
        assert right == f"like {name} and nothing else"
        assert len(set(spoiled)) == len(spoiled) == count
        assert right not in spoiled


def test_descriptions_are_spoiled_as_often_as_asked(cache, monkeypatch):
    monkeypatch.setattr("dsvlfs.training.class_texts.bank_description", lambda name: f"like {name} and nothing else")
    settings = {"description_share": 1.0, "semantic_only": 1.0, "visual_only": 0.0}
    plain, noisy = (_episodes(cache, **settings, description_noise=share) for share in (0.0, 0.5))
    known = describe_classes(FeatureCache(cache), 0.5)
    described = [episode for i in range(150) if (episode := noisy[i]).description]
    right = [episode for episode in described if episode.description == "round"]
    assert 0 < len(right) < len(described)
    assert all(e.description in known[e.class_name] for e in described if e.description != "round")
    assert all(episode.description in (None, "round") for episode in (plain[i] for i in range(20)))


def test_a_run_with_descriptions_of_no_help_knows_every_prompt_it_asks_for(cache, packs, tmp_path, monkeypatch):
    monkeypatch.setattr("dsvlfs.training.class_texts.bank_description", lambda name: f"like {name} and nothing else")
    settings = SETTINGS.replace("text_only_steps: 3", "text_only_steps: 6")
    (tmp_path / "settings.yaml").write_text(settings + "description_share: 1\ndescription_noise: 0.6\nmisnamed: 0")
    _train(cache, packs, tmp_path / "run", config=tmp_path / "settings.yaml")
    monkeypatch.setattr(DSVLFSModel, "from_pretrained", lambda _: _built(tmp_path / "run" / "final"))
    options = ["--config", tmp_path / "settings.yaml", "--cache", cache, "--out", tmp_path / "again"]
    command = ["fit-names", "checkpoint", *map(str, options)]
    assert main(command) == 0
    first, again = (load_file(tmp_path / path / "model.safetensors") for path in ("run/final", "again"))
    torch.testing.assert_close(again, first, rtol=1e-3, atol=1e-3)  # in half precision
    (tmp_path / "settings.yaml").write_text(settings)
    assert main(command) == 0
    other = load_file(tmp_path / "again" / "model.safetensors")
    changed = {name for name, tensor in first.items() if not torch.allclose(other[name], tensor, rtol=1e-2, atol=1e-2)}
    assert changed
    assert {name.split(".")[1] for name in changed} <= {"state_mean", "state_scale", "to_prompt", "unknown_words"}


def _built(folder):
    model = build_micro_model()
    model.load_trained(folder / "model.safetensors")
    return model


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


def test_an_absent_class_has_an_empty_target(cache):
    episodes = _episodes(cache, absent=1.0, visual_only=1.0, semantic_only=0.0)
    for episode in (episodes[i] for i in range(10)):
        assert not episode.target.any()
        assert episode.support_mask.any()
    shares = [bool(_episodes(cache, absent=0.5)[i].target.any()) for i in range(40)]
    assert 8 <= sum(shares) <= 32


def test_a_blank_photo_is_asked_for_what_it_does_not_show(cache):
    episodes = _episodes(cache, kind_weights={"blank": 1.0}, visual_only=0.0, semantic_only=0.0)
    for episode in (episodes[i] for i in range(6)):
        assert episode.class_name
        assert episode.support_mask.any()
        assert not episode.target.any()


def test_a_made_up_name_is_of_no_class_and_keeps_its_support_and_target(cache):
    settings = {"visual_only": 0.0, "semantic_only": 0.0}
    right, made_up = _episodes(cache, **settings), _episodes(cache, made_up=1.0, **settings)
    assert not {*made_up_names()} & {*right.class_names}
    for a, b in ((right[i], made_up[i]) for i in range(8)):
        assert b.class_name in made_up_names()
        assert b.wanted_name == a.wanted_name
        torch.testing.assert_close(a.target, b.target, rtol=0, atol=0)
        torch.testing.assert_close(a.support_layers, b.support_layers, rtol=0, atol=0)


def test_the_learning_rate_rises_and_falls():
    config = TrainingConfig(steps=1000, warmup_steps=100)
    factors = [learning_rate_factor(step, config) for step in (0, 99, 100, 550, 999)]
    assert factors == pytest.approx([0.01, 1.0, 1.0, 0.5, 1 / 900], abs=1e-3)


def test_a_step_is_divided_without_rest():
    plan = StepPlan(batch_size=12, micro_batch_size=2, processes=3)
    assert (plan.size, plan.accumulation) == (2, 2)
    shares = [list(plan.episodes(range(5, 7), process)) for process in range(3)]
    assert shares[1] == [[62, 63], [68, 69], [74, 75], [80, 81]]
    assert sorted(index for share in shares for batch in share for index in batch) == list(range(60, 84))
    assert StepPlan(batch_size=12, micro_batch_size=None, processes=3).size == 4
    assert StepPlan(batch_size=12, micro_batch_size=5, processes=1).size == 4
    plan = StepPlan(batch_size=20, micro_batch_size=2, processes=4)
    assert (plan.size, plan.accumulation) == (1, 5)
    for micro_batch_size in (5, None):
        with pytest.raises(InputError, match="divided evenly"):
            StepPlan(batch_size=12, micro_batch_size=micro_batch_size, processes=7)


def test_every_micro_batch_has_a_dropout_of_its_own():
    seeds = {dropout_seed(seed, step, number) for seed in range(2) for step in range(5) for number in range(5)}
    assert len(seeds) == 50


def test_a_setting_that_there_is_not_is_named(tmp_path):
    (tmp_path / "wrong.yaml").write_text("stepz: 3")
    with pytest.raises(InputError, match="stepz"):
        load_config(tmp_path / "wrong.yaml")


@pytest.mark.parametrize(
    "setting",
    [
        "size: large",
        "steps: many",
        "warmup_steps: 0",
        "scenes: {mosaics: 3}",
        "scenes: 3",
        "[1, 2]",
        "micro_batch_size: 0",
        "mixed_precision: fp8",
        "misnamed: 2",
        "validation_every: -1",
        "max_shots: 0",
        "max_shots: 5",
    ],
)
def test_settings_that_cannot_be_are_named(tmp_path, setting):
    (tmp_path / "wrong.yaml").write_text(setting)
    with pytest.raises(InputError):
        load_config(tmp_path / "wrong.yaml")


@pytest.mark.parametrize(
    "setting",
    [
        {"image_lora_layers": ["qkv"]},
        {"image_lora_layers": "query"},
        {"image_lora_layers": ["query", "query"]},
        {"image_lora_rank": -1},
        {"fit_doubt": 3},
    ],
)
def test_a_setting_of_the_model_that_cannot_be_is_named(setting):
    with pytest.raises(InputError, match=f"The setting 'model' has a wrong.*{next(iter(setting))}"):
        build_model(TrainingConfig(model=setting), Accelerator(cpu=True))


def test_the_loss_of_a_fit_that_there_is_not_is_refused():
    with pytest.raises(InputError, match="give fit_ridge"):
        build_micro_model(fit_loss_weight=0.5)


def test_a_cache_of_other_settings_is_refused(cache, packs):
    with pytest.raises(InputError, match="other settings"):
        build_cache(TrainingConfig(), build_micro_model(), packs, cache)


def test_a_cache_outlives_settings_that_its_features_do_not_depend_on(cache, packs):
    model = build_micro_model()
    model.config.update({"vote_threshold": 0.9, "logit_offset": 1.0})
    build_cache(load_config(cache / "settings.yaml"), model, packs, cache)
    model.config.support_grid = 4
    with pytest.raises(InputError, match="other settings"):
        build_cache(load_config(cache / "settings.yaml"), model, packs, cache)


@pytest.mark.parametrize("name", sorted(file.stem for file in CONFIGS.glob("*.yaml")))
def test_the_configs_that_come_along_are_read(name):
    config = load_config(CONFIGS / f"{name}.yaml", fold=2)
    assert config.fold == 2
    checked(config.model, Settings, name)
    assert not (config.model and "further" in name)  # a start's own settings hold
    assert config.learns_shots == name.startswith("tiny-shots")
    if "-20i" in name or "-5i" in name:
        size = "base" if name.startswith("base-") else "paper"
        data_set = "coco-20i-exclusive" if name == "coco-20i-authors" else name.removesuffix("-authors")
        assert (config.size, config.dataset) == (size, data_set.removeprefix("base-"))
        assert ("loss_side" in config.model) == name.endswith("-authors")
        assert (config.steps, config.batch_size) == (10 * 500, 2 * 10)  # arXiv 2503.04006: 10 epochs of 500 steps
        assert config.always_whole


def test_the_launchers_configs_are_read():
    fsdp, zero = (load_config_from_file(f"{CONFIGS}/accelerate/{name}.yaml") for name in ("fsdp", "zero2"))
    assert fsdp.distributed_type == DistributedType.FSDP
    assert fsdp.fsdp_config["fsdp_version"] == 2
    assert zero.distributed_type == DistributedType.DEEPSPEED
    assert zero.deepspeed_config["zero_stage"] == 2
    assert fsdp.mixed_precision == zero.mixed_precision == "bf16"
    for file in (file for file in CONFIGS.glob("*.yaml") if "tiny" not in file.stem and file.stem != "finetune"):
        config = load_config(file, fold=0)
        assert config.always_whole  # what FSDP and DeepSpeed ask for
        for launched in (fsdp, zero):
            assert StepPlan(config.batch_size, config.micro_batch_size, launched.num_processes).accumulation > 1


def test_under_zero_autocast_halves_the_products_and_no_trained_weight(tmp_path, monkeypatch):
    asked = {"zero_optimization": {"stage": 2}, "bf16": {"enabled": True}}
    plugin = SimpleNamespace(deepspeed_config=asked)
    state = SimpleNamespace(deepspeed_plugin=plugin)
    made = SimpleNamespace(distributed_type=DistributedType.DEEPSPEED, mixed_precision="bf16", state=state)
    monkeypatch.setattr(run, "Accelerator", lambda **_: made)
    run.start(load_config(CONFIGS / "base-pascal-5i.yaml", fold=0), tmp_path)
    assert not asked["bf16"]["enabled"]
    assert asked["torch_autocast"]["enabled"]


def test_a_run_is_neither_overwritten_nor_resumed_as_another(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.open(TrainingConfig(), resume=False)
    run.open(TrainingConfig(steps=7), resume=False)  # the first saved nothing
    run.last.mkdir()
    (run.last / "progress.json").write_text('{"step": 2}')
    with pytest.raises(InputError, match="holds a run already"):
        run.open(TrainingConfig(steps=7), resume=False)
    with pytest.raises(InputError, match="other settings"):
        run.open(TrainingConfig(steps=8), resume=True)
    run.open(TrainingConfig(steps=7, workers=3), resume=True)
    with pytest.raises(InputError, match="started from the bases alone"):
        run.open(TrainingConfig(steps=7), start_from=tmp_path, resume=True)
    with pytest.raises(InputError, match="no run"):
        RunFolder(tmp_path / "none").open(TrainingConfig(), resume=True)
    (tmp_path / "lost" / "best").mkdir(parents=True)
    with pytest.raises(InputError, match="whose state is gone"):
        RunFolder(tmp_path / "lost").open(TrainingConfig(), resume=False)


def test_a_resumed_run_knows_what_it_started_from(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.open(TrainingConfig(), start_from=tmp_path / "a", resume=False)
    for start_from in (None, tmp_path / "a"):
        run.open(TrainingConfig(), start_from=start_from, resume=True)
        assert run.start_from() == (tmp_path / "a").resolve()
    with pytest.raises(InputError, match="without --start-from"):
        run.open(TrainingConfig(), start_from=tmp_path / "b", resume=True)


def test_a_resumed_log_ends_where_the_state_does(tmp_path):
    run = RunFolder(tmp_path)
    run.open(TrainingConfig(), resume=False)
    for step in (1, 2, 3):
        run.log("losses.jsonl", {"step": step})
    with (tmp_path / "losses.jsonl").open("a") as log:
        log.write('{"step": 4, "lo')
    run.last.mkdir()
    (run.last / "progress.json").write_text('{"step": 2}')
    run.open(TrainingConfig(), resume=True)
    assert (tmp_path / "losses.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_start_that_failed_can_be_made_again(cache, packs, tmp_path):
    with pytest.raises(InputError):
        _train(cache, tmp_path / "nowhere", tmp_path / "run")
    _train(cache, packs, tmp_path / "run")
    assert (tmp_path / "run" / "final" / "model.safetensors").exists()
    with pytest.raises(InputError, match="holds a run already"):
        _train(cache, packs, tmp_path / "run")


def test_a_run_logs_the_health_of_its_correlation(cache, packs, tmp_path):
    (tmp_path / "settings.yaml").write_text(WHOLE)
    _train(cache, packs, tmp_path / "run", config=tmp_path / "settings.yaml")
    losses, health = (
        [json.loads(line) for line in (tmp_path / "run" / f"{name}.jsonl").read_text().splitlines()]
        for name in ("losses", "correlation")
    )
    assert [line["step"] for line in health] == [line["step"] for line in losses] != []
    for line in health:
        assert {"image.2/spread", "image.2/zeros", "vision.5/silent"} <= line.keys()
        assert 0 <= line["image.2/zeros"] <= 1
        assert 0 < line["image.2/mean"] <= 1


def test_a_collapsed_correlation_is_said(cache, packs, tmp_path, monkeypatch, capsys):
    (tmp_path / "settings.yaml").write_text(WHOLE)
    monkeypatch.setattr("dsvlfs.measuring.correlation_health.SMALLEST_SPREAD", float("inf"))
    _train(cache, packs, tmp_path / "run", config=tmp_path / "settings.yaml")
    assert "has collapsed in image.2, vision.5." in capsys.readouterr().err


def test_a_run_can_start_from_a_checkpoint(cache, packs, tmp_path):
    start = build_micro_model()
    with torch.no_grad():
        for parameter in start.parameters():
            if parameter.requires_grad:
                parameter += 0.01
    start.save_pretrained(tmp_path / "start")
    with pytest.raises(InputError, match="adapted to photos"):
        _train(cache, packs, tmp_path / "run", "--start-from", tmp_path / "start")
    # A first step at so low a rate that it changes nothing.
    (tmp_path / "settings.yaml").write_text(WHOLE + "learning_rate: 1.0e-12")
    _train(cache, packs, tmp_path / "run", "--start-from", tmp_path / "start", config=tmp_path / "settings.yaml")
    assert RunFolder(tmp_path / "run").start_from() == (tmp_path / "start").resolve()
    begun, started = (load_file(tmp_path / path / "model.safetensors") for path in ("start", "run/last"))
    torch.testing.assert_close(started, begun, rtol=0, atol=1e-6)


def test_a_checkpoint_of_another_model_is_no_start(cache, packs, tmp_path):
    save_file({"embed_tokens.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    (tmp_path / "settings.yaml").write_text(WHOLE)
    for config, message in (
        (build_micro_model().config, "does not fit"),
        (paper_like.config(), "not of the size tiny"),
    ):
        config.save_pretrained(tmp_path)
        with pytest.raises(InputError, match=message):
            _train(cache, packs, tmp_path / "run", "--start-from", tmp_path, config=tmp_path / "settings.yaml")


def test_packs_are_validated_on_files_of_episodes(cache, packs, tmp_path):
    episodes = [
        {"class_name": shape, "query": f"{colour}_{shape}", "support": [f"orange_{shape}"]}
        for shape in ("circle", "square")
        for colour in ("red", "blue", "green")
    ]
    (packs / "episodes.jsonl").write_text("\n".join(map(json.dumps, episodes)))
    settings = SETTINGS + "validation_every: 6\nvalidation_files: [[imagenet_sample/train, episodes.jsonl]]\n"
    (tmp_path / "settings.yaml").write_text(settings + "validation_episodes: 4\nvalidation_pictures: 9\n")
    _train(cache, packs, tmp_path / "run", config=tmp_path / "settings.yaml")
    (line,) = map(json.loads, (tmp_path / "run" / "validation.jsonl").read_text().splitlines())
    assert line["step"] == 6
    assert 0 <= line["validation_miou"] <= 100
    assert Image.open(tmp_path / "run" / "pictures" / "000006.png").size == (3 * 256, 4 * 256)


def _train(cache, packs, out, *options, config=None) -> None:
    config = config or cache / "settings.yaml"
    train_micro.run("--config", config, "--data-root", packs, "--out", out, "--cache", cache, *options)
