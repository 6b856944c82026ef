"""Parts of a mask that are something else.

Beside the thing that is named, a mask may cover what resembles a support by its surface alone. Each connected part
has a look in the space that names share (`SemanticGrounding`), and one that fits the name and the supports clearly less
than the best part does is left out.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import label
from torch import Tensor

from .results import Prediction

SHOWN = 0.5
"""How much a part's cosine with what the supports show counts beside that with the name."""
_AROUND = -1.0
"""Logit from which on positions belong to a part: with its edge, so that a lower threshold finds no ring."""
_LEFT_OUT = -4.0
"""Logit of a part that is left out."""
_MOST = 64
"""Parts that are looked at, the largest."""
_SPECK = 0.05
"""Of the mask: a smaller part is not what the others are compared with."""


def without_strangers(found: Prediction, fit: Callable[[Tensor], Tensor], margin: float) -> Prediction:
    """A prediction without the parts of its mask that are something else; as it is where several shots vote.

    Args:
        found: by a name.
        fit: tells how well each of several parts (parts, h, w), their probability on the photo, fits what is asked for
            (parts,).
        margin: a part is left out that fits less than the best by more than this.
    """
    if len(found.deciding) > 1:
        return found
    logits = found.deciding[0]
    regions, count = label((logits > _AROUND).numpy())
    areas = np.bincount(regions.ravel(), (logits > 0).numpy().ravel(), count + 1)
    areas[0] = 0
    parts = np.argsort(-areas, kind="stable")[:_MOST]
    parts = torch.from_numpy(parts[areas[parts] > 0])
    if len(parts) < 2:
        return found
    probability = (logits if found.calibration is None else found.calibration(logits)).sigmoid()
    fits = fit((torch.from_numpy(regions) == parts[:, None, None]) * probability)
    shares = torch.from_numpy(areas)[parts] / areas.sum()
    strange = parts[fits < fits[shares >= min(_SPECK, float(shares.max()))].max() - margin]
    left_out = torch.isin(torch.from_numpy(regions), strange)
    logits = torch.where(left_out, logits.clamp(max=_LEFT_OUT), logits)
    return replace(found, logits=logits[None]) if found.joined is None else replace(found, joined=logits)


def on_square(parts: Tensor, valid: tuple[int, int], side: int, grid: int) -> Tensor:
    """Parts on the square that the encoders see.

    Args:
        parts: (parts, h, w), over the photo.
        valid: (width, height) of the photo in the square, in pixels.
        side: of the square, in pixels.
        grid: of the result, in positions.

    Returns:
        (parts, grid, grid).
    """
    fine = 4 * grid
    width, height = (max(1, round(length * fine / side)) for length in valid)
    shares = F.interpolate(parts[:, None], (height, width), mode="area")
    return F.adaptive_avg_pool2d(F.pad(shares, (0, fine - width, 0, fine - height)), grid)[:, 0]
