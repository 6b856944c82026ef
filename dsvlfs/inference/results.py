"""What the model says of a photo: before a threshold, and as a mask of the photo's own size."""

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from .calibration import Calibration, expected_iou
from .presence import presence


@dataclass(frozen=True)
class Segmentation:
    """The result for one photo, in the photo's own size.

    Args:
        mask: bool (height, width).
        probability: float32 (height, width), of the class, in [0, 1].
        votes: uint16 (height, width), how many of the shots, each alone, reach the threshold.
        expected_iou: the IoU to expect of the mask, in [0, 1], by the calibrated probability; None where there is no
            calibration.
        presence: how much speaks for the class being in the photo, in [0, 1] (`dsvlfs.inference.presence`): a score to
            compare, no probability. None where there is no calibration.
        is_emptied: whether the mask was left empty for its presence.
    """

    mask: np.ndarray
    probability: np.ndarray
    votes: np.ndarray
    expected_iou: float | None = None
    presence: float | None = None
    is_emptied: bool = False


@dataclass(frozen=True)
class Prediction:
    """What the mask decoder says of one photo, before a threshold: small to keep, and a mask at any threshold and size
    without the model.

    Args:
        logits: float32 (max(K, 1), h, w) on the CPU, one map a shot, over the whole photo.
        size: (width, height) of the photo.
        vote_threshold: share of the largest vote count at which a pixel is foreground.
        joined: float32 (h, w), what the shots say together where they do not vote; None where they do.
        calibration: of the logits; None where there is none.
        fits: how well what the mask covers fits the name, the supports, or each: cosines.
        min_presence: where the presence is lower, a mask is left empty unless asked otherwise.
    """

    logits: Tensor
    size: tuple[int, int]
    vote_threshold: float
    joined: Tensor | None = None
    calibration: Calibration | None = None
    fits: tuple[float, ...] = ()
    min_presence: float = 0.0

    def segmentation(
        self, threshold: float = 0.5, size: tuple[int, int] | None = None, *, min_presence: float | None = None
    ) -> Segmentation:
        """Makes the mask.

        Args:
            threshold: probability from which on a pixel is foreground, or a shot votes for it.
            size: (width, height) of the result; None takes the photo's.
            min_presence: where the presence is lower, the mask is left empty; None takes this prediction's own, 0
                empties none, nor does any value where there is no calibration.

        Returns:
            Of shots that vote, the probability is their mean, and the mask holds the pixels whose votes reach
            `vote_threshold` of the largest count (arXiv 2503.04006, section 3.4).
        """
        size = size or self.size
        votes = np.zeros(size[::-1], dtype=np.uint16)
        total = np.zeros(size[::-1], dtype=np.float32)
        for logits in self.logits:  # one by one: at a large photo's size a map takes much memory
            probability = _probability(logits, size)
            votes += probability >= threshold
            total += probability
        probability = total / len(self.logits)
        mask = (votes > 0) & (votes >= self.vote_threshold * votes.max())
        if self.joined is not None:
            probability = _probability(self.joined, size)
            mask = probability >= threshold
        if self.calibration is None:
            return Segmentation(mask, probability, votes)
        expected = expected_iou(mask, self.calibrated(size))
        score = presence([expected, *self.fits])
        is_emptied = score < (self.min_presence if min_presence is None else min_presence)
        return Segmentation(mask & (not is_emptied), probability, votes, expected, score, is_emptied)

    @property
    def deciding(self) -> Tensor:
        """The logits that the mask is made of (maps, h, w): one map a shot where they vote, else one."""
        return self.logits if self.joined is None else self.joined[None]

    def calibrated(self, size: tuple[int, int] | None = None) -> np.ndarray:
        """The calibrated probability, float32 (height, width); of shots that vote, their mean.

        Args:
            size: (width, height) of the result; None takes the photo's.

        Raises:
            ValueError: there is no calibration.
        """
        if self.calibration is None:
            raise ValueError("This checkpoint has no calibration.")
        maps = [_probability(self.calibration(logits), size or self.size) for logits in self.deciding]
        return sum(maps) / len(maps)


def _probability(logits: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Logits (h, w) as a probability (height, width)."""
    full = F.interpolate(logits[None, None], size[::-1], mode="bilinear", align_corners=False)[0, 0]
    return full.sigmoid_().numpy()
