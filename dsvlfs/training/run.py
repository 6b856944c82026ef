"""A run from its settings to its last checkpoint.

With packs (`tiny.yaml`) the frozen features are computed once and kept; with a named data set each step computes those
of its own photos. In the first `text_only_steps` the language model reads the class alone and is left as it is, and
the semantic prompt as `alignment.py` fits it; the others train everything, LoRA and LLaVA's projector included, with
the photo in the question. Where `max_shots` is above 1, all that learns is the attention over several shots, on top of
the checkpoint that the run starts from.

A run writes its state as it goes; killed and resumed, it goes on with the same episodes.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import DistributedType, set_seed
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..errors import InputError
from ..hub.checkpoint_files import PACKAGED_CHECKPOINTS
from ..hub.imagenet_classes import imagenet_classes
from ..measuring.correlation_health import MEASURES, is_collapsed
from ..processes import PATIENCE
from .episode_losses import EpisodeLosses, build_model
from .feature_cache import FeatureCache
from .remembering import remember_classes
from .run_folder import RunFolder
from .schedule import StepPlan
from .seeing import start_seeing
from .settings import PACKS, TrainingConfig, load_config
from .shot_losses import ShotLosses
from .sources import open_episodes, seen_cache
from .trainer import Trainer
from .validation import validate


def start(config: TrainingConfig, out: Path) -> tuple[Accelerator, StepPlan]:
    """Joins the processes that the launcher started, and divides the steps between them.

    Raises:
        InputError: the settings do not fit the launcher's.
    """
    plan = StepPlan(config.batch_size, config.micro_batch_size, int(os.environ.get("WORLD_SIZE", 1)))
    on_gpu = torch.cuda.is_available()
    accelerator = Accelerator(
        cpu=not on_gpu,
        mixed_precision=config.mixed_precision if on_gpu else "no",
        gradient_accumulation_steps=plan.accumulation,
        log_with="tensorboard",
        project_dir=out,
        # Where a prompt can be missing, so can the gradients of its part, in one process and not in another.
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=not config.always_whole, gradient_as_bucket_view=True),
            InitProcessGroupKwargs(timeout=PATIENCE),
        ],
    )
    divided = accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
    if divided and not config.always_alike:
        raise InputError(
            "FSDP and DeepSpeed need the same parts in every process and step; set visual_only and semantic_only to 0 "
            "or 1 and text_only_steps to 0, or launch without them."
        )
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        accelerator.state.deepspeed_plugin.deepspeed_config |= {
            "train_micro_batch_size_per_gpu": plan.size,
            "gradient_accumulation_steps": plan.accumulation,
            "gradient_clipping": config.clip_norm,
        }
        _autocast_under_zero(accelerator)
    if accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise InputError("FSDP is used in its second version; set fsdp_version: 2 in Accelerate's settings.")
    return accelerator, plan


def _autocast_under_zero(accelerator: Accelerator) -> None:
    """DeepSpeed's own bfloat16 casts every weight and no photo; autocast is what all other layouts have."""
    config = accelerator.state.deepspeed_plugin.deepspeed_config
    if accelerator.mixed_precision == "bf16":
        config["bf16"] = {"enabled": False}
        # No module's gradients are rounded on their way to the others.
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}


