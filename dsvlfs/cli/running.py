"""What several commands do before and after their one call."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..files import os_error

if TYPE_CHECKING:
    from ..modeling import DSVLFSModel


def in_all_processes(command: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """A command that as many processes share as were launched: they fail together, and leave together."""

    def run(arguments: argparse.Namespace) -> int:
        from ..processes import all_processes

        with all_processes():
            return command(arguments)

    return run


def stoppable(command: Callable[[argparse.Namespace], int], advice: str) -> Callable[[argparse.Namespace], int]:
    """A command that Ctrl-C and SIGTERM end with one line, and the status that shells expect: 130, 143.

    Args:
        command: takes the arguments and returns its exit status.
        advice: how to go on.
    """

    def terminate(number: int, frame: object) -> None:
        raise _Terminated

    def run(arguments: argparse.Namespace) -> int:
        is_main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGTERM, terminate) if is_main else None
        try:
            return command(arguments)
        except KeyboardInterrupt as stop:
            complain(f"stopped; {advice}")
            return 143 if isinstance(stop, _Terminated) else 130
        finally:
            if is_main:
                signal.signal(signal.SIGTERM, before)

    return run


class _Terminated(KeyboardInterrupt):
    """SIGTERM."""


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
    except ValueError:  # a NUL, or half a surrogate pair
        raise InputError(f"The path {folder} holds a character that no path can; give another --out.") from None
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be made ({error.strerror}); give another --out.") from error


@contextmanager
def at_a_free_port() -> Iterator[None]:
    """For serving a page. Raises InputError where another program listens at the port asked for."""
    try:
        yield
    except OSError as error:
        if "empty port" not in str(error):
            raise
        raise InputError("Another program listens at that port; give another --port.") from error


def complain(error: Exception | str) -> None:
    """Says on standard error what is wrong, in one sentence."""
    if isinstance(error, OSError) and error.errno is not None:
        error = os_error(error)
    if is_first_process():
        print(f"dsvlfs: {error}", file=sys.stderr)


def is_first_process() -> bool:
    """Whether this is the process that speaks: one, however many Accelerate launched."""
    return os.environ.get("RANK", "0") == "0"
