"""The command line, `dsvlfs`: a file a command.

Exit status: 0 all done; 1 some photos could not be read and the others are done; 2 nothing could be done. Standard
error has the reason, and one for each photo that could not be read.

PyTorch and transformers take seconds to import: each command imports what it needs, and `--help` needs neither.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..errors import InputError
from . import analyze, convert, describe, episodes, evaluate, info, label, segment
from .running import complain

COMMANDS = (segment, label, describe, evaluate, episodes, info, convert, analyze)
"""Modules with `add(commands)`, in the order in which `--help` lists them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except (InputError, OSError) as error:  # OSError: no base model (BaseNotAvailableError), a full disk
        complain(error)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dsvlfs", description="Few-shot segmentation: finds a class in photos, from its name and example masks."
    )
    commands = parser.add_subparsers(title="commands", required=True)
    for command in COMMANDS:
        command.add(commands)
    return parser
