"""The training-free comparison: class prototypes on the same frozen features that `DSVLFSModel` reads.

A position's score is its cosine to the supports' mean foreground less its cosine to their mean background, summed over
layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..errors import InputError
from ..inference.photos import Photo, load_mask, load_photo
from ..inference.results import Segmentation

if TYPE_CHECKING:
    from ..modeling import DSVLFSModel

LAYER_WEIGHTS = {"image.9": 1.0, "vision.5": 0.5, "vision.6": 0.5}

# Where mIoU, averaged over 40 mosaics and 40 COCO scenes of the training packs, is best:
#   python benchmarks/thresholds.py --data-root DATA --episodes 40
SCORE_THRESHOLD = -0.02


@dataclass(frozen=True)
class Prototype:
    """What the supports look like in one layer.

    Args:
        foreground, background: mean feature, (channels,); zeros where the supports show none.
    """

    foreground: Tensor
    background: Tensor


def class_prototypes(support_layers: Sequence[Sequence[Tensor]], support_masks: Sequence[Tensor]) -> list[Prototype]:
    """Pools K supports to one prototype a layer.

    Args:
        support_layers: for each support its layers, (channels, h, w) each; a layer's h and w may vary.
        support_masks: for each support its mask in [0, 1], (height, width) of any size, over the same view.
    """
    prototypes = []
    for layers in zip(*support_layers, strict=True):
        features = torch.cat([layer.flatten(1) for layer in layers], dim=1)
        foreground = torch.cat(
            [
                F.interpolate(mask[None, None].to(layer), layer.shape[1:], mode="area").flatten()
                for layer, mask in zip(layers, support_masks, strict=True)
            ]
        )
        prototypes.append(Prototype(_weighted_mean(features, foreground), _weighted_mean(features, 1 - foreground)))
    return prototypes


def prototype_scores(
    query_layers: Sequence[Tensor], prototypes: Sequence[Prototype], weights: Sequence[float], size: tuple[int, int]
) -> Tensor:
    """Scores a query.

    Args:
        query_layers: (channels, h, w) each.
        prototypes: of the same layers.
        weights: of the same layers.
        size: (height, width) of the result.

    Returns:
        (height, width), higher where the class is; within twice the sum of the weights on either side of 0.
    """
    scores = torch.zeros(size, device=query_layers[0].device)
    for layer, prototype, weight in zip(query_layers, prototypes, weights, strict=True):
        # A dot product with the difference of unit vectors is the difference of the cosines.
        contrast = F.normalize(prototype.foreground, dim=0) - F.normalize(prototype.background, dim=0)
        score = torch.einsum("c,chw->hw", contrast, F.normalize(layer, dim=0))
        scores += weight * F.interpolate(score[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    return scores


class PrototypeSegmenter:
    """Segments by prototypes alone, through the same methods as `DSVLFSModel`: no text, no training.

    Args:
        model: gives the frozen features.
        weights: of its correlation layers, by name; others are left out.

    Raises:
        InputError: the model lacks one of the layers.
    """

    def __init__(self, model: DSVLFSModel, weights: Mapping[str, float] = LAYER_WEIGHTS) -> None:
        names = list(model.config.correlation_layers)
        if missing := [name for name in weights if name not in names]:
            raise InputError(
                f"The model does not correlate {', '.join(missing)}, which prototypes are weighted for; use the tiny "
                "model, or give weights for this one's layers."
            )
        self._model = model
        self._layers = [names.index(name) for name in weights]
        self._weights = list(weights.values())

    def encode_support(self, examples: Sequence[tuple[Photo, Photo]]) -> list[Prototype]:
        """Pools the supports, for any number of queries.

        Args:
            examples: photos with their masks.

        Raises:
            InputError: a photo or a mask cannot be used.
        """
        photos = [load_photo(photo) for photo, _ in examples]
        masks = [load_mask(mask, photo.size) for photo, (_, mask) in zip(photos, examples, strict=True)]
        return class_prototypes([self._extract(photo) for photo in photos], [torch.from_numpy(mask) for mask in masks])

    def segment(
        self,
        images: Photo | Sequence[Photo],
        class_name: str,
        *,
        support: Sequence[Prototype] | None = None,
        description: str | None = None,
        mode: str = "visual",
        threshold: float = 0.5,
    ) -> Segmentation | list[Segmentation]:
        """Segments a photo or several. The class's name and description are not read: all that counts is the support.

        Args:
            support: of `encode_support`.
            threshold: of the probability, which is 0.5 at the score `SCORE_THRESHOLD`.

        Raises:
            InputError: there is no support, or a photo cannot be used.
        """
        if not support:
            raise InputError("Prototypes need a support photo with its mask; give one, or use the model.")
        if isinstance(images, (list, tuple)):
            return [self._segment_one(image, support, threshold) for image in images]
        return self._segment_one(images, support, threshold)

    def _segment_one(self, image: Photo, support: Sequence[Prototype], threshold: float) -> Segmentation:
        photo = load_photo(image)
        scores = prototype_scores(self._extract(photo), support, self._weights, (photo.height, photo.width))
        probability = torch.sigmoid(scores - SCORE_THRESHOLD).cpu().numpy()
        mask = probability >= threshold
        return Segmentation(mask, probability, votes=mask.astype(np.uint16))

    def _extract(self, photo: Image.Image) -> list[Tensor]:
        layers = self._model.extract_layers(photo)
        return [layers[i].float() for i in self._layers]


def _weighted_mean(features: Tensor, weight: Tensor) -> Tensor:
    return features @ weight / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)
