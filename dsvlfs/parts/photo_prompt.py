"""What the photo adds to the prompt that the class alone gives.

The states of all classes lie close together, so a language model that is trained to read the photo drowns the names
(docs/experiments.md). Here the name's share of the prompt stays as it was fitted, from a state that read no photo, and
the photo's is the projection of a second state, of its own, that starts at nought.
"""

import torch
from torch import Tensor, nn


class PhotoPrompt(nn.Module):
    """The projection of the state that has read the class and the photo.

    Args:
        width: of the state.
        prompt_dim: channels of the semantic prompt.
    """

    def __init__(self, *, width: int, prompt_dim: int) -> None:
        super().__init__()
        self.register_buffer("silent", torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.to_prompt = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, prompt_dim))
        nn.init.zeros_(self.to_prompt[-1].weight)
        nn.init.zeros_(self.to_prompt[-1].bias)

    @torch.no_grad()
    def start(self, silent: Tensor, states: Tensor) -> None:
        """Sets what is not learned.

        Args:
            silent: (width,), the embedding that the class's own pass reads at every photo token.
            states: (texts, width), from which the standardisation is taken.
        """
        self.silent.copy_(silent)
        self.mean.copy_(states.mean(dim=0))
        self.scale.copy_(1 / states.std(dim=0, correction=0).clamp(min=1e-3))

    @property
    def is_silent(self) -> bool:
        """Whether it adds nothing, whatever it is given. False where its matrix is not here: divided or offloaded."""
        weight, bias = self.to_prompt[-1].weight, self.to_prompt[-1].bias
        return not weight.is_meta and weight.numel() > 0 and not weight.any() and not bias.any()

    def forward(self, state: Tensor) -> Tensor:
        """(batch, width) to what is added to the prompt (batch, prompt_dim)."""
        return self.to_prompt((state.to(self.mean) - self.mean) * self.scale)
