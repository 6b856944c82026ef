"""What the model says of a photo: before a threshold, and as a mask of the photo's own size."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .calibration import Calibration
from .presence import presence

_ROWS = 256  # of a photo's size at a time


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
        is_name_heard: False where a name was given and left out, for it does not fit what the supports show.
    """

    mask: np.ndarray
    probability: np.ndarray
    votes: np.ndarray
    expected_iou: float | None = None
    presence: float | None = None
    is_emptied: bool = False
    is_name_heard: bool = True


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
        is_name_heard: see `Segmentation`.
    """

    logits: Tensor
    size: tuple[int, int]
    vote_threshold: float
    joined: Tensor | None = None
    calibration: Calibration | None = None
    fits: tuple[float, ...] = ()
    min_presence: float = 0.0
    is_name_heard: bool = True

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
        mask = self._mask(threshold, size)
        known: dict[str, Any] = {"mask": mask, "is_name_heard": self.is_name_heard}
        if self.calibration is not None:
            expected = self._expected_iou(mask)
            score = presence([expected, *self.fits])
            is_emptied = score < (self.min_presence if min_presence is None else min_presence)
            mask &= not is_emptied
            known |= {"expected_iou": expected, "presence": score, "is_emptied": is_emptied}
        return _WithMapsLater(self, threshold, size, **known)

    def maps(self, threshold: float, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """A segmentation's probability, float32 (height, width), and votes, uint16."""
        probability = np.zeros(size[::-1], dtype=np.float32)
        votes = np.zeros(size[::-1], dtype=np.uint16)
        for logits in self.logits:
            for rows, band in _bands(logits, size):
                votes[rows] += band >= threshold
                probability[rows] += band
        probability /= len(self.logits)
        if self.joined is not None:
            for rows, band in _bands(self.joined, size):
                probability[rows] = band
        return probability, votes

    def _mask(self, threshold: float, size: tuple[int, int]) -> np.ndarray:
        if self.joined is not None or len(self.logits) == 1:
            mask = np.empty(size[::-1], dtype=bool)
            for rows, band in _bands(self.deciding[0], size):
                mask[rows] = band >= threshold
            return mask
        _, votes = self.maps(threshold, size)
        return (votes > 0) & (votes >= self.vote_threshold * votes.max())

    def _expected_iou(self, mask: np.ndarray) -> float:
        """`dsvlfs.inference.calibration.expected_iou` by the calibrated probability, of which only a part is there at a
        time."""
        inside = outside = 0.0
        for logits in self.deciding:
            for rows, band in _bands(self.calibration(logits), mask.shape[::-1]):
                inside += float(band[mask[rows]].sum(dtype=np.float64))
                outside += float(band[~mask[rows]].sum(dtype=np.float64))
        union = len(self.deciding) * int(mask.sum()) + outside
        return inside / union if mask.any() else 0.0

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
        size = size or self.size
        probability = np.zeros(size[::-1], dtype=np.float32)
        for logits in self.deciding:
            for rows, band in _bands(self.calibration(logits), size):
                probability[rows] += band
        return probability / len(self.deciding)


class _WithMapsLater(Segmentation):
    """A segmentation whose probability and votes are made when they are asked for: at a large photo's size they take
    several times its memory."""

    def __init__(self, prediction: Prediction, threshold: float, size: tuple[int, int], **known: Any) -> None:
        for name, value in known.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "_made_of", (prediction, threshold, size))

    def __getattr__(self, name: str) -> Any:
        if name not in ("probability", "votes"):
            raise AttributeError(name)
        prediction, threshold, size = self._made_of
        probability, votes = prediction.maps(threshold, size)
        object.__setattr__(self, "probability", probability)
        object.__setattr__(self, "votes", votes)
        return getattr(self, name)


def _bands(logits: Tensor, size: tuple[int, int]) -> Iterator[tuple[slice, np.ndarray]]:
    """Logits (h, w) as a probability of a photo's size, some rows at a time: a slice of rows, float32 (rows, width)."""
    width, height = size
    wide = F.interpolate(logits[None, None].float(), (len(logits), width), mode="bilinear", align_corners=False)[0, 0]
    for top in range(0, height, _ROWS):
        rows = slice(top, min(top + _ROWS, height))
        places = (
            (torch.arange(rows.start, rows.stop, dtype=torch.float32) + 0.5) * (len(logits) / height) - 0.5
        ).clamp(min=0)
        above = places.long().clamp(max=len(logits) - 1)
        below = (above + 1).clamp(max=len(logits) - 1)
        share = (places - above)[:, None].float()
        yield rows, torch.lerp(wide[above], wide[below], share).sigmoid_().numpy()
