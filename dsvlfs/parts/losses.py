"""Mask losses (arXiv 2503.04006, section 3.5); the text loss is the language model's cross-entropy."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class TrainingOutput:
    """Logits (batch, height, width) and losses: their weighted sum, and each alone, averaged over the batch. The
    loss of the fit to the request is nought where it is not taken."""

    logits: Tensor
    loss: Tensor
    text_loss: Tensor
    bce_loss: Tensor
    dice_loss: Tensor
    fit_loss: Tensor


def bce_loss(logits: Tensor, target: Tensor, counted: Tensor | None = None) -> Tensor:
    """Binary cross-entropy, the mean over the counted pixels of each sample.

    Args:
        logits: (batch, height, width).
        target: the same shape, in [0, 1].
        counted: the same shape, in [0, 1]: the share of each pixel that counts; None counts all. A sample of which
            nothing counts has no loss.

    Returns:
        (batch,)
    """
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    if counted is None:
        return loss.mean(dim=(1, 2))
    return (loss * counted).sum(dim=(1, 2)) / counted.sum(dim=(1, 2)).clamp(min=1)


def dice_loss(logits: Tensor, target: Tensor, counted: Tensor | None = None) -> Tensor:
    """One minus the Dice coefficient of each sample over its counted pixels; shapes as in `bce_loss`. The added one
    keeps it defined, and nought, for an empty target that is met with an empty mask."""
    probability = torch.sigmoid(logits)
    shared, both = probability * target, probability + target
    if counted is not None:
        shared, both = shared * counted, both * counted
    return 1 - (2 * shared.sum(dim=(1, 2)) + 1) / (both.sum(dim=(1, 2)) + 1)
