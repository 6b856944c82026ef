"""Training episodes of several supports, some of them bad: a support of another class, or with a wrong mask."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .feature_cache import FeatureCache
from .sampling import Draw, EpisodeDataset, TrainingBatch, TrainingEpisode, collate

# Draws until a class has several supports; where none has, an episode has one.
_TRIES = 50


@dataclass(frozen=True)
class ShotEpisode:
    """An episode and all of its supports.

    Args:
        episode: with the first support, which may be a bad one.
        support_layers: (K, channels, grid, grid) a correlation layer.
        support_masks: (K, grid, grid) in [0, 1].
    """

    episode: TrainingEpisode
    support_layers: list[Tensor]
    support_masks: Tensor


class ShotEpisodeDataset(EpisodeDataset):
    """Episodes of 2 supports or more; episode i depends on the seed and i alone.

    Args:
        cache: of the features.
        max_shots: number of supports at most. A class that has fewer is shown with what it has.
        bad_shots: share of the episodes with bad supports: one of three or four, one or two of five or more.
        settings: of `EpisodeDataset`, but for `semantic_only`.
    """

    def __init__(self, cache: FeatureCache, *, max_shots: int, bad_shots: float, **settings: object) -> None:
        super().__init__(cache, semantic_only=0.0, **settings)
        self.max_shots, self.bad_shots = max_shots, bad_shots

    def __getitem__(self, index: int) -> ShotEpisode:
        rng = np.random.default_rng((self.seed, index))
        drawn, stems = self._draw_shots(rng)
        shots = [self.load_support(stem) for stem in stems]
        bad = 0
        if len(shots) >= 3 and rng.random() < self.bad_shots:
            bad = int(rng.integers(1, 3)) if len(shots) >= 5 else 1
        for place in rng.permutation(len(shots))[:bad]:
            shots[place] = self._spoil(rng, *shots[place], drawn.class_name)
        layers = [torch.stack(layer) for layer in zip(*(layers for layers, _ in shots))]
        masks = torch.stack([mask for _, mask in shots])
        episode = replace(self.load(drawn, rng), support_layers=[layer[0] for layer in layers], support_mask=masks[0])
        return ShotEpisode(episode, layers, masks)

    def _draw_shots(self, rng: np.random.Generator) -> tuple[Draw, list[str]]:
        """A draw, and 2 to `max_shots` supports of its class, all of other photos than the query's."""
        for _ in range(_TRIES):
            drawn = self.draw(rng)
            photos = {item["photo_id"] for item in self._queries[drawn.query]["objects"]}
            found = self._supports_without(drawn.class_name, photos)
            if len(found) > 1:
                break
        count = min(len(found), int(rng.integers(2, self.max_shots + 1)))
        return drawn, [found[i] for i in rng.permutation(len(found))[:count]]

    def _spoil(
        self, rng: np.random.Generator, layers: list[Tensor], mask: Tensor, class_name: str
    ) -> tuple[list[Tensor], Tensor]:
        """A support of another class (half of the time), or this one with its mask inverted, moved or another's."""
        other = self._all_supports[rng.integers(len(self._all_supports))]
        while class_name in self._supports[other]["names"] and len(self._supports_of_name[class_name]) < len(
            self._supports
        ):
            other = self._all_supports[rng.integers(len(self._all_supports))]
        other_layers, other_mask = self.load_support(other)
        kind = rng.random()
        if kind < 0.5:
            return other_layers, other_mask
        side = len(mask)
        moved = tuple(int(n) for n in rng.integers(side // 3, side - side // 3, size=2))
        wrong = 1 - mask if kind < 0.7 else mask.roll(moved, dims=(0, 1)) if kind < 0.85 else other_mask
        return layers, wrong if wrong.sum() >= 1 else other_mask


def collate_shots(episodes: list[ShotEpisode]) -> TrainingBatch:
    """Stacks episodes; their supports follow each other."""
    return replace(
        collate([shown.episode for shown in episodes]),
        support_layers=[torch.cat(layer) for layer in zip(*(shown.support_layers for shown in episodes))],
        support_mask=torch.cat([shown.support_masks for shown in episodes]),
        shots=[len(shown.support_masks) for shown in episodes],
    )
