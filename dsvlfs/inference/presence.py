"""Is the class in the photo at all? Three signs of it, none of them learned for it, and their mean.

The signs fail on different photos, so that their mean orders present and absent classes better than any one alone
(docs/analysis.md, Uncertainty).
"""

from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor

from ..parts.aggregation import pool
from ..parts.correlation import unit


def support_fit(query: Tensor, covered: Tensor, support: Tensor, masks: Tensor) -> float:
    """How much what a mask covers looks like the supports' foreground: the cosine of the mean features.

    Args:
        query: (1, channels, height, width), one layer.
        covered: (1, query's side, query's side), how much of each cell of the query's square the mask covers, on any
            grid, in [0, 1].
        support: (K, channels, support height, support width), the same layer.
        masks: (K, support height, support width), in [0, 1].
    """
    covered = F.adaptive_avg_pool2d(covered, query.shape[-2:])
    found = unit(pool(unit(query), covered))
    shown = unit(pool(unit(support), masks))
    return float(F.cosine_similarity(found, shown.mean(dim=0, keepdim=True).to(found)))


def presence(signs: Iterable[float]) -> float:
    """The mean of the signs, each cut to [0, 1]: the IoU to expect of the mask, and how well what it covers fits the
    name and the supports, of those that there are."""
    cut = [min(max(sign, 0.0), 1.0) for sign in signs]
    return sum(cut) / len(cut)
