"""Classes that a checkpoint remembers from photos of its own: for each, the direction in the image features that sets
it off from the rest of those photos.

It is the fit to the request (`request_fit.py`), solved once from all of a class's photos in place of one to five
supports, and kept under the class's name. Whoever asks by the name then has what all of these photos tell.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from .request_fit import unit_positions

_RIDGE = 0.002
"""Added to the mean of the positions' products; each position has a squared length of one a layer."""
_TINY = 1e-4


class ClassMemory(nn.Module):
    """The directions of the classes that are remembered.

    Args:
        classes: how many.
        channels: of all layers together.
    """

    def __init__(self, *, classes: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("directions", torch.zeros(classes, channels))

    def score(self, place: int, query: Sequence[Tensor], size: int) -> Tensor:
        """Scores every position of the queries by a class: 1 is foreground, -1 background.

        Args:
            place: the class's, among those that are remembered.
            query: (batch, C_i, h_i, w_i) each; resampled to `size`.
            size: side of the result, in positions.

        Returns:
            (batch, size, size), in float32.
        """
        direction = self.directions[place].float()
        return (unit_positions(query, size) @ direction).unflatten(1, (size, size))


def class_direction(views: Iterable[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Solves for what sets a class off in photos that show it, foreground and background weighing the same.

    Args:
        views: of each photo, what `unit_positions` makes of it (positions, channels), the share of each position that
            is the class (positions,) in [0, 1], and how much of the position counts (positions,) in [0, 1]; at least
            one position of foreground and one of background in all.

    Returns:
        (channels,), in float32: the ridge regression's weights.
    """
    everywhere = inside = wanted = wanted_inside = torch.zeros(())
    total = total_inside = 0.0
    for positions, share, counted in views:
        everywhere, wanted, total = _added(everywhere, wanted, total, positions, counted, share)
        own = share > 0  # a class is a small part of most photos
        part = positions[own], (counted * share)[own], share[own]
        inside, wanted_inside, total_inside = _added(inside, wanted_inside, total_inside, *part)
    half, rest = 0.5 / max(_TINY, total_inside), 0.5 / max(_TINY, total - total_inside)
    matrix = half * inside + rest * (everywhere - inside)
    matrix.diagonal().add_(_RIDGE)
    return torch.linalg.solve(matrix, half * wanted_inside + rest * (wanted - wanted_inside)).float()


def _added(
    gram: Tensor, wanted: Tensor, total: float, positions: Tensor, weight: Tensor, share: Tensor
) -> tuple[Tensor, Tensor, float]:
    """Sums in float64 with those of further positions: their products, what they are wanted to score, their weight."""
    weighted = positions * weight[:, None]
    return (
        gram + (positions.T @ weighted).double(),
        wanted + (weighted.T @ (2 * share - 1)).double(),
        total + float(weight.sum()),
    )
