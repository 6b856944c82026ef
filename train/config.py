"""A training run's settings, from a YAML file."""

from dataclasses import dataclass, field, fields
from pathlib import Path

import yaml

from dsvlfs.data.scenes import SceneComposer
from dsvlfs.errors import InputError


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a run; the file names those that differ.

    Args:
        size: of the model, "tiny" or "paper".
        seed: of scenes, episodes and weights.
        scenes: number of cached query scenes by kind (`SceneComposer.kinds`).
        scene_supports: number of cached supports from photos of several objects.
        kind_weights: how often an episode's query is of each kind.
        steps: optimiser steps.
        text_only_steps: so many of them first, in which the language model reads the class without the photo and is
            not adapted, so that its answer is computed once a text.
        batch_size: episodes a step.
        learning_rate, warmup_steps, betas, clip_norm: AdamW without weight decay, linear warm-up, then linear decay.
        visual_only, semantic_only: share of episodes with one prompt; the others have both.
        description_share: share of the questions that come with the class's definition, where there is one.
        misnamed: share of the episodes with both prompts that are given another class's name.
        checkpoint_every, log_every: in steps.
    """

    size: str = "tiny"
    seed: int = 0
    scenes: dict[str, int] = field(
        default_factory=lambda: {"mosaic": 1000, "photo": 420, "cutouts": 260, "single": 160}
    )
    scene_supports: int = 300
    kind_weights: dict[str, float] = field(
        default_factory=lambda: {"mosaic": 0.55, "photo": 0.25, "cutouts": 0.12, "single": 0.08}
    )
    steps: int = 3000
    text_only_steps: int = 2000
    batch_size: int = 8
    learning_rate: float = 3e-4
    warmup_steps: int = 100
    betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: float = 1.0
    visual_only: float = 0.25
    semantic_only: float = 0.25
    description_share: float = 0.4
    misnamed: float = 0.3
    checkpoint_every: int = 250
    log_every: int = 25

    def __post_init__(self) -> None:
        """Raises InputError where a setting cannot be."""
        if self.size not in ("tiny", "paper"):
            raise InputError(f"There is no size '{self.size}'; choose tiny or paper.")
        for name in ("steps", "batch_size", "warmup_steps", "checkpoint_every", "log_every"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise InputError(f"The setting {name} is {getattr(self, name)!r}; give a whole number from 1.")
        for name in ("scenes", "kind_weights"):
            if unknown := getattr(self, name).keys() - set(SceneComposer.kinds):
                raise InputError(f"{name} names {unknown.pop()!r}; the kinds are {', '.join(SceneComposer.kinds)}.")


def load_config(file: Path) -> TrainingConfig:
    """Reads a YAML file.

    Raises:
        InputError: it cannot be read, or a setting cannot be.
    """
    try:
        settings = yaml.safe_load(file.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"The settings {file} cannot be read ({error}); give a YAML file.") from error
    if not isinstance(settings, dict):
        raise InputError(f"The settings {file} are no mapping; write one 'name: value' a line.")
    if unknown := sorted(settings.keys() - {entry.name for entry in fields(TrainingConfig)}):
        raise InputError(f"{file} names settings that there are not: {', '.join(unknown)}.")
    return TrainingConfig(**settings)
