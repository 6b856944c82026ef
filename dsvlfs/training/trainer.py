"""The steps of a run: what one learns from, and what it reports."""

from collections.abc import Iterator

import torch
from accelerate import Accelerator
from torch import Tensor

from ..data.loading import load_ahead
from ..measuring.correlation_health import correlation_health, watched
from ..parts.matching import DenseMatcher
from .photo_episodes import PhotoBatch
from .sampling import TrainingBatch
from .schedule import StepPlan, dropout_seed, learning_rate_factor
from .settings import TrainingConfig
from .sources import Episodes

FIGURES = ("loss", "text_loss", "bce_loss", "dice_loss", "fit_loss", "iou_both", "iou_semantic", "iou_visual")


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
        batches = load_ahead(
            episodes.training,
            workers=self.config.workers,
            collate=episodes.collate,
            batch_sampler=list(plan.episodes(range(done, self.config.steps), process)),
            pin_memory=self.accelerator.device.type == "cuda",
        )
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
    shown = visual.sum() * (output["fit_loss"] > 0)  # of no episode where it is not taken
    modes = [semantic & visual, semantic & ~visual, ~semantic & visual]
    sums = [
        output["loss"].detach(),
        output["text_loss"] * questions,
        output["bce_loss"] * episodes,
        output["dice_loss"] * episodes,
        output["fit_loss"] * shown,
        *((iou * chosen).sum() for chosen in modes),
    ]
    counts = [1, questions, episodes, episodes, shown, *(chosen.sum() for chosen in modes)]
    return torch.stack(
        [torch.as_tensor(value, dtype=torch.float64, device=iou.device) for value in sums + counts]
    ).view(2, -1)
