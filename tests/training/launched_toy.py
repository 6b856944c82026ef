"""`dsvlfs train` of the sizes `paper` and `base` at toy widths, for processes of their own."""

from pathlib import Path

import paper_like
import torch
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

from dsvlfs import DSVLFSConfig
from dsvlfs.cli import main
from dsvlfs.training import run


def run_toy(bases: Path, arguments: list[object]) -> int:
    """The command, its model divided by FSDP2 as the launcher's settings say: accelerate itself takes FSDP for GPUs
    alone, torch's runs on a CPU too."""
    started = run.start

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
