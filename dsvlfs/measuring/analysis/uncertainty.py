"""Can the probability be believed, and does the model notice that a class is not in the photo?"""

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ...data.episodes import Episode
from ...errors import InputError
from ...inference.calibration import expected_calibration_error, reliability
from ...modeling import DSVLFSModel
from ..evaluation import SupportCache
from ..metrics import EpisodeCounts, SegmentationMetrics, count_episode
from .plots import as_picture, new_figure
from .report import Report, Table

try:
    from sklearn.metrics import roc_auc_score, roc_curve
except ImportError as error:
    raise InputError("This analysis needs scikit-learn; install it with: pip install 'dsvlfs[analyze]'") from error

_SEED = 2503_04006
_LIMITS = (0.0, 0.1, 0.15, 0.2, 0.25)
_RESAMPLES = 1000


class Presence(NamedTuple):
    """Of each request for a class that is shown, and for one that is not, (episodes,) each.

    Args:
        expected_iou, presence: as `Segmentation` has them.
    """

    expected_iou: np.ndarray
    presence: np.ndarray


class Uncertainty(NamedTuple):
    """What was measured.

    Args:
        tables: of `reliability`, before and after calibration, over the requests for a class that the query shows.
        present, absent: what is said of a class that is shown, and of one that is not.
        counts: of each present request's mask.
        emptied: of each present request, had its mask been left empty.
    """

    tables: tuple[np.ndarray, np.ndarray]
    present: Presence
    absent: Presence
    counts: list[EpisodeCounts]
    emptied: list[EpisodeCounts]


def run(model: DSVLFSModel, episodes: Sequence[Episode], arguments: argparse.Namespace) -> Report:
    """Measures and reports.

    Raises:
        InputError: the checkpoint has no calibration, or no episode's query lacks a class of another.
    """
    if model.config.calibration is None:
        raise InputError("The checkpoint has no calibration; fit one with `dsvlfs calibrate`.")
    return report(measure(model, episodes), model.config.calibration)


@torch.inference_mode()
def measure(model: DSVLFSModel, episodes: Sequence[Episode]) -> Uncertainty:
    """Asks every query for its class, and for the class of another episode that it does not show, with that one's
    supports.

    Raises:
        InputError: every query shows every class, or an episode cannot be used.
    """
    encode_support = SupportCache(model.encode_support)
    asked = [(episode.class_name, episode.support_photos) for episode in episodes]
    before, after, targets = [], [], []
    present, absent, counts, emptied = [], [], [], []
    for number, episode in enumerate(tqdm(episodes, unit="episode")):
        shown = episode.query_classes | {*episode.class_names}
        photos = {*episode.query_photos}
        others = [i for i, (name, support) in enumerate(asked) if name not in shown and photos.isdisjoint(support)]
        if not others:
            continue
        other = episodes[others[np.random.default_rng((_SEED, number)).integers(len(others))]]
        query = model.encode_query(episode.query)
        found, missed = (
            model.predict(query, source.class_name, support=encode_support(source), modes=["both"])["both"]
            for source in (episode, other)
        )
        # On the decoder's grid, where every photo weighs the same.
        size = found.logits.shape[:0:-1]
        counted = np.ones(size[::-1], dtype=bool)
        if episode.query_ignore is not None:
            counted = _share(episode.query_ignore, size) < 0.5
        targets.append(_share(episode.query_mask, size)[counted])
        before.append(found.segmentation(size=size, min_presence=0).probability[counted])
        after.append(found.calibrated(size)[counted])
        segmented, other_segmented = (prediction.segmentation(min_presence=0) for prediction in (found, missed))
        for own, mask in ((counts, segmented.mask), (emptied, np.zeros_like(segmented.mask))):
            own.append(count_episode(episode.class_name, mask, episode.query_mask, episode.query_ignore))
        present.append((segmented.expected_iou, segmented.presence))
        absent.append((other_segmented.expected_iou, other_segmented.presence))
    if not counts:
        raise InputError("Every query shows every class of the episodes; give episodes of more classes.")
    target = np.concatenate(targets)
    tables = tuple(reliability(np.concatenate(values), target) for values in (before, after))
    return Uncertainty(tables, Presence(*np.array(present).T), Presence(*np.array(absent).T), counts, emptied)


