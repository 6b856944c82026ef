"""Masks on the grid of the mask decoder's logits."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..configuration import DSVLFSConfig
from ..inference.encoded import View, on_square

_TARGET_FACTOR = 4  # the decoder's logits have 4 times the side of its image embedding


def target_side(config: DSVLFSConfig) -> int:
    """Side of the square on which the mask losses are taken: `loss_side`, or that of the decoder's logits."""
    return config.loss_side or config.image_size // config.image_encoder_config().patch_size * _TARGET_FACTOR


def on_decoder_grid(mask: np.ndarray, view: View, side: int) -> Tensor:
    """A photo's mask as the decoder's logits see it.

    Args:
        mask: bool (height, width) of the photo.
        view: of the photo.
        side: of the logits.

    Returns:
        uint8 (side, side), 255 where a cell is all foreground; nought where the view is padding.
    """
    return F.interpolate(on_square(mask, view)[None], (side, side), mode="area")[0, 0].round().to(torch.uint8)
