"""What several commands do before and after their one call."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from ..modeling import DSVLFSModel


def in_all_processes(command: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """A command that as many processes share as were launched: they fail together, and leave together."""

    def run(arguments: argparse.Namespace) -> int:
        from ..processes import all_processes

        with all_processes():
            return command(arguments)

    return run


def quieten() -> None:
    """No progress bar of each base's tensors: they take seconds, and are not the user's progress."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def load_model(name: str) -> DSVLFSModel:
    """A checkpoint's model, on this process's GPU where there is one."""
    from .. import DSVLFSModel
    from ..processes import join_processes

    quieten()
    model = DSVLFSModel.from_pretrained(name)
    model.to(join_processes().device)
    return model


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be made ({error.strerror}); give another --out.") from error


def complain(error: Exception) -> None:
    if os.environ.get("RANK", "0") == "0":  # once, however many processes Accelerate launched
        print(f"dsvlfs: {error}", file=sys.stderr)
