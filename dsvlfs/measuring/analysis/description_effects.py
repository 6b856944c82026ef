"""What the class's description does to the mask: the right one, none, another class's, texts that are no help, and one
under a word that nobody knows."""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from ...data.episodes import Episode
from ...descriptions.bank import bank_description, bank_names
from ...descriptions.given import read_descriptions
from ...descriptions.made_up import made_up_names
from ...descriptions.spoiled import SPOILINGS, Spoiler
from ...errors import InputError
from ...inference.checks import Mode
from ...modeling import DSVLFSModel
from ..evaluation import SupportCache
from ..metrics import EpisodeCounts, SegmentationMetrics, count_episode
from .plots import MODE_COLOURS, Bar, draw_bars
from .report import Report, Table

_MODES: tuple[Mode, ...] = ("both", "semantic")
_SEED = 2503_04006
_CLEAR_LOSS = 5.0

RIGHT = "right description"
NAME = "name only"
UNKNOWN = "made-up word"
TOLD = "made-up word, right description"


class Asked(NamedTuple):
    """A class as it is asked for."""

    name: str
    description: str | None


def run(model: DSVLFSModel, episodes: Sequence[Episode], arguments: argparse.Namespace) -> Report:
    """Measures and reports.

    Args:
        arguments: `descriptions`, a JSON file of class name to text; None takes the bank's.

    Raises:
        InputError: fewer than two of the episodes' classes have a description, or an episode cannot be used.
    """
    given = read_descriptions(arguments.descriptions) if arguments.descriptions else None
    names = {episode.class_name for episode in episodes}
    known = {name: bank_description(name) if given is None else given.get(name) for name in sorted(names)}
    texts = {name: text for name, text in known.items() if text}
    if len(texts) < 2:
        raise InputError(
            "Fewer than two of the episodes' classes have a description; give them with --descriptions FILE.json."
        )
    described = [episode for episode in episodes if episode.class_name in texts]
    return report(measure(model, described, texts), len(described), len(episodes))


def variants(name: str, text: str, spoiler: Spoiler, rng: np.random.Generator) -> dict[str, Asked]:
    """The ways to ask for a class.

    Args:
        name, text: of the class.
        spoiler: of the descriptions, this one among them.
        rng: draws the other class, the noise and the made-up word.

    Returns:
        By what is done to the description; the first is right.
    """
    other = spoiler.other(name, rng)
    spoiled = {how: spoiler.spoil(text, how, name=name, other=other, rng=rng) for how in SPOILINGS}
    words = made_up_names()
    word = words[rng.integers(len(words))]
    return {
        RIGHT: Asked(name, text),
        NAME: Asked(name, None),
        **{how: Asked(name, own) for how, own in spoiled.items()},
        "another's, and its name": Asked(other, spoiled["another's"]),
        UNKNOWN: Asked(word, None),
        TOLD: Asked(word, text),
    }


@torch.inference_mode()
def measure(
    model: DSVLFSModel, episodes: Sequence[Episode], texts: Mapping[str, str]
) -> dict[tuple[str, Mode], SegmentationMetrics]:
    """Measures every variant with both prompts and by the name alone, over the same episodes in the same order. A
    query's photo goes through the frozen encoders once.

    Args:
        episodes: whose classes are among `texts`.
        texts: descriptions by class name.

    Raises:
        InputError: an episode's photo or mask cannot be used.
    """
    encode_support = SupportCache(model.encode_support)
    spoiler = Spoiler(texts, map(bank_description, bank_names()))
    counts: dict[tuple[str, Mode], list[EpisodeCounts]] = defaultdict(list)
    for number, episode in enumerate(tqdm(episodes, unit="episode")):
        query, support = model.encode_query(episode.query), encode_support(episode)
        rng = np.random.default_rng((_SEED, number))
        for variant, asked in variants(episode.class_name, texts[episode.class_name], spoiler, rng).items():
            found = model.predict(query, asked.name, support=support, description=asked.description, modes=list(_MODES))
            for mode, prediction in found.items():
                mask = prediction.segmentation(min_presence=0).mask
                counts[variant, mode].append(
                    count_episode(episode.class_name, mask, episode.query_mask, episode.query_ignore)
                )
    return {key: SegmentationMetrics(own) for key, own in counts.items()}


def report(metrics: Mapping[tuple[str, Mode], SegmentationMetrics], described: int, episodes: int) -> Report:
    """The table, the bars and what follows from them."""
    rows, bars, data, findings = [], [], [], []
    for (variant, mode), own in metrics.items():
        right = metrics[RIGHT, mode]
        miou, ends = 100 * own.miou(), tuple(100 * end for end in own.bootstrap_interval())
        cells: list[str | float | None] = [variant, mode, miou, f"{ends[0]:.1f} to {ends[1]:.1f}"]
        entry = {"variant": variant, "mode": mode, "miou": miou, "miou_interval_95": ends}
        if variant == RIGHT:
            cells += [None, None]
        else:
            difference = miou - 100 * right.miou()
            low, high = (100 * end for end in own.difference_interval(right))
            cells += [f"{difference:+.1f}", f"{low:+.1f} to {high:+.1f}"]
            entry |= {"difference": difference, "difference_interval_95": [low, high]}
            lost = {name: 100 * (right.iou_by_class()[name] - iou) for name, iou in own.iou_by_class().items()}
            worst = [f"{name} ({-loss:+.0f})" for name, loss in sorted(lost.items(), key=lambda item: -item[1])[:3]]
            if difference < -_CLEAR_LOSS:
                findings.append(f"{variant}, `{mode}`: most is lost by {', '.join(worst)}.")
        rows.append(cells)
        data.append(entry)
        bars.append(Bar(variant, mode, miou, ends))
    for mode in _MODES:
        name, unknown, told = (100 * metrics[how, mode].miou() for how in (NAME, UNKNOWN, TOLD))
        if name > unknown:
            findings.append(
                f"Under a made-up word the description recovers {(told - unknown) / (name - unknown):.0%} of what the "
                f"right name gives over that word, `{mode}` ({unknown:.1f}, {told:.1f}, {name:.1f})."
            )
    columns = ["description", "prompts", "mIoU", "95 % interval", "difference", "95 % interval of the difference"]
    if described < episodes:
        findings.append(f"{episodes - described} of {episodes} episodes were left out: their class has no description.")
    return Report(
        title="Descriptions",
        how=f"{described} episodes, each asked for in every way with the same support; differences are from the right "
        "description with the same prompts. The intervals are bootstrap over the episodes, those of the differences "
        "over pairs. `semantic` is shown no support.",
        tables=[Table("mIoU in percent", columns, rows)],
        findings=findings,
        pictures={
            "descriptions": draw_bars(bars, MODE_COLOURS, "mIoU (%), with its 95 % bootstrap interval", "prompts")
        },
        data={"rows": data, "episodes": described},
    )
