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
from torch import Tensor

from ..errors import InputError
from ..inference.encoded import Query
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
        areas: positions that each mean is over.
    """

    foreground: Tensor
    background: Tensor
    areas: tuple[float, float]

    @classmethod
    def join(cls, prototypes: Sequence[Prototype]) -> Prototype:
        """The prototype of all the positions of several."""
        foreground, background = (
            _weighted_mean(torch.stack(means, dim=1), means[0].new_tensor(areas))
            for means, areas in (
                ([p.foreground for p in prototypes], [p.areas[0] for p in prototypes]),
                ([p.background for p in prototypes], [p.areas[1] for p in prototypes]),
            )
        )
        return cls(foreground, background, tuple(map(sum, zip(*(p.areas for p in prototypes)))))


@dataclass(frozen=True)
class PrototypeSupport:
    """What the supports look like in every layer."""

    layers: tuple[Prototype, ...]

    @classmethod
    def join(cls, supports: Sequence[PrototypeSupport]) -> PrototypeSupport:
        """One support of several that were encoded apart."""
        return cls(tuple(map(Prototype.join, zip(*(support.layers for support in supports), strict=True))))


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
        areas = float(foreground.sum()), float((1 - foreground).sum())
        means = _weighted_mean(features, foreground), _weighted_mean(features, 1 - foreground)
        prototypes.append(Prototype(*means, areas))
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
        self._names = list(weights)
        self._weights = list(weights.values())

    def encode_support(self, examples: Sequence[tuple[Photo, Photo]]) -> PrototypeSupport:
        """Pools the supports, for any number of queries.

        Args:
            examples: photos with their masks.

        Raises:
            InputError: a photo or a mask cannot be used.
        """
        photos = [load_photo(photo) for photo, _ in examples]
        masks = [load_mask(mask, photo.size) for photo, (_, mask) in zip(photos, examples, strict=True)]
        layers = [self._layers_of(self.encode_query(photo)) for photo in photos]
        return PrototypeSupport(tuple(class_prototypes(layers, [torch.from_numpy(mask) for mask in masks])))

    def encode_query(self, photos: Photo) -> Query:
        """Encodes a query photo, for any number of supports."""
        return self._model.encode_query(photos)

    def segment(
        self,
        images: Photo | Query | Sequence[Photo | Query],
        class_name: str,
        *,
        support: PrototypeSupport | None = None,
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
        if support is None:
            raise InputError("Prototypes need a support photo with its mask; give one, or use the model.")
        if isinstance(images, (list, tuple)):
            return [self._segment_one(image, support, threshold) for image in images]
        return self._segment_one(images, support, threshold)

    def _segment_one(self, image: Photo | Query, support: PrototypeSupport, threshold: float) -> Segmentation:
        query = image if isinstance(image, Query) else self.encode_query(image)
        scores = prototype_scores(self._layers_of(query), support.layers, self._weights, query.size[::-1])
        probability = torch.sigmoid(scores - SCORE_THRESHOLD).cpu().numpy()
        mask = probability >= threshold
        return Segmentation(mask, probability, votes=mask.astype(np.uint16))

    def _layers_of(self, query: Query) -> list[Tensor]:
        return [query.features[name][0].float() for name in self._names]


def _weighted_mean(features: Tensor, weight: Tensor) -> Tensor:
    return features @ weight / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)
