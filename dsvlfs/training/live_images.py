"""The image encoder inside the step, where it learns: its pixels are kept, and each step makes its features anew."""

from dataclasses import replace

import torch
from torch import Tensor

from ..inference.encoding import on_grid
from ..modeling import DSVLFSModel
from ..parts.request_fit import FitSupports
from .feature_cache import PIXELS
from .sampling import TrainingBatch


def with_image_layers(model: DSVLFSModel, batch: TrainingBatch) -> TrainingBatch:
    """A batch of pixels, with the image encoder's layers in their place; these have gradients.

    Args:
        model: its image encoder.
        batch: whose features hold `PIXELS`, as the last of its supports' layers do.

    Returns:
        The same with every layer. A support that no one is shown stays nought.
    """
    features = dict(batch.features)
    features |= _encode(model, features.pop(PIXELS))
    shown, grid = batch.use_visual, batch.support_mask.shape[-1]
    if batch.fit is None:
        real = _all_layers(model, [layer[shown] for layer in batch.support_layers], grid)
        fit = None
    else:
        shots = batch.fit.shots
        there = torch.arange(batch.fit.masks.shape[1], device=shots.device) < shots[:, None]
        found = _all_layers(model, [layer[there] for layer in batch.fit.layers], grid)
        layers = [_spread(layer, there) for layer in found]
        fit = FitSupports(layers, batch.fit.masks, shots)
        real = [layer[:, 0] for layer in layers]
    return replace(batch, features=features, support_layers=[_spread(layer, shown) for layer in real], fit=fit)


def _all_layers(model: DSVLFSModel, kept: list[Tensor], grid: int) -> list[Tensor]:
    """Every correlation layer (n, channels, grid, grid) of supports, of those kept and, the last, their pixels."""
    *beside, pixels = kept
    made = _encode(model, pixels)
    rest = iter(beside)
    return [on_grid(made[name], grid) if name in made else next(rest) for name in model.config.correlation_layers]


def _encode(model: DSVLFSModel, pixels: Tensor) -> dict[str, Tensor]:
    """In bfloat16 on a GPU, whatever the rest is trained in: its weights, which do not learn, lose nothing by it."""
    if not len(pixels):  # the encoder's layers, of no photo
        pixels = pixels.new_zeros(1, *pixels.shape[1:])
        return {name: layer[:0] for name, layer in _encode(model, pixels).items()}
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=pixels.device.type == "cuda"):
        return model.image_encoder(pixels.float())


def _spread(layer: Tensor, there: Tensor) -> Tensor:
    """A layer's rows (n, ...) to where `there` (any shape) is true, n times in all; nought elsewhere."""
    result = layer.new_zeros(*there.shape, *layer.shape[1:])
    result[there] = layer
    return result
