"""Measures a segmenter on fixed episodes."""

import time
from collections.abc import Sequence
from typing import Any, Protocol

from tqdm import tqdm

from .data.episodes import Episode, Example
from .metrics import SegmentationMetrics, predicted_tile
from .processing import Segmentation

# Files list episodes by class, so that the supports that come again are among the latest.
_SUPPORTS_KEPT = 32


class Segmenter(Protocol):
    """What is measured: `DSVLFSModel`, `PrototypeSegmenter`."""

    def encode_support(self, examples: Sequence[Example]) -> Any:
        """Encodes support photos with their masks, for any number of queries."""

    def segment(self, images: Any, class_name: str, *, support: Any, mode: str) -> Segmentation:
        """Segments a photo."""


def evaluate(segmenter: Segmenter, episodes: Sequence[Episode], *, mode: str) -> dict[str, Any]:
    """Segments every episode's query.

    Args:
        mode: which prompts the segmenter uses: "both", "semantic" (no support is shown) or "visual".

    Returns:
        `miou`, `fb_iou`, `iou` (by class) and `miou_interval_95` ([low, high], by bootstrap over episodes), in percent;
        `episodes`, their number; `seconds_per_query`, the mean without the supports' encoding; and for mosaics
        `right_tile`, the percentage of episodes whose tile with most predicted foreground is the class's.

    Raises:
        InputError: an episode's photo or mask cannot be used.
    """
    metrics = SegmentationMetrics()
    supports: dict[tuple[str, ...], Any] = {}
    seconds = 0.0
    right_tiles: list[bool] = []
    for episode in tqdm(episodes, unit="episode"):
        support = None
        if mode != "semantic":
            if episode.support_ids not in supports:
                if len(supports) == _SUPPORTS_KEPT:
                    del supports[next(iter(supports))]
                supports[episode.support_ids] = segmenter.encode_support(episode.support)
            support = supports[episode.support_ids]
        start = time.perf_counter()
        prediction = segmenter.segment(episode.query, episode.class_name, support=support, mode=mode).mask
        seconds += time.perf_counter() - start
        metrics.update(episode.class_name, prediction, episode.query_mask)
        if episode.layout is not None:
            right_tiles.append(predicted_tile(prediction, episode.layout) == episode.position)
    result = {
        "miou": 100 * metrics.miou(),
        "fb_iou": 100 * metrics.fb_iou(),
        "iou": {name: 100 * iou for name, iou in metrics.iou_by_class().items()},
        "miou_interval_95": [100 * end for end in metrics.bootstrap_interval()],
        "episodes": len(episodes),
        "seconds_per_query": seconds / len(episodes),
    }
    if right_tiles:
        result["right_tile"] = 100 * sum(right_tiles) / len(right_tiles)
    return result
