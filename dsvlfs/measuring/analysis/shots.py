"""How several supports are best made one mask, and what a bad one among them does.

All ways of aggregation see the same queries and the same supports; a query's features and each support's visual prompt
are computed once for all of them.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ...data.episodes import Episode, Example, load_episodes
from ...errors import InputError
from ...inference.checks import Mode
from ...inference.encoded import Asked, Support
from ...inference.segmenting import asked_by_name
from ...modeling import DSVLFSModel
from ...parts.aggregation import AGGREGATIONS, Aggregation
from ..metrics import EpisodeCounts, SegmentationMetrics, count_episode
from .plots import as_picture, new_figure
from .report import Report, Table

COUNTS = (1, 2, 3, 5, 10)
SPOILED = 5  # supports, one of them bad

_GOOD = f"{SPOILED - 1} good"
_BAD = ("another class", "mask inverted", "mask moved")
_SEED = 0
_POOL = 40  # supports of a class that are kept to draw from
_COLOURS = {"votes": "#33518f", "logits": "#5b9d62", "joint": "#d1823a", "attention": "#b03a48"}

Pool = dict[str, dict[str, Example]]
"""Supports by class and photo."""


@dataclass(frozen=True)
class Shots:
    """What a query is shown.

    Args:
        keys: one for each support; equal keys are equal supports.
        examples: photo and mask of each.
        sets: of what is measured, by name: the places of its supports.
    """

    keys: list[str]
    examples: list[Example]
    sets: dict[str, list[int]]


def run(model: DSVLFSModel, episodes: Sequence[Episode], arguments: argparse.Namespace) -> Report:
    """Measures and reports.

    Args:
        arguments: `mode`; `others`, a file of episodes under `root` with supports of other classes, or None.

    Raises:
        InputError: an episode cannot be used.
    """
    others = load_episodes(arguments.root, arguments.others) if arguments.others else []
    metrics = measure(model, episodes, others, arguments.mode)
    return report(metrics, len(episodes), arguments.mode)


@torch.inference_mode()
def measure(
    model: DSVLFSModel, episodes: Sequence[Episode], others: Sequence[Episode], mode: Mode
) -> dict[tuple[str, Aggregation], SegmentationMetrics]:
    """Measures each set of supports under each aggregation that the model has.

    Args:
        others: episodes whose supports, of other classes, may be shown as bad ones.
        mode: "both" or "visual".

    Returns:
        By set and aggregation. A set is a number of good supports ("1", "5", ...), "4 good", or those four with a bad
        one. A set that an episode has too few photos for is left out, so that all are measured on the same queries.

    Raises:
        InputError: an episode's photo or mask cannot be used.
    """
    pool = _gather(episodes)
    strangers = _gather(others) if others else pool
    aggregations = [name for name in AGGREGATIONS if name != "attention" or model.shot_attention is not None]
    encoded: dict[str, Support] = {}
    counts: dict[tuple[str, Aggregation], list[EpisodeCounts]] = defaultdict(list)
    for number, episode in enumerate(tqdm(episodes, unit="episode")):
        shots = choose_shots(episode, pool, strangers, np.random.default_rng((_SEED, number)))
        for key, example in zip(shots.keys, shots.examples):
            if key not in encoded:
                encoded[key] = model.encode_support([example])
        query = _Query(model, episode, [encoded[key] for key in shots.keys], mode)
        for name, places in shots.sets.items():
            for aggregation in aggregations:
                counts[name, aggregation].append(query.count(places, aggregation))
    return {key: SegmentationMetrics(own) for key, own in counts.items() if len(own) == len(episodes)}


def choose_shots(episode: Episode, pool: Pool, strangers: Pool, rng: np.random.Generator) -> Shots:
    """An episode's own supports, then further ones of its class, and the bad ones; never a photo of the query.

    Args:
        pool: supports to take further ones from.
        strangers: supports to take those of another class from.
    """
    class_name = episode.class_name
    good = dict(zip(episode.support_photos, episode.support))
    further = [photo for photo in pool[class_name] if photo not in good and photo not in episode.query_photos]
    for place in rng.permutation(len(further)):
        good[further[place]] = pool[class_name][further[place]]
    good = dict(list(good.items())[: max(COUNTS)])
    keys, examples = [f"{photo}:{class_name}" for photo in good], list(good.values())
    sets = {str(count): list(range(count)) for count in COUNTS if count <= len(good)}
    if len(good) < SPOILED:
        return Shots(keys, examples, sets)
    sets[_GOOD] = list(range(SPOILED - 1))
    spoiled, (photo, mask) = keys[SPOILED - 1], examples[SPOILED - 1]
    moved = np.roll(mask, (mask.shape[0] // 2, mask.shape[1] // 2), axis=(0, 1))
    bad = {"mask inverted": (f"{spoiled}:inverted", (photo, ~mask)), "mask moved": (f"{spoiled}:moved", (photo, moved))}
    candidates = [
        (f"{photo}:{other}", example)
        for other, shown in strangers.items()
        for photo, example in shown.items()
        if other != class_name and photo not in episode.query_photos
    ]
    if candidates:
        bad["another class"] = candidates[rng.integers(len(candidates))]
    for name, (key, example) in bad.items():
        if np.any(example[1]):
            sets[name] = [*sets[_GOOD], len(keys)]
            keys.append(key)
            examples.append(example)
    return Shots(keys, examples, sets)


class _Query:
    """A query with the visual prompts and the logits of every support that it is shown. With both prompts every name is
    heard and none doubted, so that what differs are the supports alone."""

    def __init__(self, model: DSVLFSModel, episode: Episode, supports: Sequence[Support], mode: Mode) -> None:
        self.model, self.episode = model, episode
        self.query = model.encode_query(episode.query)
        features = self.query.features
        self.asked = Asked(features, model.image_embedding(features))
        if mode == "both":
            question = model.processor.question([(episode.class_name, None)]).to(model.device)
            self.asked = asked_by_name(model, self.asked, episode.class_name, [(1.0, question)])
        self.shots = model.compare(features, Support.join(supports), self.asked.embedding.shape[-1])
        self.logits, _ = model.decode(self.asked, self.shots, "votes")

    def count(self, places: list[int], aggregation: Aggregation) -> EpisodeCounts:
        """Aggregates some of the supports, and compares the mask with the target."""
        known = self.logits[places] if len(places) > 1 else None  # a single support is all there is to its request
        logits, joined = self.model.decode(self.asked, self.shots[places], aggregation, known)
        found = self.model.processor.prediction(logits, self.query.valid, self.query.size, joined)
        mask = found.segmentation(min_presence=0).mask
        episode = self.episode
        return count_episode(episode.class_name, mask, episode.query_mask, episode.query_ignore, episode.query_base)


def _gather(episodes: Sequence[Episode]) -> Pool:
    """The supports of all episodes."""
    pool: Pool = defaultdict(dict)
    for episode in episodes:
        own = pool[episode.class_name]
        for photo, example in zip(episode.support_photos, episode.support):
            if len(own) < _POOL:
                own.setdefault(photo, example)
    return dict(pool)


def report(metrics: dict[tuple[str, Aggregation], SegmentationMetrics], episodes: int, mode: Mode) -> Report:
    """The tables, the lines and what follows from them.

    Raises:
        InputError: nothing was measured.
    """
    if not metrics:
        raise InputError("No number of supports was measured on every episode; give episodes with more supports.")
    names = list(dict.fromkeys(name for name, _ in metrics))
    aggregations = list(dict.fromkeys(aggregation for _, aggregation in metrics))
    values = {key: 100 * own.miou() for key, own in metrics.items()}
    ends = {key: [100 * end for end in own.bootstrap_interval()] for key, own in metrics.items()}

    def table(title: str, first: str, rows: Sequence[str]) -> Table:
        cells = [
            [name] + [f"{values[name, a]:.1f} ({ends[name, a][0]:.1f} to {ends[name, a][1]:.1f})" for a in aggregations]
            for name in rows
        ]
        return Table(title, [first, *aggregations], cells)

    counted = [name for name in names if name.isdigit()]
    spoiled = [name for name in (_GOOD, *_BAD) if name in names]
    tables = [table("mIoU in percent by number of supports, with 95 % interval", "supports", counted)]
    if spoiled:
        title = f"mIoU in percent of {SPOILED - 1} good supports alone and with a bad fifth, with 95 % interval"
        tables.append(table(title, "supports", spoiled))
    return Report(
        title="Shots",
        how=f"{episodes} episodes, prompts: {mode}. Every cell is of the same queries, and of the same supports as its "
        "neighbours in the row; the intervals are bootstrap over the episodes.",
        tables=tables,
        findings=_findings(values, counted, spoiled, aggregations),
        pictures={"shots": _lines(values, ends, counted, spoiled, aggregations)},
        data={
            "episodes": episodes,
            "mode": mode,
            "rows": [
                {"supports": name, "aggregation": a, "miou": values[name, a], "miou_interval_95": ends[name, a]}
                for name, a in metrics
            ],
        },
    )


def _findings(
    values: dict[tuple[str, Aggregation], float],
    counted: Sequence[str],
    spoiled: Sequence[str],
    aggregations: Sequence[Aggregation],
) -> list[str]:
    most = counted[-1]
    best = max(aggregations, key=lambda a: values[most, a])
    found = []
    if len(counted) > 1:
        gain = values[most, best] - values[counted[0], best]
        found.append(f"With {most} supports `{best}` is best, {gain:+.1f} points from {counted[0]}.")
    for name in spoiled[1:]:
        lost = ", ".join(f"`{a}` {values[name, a] - values[_GOOD, a]:+.1f}" for a in aggregations)
        found.append(f"A fifth support with {name} changes the four good ones' mIoU by: {lost} points.")
    if missing := [str(count) for count in COUNTS if str(count) not in counted]:
        found.append(f"Not every class has the photos for {' and '.join(missing)} supports.")
    if missing := [name for name in _BAD if name not in spoiled]:
        found.append(f"Not measured, for want of photos: {', '.join(missing)}.")
    if "attention" not in aggregations:
        found.append("This checkpoint has learned no attention over the shots.")
    return found


def _lines(
    values: dict[tuple[str, Aggregation], float],
    ends: dict[tuple[str, Aggregation], list[float]],
    counted: Sequence[str],
    spoiled: Sequence[str],
    aggregations: Sequence[Aggregation],
) -> Image.Image:
    """mIoU over the number of supports, and beside it with a bad one."""
    figure = new_figure(9, 4)
    left, right = figure.subplots(1, 2, sharey=True)
    for shift, aggregation in enumerate(aggregations):
        for axes, names in ((left, counted), (right, spoiled)):
            # Beside each other, so that the intervals can be told apart.
            places = [place + 0.08 * (shift - (len(aggregations) - 1) / 2) for place in range(len(names))]
            heights = [values[name, aggregation] for name in names]
            low, high = (
                [abs(ends[name, aggregation][i] - values[name, aggregation]) for name in names] for i in (0, 1)
            )
            style = "-o" if axes is left else "o"
            axes.errorbar(
                places, heights, [low, high], fmt=style, color=_COLOURS[aggregation], label=aggregation, linewidth=1
            )
    for axes, names, title in ((left, counted, "supports"), (right, spoiled, "four good supports, and a fifth")):
        axes.set_xticks(range(len(names)), names)
        axes.set_xlabel(title)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_ylabel("mIoU (%), with its 95 % bootstrap interval")
    left.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(aggregations))
    return as_picture(figure)
