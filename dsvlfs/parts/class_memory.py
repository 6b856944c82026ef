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
    gram: dict[bool, Tensor | float] = {True: 0.0, False: 0.0}
    mean, total = dict(gram), dict.fromkeys(gram, 0.0)
    for positions, share, counted in views:
        for is_class, weight in ((True, counted * share), (False, counted * (1 - share))):
            gram[is_class] = gram[is_class] + (positions.T @ (positions * weight[:, None])).double()
            mean[is_class] = mean[is_class] + (positions.T @ (weight * (2 * share - 1))).double()
            total[is_class] += float(weight.sum())
    half = {is_class: 0.5 / max(_TINY, amount) for is_class, amount in total.items()}
    matrix = half[True] * gram[True] + half[False] * gram[False]
    matrix.diagonal().add_(_RIDGE)
    return torch.linalg.solve(matrix, half[True] * mean[True] + half[False] * mean[False]).float()
