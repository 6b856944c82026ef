"""How far a probability can be believed: calibrating it (Guo et al., ICML 2017), measuring that, and what follows for a
mask."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Calibration:
    """A temperature and a bias for logits.

    Args:
        temperature: above 0.
        bias: added to a logit before it is divided by the temperature.
    """

    temperature: float = 1.0
    bias: float = 0.0

    def __call__(self, logits: Tensor) -> Tensor:
        """Calibrated logits, of the same shape."""
        return (logits + self.bias) / self.temperature


def fit_calibration(logits: Tensor, target: Tensor) -> Calibration:
    """The calibration under which the targets are most likely.

    Args:
        logits: (pixels,).
        target: (pixels,), in [0, 1].
    """
    logits, target = logits.double(), target.double()
    free = torch.zeros(2, dtype=torch.float64, requires_grad=True)  # the temperature's logarithm, the bias
    optimizer = torch.optim.LBFGS([free], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        calibrated = (logits + free[1]) / free[0].exp()
        loss = F.binary_cross_entropy_with_logits(calibrated, target)
        loss.backward()
        return loss

    optimizer.step(closure)
    return Calibration(float(free[0].detach().exp()), float(free[1].detach()))


def reliability(probability: np.ndarray, target: np.ndarray, bins: int = 15) -> np.ndarray:
    """How often what is given a probability is so.

    Args:
        probability, target: (pixels,), in [0, 1].
        bins: of equal width.

    Returns:
        (bins, 3): number of pixels, their mean probability, their share of foreground; nought where there are none.
    """
    chosen = np.minimum((probability * bins).astype(int), bins - 1)
    counts, *sums = (np.bincount(chosen, weights, bins) for weights in (None, probability, target))
    return np.stack([counts, *(total / np.maximum(counts, 1) for total in sums)], axis=1)


def expected_calibration_error(table: np.ndarray) -> float:
    """Mean distance of probability and share of foreground over the pixels, of `reliability`'s table."""
    counts, probability, share = table.T
    return float((counts * np.abs(probability - share)).sum() / counts.sum())


def expected_iou(mask: np.ndarray, probability: np.ndarray) -> float:
    """The IoU to expect of a mask: expected intersection over expected union, which is close to the expected IoU.

    Args:
        mask: bool (height, width).
        probability: (height, width), calibrated.

    Returns:
        In [0, 1]; 0 for an empty mask.
    """
    union = mask.sum() + probability[~mask].sum()
    return float(probability[mask].sum() / union) if mask.any() else 0.0
