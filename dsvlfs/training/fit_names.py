"""Fits a checkpoint's semantic prompt again, in closed form, to the feature cache that it was trained from."""

from pathlib import Path

import torch

from .. import DSVLFSModel, InputError
from ..hub.imagenet_classes import imagenet_classes
from .alignment import SemanticAlignment, TextStates
from .feature_cache import FeatureCache
from .settings import load_config


def fit_names(checkpoint: str | Path, config_file: Path, cache_folder: Path, out: Path) -> float:
    """Writes a checkpoint that differs by its semantic prompt alone.

    Args:
        checkpoint: its folder or name.
        config_file: settings (YAML); those of the descriptions and the classifier are used.
        cache_folder: of the features that the checkpoint was trained from, or of pixels, where the names are fitted to
            the vision tower's layers alone.
        out: folder for the result.

    Returns:
        Share of the held-out names that find their own photo among four.

    Raises:
        InputError: the checkpoint, the settings or the cache cannot be used.
        BaseNotAvailableError: a base cannot be had.
    """
    config = load_config(config_file)
    model = DSVLFSModel.from_pretrained(checkpoint)
    if model.semantic_encoder.is_adapted:
        raise InputError(f"The language model of {checkpoint} is adapted to photos; fit one that is not.")
    cache = FeatureCache(cache_folder)
    cache.check(model, model.config.grounding_layers)
    states = TextStates(model, cache.folder / "texts.safetensors")
    alignment = SemanticAlignment(
        model,
        cache,
        states,
        description_noise=config.description_noise,
        classes=imagenet_classes() if config.classifier_names else None,
    )
    alignment.apply(model)
    model.save_pretrained(out, dtype=torch.float16)
    return alignment.accuracy
