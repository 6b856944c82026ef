"""Photos that are copies of one another: people who label augment them, and a copy as support proves nothing."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..inference.photos import load_photo

_SIDE, _BORDER = 32, 4
_ALIKE = 0.95
"""Correlation of two thumbnails from which on one is a copy. Copies have 0.98 and more where this was looked at; other
photos of one camera, such as eyes before a black ground, stay below."""


def copy_groups(files: Sequence[Path]) -> list[int]:
    """Groups photos with their copies: turned by quarters, mirrored, brighter or darker, softer, or saved anew.

    Args:
        files: of the photos.

    Returns:
        A group's number for each photo: that of its first one.

    Raises:
        InputError: a photo cannot be read.
    """
    turned = np.array([_thumbnails(file) for file in files])
    alike = np.einsum("id,jkd->ijk", turned[:, 0], turned).max(axis=2) >= _ALIKE
    alike |= alike.T
    groups = list(range(len(files)))
    for one in range(len(files)):
        for other in np.flatnonzero(alike[one, :one]):
            kept, merged = sorted((groups[one], groups[other]))
            groups = [kept if group == merged else group for group in groups]
    return groups


def _thumbnails(file: Path) -> np.ndarray:
    """The photo small and gray, without its border, in all eight ways to lay it: (8, numbers), centred and of unit
    length."""
    gray = load_photo(file).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    values = np.asarray(gray, dtype=np.float32)[_BORDER:-_BORDER, _BORDER:-_BORDER]
    ways = [np.rot90(side, turn).ravel() for side in (values, values[:, ::-1]) for turn in range(4)]
    centred = np.array(ways) - values.mean()
    return centred / max(float(np.linalg.norm(centred[0])), 1e-6)
