"""Is the class in the photo at all? Three signs of it, none of them learned for it, and their mean.

The signs fail on different photos, so that their mean orders present and absent classes better than any one alone
(docs/analysis.md, Uncertainty).
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from .aggregation import pool


def support_fit(query: Tensor, support: Tensor, masks: Tensor) -> float:
    """How well the best position of a query fits the supports: its cosine with their mean foreground.

    Args:
        query: (1, channels, height, width), one layer.
        support: (K, channels, support height, support width), the same layer.
        masks: (K, support height, support width), in [0, 1].
    """
    each = F.normalize(pool(F.normalize(support, dim=1), masks), dim=1)
    query = F.normalize(query[0].to(each.dtype), dim=0)
    cosines = torch.einsum("c,chw->hw", F.normalize(each.mean(dim=0), dim=0), query)
    return float(cosines.max())


def presence(signs: Iterable[float]) -> float:
    """The mean of the signs, each cut to [0, 1]: the IoU to expect of the mask, and the best fits of name and supports
    that there are."""
    cut = [min(max(sign, 0.0), 1.0) for sign in signs]
    return sum(cut) / len(cut)
