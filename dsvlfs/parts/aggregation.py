"""Several supports to one prediction: the ways there are, and the one that is learned.

The paper lets the shots vote (arXiv 2503.04006, section 3.4): every support counts the same, however badly its mask or
its class fits the others'. `ShotAttention` weighs the supports' visual prompts against each other instead, so that the
decoder runs once and a support that disagrees with the rest can be left out.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from .correlation import unit

Aggregation = Literal["votes", "logits", "joint", "attention"]
AGGREGATIONS: tuple[Aggregation, ...] = ("votes", "logits", "joint", "attention")
"""How K supports become one mask: "votes", a prediction a shot, which votes; "logits", the mean of their logits;
"joint", one visual prompt from the correlation with all supports side by side; "attention", one visual prompt as
`ShotAttention` weighs the shots'."""

# Cosines of good and bad supports differ by tenths.
_COSINE_UNIT = 0.1


def support_evidence(layers: Sequence[Tensor], masks: Tensor, fit: Tensor | None = None) -> Tensor:
    """How well each support agrees with the others, and with the class's name, before any query is seen.

    Args:
        layers: (K, channels, height, width) each, of K >= 2 supports.
        masks: (K, height, width), in [0, 1].
        fit: (K, height, width), cosine of the semantic prompt with each position; None where there is no name.

    Returns:
        (K, 2 layers + 3): for each layer the mean cosine with the other supports of the foreground's mean feature, and
        of its difference from the background's, which a wrong mask turns round; then the name's cosine with the
        foreground, how much that is above the background's, and 1 where there is a name. Cosines in tenths.
    """
    columns = []
    for layer in layers:
        positions = unit(layer)
        foreground, background = pool(positions, masks), pool(positions, 1 - masks)
        for feature in (foreground, foreground - background):
            feature = unit(feature)
            cosines = feature @ feature.T
            columns.append((cosines.sum(dim=1) - cosines.diagonal()) / (len(masks) - 1))
    if fit is None:
        columns += [masks.new_zeros(len(masks))] * 3
    else:
        foreground, background = (pool(fit[:, None], m)[:, 0] for m in (masks, 1 - masks))
        columns += [foreground, foreground - background, torch.full_like(foreground, _COSINE_UNIT)]
    return torch.stack(columns, dim=1) / _COSINE_UNIT


def pool(features: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean (K, channels) over the positions, in the weights' precision."""
    features = features.to(weights.dtype)
    return torch.einsum("kchw,khw->kc", features, weights) / weights.sum(dim=(1, 2)).clamp(min=1e-6)[:, None]


class ShotAttention(nn.Module):
    """The visual prompts of K shots to one, for any K, whatever their order.

    Each shot gets a score of its own and one at every position, from what it says and from what the set says in the
    mean (as in Deep Sets, Zaheer et al. 2017); a softmax over the shots makes weights of their sum. A single shot is
    left as it is, so that what is learned about several changes nothing about one.

    Args:
        layers: number of the correlation's layers.
        prompt_dim: channels of the prompts.
        hidden: width of the scores' hidden layers.
    """

    def __init__(self, *, layers: int, prompt_dim: int, hidden: int = 32) -> None:
        super().__init__()
        self.position_score = nn.Sequential(nn.Conv2d(2 * prompt_dim, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, 1, 1))
        evidence = 2 * layers + 3
        self.shot_score = nn.Sequential(nn.Linear(2 * (prompt_dim + evidence), hidden), nn.ReLU(), nn.Linear(hidden, 1))
        # Without biases: nothing where the shots agree.
        self.spread = nn.Sequential(
            nn.Conv2d(prompt_dim, hidden, 1, bias=False), nn.ReLU(), nn.Conv2d(hidden, prompt_dim, 1, bias=False)
        )
        for last in (self.position_score[-1], self.shot_score[-1], self.spread[-1]):
            nn.init.zeros_(last.weight)  # starts as the mean

    def weights(self, prompts: Tensor, evidence: Tensor) -> Tensor:
        """Weight of each shot at each position (K, height, width); they add up to one over the shots."""
        positions = self.position_score(_beside_mean(prompts))[:, 0]
        shots = self.shot_score(_beside_mean(torch.cat([prompts.mean(dim=(2, 3)), evidence], dim=1)))
        return (positions + shots[:, :, None]).softmax(dim=0)

    def forward(self, prompts: Tensor, evidence: Tensor) -> Tensor:
        """Aggregates.

        Args:
            prompts: (K, prompt_dim, height, width) of one query and K >= 2 shots.
            evidence: (K, 2 layers + 3), from `support_evidence`.

        Returns:
            (1, prompt_dim, height, width): the weighted mean, and what follows from how far the shots differ from it.
        """
        weights = self.weights(prompts, evidence.to(prompts.dtype))[:, None]
        mean = (weights * prompts).sum(dim=0, keepdim=True)
        variance = (weights * (prompts - mean).square()).sum(dim=0, keepdim=True)
        return mean + self.spread(variance)


def _beside_mean(values: Tensor) -> Tensor:
    """Each shot's difference from the set's mean, and that mean, as channels."""
    mean = values.mean(dim=0, keepdim=True).expand_as(values)
    return torch.cat([values - mean, mean], dim=1)
