"""Which words a language model does not know, told by its state alone.

The states of words that mean nothing lie to one side of those of names: the model has nothing to say of any of them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class UnknownWords(nn.Module):
    """What the states of words that mean nothing have in common.

    Args:
        width: of the state.
    """

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.register_buffer("direction", torch.zeros(width))

    @torch.no_grad()
    def fit(self, states: Tensor) -> None:
        """Learns it from the states (words, width) of words that mean nothing, standardised as those of names are."""
        self.direction.copy_(F.normalize(states.mean(dim=0), dim=0))

    def forward(self, state: Tensor) -> Tensor:
        """How like such a word's each of the standardised states (batch, width) is: cosines (batch,), from -1 to 1;
        before `fit` -1."""
        return torch.where(self.direction.any(), F.cosine_similarity(state, self.direction.to(state)[None]), -1.0)
