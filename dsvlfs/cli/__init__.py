"""The command line, `dsvlfs`: a file a command.

Exit status: 0 all done; 1 some photos could not be read and the others are done; 2 nothing could be done. Standard
error has the reason, and one for each photo that could not be read.

PyTorch and transformers take seconds to import: each command imports what it needs, and `--help` needs neither.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import logging
import sys
from collections.abc import Sequence

from .. import __version__
from ..errors import InputError
from . import (
    analyze,
    bases,
    calibrate,
    card,
    convert,
    demo,
    describe,
    doctor,
    episodes,
    evaluate,
    export,
    fit_names,
    info,
    label,
    review,
    segment,
    train,
)
from .running import complain

COMMANDS = (
    segment,
    label,
    review,
    describe,
    demo,
    evaluate,
    episodes,
    analyze,
    train,
    fit_names,
    calibrate,
    card,
    info,
    bases,
    doctor,
    convert,
    export,
)
"""Modules with `add(commands)`, in the order in which `--help` lists them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show a name shows its codes
            stream.reconfigure(errors="backslashreplace")
    arguments = build_parser().parse_args(argv)
    arguments.argv = list(sys.argv[1:] if argv is None else argv)
    if argv is None:  # a process of its own: its end need not look through all that it loaded, which takes a second
        atexit.register(gc.freeze)
    # Wherever it is installed, it misses a kernel for 4 bits on a CPU, which it would fetch from the hub.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        return arguments.run(arguments)
    except (InputError, OSError) as error:  # OSError: no base model (BaseNotAvailableError), a full disk
        complain(error)
        return 2


def build_parser() -> argparse.ArgumentParser:
    """Of all commands; what it parses has the function of its command, `run`."""
    parser = argparse.ArgumentParser(
        prog="dsvlfs", description="Few-shot segmentation: finds a class in photos, from its name and example masks."
    )
    parser.add_argument("--version", action="version", version=f"dsvlfs {__version__}")
    commands = parser.add_subparsers(title="commands", required=True)
    for command in COMMANDS:
        command.add(commands)
    return parser
