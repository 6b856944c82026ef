"""A second look at a query: what the first mask is surest of becomes one more support, cut from the query itself.

Parts of one object resemble each other more than two objects of a class do (self-support matching, Fan et al., ECCV
2022). Here nothing is learned for it: the query's features are there already, and the matcher takes any support.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .processing import context_box

# Of the way from a probability of 0.5 to the photo's highest: from there on the mask is sure.
_SURE = 0.6
# Below this probability it is sure of the background; what lies between says nothing.
_SURELY_NOT = 0.3
_FEWEST = 4
# Samples along a side of a support position, for its mean.
_OVERSAMPLING = 4


def own_support(
    layers: Sequence[Tensor], probability: Tensor, *, grid: int, context: float | None
) -> tuple[tuple[Tensor, ...], Tensor] | None:
    """The support that a query gives itself.

    Args:
        layers: (1, channels, height, width) each, of the query.
        probability: (h, w) of the first mask, on the same square.
        grid: side of the support, in positions.
        context: as the config's `support_context`, about what is not surely background.

    Returns:
        The layers (1, channels, grid, grid), nought where the first mask is unsure, and the mask (1, grid, grid), as a
        `Support` holds them; None where the mask is sure of next to nothing.
    """
    sure = probability >= 0.5 + _SURE * (probability.max() - 0.5).clamp(min=0)
    if sure.sum() < _FEWEST:
        return None
    height, width = probability.shape
    left, top, right, bottom = (0, 0, width, height)
    if context is not None:
        left, top, right, bottom = context_box((probability >= _SURELY_NOT).cpu().numpy(), context)
    steps = (torch.arange(grid * _OVERSAMPLING, device=probability.device) + 0.5) / (grid * _OVERSAMPLING)
    x = (left + steps * (right - left)) / width * 2 - 1
    y = (top + steps * (bottom - top)) / height * 2 - 1
    places = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]

    def cut(maps: Tensor) -> Tensor:
        sampled = F.grid_sample(maps, places.to(maps.dtype), padding_mode="border", align_corners=False)
        return F.adaptive_avg_pool2d(sampled, grid)

    known = cut((sure | (probability < _SURELY_NOT)).to(probability.dtype)[None, None]) > 0.5
    return tuple(cut(layer) * known for layer in layers), cut(sure.to(probability.dtype)[None, None])[:, 0]
