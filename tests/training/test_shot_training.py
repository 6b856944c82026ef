"""Training of the attention over several shots, on drawn packs and a toy model."""

import json

import pytest
import torch
import train_micro
from conftest import build_micro_model
from drawn_packs import draw_packs
from safetensors.torch import load_file

from dsvlfs import InputError
from dsvlfs.hub.checkpoint_files import read_config
from dsvlfs.training.feature_cache import FeatureCache
from dsvlfs.training.shot_sampling import ShotEpisodeDataset, collate_shots
from dsvlfs.training.trainer import Trainer

WHOLE = """
scenes: {mosaic: 3, photo: 2, cutouts: 2, single: 2}
class_supports: 2
steps: 2
text_only_steps: 2
batch_size: 2
warmup_steps: 1
checkpoint_every: 2
log_every: 1
"""

SHOTS = """
steps: 4
text_only_steps: 4
batch_size: 4
micro_batch_size: 2
warmup_steps: 1
checkpoint_every: 2
log_every: 1
learning_rate: 1.0e-2
max_shots: 5
bad_shots: 0.5
semantic_only: 0
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the packs, and a run of the whole model and its cache."""
    folder = tmp_path_factory.mktemp("trained")
    draw_packs(folder / "packs")
    (folder / "whole.yaml").write_text(WHOLE)
    (folder / "shots.yaml").write_text(SHOTS)
    options = ["--config", folder / "whole.yaml", "--data-root", folder / "packs"]
    train_micro.run(*options, "--cache", folder / "cache", "--out", folder / "whole")
    return folder


def _episodes(folder, **changes) -> ShotEpisodeDataset:
    settings = {
        "length": 40,
        "seed": 0,
        "kind_weights": {"mosaic": 1.0},
        "max_shots": 5,
        "bad_shots": 0.0,
        "visual_only": 0.5,
        "description_share": 0.5,
        "misnamed": 0.0,
    }
    return ShotEpisodeDataset(FeatureCache(folder / "cache"), **(settings | changes))


def _options(folder, out) -> list[object]:
    options = ["--config", folder / "shots.yaml", "--data-root", folder / "packs", "--out", out]
    return [*options, "--cache", folder / "cache", "--start-from", folder / "whole" / "final"]


def test_an_episode_shows_several_supports_and_is_made_by_its_number_alone(trained):
    episodes = _episodes(trained)
    counts = [len(episodes[i].support_masks) for i in range(40)]
    assert set(counts) == {2, 3, 4, 5}
    first, again = episodes[7], _episodes(trained)[7]
    assert torch.equal(first.support_masks, again.support_masks)
    assert torch.equal(first.episode.target, again.episode.target)
    distinct = {mask.numpy().tobytes() + layer.numpy().tobytes() for mask, layer in _shots(first)}
    assert len(distinct) == len(first.support_masks)


def _shots(shown) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(zip(shown.support_masks, shown.support_layers[0]))


def test_bad_supports_are_fewer_than_the_good_ones(trained):
    good, spoiled = _episodes(trained), _episodes(trained, bad_shots=1.0)
    spoiled_in_all = 0
    for number in range(40):
        pairs = zip(_shots(good[number]), _shots(spoiled[number]))
        changed = sum(not all(map(torch.equal, one, other)) for one, other in pairs)
        count = len(good[number].support_masks)
        assert changed <= (0 if count < 3 else 1 if count < 5 else 2)
        spoiled_in_all += changed
        assert (spoiled[number].support_masks.sum(dim=(1, 2)) > 0).all()
    # A bad one may by chance be drawn as the good one was; most are not.
    assert spoiled_in_all >= sum(len(good[number].support_masks) >= 3 for number in range(40)) / 2


def test_a_batch_lays_the_supports_one_after_the_other(trained):
    shown = [_episodes(trained)[number] for number in range(3)]
    batch = collate_shots(shown)
    assert batch.shots == [len(episode.support_masks) for episode in shown]
    assert len(batch.support_mask) == len(batch.support_layers[0]) == sum(batch.shots)
    assert torch.equal(batch.support_mask[batch.shots[0]], shown[1].support_masks[0])


def test_only_the_attention_learns_and_the_checkpoint_keeps_its_settings(trained, tmp_path):
    train_micro.run(*_options(trained, tmp_path / "run"))
    before, after = (load_file(f / "model.safetensors") for f in (trained / "whole" / "final", tmp_path / "run/final"))
    assert before.keys() < after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=0, rtol=0)
    assert all(name.startswith("shot_attention.") for name in after.keys() - before.keys())
    assert after["shot_attention.shot_score.2.weight"].any()  # starts as nought
    assert read_config(tmp_path / "run" / "final").shot_aggregation == "attention"
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "losses.jsonl").read_text().splitlines()]
    assert len(losses) == 4


def test_what_goes_on_with_one_support_keeps_the_attention(trained, tmp_path):
    train_micro.run(*_options(trained, tmp_path / "shots"))
    start, options = (
        tmp_path / "shots" / "final",
        ["--config", trained / "whole.yaml", "--data-root", trained / "packs"],
    )
    config = read_config(start)
    config.calibration, config.min_presence = [2.0, 0.5], 0.3  # fitted to what this run changes
    config.save_pretrained(start)
    train_micro.run(*options, "--cache", trained / "cache", "--out", tmp_path / "run", "--start-from", start)
    assert read_config(tmp_path / "run" / "final").calibration is None
    assert read_config(tmp_path / "run" / "final").min_presence == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (start, tmp_path / "run" / "final"))
    assert before.keys() == after.keys()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert {"matcher", "mask_decoder"} <= {name.split(".")[0] for name in changed}
    assert not any(name.startswith("shot_attention.") for name in changed)
    assert read_config(tmp_path / "run" / "final").shot_aggregation == "attention"


def test_a_resumed_run_is_the_whole_one(trained, tmp_path, monkeypatch):
    train_micro.run(*_options(trained, tmp_path / "whole"))
    step, calls = Trainer.step, []

    def stopping(self, number, batches):
        if number == 2 and not calls:
            calls.append(number)
            raise KeyboardInterrupt
        return step(self, number, batches)

    monkeypatch.setattr(Trainer, "step", stopping)
    with pytest.raises(KeyboardInterrupt):
        train_micro.run(*_options(trained, tmp_path / "stopped"))
    train_micro.run(*_options(trained, tmp_path / "stopped"), "--resume")
    whole, resumed = (load_file(tmp_path / name / "last" / "model.safetensors") for name in ("whole", "stopped"))
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, msg=name)


def test_what_does_not_fit_gets_a_sentence(trained, tmp_path):
    options = _options(trained, tmp_path / "run")
    with pytest.raises(InputError, match="--start-from"):
        train_micro.run(*options[:-2])
    with pytest.raises(InputError, match="no feature cache"):
        train_micro.run(*options, "--cache", tmp_path / "none")
    settings = json.loads((trained / "cache" / "settings.json").read_text())
    settings["model"]["support_grid"] = 99
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="other layers or views"):
        train_micro.run(*options, "--cache", tmp_path / "other")


def test_a_start_whose_names_were_never_fitted_is_refused(trained, tmp_path):
    model = build_micro_model()
    model.save_pretrained(tmp_path / "unaligned")
    options = _options(trained, tmp_path / "run")
    options[-1] = tmp_path / "unaligned"
    with pytest.raises(InputError, match="never fitted"):
        train_micro.run(*options)
