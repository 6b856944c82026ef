"""Photos to what the encoders make of them: slow, and once a photo."""

import hashlib
import json
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from ..configuration import DSVLFSConfig
from ..errors import InputError
from ..hub.digests import tensor_digest
from ..parts.whole_fit import pooled_whole
from .checks import examples_of
from .encoded import Query, Support, View
from .interface import Parts
from .photos import Photo

_ONE_COLOUR = 0.04
"""How far the normalised pixels of a photo of one colour lie apart at most: two of 255 levels, for what JPEG makes of
them."""

SINGLY_ON = ("cpu",)
"""Devices that one photo keeps busy: there several go through the encoders one by one, for together they take more
memory and a quarter more time."""


_SUPPORT_VERSION = 3
"""Another wherever the same photo becomes another support."""

_SUPPORT_SETTINGS = (
    "correlation_layers",
    "image_config",
    "image_mean",
    "image_resample",
    "image_size",
    "image_std",
    "pad_to_square",
    "support_context",
    "support_grid",
    "support_size",
    "vlm_config",
    "vlm_crop",
    "vlm_image_size",
    "vlm_mean",
    "vlm_std",
)


def frozen_features(model: Parts, view: View, *, merge_tokens: bool = False) -> dict[str, Tensor]:
    """What the encoders make of views, frozen but for LoRA: every layer that some part reads, and the LLaVA's `tokens`.

    Args:
        model: its encoders.
        view: of one photo, or of several of one size as a batch.
        merge_tokens: of the image encoder.

    Returns:
        A tensor a name, with the views' batch dimension; it has no gradient.
    """
    with torch.no_grad():
        image, tower = model.image_encoder.backbone, model.semantic_encoder.vision_tower
        features = model.image_encoder(_as_read_by(image, view.image_pixels), merge_tokens=merge_tokens)
        features |= model.semantic_encoder.encode_photo(_as_read_by(tower, view.vlm_pixels))
        return {name: tensor.to(model.device) for name, tensor in features.items()}


def support_features(model: Parts, features: dict[str, Tensor], mask: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """Correlation layers and mask of a support, pooled to the support grid.

    Args:
        model: its config.
        features: of the support view, from `frozen_features`.
        mask: (batch, size, size), in [0, 1].

    Returns:
        A tensor (batch, channels, grid, grid) a layer, and the mask (batch, grid, grid).
    """
    layers = [features[name] for name in model.config.correlation_layers]
    grid = support_grid(model.config, features)
    return tuple(on_grid(layer, grid) for layer in layers), on_grid(mask[:, None].to(layers[0].device), grid)[:, 0]


def support_grid(config: DSVLFSConfig, features: Mapping[str, Tensor], pixels: Tensor | None = None) -> int:
    """Side of the grid to which a support's layers and mask are all pooled: the config's, or that of the first
    correlation layer.

    Args:
        config: of the model.
        features: of the support view.
        pixels: of the image encoder, where its layers are not among the features.
    """
    if config.support_grid:
        return config.support_grid
    first = config.correlation_layers[0]
    if pixels is None or first in features:
        return features[first].shape[-1]
    return pixels.shape[-1] // config.image_encoder_config().patch_size


def on_grid(layer: Tensor, grid: int) -> Tensor:
    """A support's layer or mask (batch, channels, height, width), pooled to (batch, channels, grid, grid)."""
    return F.adaptive_avg_pool2d(layer, grid)


def kept_with(model: Parts) -> str:
    """`DSVLFSModel.encoder_digest`."""
    settings = model.config.to_dict()
    seen = {name: settings[name] for name in _SUPPORT_SETTINGS}
    weights = {
        f"{part}.{name}": tensor
        for part, base in (
            ("image", model.image_encoder.backbone),
            ("tower", model.semantic_encoder.vision_tower),
        )
        for name, tensor in base.state_dict().items()
    }
    if (adapter := model.image_encoder.adapter) is not None:
        weights |= {f"adapter.{name}": tensor for name, tensor in adapter.unmerged().items()}
    if any(tensor.device.type == "meta" for tensor in weights.values()):
        raise InputError("The encoders' weights are not in memory; load the model without a device_map that offloads.")
    seen["reads_whole"] = model.config.whole_weight > 0
    said = json.dumps([_SUPPORT_VERSION, seen, tensor_digest(weights)], sort_keys=True, default=str)
    return hashlib.sha256(said.encode()).hexdigest()


@torch.inference_mode()
def encode_support(model: Parts, examples: Sequence[tuple[Photo, Photo]]) -> Support:
    """`DSVLFSModel.encode_support`."""
    encoded = []
    for photo, mask in examples_of(examples):
        view, square = model.processor.support_view(photo, mask)
        layers, masks = support_features(model, frozen_features(model, view), square)
        whole: tuple[tuple[Tensor, ...], Tensor | None] = (), None
        if model.config.whole_weight:
            view, square = model.processor.whole_view(photo, mask)
            features = frozen_features(model, view)
            whole = pooled_whole([features[name] for name in model.config.correlation_layers], square)
        encoded.append(Support(layers, masks, *whole))
    return Support.join(encoded)


@torch.inference_mode()
def encode_queries(model: Parts, photos: Sequence[Photo]) -> list[Query]:
    """`DSVLFSModel.encode_query` of several photos."""
    if not photos:
        return []
    views = [model.processor.query_view(photo) for photo in photos]
    merge = model.config.merge_tokens
    if len(views) == 1 or model.image_encoder.backbone.device.type in SINGLY_ON:
        return [_query(frozen_features(model, view, merge_tokens=merge), view) for view in views]
    pixels, vlm_pixels = (torch.cat([getattr(v, name) for v in views]) for name in ("image_pixels", "vlm_pixels"))
    batch = View(pixels, vlm_pixels, views[0].valid, views[0].size)
    features = frozen_features(model, batch, merge_tokens=merge)
    return [
        # A copy each: a slice would keep them all in memory.
        _query({name: tensor[i : i + 1].clone() for name, tensor in features.items()}, view)
        for i, view in enumerate(views)
    ]


def _query(features: dict[str, Tensor], view: View) -> Query:
    width, height = view.valid
    pixels = view.image_pixels[..., :height, :width]
    spread = pixels.amax(dim=(0, 2, 3)) - pixels.amin(dim=(0, 2, 3))
    return Query(features, view.valid, view.size, bool((spread <= _ONE_COLOUR).all()))


def extract_layers(model: Parts, photo: Photo) -> list[Tensor]:
    """The correlation layers (channels, height, width) of a whole photo, in the config's order."""
    features = frozen_features(model, model.processor.query_view(photo))
    return [features[name][0] for name in model.config.correlation_layers]


def _as_read_by(base: PreTrainedModel, pixels: Tensor) -> Tensor:
    """Pixels in a base's precision and where it is; what is offloaded fetches them itself."""
    return pixels.to(pixels.device if base.device.type == "meta" else base.device, base.dtype)
