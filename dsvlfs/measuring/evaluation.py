"""Measures a segmenter on episodes, divided between Accelerate's processes."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from cachetools import LRUCache
from torch.utils.data import Subset
from tqdm import tqdm

from ..data.episodes import Episode, Example, is_shared
from ..data.loading import load_ahead
from ..descriptions.bank import bank_description
from ..inference.results import Segmentation
from ..parts.aggregation import Aggregation
from ..processes import failing_together, gather, join_processes
from .metrics import EpisodeCounts, SegmentationMetrics, count_episode, known_mean, predicted_tile

# Half a gigabyte of the tiny size's.
_SUPPORTS_KEPT = 512


class Segmenter(Protocol):
    """What is measured: `DSVLFSModel`, `PrototypeSegmenter`, `MutualSegmenter`."""

    def encode_support(self, examples: Sequence[Example]) -> Any:
        """Encodes support photos with their masks, for any number of queries; the class of what it returns has `join`,
        which makes one support of several."""

    def encode_query(self, photos: Any) -> Any:
        """Encodes a query photo, for any number of classes, supports and modes."""

    def segment(self, images: Any, class_name: str, *, support: Any, mode: str, **options: Any) -> Segmentation:
        """Segments what `encode_query` gave; `description` and `aggregation` are among the options where they are
        asked for."""


class SupportCache:
    """The latest support photos that were encoded: episodes share them in ever new sets.

    Args:
        encode: photos with their masks to a support, of whose class `join` makes one of several.
    """

    def __init__(self, encode: Callable[[Sequence[Example]], Any]) -> None:
        self._encode = encode
        self._supports: LRUCache[str, Any] = LRUCache(_SUPPORTS_KEPT)

    def __call__(self, episode: Episode) -> Any:
        """The episode's support."""
        encoded = []
        for support_id, example in zip(episode.support_ids, episode.support, strict=True):
            if support_id not in self._supports:
                self._supports[support_id] = self._encode([example])
            encoded.append(self._supports[support_id])
        return type(encoded[0]).join(encoded) if len(encoded) > 1 else encoded[0]


@dataclass(frozen=True)
class _Outcome:
    """What is kept of an episode."""

    counts: EpisodeCounts
    class_names: tuple[str, ...]
    seed: int
    seconds: float
    base_known: bool
    right_tile: bool | None
    described: bool


