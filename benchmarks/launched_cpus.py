"""What a launcher asks for on GPUs, on CPUs: training asks accelerate for CPUs there, between which accelerate divides
no model, and on which it starts no DeepSpeed."""

import os
from pathlib import Path
from typing import Any

from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

from dsvlfs.processes import PATIENCE
from dsvlfs.training import run

ENVIRONMENT = {"ACCELERATE_TORCH_DEVICE": "cpu", "DS_ACCELERATOR": "cpu"}


def divide(mixed_precision: str) -> None:
    """Lets `run.start` of this process divide the run as the launcher's variables say, with `ENVIRONMENT` beside them.

    Args:
        mixed_precision: "bf16" or "no".
    """
    started = run.start

    def accelerator(**given: Any) -> Accelerator:
        given["mixed_precision"] = mixed_precision
        if _asked("DEEPSPEED"):  # told no CPU, accelerate starts it, and the processes meet as the handler says
            others = [own for own in given["kwargs_handlers"] if not isinstance(own, InitProcessGroupKwargs)]
            given |= {"cpu": False, "kwargs_handlers": [*others, InitProcessGroupKwargs("gloo", timeout=PATIENCE)]}
        return Accelerator(**given)

    def start(config: Any, out: Path) -> Any:
        accelerator, plan = started(config, out)
        if _asked("FSDP"):
            accelerator.state.distributed_type = DistributedType.FSDP
            accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
            if mixed_precision != "no":
                accelerator.state.fsdp_plugin.set_mixed_precision(mixed_precision)
        return accelerator, plan

    run.Accelerator, run.start = accelerator, start


def _asked(what: str) -> bool:
    return os.environ.get(f"ACCELERATE_USE_{what}", "").lower() == "true"
