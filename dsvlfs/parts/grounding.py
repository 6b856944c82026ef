"""Where in the photo the semantic prompt fits: the cosine of the prompt with every position's features.

The paper gives the semantic prompt to the mask decoder as a token alone; a large language model trained at length
learns there what it looks like. The tiny size has few photos to learn that from: here prompt and features share a
space from the start (`SemanticGrounding.align`, solved in closed form), and the map of their cosines goes into the
decoder's dense prompt as well.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .correlation import unit


def normalise(layers: Sequence[Tensor], centres: Sequence[Tensor], size: int) -> Tensor:
    """Layers on one grid: each centred, and at every position of unit length.

    Args:
        layers: (batch, C_i, h_i, w_i) each.
        centres: (C_i,) each.
        size: side of the grid.

    Returns:
        (batch, sum of C_i, size, size).
    """
    normalised = []
    for layer, centre in zip(layers, centres, strict=True):
        if layer.shape[-1] != size:
            layer = F.interpolate(layer, (size, size), mode="bilinear", align_corners=False)
        normalised.append(unit(layer - centre[:, None, None]))
    return torch.cat(normalised, dim=1)


class SemanticGrounding(nn.Module):
    """The semantic prompt's map over a photo, as a dense prompt.

    Args:
        channels: of the feature layers.
        prompt_dim: channels of the prompts.
    """

    def __init__(self, *, channels: Sequence[int], prompt_dim: int) -> None:
        super().__init__()
        self.channels = list(channels)
        self.register_buffer("centre", torch.zeros(sum(channels)))
        self.register_buffer("basis", torch.zeros(prompt_dim, sum(channels)))
        self.to_prompt = nn.Sequential(
            nn.Conv2d(2, prompt_dim, 3, padding=1), nn.ReLU(), nn.Conv2d(prompt_dim, prompt_dim, 3, padding=1)
        )

    def cosine(self, prompt: Tensor, layers: Sequence[Tensor], size: int) -> Tensor:
        """Cosine of the prompt (batch, prompt_dim) with each position (batch, size, size), in the shared space."""
        positions = normalise(layers, self.centre.split(self.channels), size).to(self.basis.dtype)
        features = torch.einsum("pc,bchw->bphw", self.basis, positions)
        return torch.einsum("bp,bphw->bhw", unit(prompt), unit(features))

    def look(self, layers: Sequence[Tensor], mask: Tensor) -> Tensor:
        """What objects look like, in the space that the prompts share.

        Args:
            layers: (batch, C_i, h_i, w_i) each.
            mask: (batch, height, width) of the objects on any grid, in [0, 1]; or several of one photo.

        Returns:
            (batch, prompt_dim), of unit length.
        """
        features = normalise(layers, self.centre.split(self.channels), mask.shape[-1])
        pooled = unit(torch.einsum("bchw,bhw->bc", features, mask.to(features)))
        return unit(pooled @ self.basis.T.to(pooled.dtype))

    def forward(self, prompt: Tensor, layers: Sequence[Tensor], size: int) -> Tensor:
        """What is added to the dense prompt.

        Args:
            prompt: semantic prompts (batch, prompt_dim).
            layers: (batch, C_i, h_i, w_i) each, resampled to `size`.
            size: side of the dense prompt, in positions.

        Returns:
            (batch, prompt_dim, size, size).
        """
        cosine = self.cosine(prompt, layers, size)[:, None]
        # How well it fits at all, and where in this photo it fits best.
        return self.to_prompt(torch.cat([cosine, F.instance_norm(cosine)], dim=1))
