"""A second look at what is small: the part of the photo around it, seen larger.

An object of a few positions of the encoder's grid is found, if at all, as a blot. Where the first look's surest
region is small against the photo, the photo is cropped around it, asked again, and what the crop says takes the
region's place.
"""

from dataclasses import replace

import numpy as np
import torch.nn.functional as F
from scipy.ndimage import label
from torch import Tensor

from .photos import context_box
from .results import Prediction

Box = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels of the photo."""

_NEAR = 0.5
"""A region holds the positions with this share of the highest probability and more."""

_CONTEXT = 3.0
_LEAST = 0.2
"""A crop's sides: so many times the region's, and at least that share of the photo's longer one."""

_MOST = 0.5
"""Of the photo's longer side: a larger crop shows hardly more than the photo."""


def region_to_look_at(first: Prediction) -> Box | None:
    """The part of a photo that deserves a second look; None where what was found is large enough.

    Args:
        first: of the whole photo.
    """
    probability = first.deciding.mean(dim=0).sigmoid().numpy()
    regions, count = label(probability >= _NEAR * probability.max())
    weights = np.bincount(regions.ravel(), probability.ravel(), count + 1)
    height, width = probability.shape
    left, top, right, bottom = context_box(regions == 1 + weights[1:].argmax(), 1.0)
    across, down = first.size[0] / width, first.size[1] / height
    longest = max(first.size)
    side = max(_CONTEXT * max((right - left) * across, (bottom - top) * down), _LEAST * longest)
    if side > _MOST * longest:
        return None
    return _box_about((left + right) / 2 * across, (top + bottom) / 2 * down, side, first.size)


def with_second_look(first: Prediction, box: Box, second: Prediction) -> Prediction:
    """The first look with the second in its place.

    Args:
        first: of the whole photo.
        box: what was looked at again.
        second: of that part.
    """
    scale = first.size[0] / (box[2] - box[0])
    joined = None
    if first.joined is not None and second.joined is not None:
        joined = _pasted(first.joined[None], second.joined[None], box, first.size, scale)[0]
    logits = _pasted(first.logits, second.logits, box, first.size, scale)
    return replace(first, logits=logits, joined=joined, fits=second.fits)


def _pasted(whole: Tensor, part: Tensor, box: Box, size: tuple[int, int], scale: float) -> Tensor:
    """Maps (K, h, w) of a photo, as fine as those of its part, which take their place."""
    height, width = (round(side * scale) for side in whole.shape[1:])
    fine = F.interpolate(whole[None], (height, width), mode="bilinear", align_corners=False)[0]
    left, right = (round(x * width / size[0]) for x in box[::2])
    top, bottom = (round(y * height / size[1]) for y in box[1::2])
    fine[:, top:bottom, left:right] = F.interpolate(
        part[None], (bottom - top, right - left), mode="bilinear", align_corners=False
    )[0]
    return fine


def _box_about(x: float, y: float, side: float, size: tuple[int, int]) -> Box:
    """A square inside the photo, as near to (x, y) as there is room; narrower where the photo is."""
    corners = []
    for centre, length in ((x, size[0]), (y, size[1])):
        own = min(round(side), length)
        start = int(min(max(0, round(centre - own / 2)), length - own))
        corners.append((start, start + own))
    (left, right), (top, bottom) = corners
    return left, top, right, bottom
