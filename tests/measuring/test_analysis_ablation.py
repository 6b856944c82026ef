"""The ablation on the micro model and drawn photos."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_packs import draw_episodes

from dsvlfs import InputError
from dsvlfs.cli import main
from dsvlfs.data.episodes import load_episodes
from dsvlfs.descriptions.given import read_descriptions
from dsvlfs.measuring.analysis.ablation import WHOLE, Row, ablate, report, silenced, without_lora, without_photo
from dsvlfs.measuring.evaluation import evaluate
from dsvlfs.parts.matching import DenseMatcher


@pytest.fixture
def episodes(tmp_path):
    """Four episodes of drawn shapes; 'red circle' and its like are defined, as 'round'."""
    root = draw_episodes(tmp_path / "photos")
    return load_episodes(root, root / "episodes.jsonl")


@pytest.fixture
def model(micro_model):
    """With masks that are neither empty nor full, and adapters that do something."""
    with torch.no_grad():
        for name, parameter in micro_model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
        micro_model.grounding.basis.normal_()
    return micro_model


def test_whole_rows_are_what_evaluate_measures(model, episodes):
    result = ablate(model, episodes, {})
    for mode, row in WHOLE.items():
        measured = evaluate(model, episodes, modes=[mode])[mode]
        assert 100 * result.metrics[row].miou() == pytest.approx(measured["miou"])
        assert [100 * end for end in result.metrics[row].bootstrap_interval()] == pytest.approx(
            measured["miou_interval_95"]
        )


def test_every_part_has_its_rows(model, episodes):
    result = ablate(model, episodes, {"square": "red"})
    settings = {(row.part, row.setting) for row in result.metrics}
    assert settings >= {
        ("description", "with"),
        ("LoRA", "without"),
        ("layers", "image.2 alone"),
        ("layers", "vision.5 alone"),
        ("supports' background", "not used"),
    }
    assert result.described == 4  # the squares by the bank, the circles by the photos' metadata
    written = report(result, len(episodes))
    assert [row[0] for row in written.tables[0].rows].count("layers") == 4
    assert written.pictures["ablation"].width > 400


def test_what_the_photo_adds_has_a_row_where_it_learned(model, episodes):
    encoder = model.semantic_encoder
    encoder.add_photo_prompt()
    assert not any(row.part == "photo" for row in ablate(model, episodes, {}).metrics)
    with torch.no_grad():
        encoder.photo_prompt.to_prompt[-1].weight.normal_(std=5, generator=torch.Generator().manual_seed(0))
    found = ablate(model, episodes, {}).metrics
    assert {row.mode for row in found if row.part == "photo"} == {"both", "semantic"}
    weight = encoder.photo_prompt.to_prompt[-1].weight
    with without_photo(encoder):
        assert not weight.any()
    assert weight.any()


def test_what_cannot_change_is_said_and_not_measured(micro_model, episodes):
    plain = [replace(episodes[i], description=None) for i in range(2)]
    result = ablate(micro_model, plain, {})
    assert not {"LoRA", "description"} & {row.part for row in result.metrics}
    assert any("LoRA is as it began" in note for note in result.notes)
    assert any("No class has a description" in note for note in result.notes)


@pytest.mark.parametrize("priors", [False, True])
def test_a_silenced_layer_is_a_layer_of_noughts(priors):
    torch.manual_seed(0)
    matcher = DenseMatcher(layers=2, channels=(4, 8), prompt_dim=8, background=True, priors=priors).eval()
    query, support = ([torch.randn(1, 6, side, side) for _ in range(2)] for side in (8, 5))
    mask = (torch.rand(1, 5, 5) > 0.5).float()

    def prompt(layers):
        return matcher(query, layers, mask, 8)

    with torch.no_grad():
        whole = prompt(support)
        without = prompt([support[0], torch.zeros_like(support[1])])
        with silenced(matcher, [1, 3]):
            silent = prompt(support)
        torch.testing.assert_close(silent, without)
        assert (silent - whole).abs().max() > 1e-3
        with silenced(matcher, [2, 3]):
            foreground = prompt(support)
        assert (foreground - whole).abs().max() > 1e-3
        torch.testing.assert_close(prompt(support), whole, rtol=0, atol=0)


def test_without_lora_a_prompt_is_that_of_adapters_that_learned_nothing(model):
    encoder = model.semantic_encoder
    tokens, question = encoder.silent_tokens(1), model.processor.question([("circle", None)])
    encoder.llava.model.multi_modal_projector.linear_2.weight.data.zero_()  # prompts are kept from now on
    adapted = encoder.prompt(tokens, question)
    with without_lora(encoder):
        assert not encoder.is_adapted
        plain = encoder.prompt(tokens, question)
    assert (plain - adapted).abs().max() > 1e-3
    torch.testing.assert_close(encoder.prompt(tokens, question), adapted, rtol=0, atol=0)
    with encoder.vlm.disable_adapter():  # no embedding has been trained yet
        torch.testing.assert_close(encoder(tokens, question)[0], plain)


def test_the_command_writes_a_report(model, episodes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("dsvlfs.cli.running.load_model", lambda name: model)
    root = tmp_path / "photos"
    (tmp_path / "words.json").write_text(json.dumps({"square": "red"}))
    options = ["--root", root, "--episodes", root / "episodes.jsonl", "--limit", 2, "--out", tmp_path / "report"]
    command = ["analyze", "ablation", *options, "--descriptions", tmp_path / "words.json"]
    assert main([str(part) for part in command]) == 0
    assert "not used" in capsys.readouterr().out
    data = json.loads((tmp_path / "report" / "report.json").read_text())["data"]
    whole = next(row for row in data["rows"] if (row["part"], row["mode"]) == ("prompts", "both"))
    assert 0 <= whole["miou"] <= 100
    assert (tmp_path / "report" / "ablation.png").exists()


def test_a_bank_of_descriptions_is_checked(tmp_path):
    (tmp_path / "words.json").write_text('{"square": 3}')
    with pytest.raises(InputError, match="'square'"):
        read_descriptions(tmp_path / "words.json")


def test_rows_are_compared_on_the_same_resamples(model, episodes):
    result = ablate(model, episodes, {})
    row = next(row for row in result.metrics if row == Row("layers", "image.2 alone", "visual"))
    metrics, whole = result.metrics[row], result.metrics[WHOLE["visual"]]
    assert metrics.difference_interval(metrics) == (0, 0)
    low, high = metrics.difference_interval(whole)
    assert low <= metrics.miou() - whole.miou() <= high
    assert np.isfinite([low, high]).all()
