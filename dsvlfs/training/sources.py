"""Where a run's episodes come from, by its settings."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from torch.utils.data import ConcatDataset, Dataset

from ..data.episodes import load_episodes, take_evenly
from ..data.named_sets import load_named_set
from ..modeling import DSVLFSModel
from .alignment import SemanticAlignment, TextStates
from .feature_cache import FeatureCache
from .packs import build_cache
from .photo_episodes import FixedEpisodes, PhotoEpisodeDataset, collate_photos
from .sampling import EpisodeDataset, collate
from .settings import PACKS, TrainingConfig
from .shot_sampling import ShotEpisodeDataset, collate_shots

# The episodes of a validation are the same in every run, whatever its seed.
_VALIDATION_SEED = 2503_04006


@dataclass(frozen=True)
class Episodes:
    """What a run learns from and is measured on.

    Args:
        training: one item an episode; `steps` times `batch_size` of them.
        collate: stacks them to a batch.
        validation: photo episodes (`collate_photos` stacks them); None where the settings name none.
        alignment: of names and photos, where the settings have steps without the photo.
    """

    training: Dataset
    collate: Callable[[list], Any]
    validation: Dataset | None
    alignment: SemanticAlignment | None = None


def open_episodes(config: TrainingConfig, model: DSVLFSModel, root: Path, cache_folder: Path) -> Episodes:
    """Opens a run's episodes; for the packs, computes the frozen features that are missing.

    Args:
        model: in evaluation mode.
        root: folder of the packs or of the named set.
        cache_folder: of the frozen features.

    Raises:
        InputError: the data is missing or laid out wrong, or the cache is of other settings.
    """
    length = config.steps * config.batch_size
    mix = {
        "seed": config.seed,
        "visual_only": config.visual_only,
        "semantic_only": config.semantic_only,
        "description_share": config.description_share,
        "description_noise": config.description_noise,
        "misnamed": config.misnamed,
    }
    validation = _validation(config, model, root) if config.validation_every else None
    if config.dataset == PACKS:
        mix |= {"length": length, "kind_weights": config.kind_weights, "absent": config.absent}
        if config.learns_shots:
            cache = FeatureCache(cache_folder)
            cache.check(model.config)
            del mix["semantic_only"]
            training = ShotEpisodeDataset(cache, max_shots=config.max_shots, bad_shots=config.bad_shots, **mix)
        else:
            cache = build_cache(config, model, root, cache_folder)
            training = EpisodeDataset(cache, **mix)
        alignment = None
        if config.text_only_steps:
            with PartialState().main_process_first():  # the others find the texts read
                states = TextStates(model, cache.folder / "texts.safetensors")
                noise = config.description_noise
                alignment = SemanticAlignment(model, cache, states, description_noise=noise)
        return Episodes(training, collate_shots if config.learns_shots else collate, validation, alignment)
    photos = load_named_set(config.dataset, root, split="train", fold=config.fold)
    return Episodes(PhotoEpisodeDataset(photos, model.processor, length=length, **mix), collate_photos, validation)


def _validation(config: TrainingConfig, model: DSVLFSModel, root: Path) -> Dataset | None:
    """The files that the settings name; else, of a named set, episodes of the classes that it tests."""
    limit = config.validation_episodes
    if config.validation_files:
        return ConcatDataset(
            FixedEpisodes(take_evenly(load_episodes(root / photos, root / file), limit), model.processor)
            for photos, file in config.validation_files
        )
    if config.dataset == PACKS:
        return None
    photos = load_named_set(config.dataset, root, split="test", fold=config.fold)
    return PhotoEpisodeDataset(photos, model.processor, length=limit, seed=_VALIDATION_SEED)
