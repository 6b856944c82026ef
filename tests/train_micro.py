"""`dsvlfs train` with the micro model."""

import os
import signal
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


def run_command(arguments: list[object], kill_at: tuple[str, int] | None = None) -> int:
    """The command, for a process of its own.

    Args:
        kill_at: name and number of a rename to it, just before which the process kills itself.
    """
    episode_losses.DSVLFSModel = _build
    if kill_at:
        _kill_at_rename(*kill_at)
    return main(["train", *map(str, arguments)])


def _build(config: DSVLFSConfig) -> DSVLFSModel:
    kept = ("fit_loss_weight", "fit_ridge", "image_lora_rank", "image_lora_layers", "remembered_classes")
    model = build_micro_model(**{name: getattr(config, name) for name in kept})
    if config.shot_aggregation == "attention":
        model.add_shot_attention()
    if config.photo_state:
        model.semantic_encoder.add_photo_prompt()
        model.config.photo_state = True
    return model


def _kill_at_rename(name: str, count: int) -> None:
    rename, renamed = os.replace, []

    def counting(source: os.PathLike, target: os.PathLike) -> None:
        renamed.append(Path(target).name)
        if renamed[-1] == name and renamed.count(name) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)

    os.replace = counting
