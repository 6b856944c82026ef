"""Processes of their own for tests, forked from one that has imported already what takes seconds."""

import multiprocessing
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["dsvlfs.labelling.label", "dsvlfs.measuring.evaluation", "dsvlfs.training.run"])

PATIENCE = 300  # seconds


def run_process(target: Callable[..., int | None], *arguments: object) -> tuple[int, str]:
    """Runs a module's function in a process; gives its exit status, which is what the function returns, and what it
    said on standard error."""
    (ended,) = _run(target, arguments, [{}])
    return ended


def run_two_processes(target: Callable[..., int | None], *arguments: object) -> list[tuple[int, str]]:
    """As `run_process`, in two that find each other as a launcher's do, but that nobody ends when the other fails."""
    return _run(target, arguments, _shared())


@contextmanager
def two_processes(target: Callable[..., int | None], *arguments: object) -> Iterator[list[BaseProcess]]:
    """As `run_two_processes`; they are killed at the end."""
    with tempfile.TemporaryDirectory() as folder, _running(target, arguments, _shared(), Path(folder)) as running:
        yield running


def _shared() -> list[dict[str, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [shared | {"RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]


def _run(target: Callable, arguments: tuple, environments: list[dict[str, str]]) -> list[tuple[int, str]]:
    with tempfile.TemporaryDirectory() as folder, _running(target, arguments, environments, Path(folder)) as running:
        for process in running:
            process.join(PATIENCE)
            assert process.exitcode is not None, "a process does not end"
        return [(process.exitcode, Path(folder, str(number)).read_text()) for number, process in enumerate(running)]


@contextmanager
def _running(
    target: Callable, arguments: tuple, environments: list[dict[str, str]], folder: Path
) -> Iterator[list[BaseProcess]]:
    """Processes that write their standard errors to files of the folder, by their number."""
    # What a test has set since the first process was forked is handed over.
    running = [
        _CONTEXT.Process(target=_work, args=(target, arguments, {**os.environ, **environment}, folder / str(number)))
        for number, environment in enumerate(environments)
    ]
    for process in running:
        process.start()
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.join()


def _work(target: Callable, arguments: tuple, environment: dict[str, str], errors: Path) -> None:
    import torch

    os.environ.clear()
    os.environ.update(environment)
    with errors.open("w") as file:
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)  # the sums of several are not the same from run to run
    sys.exit(target(*arguments))
