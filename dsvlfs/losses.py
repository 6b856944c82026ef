"""Mask losses (arXiv 2503.04006, section 3.5); the text loss is the language model's cross-entropy."""

import torch
import torch.nn.functional as F
from torch import Tensor


def bce_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over pixels of each sample.

    Args:
        logits: (batch, height, width).
        target: the same shape, in [0, 1].

    Returns:
        (batch,)
    """
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=(1, 2))


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the Dice coefficient of each sample; shapes as in `bce_loss`. The added one keeps it defined, and
    nought, for an empty target that is met with an empty mask."""
    probability = torch.sigmoid(logits)
    overlap = (probability * target).sum(dim=(1, 2))
    total = probability.sum(dim=(1, 2)) + target.sum(dim=(1, 2))
    return 1 - (2 * overlap + 1) / (total + 1)
