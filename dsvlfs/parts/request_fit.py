"""A fit to the request: what tells the supports' foreground from their background, solved anew for each request.

Dense matching asks where the query resembles a support; it was learned on other classes, and what sets a wound off from
skin, or a weed from soil, may be a direction that no class before needed. A ridge regression from the frozen features
of every support position to its share of foreground finds that direction in closed form, from all supports together,
so that each further one makes it surer. Its map over the query joins the dense prompt; the decoder learns when to
believe it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .losses import bce_loss

_TINY = 1e-4
_SHARPNESS = 5.0
"""So many times a score are the logits of being foreground."""
_NOTHING = 1e-30
_SUREST = 5
"""Supports from which on a fit to them is believed no further."""
_STEPS = 64
"""Of conjugate gradients: from one support to five the map is then within 1e-4 of the exact one."""


def fit_request(
    query: Sequence[Tensor],
    support: Sequence[Tensor],
    mask: Tensor,
    *,
    ridge: float,
    size: int,
    shots: Tensor | None = None,
) -> Tensor:
    """Scores every position of the queries: 1 is foreground, -1 background.

    The regression is weighted so that foreground and background count the same, whatever the mask's area, and solved
    among the positions (its dual form), for there are fewer of them than channels.

    Args:
        query: (batch, C_i, h_i, w_i) each; resampled to `size`.
        support: (batch, K, C_i, grid, grid) each, in the same order.
        mask: (batch, K, grid, grid), the share of foreground, in [0, 1].
        ridge: added to the diagonal; a position's features have a squared length of one a layer.
        size: side of the result, in positions.
        shots: (batch,), how many of the K supports there are; the others are passed over. None takes all.

    Returns:
        (batch, size, size), in float32.
    """
    positions = _unit([layer.float().movedim(2, -1).flatten(1, 3) for layer in support])
    places = unit_positions(query, size)
    share = mask.float().flatten(1)
    there = torch.ones_like(share)
    if shots is not None:
        number = torch.arange(mask.shape[1], device=mask.device).repeat_interleave(mask[0, 0].numel())
        there = (number < shots[:, None]).to(share.dtype)
    direction = positions.mT @ _coefficients(positions @ positions.mT, share, there, ridge)
    return (places @ direction)[:, :, 0].unflatten(1, (size, size))


def unit_positions(layers: Sequence[Tensor], size: int) -> Tensor:
    """What a fit reads of photos: at each position all layers, each of unit length, side by side.

    Args:
        layers: (batch, C_i, h_i, w_i) each.
        size: side of the grid that they are brought to.

    Returns:
        (batch, size * size, sum of C_i), in float32.
    """
    return _unit([resampled(layer.float(), size).movedim(1, -1).flatten(1, 2) for layer in layers])


def foretold(support: Sequence[Tensor], mask: Tensor, *, ridge: float) -> Tensor:
    """How well several supports foretell one another: each one's mask by the fit to all others.

    Args:
        support: (K, C_i, grid, grid) each, K at least 2.
        mask: (K, grid, grid), the share of foreground, in [0, 1].
        ridge: of `fit_request`.

    Returns:
        The IoU, a number: its mean over the supports.
    """
    positions = _unit([layer.float().movedim(1, -1).flatten(0, 2) for layer in support])
    share = mask.float().flatten()
    shot = torch.arange(mask.shape[0], device=mask.device)  # `len` is fixed in an export
    own = (shot[:, None] == shot)[:, :, None].expand(-1, -1, mask[0].numel()).flatten(1).to(share.dtype)
    gram, share = (known.expand(mask.shape[0], *known.shape) for known in (positions @ positions.mT, share))
    score = (gram @ _coefficients(gram, share, 1 - own, ridge))[:, :, 0]
    found, there = score > 0, share > 0.5
    both, either = ((own * cells).sum(dim=1) for cells in (found & there, found | there))
    return (both / either.clamp(min=1)).mean()


def _coefficients(gram: Tensor, share: Tensor, there: Tensor, ridge: float) -> Tensor:
    """What each support position adds to the direction of the fit.

    Args:
        gram: (batch, n, n), products of the positions' features.
        share: (batch, n), of foreground.
        there: (batch, n), 1 for the positions that are fitted to, 0 for others.
        ridge: added to the diagonal.

    Returns:
        (batch, n, 1).
    """
    root = balanced(share, there)[:, :, None]
    weighted = root * gram * root.mT + ridge * torch.eye(gram.shape[1], device=gram.device)
    wanted = root * (2 * share - 1)[:, :, None]
    if torch.compiler.is_exporting():  # other engines know no Cholesky factors
        return root * conjugate_gradients(lambda x: weighted @ x, wanted)
    return root * torch.cholesky_solve(wanted, torch.linalg.cholesky(weighted))


def balanced(share: Tensor, there: Tensor | None = None) -> Tensor:
    """The roots of the weights (batch, n) of positions, by which foreground and background count the same.

    Args:
        share: (batch, n), of foreground.
        there: (batch, n), 1 for the positions that count, 0 for others; None has all of them.
    """
    there = torch.ones_like(share) if there is None else there
    area = ((share * there).sum(dim=1) / there.sum(dim=1).clamp(min=1)).clamp(_TINY, 1 - _TINY)[:, None]
    return (there * (share / (2 * area) + (1 - share) / (2 * (1 - area)))).sqrt()


def conjugate_gradients(multiplied: Callable[[Tensor], Tensor], wanted: Tensor, steps: int = _STEPS) -> Tensor:
    """Solves `matrix @ x = wanted` by products alone.

    Args:
        multiplied: `matrix @ x` of an `x` (batch, n, 1), of a matrix that is symmetric and positive definite.
        wanted: (batch, n, 1).
        steps: how many.

    Returns:
        (batch, n, 1).
    """
    solution, residual, direction = torch.zeros_like(wanted), wanted, wanted
    length = (residual * residual).sum(dim=1, keepdim=True)
    for _ in range(steps):
        ahead = multiplied(direction)
        step = length / (direction * ahead).sum(dim=1, keepdim=True).clamp(min=_NOTHING)
        solution = solution + step * direction
        residual = residual - step * ahead
        before, length = length, (residual * residual).sum(dim=1, keepdim=True)
        direction = residual + length / before.clamp(min=_NOTHING) * direction
    return solution


class FitSupports(NamedTuple):
    """The supports of several requests, padded to the same number.

    Args:
        layers: (batch, K, channels, grid, grid) each.
        masks: (batch, K, grid, grid), in [0, 1].
        shots: (batch,), how many of the K there are.
    """

    layers: list[Tensor]
    masks: Tensor
    shots: Tensor


class RequestFit(nn.Module):
    """The request's own fit as a part of the dense prompt.

    Args:
        prompt_dim: channels of the dense prompt.
        ridge: of `fit_request`.
        share: of a score that `weight` adds for each further support.
        doubt: supports that foretell one another (`foretold`) with an IoU of this or more get no such share; None gives
            it to all.
    """

    def __init__(self, *, prompt_dim: int, ridge: float = 10.0, share: float = 0.0, doubt: float | None = None) -> None:
        super().__init__()
        self.ridge, self.share, self.doubt = ridge, share, doubt
        self.to_prompt = nn.Sequential(
            nn.Conv2d(2, prompt_dim, 3, padding=1), nn.ReLU(), nn.Conv2d(prompt_dim, prompt_dim, 3, padding=1)
        )
        nn.init.zeros_(self.to_prompt[-1].weight)  # starts as nothing: a checkpoint without it can go on with it
        nn.init.zeros_(self.to_prompt[-1].bias)

    def forward(
        self,
        query: Sequence[Tensor],
        support: Sequence[Tensor],
        mask: Tensor,
        size: int,
        shots: Tensor | None = None,
    ) -> Tensor:
        """What is added to the dense prompt; the arguments are those of `fit_request`.

        Returns:
            (batch, prompt_dim, size, size).
        """
        return self.prompt(self.score(query, support, mask, size, shots))

    def score(
        self,
        query: Sequence[Tensor],
        support: Sequence[Tensor],
        mask: Tensor,
        size: int,
        shots: Tensor | None = None,
    ) -> Tensor:
        """`fit_request` with this strength, (batch, size, size)."""
        return fit_request(query, support, mask, ridge=self.ridge, size=size, shots=shots)

    def weight(self, support: Sequence[Tensor], mask: Tensor) -> Tensor:
        """How many times a score is added to the mask's logits: `share` of it for each support beyond the first, up to
        five, where these do not foretell one another. Where they do, matching tells as much (docs/experiments.md).

        Args:
            support: (K, C_i, grid, grid) each.
            mask: (K, grid, grid), in [0, 1].

        Returns:
            A number; 0 of one support.
        """
        further = torch.ones_like(mask[:, 0, 0]).sum().clamp(max=_SUREST) - 1
        if self.doubt is None:
            return self.share * further
        first = [layer[:_SUREST] for layer in support]  # of many, its matrices would fill the memory
        return self.share * further * (foretold(first, mask[:_SUREST], ridge=self.ridge) < self.doubt)

    def loss(self, score: Tensor, target: Tensor, counted: Tensor | None = None) -> Tensor:
        """The cross-entropy of a score alone, which teaches the features that it was fitted to: one can learn through a
        ridge regression (R2D2, Bertinetto et al. 2019, arXiv 1805.08136).

        Args:
            score: (batch, size, size).
            target: (batch, height, width), in [0, 1].
            counted: (batch, height, width), in [0, 1]: the share of each pixel that counts; None counts all.

        Returns:
            A number.
        """
        whole = torch.ones_like(target) if counted is None else counted
        share, there = (F.adaptive_avg_pool2d(map[:, None], score.shape[-1])[:, 0] for map in (target * whole, whole))
        wanted = (share / there.clamp(min=_TINY)).clamp(max=1)
        return bce_loss(_SHARPNESS * score, wanted, there).mean()

    def prompt(self, score: Tensor) -> Tensor:
        """What a score (batch, size, size) adds to the dense prompt (batch, prompt_dim, size, size)."""
        # How much it is the class at all, and where in this photo most.
        maps = torch.stack([score, F.instance_norm(score[:, None])[:, 0]], dim=1)
        return self.to_prompt(maps.to(self.to_prompt[0].weight.dtype))


def _unit(layers: Sequence[Tensor]) -> Tensor:
    """Layers (batch, positions, C_i), each position of unit length in each, side by side."""
    return torch.cat([F.normalize(layer, dim=-1) for layer in layers], dim=-1)


def resampled(layer: Tensor, size: int) -> Tensor:
    """A layer (batch, channels, height, width) on a grid of `size` a side."""
    if layer.shape[-1] == size:
        return layer
    return F.interpolate(layer, (size, size), mode="bilinear", align_corners=False)