def evaluate(
    segmenter: Segmenter,
    episodes: Sequence[Episode],
    *,
    modes: Sequence[str],
    comparisons: Mapping[str, Segmenter] | None = None,
    aggregation: Aggregation | None = None,
    describe: bool = False,
    long_descriptions: bool = False,
    workers: int = 0,
    trained_classes: Collection[str] | None = None,
    square: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Segments every episode's query, by each mode. Accelerate's processes take an equal share each; all return the
    same results, which do not depend on their number.

    Args:
        modes: which prompts the segmenter uses: "both", "semantic" (no support is shown) or "visual". A query is
            encoded once for all of them, and once for episodes that follow each other with the same one.
        comparisons: segmenters by name that are measured beside, by the supports alone, on what `segmenter` makes of
            the queries.
        aggregation: how several supports become one mask; None leaves it to the segmenter.
        describe: whether to ask with the class's description, the episode's own or else the bank's, where there is one.
        long_descriptions: whether the bank's is its paragraph.
        workers: processes that read photos ahead; 0 reads them in between.
        trained_classes: names, in lower case, of the classes that the segmenter was trained on; the episodes' classes
            that are among them are then reported apart.
        square: side to which masks are brought before their pixels are counted, so that large photos weigh no more than
            others (the reference); None counts at each photo's own size.

    Returns:
        A result a mode and a comparison. In percent: `miou`, `fb_iou`, `iou` (by class), `boundary_iou`,
        `miou_interval_95` ([low, high], by bootstrap over all episodes); where known, `base_false_positive_rate` (the
        share of the pixels of trained classes' objects in the queries that the masks cover; None where no query shows
        any); for mosaics `right_tile`, the percentage of episodes whose tile with most predicted foreground is the
        class's; and with `trained_classes`, `shared_classes` and `new_classes`, each with its `classes` and their
        `miou` (None where there are none). Besides: `episodes`, their number, `seconds_per_query`, the mean without the
        supports' encoding, and with `describe`, `described`, the number of episodes that had a description.

        With episodes of several seeds each measure is taken of every seed and averaged, and `miou_by_seed` and
        `miou_std` (over the seeds, n - 1) tell how far they differ.

    Raises:
        InputError: an episode's photo or mask cannot be used, in any process.
    """
    state = join_processes()
    with state.split_between_processes(list(range(len(episodes)))) as own, failing_together():
        outcomes = _run(
            segmenter,
            comparisons or {},
            episodes,
            own,
            modes,
            aggregation,
            describe,
            long_descriptions,
            workers,
            square,
            show_progress=state.is_main_process,
        )
    outcomes = gather(outcomes)
    return {
        name: _result([by_name[name] for by_name in outcomes], describe=describe, trained_classes=trained_classes)
        for name in (*modes, *(comparisons or {}))
    }


def _result(outcomes: Sequence[_Outcome], *, describe: bool, trained_classes: Collection[str] | None) -> dict[str, Any]:
    """What `evaluate` says of a mode."""
    seeds = sorted({outcome.seed for outcome in outcomes})
    by_seed = [SegmentationMetrics(o.counts for o in outcomes if o.seed == seed) for seed in seeds]
    pooled = SegmentationMetrics(outcome.counts for outcome in outcomes)

    def over_seeds(measure: Callable[[SegmentationMetrics], float]) -> float:
        return 100 * known_mean(measure(metrics) for metrics in by_seed)

    def of_class(name: str) -> float:
        return over_seeds(lambda m: m.iou_by_class().get(name, float("nan")))

    def of_classes(names: Collection[str]) -> dict[str, Any]:
        return {"classes": sorted(names), "miou": over_seeds(lambda m: m.miou(names)) if names else None}

    result = {
        "miou": over_seeds(SegmentationMetrics.miou),
        "fb_iou": over_seeds(SegmentationMetrics.fb_iou),
        "iou": {name: of_class(name) for name in pooled.iou_by_class()},
        "boundary_iou": over_seeds(SegmentationMetrics.boundary_iou),
        "miou_interval_95": [100 * end for end in pooled.bootstrap_interval()],
        "episodes": len(outcomes),
        "seconds_per_query": sum(outcome.seconds for outcome in outcomes) / len(outcomes),
    }
    if describe:
        result["described"] = sum(outcome.described for outcome in outcomes)
    if len(seeds) > 1:
        mious = [100 * metrics.miou() for metrics in by_seed]
        result |= {"miou_by_seed": dict(zip(map(str, seeds), mious)), "miou_std": float(np.std(mious, ddof=1))}
    if any(outcome.base_known for outcome in outcomes):
        rate = over_seeds(SegmentationMetrics.base_false_positive_rate)
        result["base_false_positive_rate"] = None if np.isnan(rate) else rate
    if trained_classes is not None:
        names = {outcome.counts.class_name: outcome.class_names for outcome in outcomes}
        shared = {name for name, others in names.items() if is_shared(others, trained_classes)}
        result |= {"shared_classes": of_classes(shared), "new_classes": of_classes(names.keys() - shared)}
    if right_tiles := [outcome.right_tile for outcome in outcomes if outcome.right_tile is not None]:
        result["right_tile"] = 100 * sum(right_tiles) / len(right_tiles)
    return result


def _run(
    segmenter: Segmenter,
    comparisons: Mapping[str, Segmenter],
    episodes: Sequence[Episode],
    indices: Sequence[int],
    modes: Sequence[str],
    aggregation: Aggregation | None,
    describe: bool,
    long_descriptions: bool,
    workers: int,
    square: int | None,
    *,
    show_progress: bool,
) -> list[dict[str, _Outcome]]:
    """Outcomes of these episodes, in order, by mode and comparison."""
    # Those of one query follow each other, wherever the file has them.
    query_id = getattr(episodes, "query_id", str)
    order = sorted(range(len(indices)), key=lambda place: (query_id(indices[place]), place))
    chosen: Any = Subset(episodes, [indices[place] for place in order])  # type: ignore[arg-type]
    loader = load_ahead(chosen, workers=workers, batch_size=None)
    encode_support = SupportCache(segmenter.encode_support)
    supports_of = {name: SupportCache(other.encode_support) for name, other in comparisons.items()}
    options: dict[str, Any] = {} if aggregation is None else {"aggregation": aggregation}
    outcomes: dict[int, dict[str, _Outcome]] = {}
    latest: str | None = None
    query, encoding = None, 0.0
    for place, episode in zip(order, tqdm(loader, unit="episode", total=len(order), disable=not show_progress)):
        if latest != (latest := query_id(indices[place])):
            start = time.perf_counter()
            query = segmenter.encode_query(episode.query)
            encoding = time.perf_counter() - start
        support = encode_support(episode) if {*modes} - {"semantic"} else None
        if describe:
            options["description"] = episode.description or bank_description(episode.class_name, long=long_descriptions)
        asked = [(mode, segmenter, mode, None if mode == "semantic" else support, options) for mode in modes]
        asked += [(name, other, "visual", supports_of[name](episode), {}) for name, other in comparisons.items()]
        outcomes[place] = {}
        for name, one, mode, shown, own in asked:
            start = time.perf_counter()
            prediction = one.segment(query, episode.class_name, support=shown, mode=mode, **own).mask
            seconds = encoding + time.perf_counter() - start
            outcomes[place][name] = _outcome(
                episode, prediction, seconds, square=square, described=bool(own.get("description"))
            )
    return [outcomes[place] for place in range(len(indices))]


def _outcome(
    episode: Episode, prediction: np.ndarray, seconds: float, *, square: int | None, described: bool
) -> _Outcome:
    right_tile = None
    if episode.layout is not None:
        right_tile = predicted_tile(prediction, episode.layout) == episode.position

    def counted(mask: np.ndarray) -> np.ndarray:
        return mask if square is None else _squared(mask, square)

    ignore, base = (None if mask is None else counted(mask) for mask in (episode.query_ignore, episode.query_base))
    return _Outcome(
        counts=count_episode(episode.class_name, counted(prediction), counted(episode.query_mask), ignore, base),
        class_names=episode.class_names,
        seed=episode.seed,
        seconds=seconds,
        base_known=episode.query_base is not None,
        right_tile=right_tile,
        described=described,
    )


def _squared(mask: np.ndarray, side: int) -> np.ndarray:
    """A mask on a square, by the nearest pixel."""
    rows, columns = ((np.arange(side) + 0.5) * length // side for length in mask.shape)
    return mask[rows.astype(int)[:, None], columns.astype(int)]
