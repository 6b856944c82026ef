"""The processes that a launcher started: how they join, wait for each other, fail and leave.

Between processes that may fail there is one kind of exchange, so that one that fails, wherever it is, meets the others
at their next one, and nobody waits for somebody who left.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from .errors import InputError

Made = TypeVar("Made")

# A process may wait so long for the others: PyTorch's own 10 or 30 minutes end runs whose shares are uneven.
PATIENCE = timedelta(days=1)


class SharedError(InputError):
    """What went wrong in one process, as all of them raise it."""


def join_processes() -> PartialState:
    """This process among the others. The first call decides how long they wait for each other."""
    return PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


@contextmanager
def failing_together() -> Iterator[None]:
    """A step that every process takes: each waits at its end for the last one.

    Raises:
        SharedError: in every process, where one had an InputError or OSError.
    """
    failure = None
    try:
        yield
    except SharedError:
        raise
    except (InputError, OSError) as error:
        failure = str(error)
    _exchange([], failure)


@contextmanager
def all_processes() -> Iterator[None]:
    """A command from its first step to its last: joins the processes, and leaves when all are done or one failed.

    Raises:
        SharedError: as `failing_together`.
    """
    state = join_processes()
    try:
        with failing_together():
            yield
    except SharedError:
        state.destroy_process_group()
        raise
    state.destroy_process_group()  # gloo may abort a process that did not leave before its partner did


def gather(made: list[Made]) -> list[Made]:
    """What all processes made, in their order.

    Raises:
        SharedError: a process came with a failure instead.
    """
    return _exchange(made, None)


def _exchange(made: list[Made], failure: str | None) -> list[Made]:
    shares = gather_object([(made, failure)])
    for _, failure in shares:
        if failure is not None:
            raise SharedError(failure)
    return [entry for share, _ in shares for entry in share]
