"""What each part of the model contributes to the mask (after arXiv 2503.04006, table 3).

Every row is the same checkpoint with something left out when it is used; nothing is trained again. So a row says what
this checkpoint loses without the part, not what a model would reach that was trained without it.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ...data.episodes import Episode
from ...descriptions.given import read_descriptions
from ...inference.checks import Mode
from ...inference.encoded import Support
from ...inference.results import Prediction
from ...modeling import DSVLFSModel
from ...parts.matching import DenseMatcher
from ...parts.semantic_encoder import SemanticEncoder
from ..evaluation import SupportCache
from ..metrics import EpisodeCounts, SegmentationMetrics, count_episode
from .plots import MODE_COLOURS, Bar, draw_bars
from .report import Report, Table

_MOST_SINGLE_LAYERS = 6


class Row(NamedTuple):
    """What is measured: a part of the model, what is done with it, and the prompts that the decoder is given."""

    part: str
    setting: str
    mode: Mode


WHOLE = {mode: Row("prompts", mode, mode) for mode in ("both", "visual", "semantic")}
"""The model as it is; the other rows are compared with these."""


@dataclass(frozen=True)
class Ablation:
    """What was measured.

    Args:
        metrics: of each row, over the same episodes in the same order.
        notes: what was not measured, and why.
        described: number of episodes whose class had a description.
    """

    metrics: dict[Row, SegmentationMetrics]
    notes: list[str]
    described: int


def run(model: DSVLFSModel, episodes: Sequence[Episode], arguments: argparse.Namespace) -> Report:
    """Measures and reports.

    Args:
        arguments: `descriptions`, a JSON file of class name to text, or None.

    Raises:
        InputError: an episode or the descriptions cannot be used.
    """
    descriptions = read_descriptions(arguments.descriptions) if arguments.descriptions else {}
    return report(ablate(model, episodes, descriptions), len(episodes))


@torch.inference_mode()
def ablate(model: DSVLFSModel, episodes: Sequence[Episode], descriptions: Mapping[str, str]) -> Ablation:
    """Measures every row. An episode's photos go through the frozen encoders once for all rows.

    Args:
        descriptions: by class name; a class that is not among them has its episode's own description, if any.

    Raises:
        InputError: an episode's photo or mask cannot be used.
    """
    encoder = model.semantic_encoder
    channels, notes = left_out_channels(model)
    if not encoder.is_adapted:
        notes.append("LoRA is as it began, and adds nothing to the language model: nothing changes without it.")
    encode_support = SupportCache(model.encode_support)
    counts: dict[Row, list[EpisodeCounts]] = defaultdict(list)
    described = 0
    for episode in tqdm(episodes, unit="episode"):
        description = descriptions.get(episode.class_name) or episode.description
        described += description is not None
        for row, prediction in _predict_rows(model, episode, encode_support(episode), description, channels):
            mask = prediction.segmentation(min_presence=0).mask
            counts[row].append(count_episode(episode.class_name, mask, episode.query_mask, episode.query_ignore))
    if not described:
        notes.append("No class has a description; give them with --descriptions FILE.json.")
        counts = {row: own for row, own in counts.items() if row.part != "description"}
    elif described < len(episodes):
        notes.append(f"{described} of {len(episodes)} episodes have a description; the others are asked by name.")
    return Ablation({row: SegmentationMetrics(own) for row, own in counts.items()}, notes, described)


def _predict_rows(
    model: DSVLFSModel,
    episode: Episode,
    support: Support,
    description: str | None,
    channels: Mapping[tuple[str, str], list[int]],
) -> Iterator[tuple[Row, Prediction]]:
    query = model.encode_query(episode.query)

    def predict(modes: Sequence[Mode], description: str | None = None) -> dict[Mode, Prediction]:
        return model.predict(query, episode.class_name, support=support, description=description, modes=modes)

    for mode, prediction in predict(list(WHOLE)).items():
        yield WHOLE[mode], prediction
    for mode, prediction in predict(["both", "semantic"], description).items():
        yield Row("description", "with", mode), prediction
    if model.semantic_encoder.photo_prompt is not None and model.semantic_encoder.reads_photo:
        with without_photo(model.semantic_encoder):
            found = predict(["both", "semantic"])
        for mode, prediction in found.items():
            yield Row("photo", "not read", mode), prediction
    if model.semantic_encoder.is_adapted:
        with without_lora(model.semantic_encoder):
            found = predict(["both", "semantic"])
        for mode, prediction in found.items():
            yield Row("LoRA", "without", mode), prediction
    for (part, setting), silent in channels.items():
        with silenced(model.matcher, silent):
            found = predict(["both", "visual"])
        for mode, prediction in found.items():
            yield Row(part, setting, mode), prediction


def left_out_channels(model: DSVLFSModel) -> tuple[dict[tuple[str, str], list[int]], list[str]]:
    """The correlation's channels that the rows leave out, by part and setting; and what has no row, and why.

    A row has each layer alone (of many, six from the first to the last), and the layers of each encoder, or of one
    alone its earlier and its later half.
    """
    names = model.config.correlation_layers
    count = len(names)
    chosen: dict[str, list[int]] = {}
    for number in range(min(count, _MOST_SINGLE_LAYERS)):
        index = round(number * (count - 1) / max(1, min(count, _MOST_SINGLE_LAYERS) - 1))
        chosen[f"{names[index]} alone"] = [index]
    encoders = {name.split(".")[0]: [] for name in names}
    for index, name in enumerate(names):
        encoders[name.split(".")[0]].append(index)
    groups = {f"{encoder} layers": own for encoder, own in encoders.items()}
    if len(encoders) == 1:
        groups = {"earlier half": list(range(count // 2)), "later half": list(range(count // 2, count))}
    chosen |= {name: own for name, own in groups.items() if 1 < len(own) < count}
    background = model.matcher.background
    channels, notes = {}, []
    for setting, kept in chosen.items():
        out = [index for index in range(count) if index not in kept]
        if out:
            channels["layers", setting] = out + [count + index for index in out] * background
    if not channels:
        notes.append("The correlation has one layer: none can be left out.")
    if background:
        channels["supports' background", "not used"] = list(range(count, 2 * count))
    else:
        notes.append("The correlation does not use the supports' background: there is none to leave out.")
    return channels, notes


@contextmanager
def silenced(matcher: DenseMatcher, channels: Sequence[int]) -> Iterator[None]:
    """Leaves channels of the correlation out of the visual prompt: the weights that read them, in the first 4D
    convolution and after the priors, are nought meanwhile, which is the same as if the channels were.

    Args:
        channels: indices of layers; with the background, layer i's is the number of layers plus i.
    """
    conv = matcher.blocks[0].conv
    inputs = conv.query_conv.in_channels
    left_out = (slice(None), list(channels))
    read = [(conv.query_conv.weight, left_out), (conv.support_conv.weight, left_out)]
    if matcher.priors:  # the last columns: each channel's mean, then each one's maximum
        weight = matcher.to_prompt[0].weight
        start = weight.shape[1] - 2 * inputs
        read.append((weight, (slice(None), [start + offset + index for offset in (0, inputs) for index in channels])))
    with _nought(read):
        yield


@contextmanager
def without_lora(encoder: SemanticEncoder) -> Iterator[None]:
    """Leaves the adapters out, by the factors that began as nought. peft's `disable_adapter` would take `<SEM_prompt>`
    its trained embedding as well."""
    with _nought([(tensor, ...) for name, tensor in encoder.vlm.named_parameters() if "lora_B" in name]):
        yield


@contextmanager
def without_photo(encoder: SemanticEncoder) -> Iterator[None]:
    """Leaves out what the photo adds to the semantic prompt."""
    assert encoder.photo_prompt is not None
    last = encoder.photo_prompt.to_prompt[-1]
    with _nought([(last.weight, ...), (last.bias, ...)]):
        yield


@contextmanager
def _nought(parts: Sequence[tuple[Tensor, Any]]) -> Iterator[None]:
    """Makes these parts of weights nought meanwhile.

    Args:
        parts: weights, and of each the index that is set.
    """
    kept = [weight.detach().clone() for weight, _ in parts]
    try:
        with torch.no_grad():
            for weight, index in parts:
                weight[index] = 0
        yield
    finally:
        with torch.no_grad():
            for (weight, _), before in zip(parts, kept):
                weight.copy_(before)


def report(result: Ablation, episodes: int) -> Report:
    """The table, the bars and what follows from them."""
    rows, data, findings = [], [], []
    for row, metrics in result.metrics.items():
        miou, (low, high) = 100 * metrics.miou(), (100 * end for end in metrics.bootstrap_interval())
        cells: list[str | float | None] = [row.part, row.setting, row.mode, miou, f"{low:.1f} to {high:.1f}"]
        entry = {**row._asdict(), "miou": miou, "miou_interval_95": [low, high]}
        base = WHOLE["both" if row in WHOLE.values() else row.mode]
        if row != WHOLE["both"]:
            against = result.metrics[base]
            difference = 100 * (metrics.miou() - against.miou())
            ends = [100 * end for end in metrics.difference_interval(against)]
            cells += [f"{difference:+.1f}", f"{ends[0]:+.1f} to {ends[1]:+.1f}"]
            entry |= {"compared_with": base.setting, "difference": difference, "difference_interval_95": ends}
            if ends[0] > 0 or ends[1] < 0:
                name = "" if row in WHOLE.values() else f"{row.part}, {row.setting}: "
                findings.append(
                    f"{name}`{row.mode}` is {abs(difference):.1f} points {'better' if difference > 0 else 'worse'} "
                    f"than `{base.setting}` as it is, beyond chance."
                )
        else:
            cells += [None, None]
        rows.append(cells)
        data.append(entry)
    columns = ["part", "setting", "prompts", "mIoU", "95 % interval", "difference", "95 % interval of the difference"]
    return Report(
        title="Ablation",
        how=f"{episodes} episodes. Each row is the same checkpoint with one thing changed when it is used; none was "
        "trained again without its part. `semantic` is shown no support. Rows of `prompts` differ from `both`, the "
        "others from their own prompts in the model as it is; the intervals are bootstrap over the episodes, those of "
        "the differences over pairs.",
        tables=[Table("mIoU in percent", columns, rows)],
        findings=[*findings, *result.notes],
        pictures={"ablation": _bars(result.metrics)},
        data={"rows": data, "episodes": episodes, "described": result.described},
    )


def _bars(metrics: Mapping[Row, SegmentationMetrics]) -> Image.Image:
    bars = [
        Bar(
            f"as it is: {row.mode}" if row.part == "prompts" else f"{row.part}: {row.setting}",
            row.mode,
            100 * measured.miou(),
            tuple(100 * end for end in measured.bootstrap_interval()),
        )
        for row, measured in metrics.items()
    ]
    return draw_bars(bars, MODE_COLOURS, "mIoU (%), with its 95 % bootstrap interval", "prompts")
