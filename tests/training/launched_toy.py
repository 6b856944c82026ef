"""`dsvlfs train` of the sizes `paper` and `base` at toy widths, for processes of their own."""

import os
from pathlib import Path

import paper_like
import torch
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

from dsvlfs import DSVLFSConfig
from dsvlfs.cli import main
from dsvlfs.training import run


def run_toy(bases: Path, arguments: list[object], steps: int | None = None) -> int:
    """The command, its model divided by FSDP2 as the launcher's settings say: accelerate itself takes FSDP for GPUs
    alone, torch's runs on a CPU too.

    Args:
        bases: of both sizes.
        arguments: of the command.
        steps: after so many the process ends without a word; None ends with the run.
    """
    started, step = run.start, run.Trainer.step

    def step_or_end(trainer, number, batches):
        if number == steps:
            os._exit(9)
        return step(trainer, number, batches)

    run.Trainer.step = step_or_end

    def start(config, out):
        accelerator, plan = started(config, out)
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        return accelerator, plan

    torch.set_num_threads(1)
    run.start = start
    DSVLFSConfig.paper = classmethod(lambda _: paper_like.config(*_folders(bases / "paper")))
    DSVLFSConfig.base = classmethod(lambda _: paper_like.base_config(*_folders(bases / "base")))
    return main(["train", *map(str, arguments)])


def _folders(folder: Path) -> tuple[Path, Path]:
    return folder / "sam", folder / "llava"
