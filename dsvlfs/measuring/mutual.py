"""A stronger training-free comparison, of the kind of INSID3 (CVPR 2026): positions that match the supports, clusters
of the query's own features, a seed among them, and what belongs to the seed.

One nearest neighbour each way says where the class can be; what is one thing in the query is told by the query alone;
so that a mask follows the photo's parts, not a threshold on single positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..inference.encoded import Query
from ..inference.photos import Photo, load_mask, load_photo
from ..inference.results import Segmentation
from .prototype import LAYER_WEIGHTS

if TYPE_CHECKING:
    from ..modeling import DSVLFSModel

CLUSTER_SIMILARITY = 0.6
"""Cosine at which two of the query's clusters are still joined."""
SCORE_THRESHOLD = 0.1


@dataclass(frozen=True)
class MutualSupport:
    """Support positions, (positions, channels) of unit length, and the share of foreground in each (positions,)."""

    features: Tensor
    share: Tensor

    @classmethod
    def join(cls, supports: Sequence[MutualSupport]) -> MutualSupport:
        """One support of several that were encoded apart."""
        return cls(torch.cat([s.features for s in supports]), torch.cat([s.share for s in supports]))


def candidates(query: Tensor, support: MutualSupport) -> Tensor:
    """How much speaks for each query position (positions,): its best cosine with the supports' foreground less that
    with their background, and nought where the nearest support position is background. A position that some foreground
    position has as its own nearest, so that both choose each other, counts twice.

    Args:
        query: (positions, channels) of unit length.
        support: of the request.
    """
    cosines = query @ support.features.T
    inside = support.share > 0.5
    if not inside.any():
        inside = support.share >= support.share.max()
    least = cosines.new_full((len(query),), -1.0)
    foreground = cosines[:, inside].amax(dim=1)
    background = least if inside.all() else cosines[:, ~inside].amax(dim=1)
    margin = (foreground - background).clamp(min=0)
    chosen = torch.zeros(len(query), dtype=torch.bool, device=query.device)
    chosen[cosines[:, inside].argmax(dim=0)] = True
    return margin * torch.where(chosen & (margin > 0), 2.0, 1.0)


def clusters(query: Tensor, similarity: float = CLUSTER_SIMILARITY) -> np.ndarray:
    """Groups a query's positions by average linkage, (positions,) cluster numbers.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        from sklearn.cluster import AgglomerativeClustering
    except ImportError:
        raise InputError("Clusters need scikit-learn; pip install 'dsvlfs[analyze]'.") from None
    grouping = AgglomerativeClustering(
        n_clusters=None, metric="cosine", linkage="average", distance_threshold=1 - similarity
    )
    return grouping.fit_predict(query.cpu().numpy())


def mutual_scores(query: Tensor, support: MutualSupport, similarity: float = CLUSTER_SIMILARITY) -> Tensor:
    """A score a query position (positions,), in [0, 1]: of the seed cluster 1, of others how much they belong to it.

    The seed is the cluster for which its positions speak most, their mean by the root of their number. Another cluster
    has the cosine of its mean with the seed's, times what speaks for it against the seed.
    """
    numbers = torch.from_numpy(clusters(query, similarity)).to(query.device)
    members = F.one_hot(numbers).to(query.dtype)
    sizes = members.sum(dim=0)
    evidence = (members.T @ candidates(query, support)) / sizes
    seed = int((evidence * sizes.sqrt()).argmax())
    if evidence[seed] <= 0:
        return torch.zeros(len(query), device=query.device)
    means = F.normalize(members.T @ query, dim=1)
    belongs = (means @ means[seed]).clamp(min=0) * (evidence / evidence[seed]).clamp(max=1)
    belongs[seed] = 1.0
    return belongs[numbers]


class MutualSegmenter:
    """Segments by mutual matches and the query's clusters, through the same methods as `DSVLFSModel`: no text, no
    training.

    Args:
        model: gives the frozen features.
        weights: of its correlation layers, by name; others are left out.
    """

    def __init__(self, model: DSVLFSModel, weights: Mapping[str, float] = LAYER_WEIGHTS) -> None:
        self._model = model
        self._weights = dict(weights)

    def encode_support(self, examples: Sequence[tuple[Photo, Photo]]) -> MutualSupport:
        """Reads the supports, for any number of queries.

        Args:
            examples: photos with their masks.

        Raises:
            InputError: a photo or a mask cannot be used.
        """
        supports = []
        for photo, mask in examples:
            image = load_photo(photo)
            inside = torch.from_numpy(load_mask(mask, image.size))[None, None].float()
            features, side = self._positions(self.encode_query(image))
            share = F.interpolate(inside, (side, side), mode="area").flatten()
            supports.append(MutualSupport(features, share.to(features)))
        return MutualSupport.join(supports)

    def encode_query(self, photos: Photo) -> Query:
        """Encodes a query photo, for any number of supports."""
        return self._model.encode_query(photos)

    def segment(self, images: Photo | Query, class_name: str, *, support: MutualSupport, **_: Any) -> Segmentation:
        """Segments a photo. The class's name is not read: all that counts is the support."""
        query = images if isinstance(images, Query) else self.encode_query(images)
        features, side = self._positions(query)
        scores = mutual_scores(features, support).view(1, 1, side, side)
        full = F.interpolate(scores, query.size[::-1], mode="bilinear", align_corners=False)[0, 0]
        probability = full.cpu().numpy().astype(np.float32)
        mask = probability >= SCORE_THRESHOLD
        return Segmentation(mask, probability, votes=mask.astype(np.uint16))

    def _positions(self, query: Query) -> tuple[Tensor, int]:
        """(positions, channels) of unit length, on the grid of the finest layer, and its side."""
        layers = {name: query.features[name].float() for name in self._weights}
        side = max(layer.shape[-1] for layer in layers.values())
        parts = [
            weight**0.5
            * F.normalize(F.interpolate(layers[name], (side, side), mode="bilinear", align_corners=False)[0], dim=0)
            for name, weight in self._weights.items()
        ]
        return F.normalize(torch.cat([part.flatten(1) for part in parts]), dim=0).T, side
