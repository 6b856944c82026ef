"""What training adds to the image encoder: LoRA (Hu et al. 2022, arXiv 2106.09685) on the layers of its blocks.

The encoder's own weights stay those of its base. A checkpoint carries the matrices of low rank alone, under names that
no release of transformers changes, as those of the encoder's layers do.
"""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

ROLES = ("query", "key", "value", "output", "fc1", "fc2")
"""A block's linear layers, in its own order."""


class LowRank(nn.Module):
    """What is added to a linear layer's result: a product of two thin matrices, which starts as nought.

    Args:
        inputs, outputs: of the layer.
        rank: of the product.
        alpha: the product is multiplied by `alpha / rank`.
    """

    def __init__(self, inputs: int, outputs: int, *, rank: int, alpha: float) -> None:
        super().__init__()
        self.scale = alpha / rank
        self.down = nn.Parameter(torch.empty(rank, inputs))
        self.up = nn.Parameter(torch.zeros(outputs, rank))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs), where and as precise as `x` is."""
        return self.scale * F.linear(F.linear(x, self.down.to(x)), self.up.to(x))


class ImageAdapter(nn.Module):
    """The matrices of low rank of all blocks.

    Args:
        blocks: of a DINOv2, whose layers are adapted from here on.
        rank, alpha: of `LowRank`.
        roles: the layers that are adapted, of `ROLES`.
    """

    def __init__(self, blocks: nn.ModuleList, *, rank: int, alpha: float, roles: Sequence[str]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        self._adapted: list[tuple[nn.Linear, LowRank, RemovableHandle]] = []
        for block in blocks:
            layers = dict(zip(ROLES, (m for m in block.modules() if isinstance(m, nn.Linear)), strict=True))
            own = nn.ModuleDict()
            for role in roles:
                layer = layers[role]
                own[role] = LowRank(layer.in_features, layer.out_features, rank=rank, alpha=alpha)
                handle = layer.register_forward_hook(partial(_add, own[role]))
                self._adapted.append((layer, own[role], handle))
            self.blocks.append(own)

    @torch.no_grad()
    def merge(self) -> None:
        """Adds the matrices to the weights, where these are at hand and not quantised: from then on they cost no time,
        and what they learn changes nothing."""
        kept = []
        for layer, own, handle in self._adapted:
            if layer.weight.is_meta or not layer.weight.is_floating_point():
                kept.append((layer, own, handle))
                continue
            layer.weight += (own.scale * own.up @ own.down).to(layer.weight)
            handle.remove()
        self._adapted = kept


def _add(own: LowRank, layer: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> Tensor:
    """A forward hook."""
    return result + own(given[0]).to(result.dtype)
