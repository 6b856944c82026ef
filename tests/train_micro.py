"""`dsvlfs train` with the micro model, in this process or as one of its own.

As a process: `python train_micro.py NAME:N ...`, with the command's own arguments after the first: it kills itself just
before the N-th rename to NAME; `none` lets it live.
"""

import os
import signal
import sys
from pathlib import Path

from conftest import build_micro_model

from dsvlfs import DSVLFSConfig, DSVLFSModel
from dsvlfs.cli import build_parser, main
from dsvlfs.training import episode_losses
from dsvlfs.training.run import train


def run(*arguments: object) -> None:
    """A run by the command's arguments; what is wrong is raised."""
    episode_losses.DSVLFSModel = _build
    given = vars(build_parser().parse_args(["train", *map(str, arguments)]))
    del given["run"]
    train(given.pop("config"), given.pop("data_root"), given.pop("out"), **given)


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
    episode_losses.DSVLFSModel = _build
    sys.exit(main(["train", *sys.argv[2:]]))
