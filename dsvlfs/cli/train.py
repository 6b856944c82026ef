"""`dsvlfs train`: a training run. `train/train.py` and `python -m dsvlfs.training` are this command."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import InputError


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "train",
        help="train a model",
        description="Trains DSV-LFS, and writes its state as it goes: killed and started again with --resume, it goes "
        "on with the same episodes. Under `accelerate launch -m dsvlfs train ...` the processes share the steps.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("--config", required=True, type=Path, metavar="FILE.yaml", help="settings")
    parser.add_argument(
        "--data-root", required=True, type=Path, metavar="DIR", help="folder of the training packs or the data set"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the run")
    parser.add_argument("--fold", type=int, metavar="N", help="of the data set, in place of the settings' own")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="folder of the frozen features; default: OUT/cache")
    parser.add_argument(
        "--start-from", type=Path, metavar="DIR", help="folder of a checkpoint whose weights are the start"
    )
    parser.add_argument("--resume", action="store_true", help="go on where OUT stopped")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns its exit status."""
    from ..training.run import train

    try:
        train(
            arguments.config,
            arguments.data_root,
            arguments.out,
            fold=arguments.fold,
            cache=arguments.cache,
            start_from=arguments.start_from,
            resume=arguments.resume,
        )
    except (InputError, OSError) as error:  # the processes do not fail together: each says what ended it
        print(f"dsvlfs: {error}", file=sys.stderr)
        return 2
    return 0
