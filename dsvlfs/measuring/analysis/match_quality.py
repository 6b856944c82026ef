"""Whether the correlation (arXiv 2503.04006, section 3.3) is healthy, and whose pixels the mask covers besides the
class's."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ...data.episodes import Episode
from ...data.targets import on_decoder_grid, target_side
from ...inference.checks import MODES, Mode
from ...modeling import DSVLFSModel
from ..correlation_health import LARGEST_SILENCE, MEASURES, SMALLEST_SPREAD, correlation_health, is_collapsed, watched
from ..evaluation import SupportCache
from ..metrics import EpisodeCounts, SegmentationMetrics, count_episode
from .plots import MODE_COLOURS, as_picture, new_figure
from .report import Report, Table


@dataclass(frozen=True)
class Matching:
    """What was measured.

    Args:
        health: (episodes, layers, measures), the mean over an episode's supports.
        counts: of each mode, an episode's own; `base` counts the other objects that the query shows.
    """

    health: np.ndarray
    counts: dict[Mode, list[EpisodeCounts]]


def run(model: DSVLFSModel, episodes: Sequence[Episode], arguments: argparse.Namespace) -> Report:
    """Measures and reports.

    Raises:
        InputError: an episode cannot be used.
    """
    return report(measure(model, episodes), model.config.correlation_layers)


@torch.inference_mode()
def measure(model: DSVLFSModel, episodes: Sequence[Episode]) -> Matching:
    """Measures each episode's correlation, and what its masks cover.

    Raises:
        InputError: an episode's photo or mask cannot be used.
    """
    encode_support = SupportCache(model.encode_support)
    side = target_side(model.config)
    health, counts = [], {mode: [] for mode in MODES}
    for episode in tqdm(episodes, unit="episode"):
        support = encode_support(episode)
        with watched(model.matcher) as last:
            predictions = model.predict(episode.query, episode.class_name, support=support)
        target = on_decoder_grid(episode.query_mask, model.processor.query_view(episode.query), side) / 255
        measured = correlation_health(*last[0], target[None].to(model.device))
        health.append(measured.nanmean(dim=0).cpu().numpy())
        for mode, prediction in predictions.items():
            mask = prediction.segmentation(min_presence=0).mask
            counts[mode].append(
                count_episode(episode.class_name, mask, episode.query_mask, episode.query_ignore, episode.query_others)
            )
    return Matching(np.stack(health), counts)


def report(result: Matching, layers: Sequence[str]) -> Report:
    """The tables, the pictures and what follows from them.

    Args:
        layers: the correlation layers' names.
    """
    episodes = len(result.health)
    collapsed = np.array([[is_collapsed(*_collapse_figures(layer)) for layer in own] for own in result.health])
    means = [[_mean(column) for column in result.health[:, i].T] for i in range(len(layers))]
    rows = [[name, *row, f"{collapsed[:, i].sum()} of {episodes}"] for i, (name, row) in enumerate(zip(layers, means))]
    tables = [Table("Cosines with the support's foreground, by layer", ["layer", *MEASURES, "collapsed"], rows, 3)]
    pictures = {"correlation": _points(result.health, layers)}
    covered = covered_others(result.counts)
    if covered:
        columns = ["class", "episodes", *MODES]
        own = [c.class_name for c in result.counts["both"]]
        numbers = {name: own.count(name) for name in covered} | {"all": episodes}
        lines = [[name, numbers[name], *(share[mode] for mode in MODES)] for name, share in covered.items()]
        tables.append(Table("Share of the other objects' pixels that the mask covers, in percent", columns, lines))
        pictures["covered"] = _bars(covered)
    mious = {mode: 100 * SegmentationMetrics(own).miou() for mode, own in result.counts.items()}
    return Report(
        title="Matching",
        how=f"{episodes} episodes. A layer counts as collapsed in an episode where its cosines' spread is below "
        f"{SMALLEST_SPREAD:.4f} of their mean (bfloat16 can hardly tell them apart), or where more than "
        f"{LARGEST_SILENCE:.0%} of the query's positions have no positive cosine. Contrast is in standard deviations "
        "over the query's positions: how much higher the class's own positions lie.",
        tables=tables,
        findings=[*_of_layers(layers, means, collapsed), _of_masks(covered, mious)],
        pictures=pictures,
        data={
            "layers": {
                name: dict(zip(MEASURES, row)) | {"collapsed": int(collapsed[:, i].sum())}
                for i, (name, row) in enumerate(zip(layers, means))
            },
            "others_covered": covered,
            "miou": mious,
            "episodes": episodes,
        },
    )


def covered_others(counts: dict[Mode, list[EpisodeCounts]]) -> dict[str, dict[Mode, float]]:
    """Percentage of the other objects' pixels that the masks cover, by class and for "all", by mode; classes whose
    queries show no other object are left out."""
    covered = {}
    for name in [*sorted({c.class_name for own in counts.values() for c in own}), "all"]:
        shares = {
            mode: 100 * SegmentationMetrics(c for c in own if name in (c.class_name, "all")).base_false_positive_rate()
            for mode, own in counts.items()
        }
        if not any(np.isnan(share) for share in shares.values()):
            covered[name] = shares
    return covered


def _of_layers(layers: Sequence[str], means: list[list[float | None]], collapsed: np.ndarray) -> list[str]:
    findings = []
    if collapsed.any():
        share = {name: own.mean() for name, own in zip(layers, collapsed.T) if own.any()}
        findings.append(f"Collapsed: {', '.join(f'{name} in {part:.0%}' for name, part in share.items())} of episodes.")
    else:
        findings.append("No layer has collapsed in any episode.")
    contrasts = {name: dict(zip(MEASURES, row))["contrast"] for name, row in zip(layers, means)}
    known = {name: contrast for name, contrast in contrasts.items() if contrast is not None}
    if known:
        best, worst = max(known, key=known.get), min(known, key=known.get)
        findings.append(
            f"The class stands out most in {best} ({known[best]:+.2f}) and least in {worst} ({known[worst]:+.2f})."
        )
    if blind := [name for name, contrast in known.items() if contrast <= 0]:
        findings.append(f"The class's own positions lie no higher than the rest in {', '.join(blind)}.")
    return findings


def _of_masks(covered: dict[str, dict[Mode, float]], mious: dict[Mode, float]) -> str:
    if not covered:
        return "The episodes do not tell which other objects a query shows, or it shows none."
    shares = ", ".join(f"`{mode}` {share:.1f} % (mIoU {mious[mode]:.1f})" for mode, share in covered["all"].items())
    return f"Of the other objects' pixels the masks cover: {shares}."


def _collapse_figures(layer: np.ndarray) -> tuple[float, float]:
    figures = dict(zip(MEASURES, layer.tolist()))
    return figures["spread"], figures["silent"]


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _fifths(values: np.ndarray) -> list[float]:
    """Where the middle four fifths begin, their middle and their end; NaN where no value is known."""
    known = values[~np.isnan(values)]
    return np.quantile(known, [0.1, 0.5, 0.9]).tolist() if len(known) else [np.nan] * 3


def _points(health: np.ndarray, layers: Sequence[str]) -> Image.Image:
    """A panel a measure: each layer's median, and where four fifths of the episodes lie."""
    figure = new_figure(10, 2 * (0.9 + 0.22 * len(layers)))
    axes = figure.subplots(2, 3, sharey=True).flatten()
    places = range(len(layers))
    for measure, panel in enumerate(axes):
        low, middle, high = zip(*(_fifths(health[:, layer, measure]) for layer in places))
        panel.hlines(places, low, high, color="#9fb0d0", linewidth=4)
        panel.plot(middle, places, "o", color="#33518f", markersize=5)
        panel.set_title(MEASURES[measure], fontsize=10)
        panel.grid(axis="x", color="#e0e0e0")
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
        line = {"spread": SMALLEST_SPREAD, "silent": LARGEST_SILENCE, "contrast": 0}.get(MEASURES[measure])
        if line is not None:
            panel.axvline(line, color="#b03a48", linewidth=1, linestyle="--")
    axes[0].set_yticks(places, layers)
    axes[0].invert_yaxis()
    figure.supxlabel(
        "dot: median; bar: four fifths of the episodes; dashed: collapsed beyond it, or no contrast", size=9
    )
    return as_picture(figure)


def _bars(covered: dict[str, dict[Mode, float]]) -> Image.Image:
    figure = new_figure(8, 1.2 + 0.5 * len(covered))
    axes = figure.add_subplot()
    for number, mode in enumerate(MODES):
        places = [place + 0.26 * (number - 1) for place in range(len(covered))]
        bars = axes.barh(
            places, [share[mode] for share in covered.values()], 0.25, color=MODE_COLOURS[mode], label=mode
        )
        axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
    axes.set_yticks(range(len(covered)), covered)
    axes.invert_yaxis()
    axes.set_xlabel("share of the other objects' pixels that the mask covers (%)")
    axes.legend(title="prompts", fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(MODES), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return as_picture(figure)