def _share(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What share of each position of a grid (width, height) the mask covers, float32 (height, width)."""
    shrunk = Image.fromarray(mask).convert("L").resize(size, Image.Resampling.BOX)
    return np.asarray(shrunk, dtype=np.float32) / 255


def auroc(present: np.ndarray, absent: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Area under the ROC of telling present from absent, with its 95 % bootstrap interval over the pairs."""
    labels = np.repeat([1, 0], len(present))
    rng = np.random.default_rng(_SEED)
    areas = []
    for _ in range(_RESAMPLES):
        chosen = rng.integers(len(present), size=len(present))
        areas.append(roc_auc_score(labels, np.concatenate([present[chosen], absent[chosen]])))
    low, high = np.percentile(areas, [2.5, 97.5])
    return float(roc_auc_score(labels, np.concatenate([present, absent]))), (float(low), float(high))


def report(found: Uncertainty, calibration: Sequence[float]) -> Report:
    """The tables, the reliability diagram and the ROC."""
    errors = [expected_calibration_error(table) for table in found.tables]
    areas = {name: auroc(getattr(found.present, name), getattr(found.absent, name)) for name in Presence._fields}
    rows = []
    for limit in _LIMITS:
        gone = found.present.presence < limit
        kept = [empty if is_gone else own for own, empty, is_gone in zip(found.counts, found.emptied, gone)]
        rows.append(
            [
                f"{limit:.2f}",
                100 * SegmentationMetrics(kept).miou(),
                100 * float(gone.mean()),
                100 * float((found.absent.presence < limit).mean()),
            ]
        )
    return Report(
        title="Uncertainty",
        how=f"{len(found.counts)} queries, each asked once for its class and once for a class that it does not show, "
        "with name and support. Expected calibration error: over the pixels of the first kind of request, 15 bins, "
        f"on the decoder's grid. Temperature {calibration[0]:g} and bias {calibration[1]:g}.",
        tables=[
            Table(
                "Expected calibration error",
                ["probability", "error"],
                [["of the mask, as it is", errors[0]], ["calibrated", errors[1]]],
                decimals=4,
            ),
            Table(
                "Is the class in the photo?",
                ["by", "AUROC", "95 % interval", "mean of present", "of absent"],
                [
                    [
                        name.replace("_", " "),
                        area,
                        f"{low:.3f} to {high:.3f}",
                        float(getattr(found.present, name).mean()),
                        float(getattr(found.absent, name).mean()),
                    ]
                    for name, (area, (low, high)) in areas.items()
                ],
                decimals=3,
            ),
            Table(
                "Masks left empty below a presence (percent)",
                ["min_presence", "mIoU of present classes", "present emptied", "absent emptied"],
                rows,
            ),
        ],
        pictures={"uncertainty": _draw(found, {name: area for name, (area, _) in areas.items()})},
        data={
            "expected_calibration_error": errors,
            "auroc": {name: area for name, (area, _) in areas.items()},
            "auroc_interval_95": {name: list(interval) for name, (_, interval) in areas.items()},
            "present": {name: values.tolist() for name, values in found.present._asdict().items()},
            "absent": {name: values.tolist() for name, values in found.absent._asdict().items()},
        },
    )


def _draw(found: Uncertainty, areas: dict[str, float]) -> Image.Image:
    figure = new_figure(9, 4)
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color="gray", linewidth=0.8, linestyle="--")
    for table, label, colour in zip(found.tables, ("as it is", "calibrated"), ("#d1823a", "#33518f")):
        filled = table[table[:, 0] > 0]
        left.plot(filled[:, 1], filled[:, 2], "-o", markersize=4, color=colour, label=label)
    left.set_xlabel("probability")
    left.set_ylabel("share of foreground")
    left.legend(frameon=False)
    labels = np.repeat([1, 0], len(found.counts))
    right.plot([0, 1], [0, 1], color="gray", linewidth=0.8, linestyle="--")
    for (name, area), colour in zip(areas.items(), ("#d1823a", "#33518f")):
        scores = np.concatenate([getattr(found.present, name), getattr(found.absent, name)])
        wrong, right_alarms, _ = roc_curve(labels, scores)
        right.plot(wrong, right_alarms, color=colour, label=f"{name.replace('_', ' ')}, AUROC {area:.3f}")
    right.set_xlabel("absent classes taken for present")
    right.set_ylabel("present classes found present")
    right.legend(frameon=False, loc="lower right")
    for axes in (left, right):
        axes.set_aspect("equal")
        axes.spines[["top", "right"]].set_visible(False)
    return as_picture(figure)
