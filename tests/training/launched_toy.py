"""`dsvlfs train` of the sizes `paper` and `base` at toy widths, for processes of their own."""

import os
from pathlib import Path

import launched_cpus
import paper_like
import torch

from dsvlfs import DSVLFSConfig
from dsvlfs.cli import main
from dsvlfs.training import run


def run_toy(bases: Path, arguments: list[object], mixed_precision: str, steps: int | None = None) -> int:
    """The command, its model divided as the launcher's settings say.

    Args:
        bases: of both sizes.
        arguments: of the command.
        mixed_precision: "bf16" or "no".
        steps: after so many the process ends without a word; None ends with the run.
    """
    step = run.Trainer.step

    def step_or_end(trainer, number, batches):
        if number == steps:
            os._exit(9)
        return step(trainer, number, batches)

    run.Trainer.step = step_or_end
    torch.set_num_threads(1)
    launched_cpus.divide(mixed_precision)
    DSVLFSConfig.paper = classmethod(lambda _: paper_like.config(*_folders(bases / "paper")))
    DSVLFSConfig.base = classmethod(lambda _: paper_like.base_config(*_folders(bases / "base")))
    return main(["train", *map(str, arguments)])


def _folders(folder: Path) -> tuple[Path, Path]:
    return folder / "sam", folder / "llava"
