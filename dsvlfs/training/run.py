"""Trains DSV-LFS: `accelerate launch train/train.py --config train/configs/NAME.yaml --data-root DATA --out RUN`.

With packs (`tiny.yaml`) the frozen features are computed once and kept; with a named data set each step computes those
of its own photos. In the first `text_only_steps` the language model reads the class alone and is left as it is, and
the semantic prompt as `alignment.py` fits it; the others train everything, LoRA and LLaVA's projector included, with
the photo in the question. Where `max_shots` is above 1, all that learns is the attention over several shots, on top of
the checkpoint `--start-from` and the feature cache that it was trained from (`--cache`).

A run writes its state as it goes; killed and started again with `--resume`, it goes on with the same episodes.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import DistributedType, set_seed
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..errors import InputError
from ..hub.bases import BaseNotAvailableError
from ..measuring.correlation_health import MEASURES, correlation_health, is_collapsed, watched
from ..parts.matching import DenseMatcher
from ..processes import PATIENCE
from .episode_losses import EpisodeLosses, build_model
from .photo_episodes import PhotoBatch
from .run_folder import RunFolder
from .sampling import TrainingBatch
from .schedule import StepPlan, dropout_seed, learning_rate_factor
from .settings import TrainingConfig, load_config
from .shot_losses import ShotLosses
from .sources import Episodes, open_episodes
from .validation import validate

FIGURES = ("loss", "text_loss", "bce_loss", "dice_loss", "iou_both", "iou_semantic", "iou_visual")


class Trainer:
    """The steps of a run.

    Args:
        config: the run's settings.
        accelerator: from `start`.
        losses, optimizer: as Accelerate prepared them.
        plan: of the steps.
    """

    def __init__(
        self,
        config: TrainingConfig,
        accelerator: Accelerator,
        losses: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        plan: StepPlan,
    ) -> None:
        self.config, self.accelerator, self.plan = config, accelerator, plan
        self.losses, self.optimizer = losses, optimizer
        self.trained = [parameter for parameter in losses.parameters() if parameter.requires_grad]

    def batches(self, episodes: Episodes, done: int) -> Iterator[list[TrainingBatch | PhotoBatch]]:
        """This process's micro-batches of each step after `done`."""
        plan, process = self.plan, self.accelerator.process_index
        loader = DataLoader(
            episodes.training,
            batch_sampler=list(plan.episodes(range(done, self.config.steps), process)),
            collate_fn=episodes.collate,
            num_workers=self.config.workers,
            pin_memory=self.accelerator.device.type == "cuda",
            generator=torch.Generator(),  # of its own: a loader draws a number when it starts
        )
        batches = iter(loader)
        for _ in range(done, self.config.steps):
            yield [next(batches) for _ in range(plan.accumulation)]

    def watched_step(
        self, number: int, batches: list[TrainingBatch | PhotoBatch], matcher: DenseMatcher
    ) -> tuple[dict[str, list[float]], Tensor | None]:
        """A step, and the health of the correlation (layers, measures) in this process's last micro-batch; None where
        no sample of that has a support."""
        with watched(matcher) as last:
            figures = self.step(number, batches)
        batch = batches[-1]
        if not batch.use_visual.any():
            return figures, None
        target = batch.target[batch.use_visual].to(self.accelerator.device)
        return figures, correlation_health(*last[0], target).nanmean(dim=0)

    def step(self, number: int, batches: list[TrainingBatch | PhotoBatch]) -> dict[str, list[float]]:
        """One optimiser step.

        Args:
            number: of the step, from 0.
            batches: this process's micro-batches.

        Returns:
            Sum and count of each of `FIGURES` over the whole step, all processes together.
        """
        config, accelerator, plan = self.config, self.accelerator, self.plan
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * learning_rate_factor(number, config)
        text_only = number < config.text_only_steps
        # The text loss is a mean over the whole step's questions, which the micro-batches share unevenly.
        questions = accelerator.reduce(
            torch.tensor(sum(len(batch.names) for batch in batches), device=accelerator.device), "sum"
        ).item()
        micro_batches = plan.accumulation * plan.processes
        figures = torch.zeros(2, len(FIGURES), dtype=torch.float64, device=accelerator.device)
        for micro, batch in zip(plan.numbers(accelerator.process_index), batches, strict=True):
            torch.manual_seed(dropout_seed(config.seed, number, micro))
            batch = batch.to(accelerator.device)
            with accelerator.accumulate(self.losses):
                factor = len(batch.names) * micro_batches / max(1, questions)
                output = self.losses(batch, text_only=text_only, text_factor=factor)
                accelerator.backward(output["loss"])
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(self.trained, config.clip_norm)
                self.optimizer.step()
                self.optimizer.zero_grad()
            figures += _figures(output, batch, text_only=text_only)
        sums, counts = accelerator.reduce(figures, "sum").tolist()
        return {name: [total, count] for name, total, count in zip(FIGURES, sums, counts)}


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
    if divided and not config.always_whole:
        raise InputError(
            "FSDP and DeepSpeed need every part in every process and step; set visual_only, semantic_only and "
            "text_only_steps to 0, or launch without them."
        )
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        accelerator.state.deepspeed_plugin.deepspeed_config |= {
            "train_micro_batch_size_per_gpu": plan.size,
            "gradient_accumulation_steps": plan.accumulation,
            "gradient_clipping": config.clip_norm,
        }
    if accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise InputError("FSDP is used in its second version; set fsdp_version: 2 in Accelerate's settings.")
    return accelerator, plan


