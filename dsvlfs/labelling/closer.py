"""A photo looked at again, closer: the same question in four overlapping views, and the mean of both looks.

What is small in the photo is large in a view. On COCO's scenes, parts of the mean are objects far more often than parts
of the first look alone (`docs/experiments.md`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..inference.calibration import Calibration, expected_iou
from ..inference.results import Prediction, Segmentation

SHARE = 0.6
"""A view's sides, in the photo's."""

View = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels."""


def views_of(width: int, height: int) -> list[View]:
    """Four views that cover a photo, one in each corner."""
    across, down = max(1, round(SHARE * width)), max(1, round(SHARE * height))
    return [
        (left, top, left + across, top + down)
        for top in dict.fromkeys((0, height - down))
        for left in dict.fromkeys((0, width - across))
    ]


@dataclass(frozen=True)
class CloserPrediction:
    """What a class's looks say together; it is asked like a `Prediction`.

    Args:
        whole: of the whole photo; it alone says how present the class is.
        views: what was looked at closer.
        closer: of each view.
    """

    whole: Prediction
    views: Sequence[View]
    closer: Sequence[Prediction]

    @property
    def calibration(self) -> Calibration | None:
        """Of the model."""
        return self.whole.calibration

    def segmentation(self, threshold: float, *, min_presence: float | None) -> Segmentation:
        """Makes the mask: of each pixel, the mean of the whole's probability and of the views' mean.

        Args:
            threshold: probability from which on a pixel is foreground.
            min_presence: as `Prediction.segmentation` takes it.
        """
        whole = self.whole.segmentation(threshold, min_presence=min_presence)
        probability = self._mean(
            whole.probability, [found.segmentation(threshold, min_presence=0).probability for found in self.closer]
        )
        mask = (probability >= threshold) & (not whole.is_emptied)
        expected = None if self.calibration is None else expected_iou(mask, self.calibrated())
        return Segmentation(mask, probability, whole.votes, expected, whole.presence, whole.is_emptied)

    def calibrated(self) -> np.ndarray:
        """The calibrated probability, float32 (height, width), as the mean of the looks."""
        return self._mean(self.whole.calibrated(), [found.calibrated() for found in self.closer])

    def _mean(self, whole: np.ndarray, closer: Sequence[np.ndarray]) -> np.ndarray:
        total, times = np.zeros_like(whole), np.zeros(whole.shape, np.uint8)
        for (left, top, right, bottom), values in zip(self.views, closer):
            total[top:bottom, left:right] += values
            times[top:bottom, left:right] += 1
        seen = times > 0
        return np.where(seen, (whole + total / np.maximum(times, 1)) / 2, whole)
