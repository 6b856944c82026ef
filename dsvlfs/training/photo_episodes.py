"""Episodes as pixels: one query, one support, their masks; for whoever computes the frozen features as it goes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from datasets import Dataset as PhotoSet
from torch import Tensor
from torch.utils.data import Dataset

from ..data.episodes import Episode
from ..data.targets import on_decoder_grid, target_side
from ..descriptions.bank import bank_description
from ..descriptions.spoiled import SPOILINGS, Spoiler
from ..errors import InputError
from ..inference.encoded import View
from ..inference.photos import DECODING_ERRORS, Photo
from ..processing import DSVLFSProcessor


@dataclass(frozen=True)
class PhotoEpisode:
    """One query, its class, one support, and the prompts that are used.

    Args:
        query: the query's view.
        counted: (side, side), the share of each cell of the decoder's grid that is neither padding nor to be ignored.
        target: (side, side), the share of what is counted that is of the class.
        support: the support's view.
        support_mask: (1, size, size) on the support's view, in [0, 1].
        class_name: what is to be found.
        asked_name, description: of the question.
        use_semantic, use_visual: which prompts the decoder is given.
    """

    query: View
    counted: Tensor
    target: Tensor
    support: View
    support_mask: Tensor
    class_name: str
    asked_name: str
    description: str | None
    use_semantic: bool
    use_visual: bool


@dataclass(frozen=True)
class PhotoBatch:
    """`PhotoEpisode`s, stacked.

    Args:
        query_pixels, support_pixels: (batch, 3, size, size) of the image encoder.
        query_vlm_pixels, support_vlm_pixels: (batch, 3, size, size) of the LLaVA's vision tower.
        support_mask: (batch, size, size).
        target, counted: (batch, side, side).
        class_names: of every episode.
        names: name and description of the episodes with `use_semantic`.
        use_semantic, use_visual: bool (batch,).
    """

    query_pixels: Tensor
    query_vlm_pixels: Tensor
    support_pixels: Tensor
    support_vlm_pixels: Tensor
    support_mask: Tensor
    target: Tensor
    counted: Tensor
    class_names: list[str]
    names: list[tuple[str, str | None]]
    use_semantic: Tensor
    use_visual: Tensor

    def to(self, device: torch.device) -> "PhotoBatch":
        """The same on another device."""
        return PhotoBatch(**send_to_device(vars(self), device))


class PhotoEpisodeDataset(Dataset):
    """Episodes drawn from photos with masks. Episode i depends on the seed and i alone, whoever asks for it and when.

    Args:
        photos: rows of `dsvlfs.data.photos.FEATURES`.
        processor: of the model.
        length: number of episodes.
        seed: of the episodes.
        visual_only, semantic_only: share of episodes with one prompt.
        description_share: share of questions with the class's definition, or else the bank's text, where there is one.
        description_noise: share of the descriptions that are spoiled (`Spoiler`).
        misnamed: share of the episodes with both prompts that are given another class's name.
        in_passes: ask for every photo and class once a pass, each pass in an order of its own (the reference); else
            every class is asked for equally often.

    Raises:
        InputError: no class has two photos, or fewer than two have a description that could be spoiled.
    """

    def __init__(
        self,
        photos: PhotoSet,
        processor: DSVLFSProcessor,
        *,
        length: int,
        seed: int,
        visual_only: float = 0.0,
        semantic_only: float = 0.0,
        description_share: float = 1.0,
        description_noise: float = 0.0,
        misnamed: float = 0.0,
        in_passes: bool = False,
    ) -> None:
        self.photos, self.processor = photos, processor
        self.length, self.seed = length, seed
        self.visual_only, self.semantic_only = visual_only, semantic_only
        self.description_share, self.description_noise = description_share, description_noise
        self.misnamed = misnamed
        self._photo_ids = np.array(photos["photo_id"][:])
        names = np.array(photos["class_name"][:])
        self._rows_of_class = {
            str(name): rows
            for name in np.unique(names)
            if len(np.unique(self._photo_ids[rows := np.flatnonzero(names == name)])) > 1
        }
        self.class_names = list(self._rows_of_class)
        self._class_of_row = {int(row): name for name, rows in self._rows_of_class.items() for row in rows}
        self._pass = np.array(sorted(self._class_of_row)) if in_passes else None
        if not self.class_names:
            raise InputError(
                "No class has two photos, one to ask about and one to show; add photos of the same classes."
            )
        if description_noise:
            definitions = dict(zip(names, photos["definition"][:]))
            texts = {name: definitions[name] or self._bank_text(name) for name in self.class_names}
            self._spoiler = Spoiler({name: text for name, text in texts.items() if text})

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> PhotoEpisode:
        rng = np.random.default_rng((self.seed, index))
        if self._pass is None:
            class_name = self.class_names[rng.integers(len(self.class_names))]
            rows = self._rows_of_class[class_name]
            query_row = rows[rng.integers(len(rows))]
        else:
            number, place = divmod(index, len(self._pass))
            query_row = np.random.default_rng((self.seed, number)).permutation(self._pass)[place]
            class_name = self._class_of_row[int(query_row)]
            rows = self._rows_of_class[class_name]
        others = rows[self._photo_ids[rows] != self._photo_ids[query_row]]
        support_row = others[rng.integers(len(others))]
        draw = rng.random()
        use_visual = draw >= self.semantic_only
        use_semantic = not self.semantic_only <= draw < self.semantic_only + self.visual_only
        asked_name = class_name
        if use_semantic and use_visual and rng.random() < self.misnamed:
            asked_name = self.class_names[rng.integers(len(self.class_names))]
        described = asked_name == class_name and rng.random() < self.description_share
        query, support = self._row(int(query_row)), self._row(int(support_row))
        description = (query["definition"] or self._bank_text(class_name)) if described else None
        # No number is drawn where the setting is off.
        if description and self.description_noise and rng.random() < self.description_noise:
            how, other = SPOILINGS[rng.integers(len(SPOILINGS))], self._spoiler.other(class_name, rng)
            description = self._spoiler.spoil(description, how, name=class_name, other=other, rng=rng)
        return _photo_episode(
            self.processor,
            class_name,
            (query["image"], _foreground(query["mask"])),
            (support["image"], _foreground(support["mask"])),
            ignore=None if query["ignore"] is None else _foreground(query["ignore"]),
            asked_name=asked_name,
            description=description,
            use_semantic=use_semantic,
            use_visual=use_visual,
        )

    def _bank_text(self, class_name: str) -> str | None:
        return bank_description(class_name, long=self.processor.config.long_descriptions)

    def _row(self, index: int) -> dict[str, Any]:
        try:
            return self.photos[index]
        except DECODING_ERRORS as error:
            raise InputError(
                f"The photo '{self._photo_ids[index]}' or its mask cannot be read ({error}); get it again."
            ) from error


class FixedEpisodes(Dataset):
    """Given episodes, with both prompts; of several supports the first.

    Args:
        episodes: such as `dsvlfs.data.episodes.load_episodes` gives.
        processor: of the model.
    """

    def __init__(self, episodes: Sequence[Episode], processor: DSVLFSProcessor) -> None:
        self.episodes, self.processor = episodes, processor

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, index: int) -> PhotoEpisode:
        episode = self.episodes[index]
        query = (episode.query, episode.query_mask)
        return _photo_episode(
            self.processor, episode.class_name, query, episode.support[0], ignore=episode.query_ignore
        )


def collate_photos(episodes: list[PhotoEpisode]) -> PhotoBatch:
    """Stacks episodes."""
    return PhotoBatch(
        query_pixels=torch.cat([e.query.image_pixels for e in episodes]),
        query_vlm_pixels=torch.cat([e.query.vlm_pixels for e in episodes]),
        support_pixels=torch.cat([e.support.image_pixels for e in episodes]),
        support_vlm_pixels=torch.cat([e.support.vlm_pixels for e in episodes]),
        support_mask=torch.cat([e.support_mask for e in episodes]),
        target=torch.stack([e.target for e in episodes]),
        counted=torch.stack([e.counted for e in episodes]),
        class_names=[e.class_name for e in episodes],
        names=[(e.asked_name, e.description) for e in episodes if e.use_semantic],
        use_semantic=torch.tensor([e.use_semantic for e in episodes]),
        use_visual=torch.tensor([e.use_visual for e in episodes]),
    )


def _photo_episode(
    processor: DSVLFSProcessor,
    class_name: str,
    query: tuple[Photo, np.ndarray],
    support: tuple[Photo, np.ndarray],
    *,
    ignore: np.ndarray | None = None,
    asked_name: str | None = None,
    description: str | None = None,
    use_semantic: bool = True,
    use_visual: bool = True,
) -> PhotoEpisode:
    photo, mask = query
    view = processor.query_view(photo)
    support_view, support_mask = processor.support_view(*support)
    side = target_side(processor.config)
    counted = on_decoder_grid(np.ones_like(mask) if ignore is None else ~ignore, view, side) / 255
    foreground = on_decoder_grid(mask, view, side) / 255
    target = (foreground / counted.clamp(min=1 / 255)).clamp(max=1)
    if processor.config.loss_side is not None:
        counted, target = (counted >= 0.5).float(), (target >= 0.5).float()
    return PhotoEpisode(
        query=view,
        counted=counted,
        target=target,
        support=support_view,
        support_mask=support_mask,
        class_name=class_name,
        asked_name=asked_name or class_name,
        description=description,
        use_semantic=use_semantic,
        use_visual=use_visual,
    )


def _foreground(mask: Any) -> np.ndarray:
    """bool (height, width) of a decoded mask."""
    return np.asarray(mask) > 0
