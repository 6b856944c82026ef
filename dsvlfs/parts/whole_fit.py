"""A fit to the supports' whole photos, where the query is of their kind.

The fit to the request reads supports cropped around their masks, and knows little of what else such photos show. In
photos that resemble one another (grains on a tray, cells, parts of a product) the rest of a support's photo tells what
is not the class in the query too. Elsewhere it tells nothing, and its map does harm (docs/experiments.md), so the
query's likeness to the supports decides.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from .request_fit import fit_request, resampled, unit_positions

GRID = 16
"""Positions of a side, to which a support's photo is pooled."""
MOST = 5
"""Supports that are read: the work grows with the cube of their number."""
_RIDGE = 0.01
"""Added to the diagonal, a position; each has a squared length of one a layer."""


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


def likeness(query: Sequence[Tensor], support: Sequence[Tensor], mask: Tensor, *, size: int) -> Tensor:
    """How much a query is like its supports: the mean over its positions of the cosine to the most alike of theirs.

    Args:
        query, support, mask, size: of `whole_fit`.

    Returns:
        A number up to 1.
    """
    positions = unit_positions([layer[:MOST] for layer in support], mask.shape[-1]).flatten(0, 1)
    across = unit_positions(query, size)[0] @ positions.mT
    return across.amax(dim=1).mean() / len(query)


def whole_fit(query: Sequence[Tensor], support: Sequence[Tensor], mask: Tensor, *, size: int) -> Tensor:
    """Scores every position of a query by the first `MOST` supports: 1 is foreground, -1 background.

    Args:
        query: (1, C_i, h_i, w_i) each; resampled to `size`.
        support: (K, C_i, ...) each, from `pooled_whole`.
        mask: (K, `GRID`, `GRID`), in [0, 1].
        size: side of the result, in positions.

    Returns:
        (1, size, size), in float32.
    """
    shown = mask[:MOST]
    layers = [resampled(layer[:MOST].float(), shown.shape[-1])[None] for layer in support]
    return fit_request(query, layers, shown[None], ridge=_RIDGE * shown.numel(), size=size)
