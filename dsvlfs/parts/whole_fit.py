"""A fit to the supports' whole photos, where the query is of their kind.

The fit to the request reads supports cropped around their masks, and knows little of what else such photos show. In
photos that resemble one another (grains on a tray, cells, parts of a product) the rest of a support's photo tells what
is not the class in the query too. Elsewhere it tells nothing, and its map does harm (docs/experiments.md), so the
query's likeness to the supports decides.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from .request_fit import balanced, conjugate_gradients, resampled, unit_positions

GRID = 32
"""Positions of a side, to which a support's photo is pooled."""
MOST = 5
"""Supports that are read."""
_COARSE = 16
"""Positions of a side of a support's photo that a query's likeness is told by."""
_RIDGE = 0.01
"""Added to the diagonal, a position; each has a squared length of one a layer."""
_STEPS = 32
"""Of conjugate gradients: from one support to five the map is then within 1e-5 of the exact one."""


class WholeFit(NamedTuple):
    """What supports' whole photos say of any query, once for all of them.

    Args:
        direction: (channels, 1), which tells foreground from background.
        positions: (n, channels), what the photos show.
        layers: how many there are side by side in both.
    """

    direction: Tensor
    positions: Tensor
    layers: int

    def likeness(self, places: Tensor) -> Tensor:
        """How much a query is like the supports: the mean over its positions of the cosine to the most alike of theirs.

        Args:
            places: (1, n, channels), a query's `unit_positions`.

        Returns:
            A number up to 1.
        """
        return (places[0] @ self.positions.mT).amax(dim=1).mean() / self.layers

    def score(self, places: Tensor) -> Tensor:
        """Scores every position of a query, as `fit_request` does: (1, n), of the argument of `likeness`."""
        return (places @ self.direction)[:, :, 0]


def pooled_whole(layers: Sequence[Tensor], mask: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """What is kept of a support's whole photo.

    Args:
        layers: (1, C_i, h_i, w_i) each, of the photo as a query is seen.
        mask: (1, height, width) on the same square, in [0, 1].

    Returns:
        A tensor (1, C_i, `GRID`, `GRID`) a layer, a coarser one as it is; and the mask (1, `GRID`, `GRID`).
    """
    kept = tuple(F.adaptive_avg_pool2d(layer, GRID) if layer.shape[-1] > GRID else layer for layer in layers)
    return kept, F.adaptive_avg_pool2d(mask[:, None].to(layers[0].device), GRID)[:, 0]


def fit_whole(support: Sequence[Tensor], mask: Tensor) -> WholeFit:
    """Solves the fit to the first `MOST` supports by conjugate gradients, which need no matrix of all positions.

    Args:
        support: (K, C_i, ...) each, from `pooled_whole`.
        mask: (K, side, side), likewise, in [0, 1].
    """
    layers, shown = [layer[:MOST].float() for layer in support], mask[:MOST].float()
    side = shown.shape[-1]
    positions = unit_positions(layers, side).flatten(0, 1)[None]
    share = shown.flatten()[None]
    root = balanced(share)[:, :, None]
    ridge = _RIDGE * share.shape[1]
    wanted = root * (2 * share - 1)[:, :, None]

    def multiplied(x: Tensor) -> Tensor:
        return root * (positions @ (positions.mT @ (root * x))) + ridge * x

    direction = positions.mT @ (root * conjugate_gradients(multiplied, wanted, _STEPS))
    coarse = min(side, _COARSE)
    pooled = [F.adaptive_avg_pool2d(resampled(layer, side), coarse) for layer in layers]
    return WholeFit(direction[0], unit_positions(pooled, coarse).flatten(0, 1), len(layers))
