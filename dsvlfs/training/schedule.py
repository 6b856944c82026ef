"""What each step of a run sees: its episodes, its share of them for each process, its learning rate, its dropout.

All of it depends on the settings and the step's number alone. So a resumed run goes on as if it had not been stopped,
and the number of processes does not change what is learned.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .settings import TrainingConfig


def learning_rate_factor(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then linear decay to nought at the last step.

    Args:
        step: number of steps done.
    """
    return min((step + 1) / config.warmup_steps, (config.steps - step) / max(1, config.steps - config.warmup_steps))


@dataclass(frozen=True)
class StepPlan:
    """Divides a step's episodes into micro-batches, and these between processes.

    Args:
        batch_size: episodes a step.
        micro_batch_size: episodes of a micro-batch at most; None divides a step between the processes only.
        processes: number of processes.

    Raises:
        InputError: the step cannot be divided evenly between the processes.
    """

    batch_size: int
    micro_batch_size: int | None
    processes: int

    def __post_init__(self) -> None:
        if self.batch_size % self.processes:
            raise InputError(
                f"A batch_size of {self.batch_size} cannot be divided evenly between {self.processes} processes; "
                "change batch_size or the number of processes."
            )

    @property
    def size(self) -> int:
        """Episodes of a micro-batch: as many as may be, so that a process's share of a step comes out even."""
        share = self.batch_size // self.processes
        return next(size for size in range(min(self.micro_batch_size or share, share), 0, -1) if share % size == 0)

    @property
    def accumulation(self) -> int:
        """Micro-batches of a process in a step."""
        return self.batch_size // (self.size * self.processes)

    def numbers(self, process: int) -> range:
        """Numbers of a process's micro-batches in a step."""
        return range(process, self.batch_size // self.size, self.processes)

    def episodes(self, steps: range, process: int) -> Iterator[list[int]]:
        """Indices of the episodes of each of a process's micro-batches.

        Args:
            steps: from 0.
            process: whose.
        """
        for step in steps:
            for number in self.numbers(process):
                start = step * self.batch_size + number * self.size
                yield list(range(start, start + self.size))


def dropout_seed(seed: int, step: int, number: int) -> int:
    """The seed of what is drawn by chance while the micro-batch `number` of `step` is computed."""
    return int(np.random.SeedSequence((seed, step, number)).generate_state(1)[0])
