"""Whether the correlation still tells positions apart: a few figures a layer, cheap enough to log in training."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..parts.correlation import Correlation
from ..parts.matching import DenseMatcher, Match

MEASURES = ("mean", "spread", "entropy", "zeros", "silent", "contrast")
"""What `correlation_health` gives, in its order, of the clamped cosines between every position of the query and the
support's foreground:

- mean: of the cosines;
- spread: their standard deviation as a share of their mean;
- entropy: of each query position's cosines, as shares of their sum, over the support's positions; 1 is even, 0 all on
  one position; mean over the query's positions that have any;
- zeros: share of the cosines that are nought;
- silent: share of the query's positions all of whose cosines are nought;
- contrast: mean over the query's foreground of a position's mean cosine, less that over its background, in standard
  deviations over the positions.
"""

SMALLEST_SPREAD = 2**-7
LARGEST_SILENCE = 0.5


def is_collapsed(spread: float, silent: float) -> bool:
    """Whether a layer of these figures has collapsed.

    It is *constant* where its cosines spread by less than 2^-7 of their mean: bfloat16, which training computes in,
    has eight significant bits, so that most of such cosines are stored as one of two neighbouring numbers. It is
    *silent* where most of the query's positions have no positive cosine at all: the clamp leaves nothing to compare
    them by. What comes after standardises its input, and makes of either a picture of rounding.
    """
    return not (spread >= SMALLEST_SPREAD and silent <= LARGEST_SILENCE)


class Matched(NamedTuple):
    """What a matcher was given, as `DenseMatcher.match` takes it."""

    query: Sequence[Tensor]
    support: Sequence[Tensor]
    mask: Tensor


@contextmanager
def watched(matcher: DenseMatcher) -> Iterator[list[Matched]]:
    """Keeps what the matcher is given last meanwhile, as the only entry; earlier calls' features may be large."""
    last: list[Matched] = []

    match = matcher.match

    def keep(query: Sequence[Tensor], support: Sequence[Tensor], mask: Tensor, size: int) -> Match:
        last[:] = [Matched(query, support, mask)]
        return match(query, support, mask, size)

    matcher.match = keep  # type: ignore[method-assign]
    try:
        yield last
    finally:
        del matcher.match


@torch.no_grad()
def correlation_health(query: Sequence[Tensor], support: Sequence[Tensor], mask: Tensor, target: Tensor) -> Tensor:
    """Measures the correlation of queries with one support each.

    Args:
        query: a tensor (batch, channels, height, width) a layer, of any sizes; a batch of one is compared with every
            support.
        support: a tensor (batch, channels, support height, support width) a layer.
        mask: (batch, support height, support width), in [0, 1]. The cells with at least half of its maximum are
            compared with.
        target: (batch, height, width) of any size, the query's foreground in [0, 1]; one for a query batch of one.

    Returns:
        (batch, layers, measures), NaN where a measure has nothing to be taken of (no background, one support position).
    """
    target = target.float().expand(len(mask), -1, -1)
    rows = []
    for i, chosen in enumerate(mask >= mask.amax(dim=(1, 2), keepdim=True) / 2):
        pairs = zip((q.expand(len(mask), -1, -1, -1)[i : i + 1] for q in query), support, strict=True)
        rows.append(torch.stack([_of_layer(q.float(), s[i : i + 1].float(), chosen, target[i]) for q, s in pairs]))
    return torch.stack(rows)


def _of_layer(query: Tensor, support: Tensor, chosen: Tensor, target: Tensor) -> Tensor:
    """(measures,) of one query (1, channels, height, width) and support."""
    correlation = Correlation([query], [support], chosen[None].float())
    box = correlation.mask[0] > 0
    cosines = torch.cat([correlation[rows][0, ..., 0][:, :, box].flatten(0, 1) for rows in correlation.parts])
    mean, total = cosines.mean(), cosines.sum(dim=1)
    speaking = total > 0
    shares = cosines[speaking] / total[speaking, None]
    positions = cosines.shape[1]
    entropy = torch.special.entr(shares).sum(dim=1).mean() / (math.log(positions) if positions > 1 else math.nan)
    foreground = F.adaptive_avg_pool2d(target[None], (query.shape[-2], query.shape[-1])).flatten()
    level = cosines.mean(dim=1)
    on, off = ((level * weight).sum() / weight.sum() for weight in (foreground, 1 - foreground))
    measures = {
        "mean": mean,
        "spread": cosines.std(correction=0) / mean.clamp(min=1e-12),
        "entropy": entropy,
        "zeros": (cosines == 0).float().mean(),
        "silent": 1 - speaking.float().mean(),
        "contrast": (on - off) / level.std(correction=0).clamp(min=1e-12),
    }
    return torch.stack([measures[name] for name in MEASURES])
