"""A training run's settings, from a YAML file."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from typing_extensions import TypedDict

from ..errors import InputError
from ..files import checked, read_text
from .scenes import SceneComposer

PACKS = "packs"
DEFAULT_PACKS = ("imagenet_sample", "clothing_sample", "coco_sample", "camvid_sample", "stamps")
OWN_PHOTOS = "own_photos"
PACK_NAMES = (*DEFAULT_PACKS, "VOC2012", "domains", OWN_PHOTOS)

# A run may go on with others of these: they change how a step is computed, not what it learns from.
_OF_THE_MACHINE = ("micro_batch_size", "mixed_precision", "gradient_checkpointing", "workers", "log_every")


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a run; the file names those that differ.

    Args:
        size: of the model, "tiny", "base" or "paper".
        dataset: "packs" (photos of one and of several objects and cut-outs, composed to scenes whose frozen features
            are computed once), or a set of `dsvlfs.data.named_sets`, whose frozen features each step computes.
        packs: names of the packs (`dsvlfs.training.packs`) under the data root; "own_photos" is the root itself, a
            folder of photos with masks (`dsvlfs.data.photos.load_own_photos`).
        left_out_packs: of the packs that are folders of several, those that are passed over, for choosing on.
        fold: of the named set, or of PASCAL-5i, whose tested classes the packs then pass over: they are neither asked
            for nor shown, and where a photo shows one, it is background. None where there is none.
        left_out_classes: names of further classes that the packs pass over in training; the cached photos that show
            them are what such a run is validated on.
        seed: of scenes, episodes and weights.
        scenes: number of cached query scenes by kind (`SceneComposer.kinds`).
        class_supports: cached supports of a class, at most, from photos of several objects.
        kind_weights: how often an episode's query is of each kind.
        steps: optimiser steps; none with `extend_names` leaves it at what is solved in closed form.
        text_only_steps: so many of them first, in which the language model reads the class without the photo and is
            not adapted, so that its answer is computed once a text; with "packs" and the tiny size only.
        batch_size: episodes a step, of all processes together.
        micro_batch_size: episodes that a process computes at once, at most; what a step has more is accumulated. None
            computes a process's share of a step at once.
        mixed_precision: on a GPU, "bf16" or "no"; a CPU computes in full precision.
        gradient_checkpointing: recompute the language model's activations in the backward pass.
        workers: processes that load photos, for each training process.
        learning_rate, warmup_steps, betas, clip_norm: AdamW without weight decay, linear warm-up, then linear decay.
        visual_only, semantic_only: share of episodes with one prompt; the others have both.
        description_share: share of the questions that come with a description, where there is one: the class's
            definition, or of a named set's class the bank's text.
        description_noise: share of the descriptions that are no help: a part of the right one, noise, another class's.
        misnamed: share of the episodes with both prompts that are given another class's name.
        made_up: share of the packs' episodes with both prompts that are given a word that means nothing.
        in_passes: of a named set, ask for every photo and class once a pass, as the reference does, rather than for
            every class equally often.
        absent: share of the packs' episodes that ask for a class which the query does not show.
        fit_shots: supports of an episode of the packs, at most, that the fit to the request reads.
        classifier_names: fit the names of the classes of the vision tower's own classifier as well (`ClassifierLooks`).
        start_from: name or folder of the checkpoint that a run starts from where its command names none; None starts
            from the bases alone.
        extend_names: keep the checkpoint's fit of names and add those of the packs' classes to it, in place of a fit
            to these alone.
        remembers: keep what the classes of the packs' queries look like under their names as well
            (`dsvlfs.parts.class_memory`), solved from views that show them before the first step.
        learns_photo: train what the photo adds to the semantic prompt alone (`PhotoPrompt`), on top of a checkpoint
            whose projector then learns to see in closed form (`dsvlfs.training.seeing`).
        photo_lora: where `learns_photo`, train LoRA on the language model as well, which the class's own state is read
            without.
        learns_image: train LoRA on the image encoder as well (the model's `image_lora_rank`): the cache then keeps what
            that sees in place of its features, which each step makes anew; for a GPU, with "packs" alone.
        model: settings of the model (`DSVLFSConfig`) in place of the size's; a run that starts from a checkpoint has
            that one's, and does not read these.
        max_shots: supports of an episode at most. Above 1, only the attention over the shots learns, and the rest is a
            checkpoint's: with "packs" alone, every step reading names alone, and no validation.
        bad_shots: share of the episodes of several supports with one or two bad ones.
        validation_every: in steps; 0 leaves it out.
        validation_episodes: of each file, at most, or of a named set's test classes.
        validation_files: pairs of a folder of photos and a file of episodes, under the data root; a named set is
            validated without on the classes that it tests.
        validation_pictures: episodes drawn at each validation.
        checkpoint_every, log_every: in steps.
    """

    size: str = "tiny"
    dataset: str = PACKS
    packs: list[str] = field(default_factory=lambda: list(DEFAULT_PACKS))
    left_out_packs: list[str] = field(default_factory=list)
    fold: int | None = None
    left_out_classes: list[str] = field(default_factory=list)
    seed: int = 0
    scenes: dict[str, int] = field(
        default_factory=lambda: {"mosaic": 1000, "photo": 420, "cutouts": 260, "single": 160}
    )
    class_supports: int = 8
    kind_weights: dict[str, float] = field(
        default_factory=lambda: {"mosaic": 0.55, "photo": 0.25, "cutouts": 0.12, "single": 0.08}
    )
    steps: int = 3000
    text_only_steps: int = 0
    batch_size: int = 8
    micro_batch_size: int | None = None
    mixed_precision: str = "bf16"
    gradient_checkpointing: bool = False
    workers: int = 0
    learning_rate: float = 3e-4
    warmup_steps: int = 100
    betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: float = 1.0
    visual_only: float = 0.25
    semantic_only: float = 0.25
    description_share: float = 0.4
    description_noise: float = 0.0
    misnamed: float = 0.3
    made_up: float = 0.0
    absent: float = 0.0
    in_passes: bool = False
    fit_shots: int = 1
    classifier_names: bool = False
    start_from: str | None = None
    extend_names: bool = False
    remembers: bool = False
    learns_photo: bool = False
    photo_lora: bool = False
    learns_image: bool = False
    model: dict[str, Any] = field(default_factory=dict)
    max_shots: int = 1
    bad_shots: float = 0.0
    validation_every: int = 0
    validation_episodes: int = 200
    validation_files: list[list[str]] = field(default_factory=list)
    validation_pictures: int = 4
    checkpoint_every: int = 250
    log_every: int = 25

    def __post_init__(self) -> None:
        """Raises InputError where a setting cannot be."""
        if self.size not in ("tiny", "base", "paper"):
            raise InputError(f"There is no size '{self.size}'; choose tiny, base or paper.")
        if self.mixed_precision not in ("bf16", "no"):
            raise InputError(f"There is no mixed_precision '{self.mixed_precision}'; choose bf16 or no.")
        least = dict.fromkeys(
            (
                "batch_size",
                "warmup_steps",
                "max_shots",
                "fit_shots",
                "class_supports",
                "validation_episodes",
                "checkpoint_every",
                "log_every",
            ),
            1,
        )
        least |= dict.fromkeys(("text_only_steps", "workers", "validation_every", "validation_pictures"), 0)
        least["steps"] = 0 if self.extend_names else 1
        least |= {name: 1 for name in ("micro_batch_size",) if getattr(self, name) is not None}
        least |= {name: 0 for name in ("fold",) if getattr(self, name) is not None}
        for name, smallest in least.items():
            value = getattr(self, name)
            if type(value) is not int or value < smallest:
                raise InputError(f"The setting {name} is {value!r}; give a whole number from {smallest}.")
        for name in ("learning_rate", "clip_norm"):
            value = getattr(self, name)
            if type(value) not in (int, float) or value <= 0:
                raise InputError(f"The setting {name} is {value!r}; give a number above 0, such as 6.0e-4.")
        if not isinstance(self.betas, (list, tuple)) or [type(beta) for beta in self.betas] != [float, float]:
            raise InputError(f"The setting betas is {self.betas!r}; give two numbers, such as [0.9, 0.95].")
        for name in (
            "visual_only",
            "semantic_only",
            "description_share",
            "description_noise",
            "misnamed",
            "made_up",
            "absent",
            "bad_shots",
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise InputError(f"The setting {name} is {value!r}; give a share from 0 to 1.")
        if (self.text_only_steps or self.extend_names) and (self.size, self.dataset) != ("tiny", PACKS):
            raise InputError(
                "text_only_steps and extend_names are for size tiny on the packs; set them to 0 and to false."
            )
        if self.extend_names and (self.learns_shots or self.text_only_steps != self.steps):
            raise InputError("extend_names is for steps without the photo; set text_only_steps to as many as steps.")
        if self.learns_photo and (self.learns_shots or self.extend_names or self.text_only_steps != self.steps):
            raise InputError(
                "learns_photo keeps the names' fit: set text_only_steps to as many as steps, max_shots to 1 and "
                "extend_names to false."
            )
        if self.photo_lora and not self.learns_photo:
            raise InputError("photo_lora is a part of learns_photo; set that to true as well.")
        if self.learns_shots and (self.text_only_steps != self.steps or self.semantic_only or self.validation_every):
            raise InputError(
                "With max_shots above 1, text_only_steps must be as many as steps, and semantic_only and "
                "validation_every 0."
            )
        if self.remembers and (self.learns_image or self.dataset != PACKS):
            raise InputError(
                "remembers is for the packs, and keeps features of an image encoder that does not learn; set it or "
                "learns_image to false."
            )
        if self.learns_image and (self.learns_shots or self.learns_photo or self.dataset != PACKS):
            raise InputError(
                "learns_image is for the packs, with max_shots 1 and without learns_photo; set it to false."
            )
        for name in ("packs", "left_out_packs", "left_out_classes"):
            value = getattr(self, name)
            if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
                raise InputError(f"The setting {name} is {value!r}; give a list of names.")
        if unknown := set(self.packs) - set(PACK_NAMES):
            raise InputError(f"packs names {unknown.pop()!r}; the packs are {', '.join(PACK_NAMES)}.")
        switches = ("classifier_names", "extend_names", "remembers", "in_passes", "learns_photo", "photo_lora")
        for name in (*switches, "learns_image"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"The setting {name} is {getattr(self, name)!r}; give true or false.")
        if not isinstance(self.start_from, str | None):
            raise InputError(f"The setting start_from is {self.start_from!r}; give a checkpoint's name or folder.")
        if not isinstance(self.model, dict):
            raise InputError(f"The setting model is {self.model!r}; give a mapping of the model's settings.")
        for name in ("scenes", "kind_weights"):
            if not isinstance(getattr(self, name), dict):
                raise InputError(f"The setting {name} is {getattr(self, name)!r}; give a number for each kind.")
            if unknown := getattr(self, name).keys() - set(SceneComposer.kinds):
                raise InputError(f"{name} names {unknown.pop()!r}; the kinds are {', '.join(SceneComposer.kinds)}.")

    @property
    def learns_shots(self) -> bool:
        """Whether the run trains the attention over several shots, of a checkpoint."""
        return self.max_shots > 1

    @property
    def always_whole(self) -> bool:
        """Whether every trained part works in every episode of every step."""
        return not (self.visual_only or self.semantic_only or self.text_only_steps)

    @property
    def always_alike(self) -> bool:
        """Whether the same trained parts work in every episode of every step, be it all or those of one prompt."""
        return not self.text_only_steps and {self.visual_only, self.semantic_only} <= {0, 1}

    def may_go_on_as(self, other: "TrainingConfig") -> bool:
        """Whether a run with these settings can be resumed with those."""
        return replace(self, **{name: getattr(other, name) for name in _OF_THE_MACHINE}) == other


def load_config(file: Path, *, fold: int | None = None) -> TrainingConfig:
    """Reads a YAML file.

    Args:
        fold: in place of the file's.

    Raises:
        InputError: it cannot be read, or a setting cannot be.
    """
    try:
        settings = yaml.safe_load(read_text(file)) or {}
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # nested without end, a number of thousands of digits
        if isinstance(error, InputError):
            raise
        raise InputError(f"The settings {file} cannot be read ({error}); give a YAML file.") from error
    if not isinstance(settings, dict):
        raise InputError(f"The settings {file} are no mapping; write one 'name: value' a line.")
    return from_settings(settings if fold is None else settings | {"fold": fold}, file)


def from_settings(settings: dict[str, Any], file: Path) -> TrainingConfig:
    """A config of settings that `file` holds.

    Raises:
        InputError: one is unknown, or cannot be.
    """
    known = {entry.name for entry in fields(TrainingConfig)}
    if unknown := sorted(str(name) for name in settings.keys() - known):
        raise InputError(f"{file} names settings that there are not: {', '.join(unknown)}.")
    if isinstance(settings.get("betas"), list):
        settings = settings | {"betas": tuple(settings["betas"])}
    try:
        config = TrainingConfig(**settings)
    except TypeError as error:
        raise InputError(f"{file} has a setting of a wrong type ({error}); correct it.") from error
    checked({entry.name: getattr(config, entry.name) for entry in fields(config)}, _SCHEMA, str(file))
    return config


_SCHEMA = TypedDict("_SCHEMA", get_type_hints(TrainingConfig))
