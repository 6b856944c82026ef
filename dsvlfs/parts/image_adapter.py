"""What training adds to the image encoder: LoRA (Hu et al. 2022, arXiv 2106.09685) on the layers of its blocks.

The encoder's own weights stay those of its base. A checkpoint carries the matrices of low rank alone, under names that
no release of transformers changes, as those of the encoder's layers do.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..errors import InputError

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
        roles: the layers that are adapted, of `ROLES`, each once.

    Raises:
        InputError: the rank is below 1, or the roles are none, unknown or named twice.
    """

    def __init__(self, blocks: nn.ModuleList, *, rank: int, alpha: float, roles: Sequence[str]) -> None:
        super().__init__()
        if rank < 1:
            raise InputError(f"image_lora_rank is {rank}; give a whole number from 1, or 0 for no LoRA.")
        if not roles or isinstance(roles, str) or len(set(roles)) < len(roles) or not set(roles) <= set(ROLES):
            raise InputError(f"image_lora_layers is {roles!r}; give a list of {', '.join(ROLES)}, each once at most.")
        self.blocks = nn.ModuleList()
        self._adapted: list[tuple[nn.Linear, LowRank, RemovableHandle]] = []
        self.is_merged = False
        for block in blocks:
            layers = dict(zip(ROLES, (m for m in block.modules() if isinstance(m, nn.Linear)), strict=True))
            own = nn.ModuleDict()
            for role in roles:
                layer = layers[role]
                own[role] = LowRank(layer.in_features, layer.out_features, rank=rank, alpha=alpha)
                handle = layer.register_forward_hook(partial(_add, own[role]))
                self._adapted.append((layer, own[role], handle))
            self.blocks.append(own)

    def loses(self, state: Mapping[str, Tensor]) -> bool:
        """Whether matrices of a state (the adapter's names) would change nothing, for others are merged already."""
        own = self.state_dict()
        return self.is_merged and not all(torch.equal(state[name].to(own[name]), own[name]) for name in own)

    @torch.no_grad()
    def merge(self) -> None:
        """Adds the matrices to the weights, where these are at hand and not quantised: from then on they cost no time,
        and what they learn changes nothing (`is_merged`)."""
        kept = []
        for layer, own, handle in self._adapted:
            if layer.weight.is_meta or not _is_plain(layer):
                kept.append((layer, own, handle))
                continue
            layer.weight += (own.scale * own.up @ own.down).to(layer.weight)
            handle.remove()
            self.is_merged = True
        self._adapted = kept

    def unmerged(self) -> dict[str, Tensor]:
        """What is added to results rather than to weights: the matrices and the scale of each layer that is not merged
        and has learned something, by the matrices' names."""
        kept = {id(own) for _, own, _ in self._adapted}
        found = {}
        for name, own in self.named_modules():
            if id(own) in kept and (own.up.is_meta or own.up.any()):
                found |= {f"{name}.down": own.down, f"{name}.up": own.up, f"{name}.scale": torch.tensor(own.scale)}
        return found


def _is_plain(layer: nn.Linear) -> bool:
    """Whether a layer's weight is what it multiplies with: what is quantised has a layer or a tensor of its own kind,
    and some of it is of a floating type."""
    return type(layer) is nn.Linear and type(layer.weight) is nn.Parameter and layer.weight.is_floating_point()


def _add(own: LowRank, layer: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> Tensor:
    """A forward hook."""
    return result + own(given[0]).to(result.dtype)
