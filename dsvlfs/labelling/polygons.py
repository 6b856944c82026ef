"""Masks as polygons, holes and all: exact ones, and thinned ones that a person can edit."""

from collections.abc import Sequence
from itertools import pairwise

import contourpy
import numpy as np

LOSS = 0.015
"""Share of a mask's area that thinning its outline may move at most."""

JOINING = 0.01
"""Length of the lines between an object's parts, beside its area, up to which it is one polygon."""

Ring = np.ndarray
"""Points (n, 2), x and y, of a closed line; the first is not repeated."""


def edge_polygons(mask: np.ndarray) -> list[Ring]:
    """A polygon a connected part, along the pixels' edges: for readers that fill what has its centre inside, as
    `pycocotools` does. The photo's left upper corner is (0, 0), a pixel is 1 wide."""
    return [_thinned(_joined([ring + 0.5 for ring in part])) for part in _parts(mask, 0.5)]


def pixel_polygons(mask: np.ndarray, *, joined: bool = False) -> list[Ring]:
    """A polygon a connected part, through the pixels on its rim: for readers that fill the line too, as OpenCV's and
    Pillow's polygons do. A pixel's number is its place.

    Args:
        mask: bool (height, width).
        joined: all parts as one polygon, with lines between them; but not where the lines, which are filled too, are
            long beside what they join.
    """
    parts = [_joined([np.round(ring) for ring in part]) for part in _parts(mask, 0.999)]
    if joined and len(parts) > 1:
        one = _joined(parts)
        between = _length(one) / 2 - sum(map(_length, parts)) / 2
        if between < JOINING * np.count_nonzero(mask):
            parts = [one]
    return [_thinned(part) for part in parts]


def _parts(mask: np.ndarray, level: float) -> list[list[Ring]]:
    """The outer ring of each connected part of a mask, and the rings of its holes; pixels' centres are at whole
    numbers, and the line is at a share of the way out from those that are inside to those that are not."""
    rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
    if not len(rows):
        return []
    top, left = rows[0], columns[0]
    padded = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1].astype(np.float32), 1)
    generator = contourpy.contour_generator(z=padded, fill_type=contourpy.FillType.OuterOffset)
    parts = []
    for points, offsets in zip(*generator.filled(level, 2.0)):
        points = points + np.array([left - 1, top - 1])
        parts.append([points[start : end - 1] for start, end in pairwise(offsets)])
    return parts


def _joined(rings: Sequence[Ring]) -> Ring:
    """One ring of several, by the shortest lines between them, there and back: they change nothing where what a line
    crosses an even number of times is not filled."""
    one, rest = rings[0], list(rings[1:])
    while rest:
        nearest = [_nearest(one, ring) for ring in rest]
        place = min(range(len(rest)), key=lambda i: nearest[i][0])
        _, i, j = nearest[place]
        other = rest.pop(place)
        one = np.concatenate([one[: i + 1], other[j:], other[: j + 1], one[i:]])
    return one


def _length(ring: Ring) -> float:
    return float(np.hypot(*(np.roll(ring, -1, axis=0) - ring).T).sum())


def _nearest(one: Ring, other: Ring) -> tuple[float, int, int]:
    """The squared distance of two rings' nearest points, and their places."""
    best = (np.inf, 0, 0)
    step = max(1, 2**22 // len(other))
    for start in range(0, len(one), step):
        apart = ((one[start : start + step, None] - other[None]) ** 2).sum(axis=-1)
        place = int(apart.argmin())
        if apart.flat[place] < best[0]:
            best = (float(apart.flat[place]), start + place // len(other), place % len(other))
    return best


def _thinned(ring: Ring) -> Ring:
    """A ring without the points that its shape hardly needs (Ramer, Douglas and Peucker), by a distance at which the
    area moved stays under `LOSS`."""
    ring = ring[(ring != np.roll(ring, 1, axis=0)).any(axis=1)] if len(ring) > 1 else ring
    if len(ring) < 4:
        return ring if len(ring) > 2 else np.resize(ring, (3, 2))
    area = abs((ring[:, 0] * np.roll(ring[:, 1], -1) - np.roll(ring[:, 0], -1) * ring[:, 1]).sum()) / 2
    tolerance = max(1e-6, min(1.0, LOSS * area / _length(ring)))
    far = int(((ring - ring[0]) ** 2).sum(axis=1).argmax())
    keep = np.zeros(len(ring) + 1, dtype=bool)
    keep[[0, far, len(ring)]] = True
    closed = np.concatenate([ring, ring[:1]])
    spans = [(0, far), (far, len(ring))]
    while spans:
        start, end = spans.pop()
        if end - start < 2:
            continue
        chord = closed[end] - closed[start]
        inner = closed[start + 1 : end] - closed[start]
        size = float(np.hypot(*chord))
        if size == 0:
            apart = np.hypot(*inner.T)
        else:
            # Of a line there and back, a point beyond the chord's end counts too.
            along = np.clip(inner @ chord / size**2, 0, 1)
            apart = np.hypot(*(inner - along[:, None] * chord).T)
        worst = int(apart.argmax())
        if apart[worst] > tolerance:
            keep[start + 1 + worst] = True
            spans += [(start, start + 1 + worst), (start + 1 + worst, end)]
    thinned = ring[keep[:-1]]
    return thinned if len(thinned) > 2 else ring