def train(
    config_file: Path,
    data_root: Path,
    out: Path,
    *,
    fold: int | None = None,
    cache: Path | None = None,
    start_from: Path | None = None,
    resume: bool = False,
) -> None:
    """A run, or what is left of it.

    Args:
        config_file: settings (YAML).
        data_root: folder of the training packs or the data set.
        out: folder of the run.
        fold: of the data set, in place of the settings' own.
        cache: folder of the frozen features; None keeps them in the run's.
        start_from: folder of a checkpoint whose weights are the start; None takes the settings'.
        resume: whether to go on where the run stopped.

    Raises:
        InputError: a setting or the data cannot be used.
        BaseNotAvailableError: a base cannot be had.
    """
    config = load_config(config_file, fold=fold)
    if start_from is None and config.start_from is not None and not resume:
        start_from = PACKAGED_CHECKPOINTS.get(config.start_from, Path(config.start_from))
    accelerator, plan = start(config, out)
    is_main = accelerator.is_main_process
    run = RunFolder(out)
    if is_main:
        run.open(config, start_from=start_from, resume=resume)
    accelerator.wait_for_everyone()
    progress = run.progress()
    accelerator.init_trackers("curves", init_kwargs={"tensorboard": {"purge_step": progress.step + 1}})
    set_seed(config.seed)
    model = build_model(config, accelerator, run.last if progress.step else run.start_from())
    reads_no_photo = config.text_only_steps or config.extend_names
    if not progress.step and reads_no_photo and model.semantic_encoder.is_adapted:
        raise InputError(
            f"The language model of {run.start_from()} is adapted to photos, and text_only_steps suppose one "
            "that is not; set them to 0."
        )
    keeps_names = config.learns_shots or config.learns_photo
    if keeps_names and not model.grounding.basis.any():
        raise InputError(f"The names of {run.start_from()} were never fitted; give --start-from a trained checkpoint.")
    if config.remembers and model.request_fit is None:
        raise InputError("remembers needs the fit to the request; start from a checkpoint that has fit_ridge.")
    if config.dataset == PACKS:
        model.to(accelerator.device)  # the frozen features come before the first step
    episodes = open_episodes(config, model.eval(), data_root, cache or out / "cache")
    if episodes.alignment is not None:
        if episodes.alignment.accuracy is not None:
            accelerator.print(f"Held-out names find their own photo among four in {episodes.alignment.accuracy:.0%}.")
        if not (keeps_names or progress.step):
            episodes.alignment.apply(model)
    if config.remembers and not progress.step:
        remember_classes(model, seen_cache(config, cache or out / "cache"))
    if config.learns_photo:
        if model.semantic_encoder.photo_prompt is None:  # one that has learned is gone on with
            start_seeing(model, FeatureCache(cache or out / "cache"), imagenet_classes())
        model.requires_grad_(False)
        model.semantic_encoder.photo_prompt.requires_grad_(True)
        if config.photo_lora:
            model.semantic_encoder.adapt()
    losses = (ShotLosses if config.learns_shots else EpisodeLosses)(model, episodes.alignment).train()
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=0.0,
    )
    _wrap_layers_of(losses, accelerator)
    losses, optimizer = accelerator.prepare(losses, optimizer)
    model = accelerator.unwrap_model(losses).model
    run.load_state(model, optimizer)
    trainer = Trainer(config, accelerator, losses, optimizer, plan)
    started = time.time()
    bar = tqdm(
        trainer.batches(episodes, progress.step),
        initial=progress.step,
        total=config.steps,
        unit="step",
        disable=not is_main,
    )
    for batches in bar:
        health = None
        if _due(progress.step + 1, config.log_every) and not config.learns_shots:
            figures, health = trainer.watched_step(progress.step, batches, model.matcher)
        else:
            figures = trainer.step(progress.step, batches)
        progress.step += 1
        progress.figures = {
            name: [a + b for a, b in zip(progress.figures.get(name, (0, 0)), new)] for name, new in figures.items()
        }
        if _due(progress.step, config.log_every):
            means = {name: total / count for name, (total, count) in progress.figures.items() if count}
            progress.figures = {}
            _log(accelerator, run, "losses.jsonl", progress.step, {"seconds": round(time.time() - started, 1)}, means)
            bar.set_postfix({name: f"{mean:.3f}" for name, mean in means.items()})
            if health is not None:
                _log_correlation(accelerator, run, progress.step, model.config.correlation_layers, health)
        if episodes.validation is not None and _due(progress.step, config.validation_every, config.steps):
            miou, picture = validate(
                losses,
                episodes.validation,
                accelerator,
                collate=episodes.collate_validation,
                batch_size=plan.size,
                workers=config.workers,
                pictures=config.validation_pictures,
            )
            _log(accelerator, run, "validation.jsonl", progress.step, {}, {"validation_miou": miou})
            if is_main and picture is not None:
                _show(accelerator, run, progress.step, picture)
            if miou > progress.best:
                progress.best = miou
                run.save_checkpoint("best", model, is_main=is_main)
        if _due(progress.step, config.checkpoint_every, config.steps):
            run.save_state(model, optimizer, progress, is_main=is_main)
    run.save_checkpoint("final", model, is_main=is_main)
    accelerator.end_training()


def _wrap_layers_of(losses: torch.nn.Module, accelerator: Accelerator) -> None:
    """Of the classes of layers that FSDP's settings name, for models of all sizes, leaves those that the model has."""
    if accelerator.distributed_type == DistributedType.FSDP:
        plugin = accelerator.state.fsdp_plugin
        there = {type(module).__name__ for module in losses.modules()}
        plugin.transformer_cls_names_to_wrap = [n for n in plugin.transformer_cls_names_to_wrap or [] if n in there]


def _due(step: int, every: int, last: int | None = None) -> bool:
    return every > 0 and (step % every == 0 or step == last)


def _log(
    accelerator: Accelerator, run: RunFolder, name: str, step: int, more: dict[str, Any], means: dict[str, float]
) -> None:
    accelerator.log(means, step=step)
    if accelerator.is_main_process:
        run.log(name, {"step": step} | more | means)


def _log_correlation(
    accelerator: Accelerator, run: RunFolder, step: int, layers: Sequence[str], health: Tensor
) -> None:
    """The correlation's health by layer; measures that have nothing to be taken of are left out."""
    figures = {layer: dict(zip(MEASURES, row)) for layer, row in zip(layers, health.tolist())}
    known = {
        f"{layer}/{name}": value for layer, own in figures.items() for name, value in own.items() if value == value
    }
    _log(accelerator, run, "correlation.jsonl", step, {}, known)
    if collapsed := [layer for layer, own in figures.items() if is_collapsed(own["spread"], own["silent"])]:
        tqdm.write(f"Step {step}: the correlation has collapsed in {', '.join(collapsed)}.", file=sys.stderr)


def _show(accelerator: Accelerator, run: RunFolder, step: int, picture: Any) -> None:
    """A validation's picture, as a file and in TensorBoard."""
    folder = run.folder / "pictures"
    folder.mkdir(exist_ok=True)
    Image.fromarray(picture).save(folder / f"{step:06d}.png")
    accelerator.get_tracker("tensorboard").log_images({"validation": picture[None]}, step=step, dataformats="NHWC")