def train(config: TrainingConfig, arguments: argparse.Namespace) -> None:
    """A run, or what is left of it."""
    accelerator, plan = start(config, arguments.out)
    is_main = accelerator.is_main_process
    run = RunFolder(arguments.out)
    if is_main:
        run.open(config, start_from=arguments.start_from, resume=arguments.resume)
    accelerator.wait_for_everyone()
    progress = run.progress()
    accelerator.init_trackers("curves", init_kwargs={"tensorboard": {"purge_step": progress.step + 1}})
    set_seed(config.seed)
    model = build_model(config, accelerator, run.last if progress.step else run.start_from())
    if not progress.step and config.text_only_steps and model.semantic_encoder.is_adapted:
        raise InputError(
            f"The language model of {run.start_from()} is adapted to photos, and text_only_steps suppose one "
            "that is not; set them to 0."
        )
    cache_folder = arguments.cache or arguments.out / "cache"
    episodes = open_episodes(config, model.eval(), arguments.data_root, cache_folder)
    if episodes.alignment is not None:
        accelerator.print(f"Held-out names find their own photo among four in {episodes.alignment.accuracy:.0%}.")
        if config.learns_shots:
            episodes.alignment.check(model)
        elif not progress.step:
            episodes.alignment.apply(model)
    losses = (ShotLosses if config.learns_shots else EpisodeLosses)(model, episodes.alignment).train()
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=0.0,
    )
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


def main() -> None:
    """Trains; what is wrong is said in one sentence, with exit status 1."""
    try:
        run()
    except (InputError, BaseNotAvailableError) as error:
        message = str(error).strip()
        if "Traceback" in message:  # a worker's error carries it; what it says comes last
            message = message.splitlines()[-1].removeprefix("dsvlfs.errors.InputError: ")
        sys.exit(f"train.py: {message}")


def run() -> None:
    """Trains by the command line's arguments.

    Raises:
        InputError: a setting or the data cannot be used.
        BaseNotAvailableError: a base cannot be had.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="settings (YAML)")
    parser.add_argument("--data-root", type=Path, required=True, help="folder of the training packs or the data set")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--fold", type=int, help="of the data set, in place of the settings' own")
    parser.add_argument("--cache", type=Path, help="folder of the frozen features; default: OUT/cache")
    parser.add_argument("--start-from", type=Path, help="folder of a checkpoint whose weights are the start")
    parser.add_argument("--resume", action="store_true", help="go on where OUT stopped")
    arguments = parser.parse_args()
    train(load_config(arguments.config, fold=arguments.fold), arguments)


def _due(step: int, every: int, last: int | None = None) -> bool:
    return every > 0 and (step % every == 0 or step == last)


def _figures(output: dict[str, Tensor], batch: TrainingBatch | PhotoBatch, *, text_only: bool) -> Tensor:
    """Sums and counts (2, figures) of `FIGURES` over a micro-batch. The loss counts once, for it has its share of the
    step's text loss already."""
    episodes = len(batch.target)
    questions = 0 if text_only else len(batch.names)
    predicted, wanted = output["logits"] > 0, batch.target > 0.5
    if batch.counted is not None:
        predicted, wanted = predicted & (batch.counted > 0.5), wanted & (batch.counted > 0.5)
    iou = (predicted & wanted).sum(dim=(1, 2)) / (predicted | wanted).sum(dim=(1, 2)).clamp(min=1)
    semantic, visual = batch.use_semantic, batch.use_visual
    modes = [semantic & visual, semantic & ~visual, ~semantic & visual]
    sums = [
        output["loss"].detach(),
        output["text_loss"] * questions,
        output["bce_loss"] * episodes,
        output["dice_loss"] * episodes,
        *((iou * chosen).sum() for chosen in modes),
    ]
    counts = [1, questions, episodes, episodes, *(chosen.sum() for chosen in modes)]
    return torch.stack(
        [torch.as_tensor(value, dtype=torch.float64, device=iou.device) for value in sums + counts]
    ).view(2, -1)


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
