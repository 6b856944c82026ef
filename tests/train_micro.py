"""`train/train.py` with the micro model, in this process or as one of its own.

As a process: `python train_micro.py NAME:N ...`, with train.py's own arguments after the first: it kills itself just
before the N-th rename to NAME; `none` lets it live.
"""

import os
import signal
import sys
from pathlib import Path

from conftest import build_micro_model

from dsvlfs import DSVLFSConfig, DSVLFSModel
from dsvlfs.training import episode_losses
from dsvlfs.training import run as train


def run(*arguments: object) -> None:
    """Runs train.py with these arguments."""
    episode_losses.DSVLFSModel = _build
    sys.argv = ["train.py", *map(str, arguments)]
    train.run()


def _build(config: DSVLFSConfig) -> DSVLFSModel:
    model = build_micro_model()
    if config.shot_aggregation == "attention":
        model.add_shot_attention()
    return model


def _kill_at_rename(name: str, count: int) -> None:
    rename, renamed = os.replace, []

    def counting(source: os.PathLike, target: os.PathLike) -> None:
        renamed.append(Path(target).name)
        if renamed[-1] == name and renamed.count(name) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)

    os.replace = counting


if __name__ == "__main__":
    if sys.argv[1] != "none":
        kill_name, kill_count = sys.argv[1].split(":")
        _kill_at_rename(kill_name, int(kill_count))
    run(*sys.argv[2:])
