"""Where a run's episodes come from, by its settings."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from torch.utils.data import ConcatDataset, Dataset

from ..data.episodes import load_episodes, take_evenly
from ..data.named_sets import NAMED_SETS, load_named_set
from ..descriptions.made_up import made_up_names
from ..errors import InputError
from ..hub.imagenet_classes import imagenet_classes
from ..modeling import DSVLFSModel
from .alignment import SemanticAlignment, TextStates
from .feature_cache import FeatureCache
from .names_extension import NamesExtension, NamesFit
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
        validation: episodes to measure on; None where the settings name none.
        collate_validation: stacks those to a batch.
        alignment: of names and photos, where the settings have steps without the photo.
    """

    training: Dataset
    collate: Callable[[list], Any]
    validation: Dataset | None
    collate_validation: Callable[[list], Any] = collate_photos
    alignment: NamesFit | None = None


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
        layers = model.config.frozen_layers
        mix |= {
            "length": length,
            "kind_weights": config.kind_weights,
            "absent": config.absent,
            "made_up": config.made_up,
        }
        seen = seen_cache(config, cache_folder)
        if config.learns_shots:
            FeatureCache(cache_folder).check(model)
            del mix["semantic_only"]
            shots = {"max_shots": config.max_shots, "bad_shots": config.bad_shots}
            training: Dataset = ShotEpisodeDataset(seen, layers=layers, **shots, **mix)
        else:
            build_cache(config, model, root, cache_folder)
            training = EpisodeDataset(seen, layers=layers, fit_shots=config.fit_shots, **mix)
        own_validation = config.validation_every > 0 and validation is None and bool(config.left_out_classes)
        if own_validation:
            validation = _left_out_episodes(config, cache_folder, layers)
        alignment: NamesFit | None = None
        if config.text_only_steps or config.extend_names:
            with PartialState().main_process_first():  # the others find the texts read
                states = TextStates(model, cache_folder / "texts.safetensors")
                alignment = (
                    NamesExtension(model, seen, states)
                    if config.extend_names
                    else SemanticAlignment(
                        model,
                        seen,
                        states,
                        description_noise=config.description_noise,
                        unseen=[
                            *(validation.class_names if own_validation else ()),
                            *(made_up_names() if config.made_up else ()),
                        ],
                        classes=imagenet_classes() if config.classifier_names else None,
                    )
                )
        return Episodes(
            training,
            collate_shots if config.learns_shots else collate,
            validation,
            collate if own_validation else collate_photos,
            alignment,
        )
    photos = load_named_set(config.dataset, root, split="train", fold=config.fold)
    training = PhotoEpisodeDataset(photos, model.processor, length=length, in_passes=config.in_passes, **mix)
    return Episodes(training, collate_photos, validation)


def seen_cache(config: TrainingConfig, folder: Path) -> FeatureCache:
    """The cache of a run on packs, without the classes that it leaves out or that its fold tests."""
    return FeatureCache(folder, without={*config.left_out_classes, *_tested_names(config.fold)})


def _tested_names(fold: int | None) -> set[str]:
    """Every name of the classes that a fold of PASCAL-5i tests."""
    if fold is None:
        return set()
    named = NAMED_SETS["pascal-5i"]
    if fold not in range(named.folds):
        raise InputError(f"PASCAL-5i has no fold {fold}; give 0 to {named.folds - 1}.")
    return {name for index in named.test_classes(Path(), fold) for name in named.classes[index]}


def _left_out_episodes(config: TrainingConfig, cache_folder: Path, layers: list[str]) -> EpisodeDataset:
    """Episodes of the cache's photos of the classes that training leaves out, with both prompts and one support."""
    tested = _tested_names(config.fold)
    return EpisodeDataset(
        FeatureCache(cache_folder, without=tested, only=config.left_out_classes),
        length=config.validation_episodes,
        seed=_VALIDATION_SEED,
        kind_weights={"photo": 1.0},
        visual_only=0.0,
        semantic_only=0.0,
        description_share=0.0,
        misnamed=0.0,
        layers=layers,
        in_turns=True,
    )


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
