"""The correlation's health, and what the masks cover, on the micro model and drawn photos."""

import json

import numpy as np
import pytest
import torch
from drawn_packs import draw_photo_folder

from dsvlfs.cli import main
from dsvlfs.data.episodes import load_episodes
from dsvlfs.measuring.analysis.match_quality import covered_others, measure
from dsvlfs.measuring.correlation_health import MEASURES, correlation_health, is_collapsed, watched
from dsvlfs.measuring.metrics import EpisodeCounts
from dsvlfs.parts.matching import DenseMatcher


@pytest.fixture
def mosaics(tmp_path):
    """The root and file of three mosaics of drawn shapes."""
    root = draw_photo_folder(tmp_path / "photos", name="{shape}")
    lines = [
        {
            "class_name": shape,
            "query": f"red_{shape}",
            "support": [f"orange_{shape}", f"blue_{shape}"],
            "distractors": [f"{colour}_{other}" for colour in ("red", "blue", "green")],
            "position": position,
        }
        for position, (shape, other) in enumerate((("circle", "square"), ("square", "circle"), ("circle", "square")))
    ]
    (root / "episodes.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return root, root / "episodes.jsonl"


def _figures(query: torch.Tensor, support: torch.Tensor, mask: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
    (row,) = correlation_health([query], [support], mask, target)[0].tolist()
    return dict(zip(MEASURES, row))


def test_figures_of_a_correlation_known_by_hand():
    # Two directions: the left half of query and support has one, the right half the other.
    half = torch.zeros(1, 2, 4, 4)
    half[:, 0, :, :2] = half[:, 1, :, 2:] = 3
    left = torch.zeros(1, 4, 4)
    left[:, :, :2] = 1
    figures = _figures(half, half, left, left)
    assert figures == pytest.approx(
        {"mean": 0.5, "spread": 1, "entropy": 1, "zeros": 0.5, "silent": 0.5, "contrast": 2}, abs=1e-5
    )
    assert not is_collapsed(figures["spread"], figures["silent"])
    # Of a support that has both, each position speaks, to one half of the support alone.
    both = _figures(half, half, torch.ones(1, 4, 4), left)
    assert both["silent"] == 0
    assert both["entropy"] == pytest.approx(np.log(8) / np.log(16))
    assert both["contrast"] == pytest.approx(0, abs=1e-4)


def test_constant_and_silent_layers_have_collapsed():
    torch.manual_seed(0)
    one = torch.ones(1, 5, 4, 4)
    left = torch.zeros(1, 4, 4)
    left[:, :, :2] = 1
    for query, support in (
        (one + 1e-4 * torch.randn_like(one), one),  # all the same but for rounding
        (one, -one),  # nothing positive
        (torch.zeros_like(one), one),
    ):
        figures = _figures(query, support, left, left)
        assert is_collapsed(figures["spread"], figures["silent"]), figures
    healthy = _figures(torch.randn(1, 5, 4, 4), torch.randn(1, 5, 4, 4), left, left)
    assert not is_collapsed(healthy["spread"], healthy["silent"])


def test_one_query_serves_all_supports_and_a_faint_mask_is_used():
    torch.manual_seed(0)
    query, support = torch.randn(1, 6, 5, 5), torch.randn(3, 6, 4, 4)
    mask, target = torch.rand(3, 4, 4), torch.rand(1, 10, 10).round()
    mask[1] *= 0.3  # nowhere foreground by half
    together = correlation_health([query], [support], mask, target)
    assert together.shape == (3, 1, len(MEASURES))
    assert torch.isfinite(together[:, :, :4]).all()
    for i in range(3):
        alone = correlation_health([query], [support[i : i + 1]], mask[i : i + 1], target)
        torch.testing.assert_close(together[i : i + 1], alone, equal_nan=True)


def test_a_watched_matcher_tells_what_it_was_given():
    matcher = DenseMatcher(layers=1, channels=(4,), prompt_dim=4)
    query, support, mask = [torch.randn(1, 3, 4, 4)], [torch.randn(1, 3, 2, 2)], torch.ones(1, 2, 2)
    with watched(matcher) as last:
        matcher([query[0] + 1], support, mask, 4)
        matcher(query, support, mask, 4)
    matcher([query[0] + 1], support, mask, 4)
    (call,) = last
    assert call.query is query
    assert call.mask is mask


def test_what_is_covered_is_summed_over_a_class():
    counts = [
        EpisodeCounts(name, (1, 2), (1, 2), (1, 2), base)
        for name, base in (("cup", (10, 40)), ("cup", (0, 60)), ("fox", (0, 0)))
    ]
    covered = covered_others({"both": counts, "visual": counts, "semantic": counts})
    assert covered == {name: dict.fromkeys(("both", "visual", "semantic"), 10) for name in ("cup", "all")}


def test_every_episode_is_measured(micro_model, mosaics):
    result = measure(micro_model, load_episodes(*mosaics))
    assert result.health.shape == (3, 2, len(MEASURES))
    assert [counts.base[1] > 0 for counts in result.counts["both"]] == [True] * 3


def test_the_command_writes_a_report(micro_model, mosaics, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("dsvlfs.cli.running.load_model", lambda name: micro_model)
    root, file = mosaics
    command = ["analyze", "matching", "--root", root, "--episodes", file, "--out", tmp_path / "report"]
    assert main([str(part) for part in command]) == 0
    assert "vision.5" in capsys.readouterr().out
    data = json.loads((tmp_path / "report" / "report.json").read_text())["data"]
    assert set(data["others_covered"]) == {"circle", "square", "all"}
    assert set(data["layers"]["image.2"]) == {*MEASURES, "collapsed"}
    for picture in ("correlation", "covered"):
        assert (tmp_path / "report" / f"{picture}.png").exists()
