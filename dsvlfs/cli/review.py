"""`dsvlfs review`: a labelled data set, looked over by a person."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ..errors import InputError
from ..files import read_json
from . import running
from .arguments import add_address_arguments
from .label import asked

PROGRAM = (sys.executable, "-m", "dsvlfs")
"""What labels the rest, in a process of its own."""


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "review",
        help="look labels over in a browser",
        description="Serves a page with the labels that `dsvlfs label` wrote, those first in which a correction gains "
        "most: accept, reject or correct them, make them further supports, and have the rest labelled again. Every "
        "word is written down when it is said. Ctrl+C ends it.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder that `dsvlfs label` wrote to")
    add_address_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns its exit status."""
    running.quieten()
    words, folder = _command_of(arguments.out)
    out = arguments.out.absolute()
    os.chdir(folder)  # the command's paths are from there on
    from . import build_parser

    labelled = build_parser().parse_args(words)
    labelled.out = out  # which may have been moved
    photos, place, request = asked(labelled)
    from ..page.review.layout import serve
    from ..page.review.relabelling import Relabelling

    again = Relabelling([*PROGRAM, *words, "--out", str(out)], out)  # of two --out, the last counts
    with running.at_a_free_port():
        serve(out, photos, place, request, again, server_name=arguments.host, server_port=arguments.port)
    return 0


def _command_of(out: Path) -> tuple[list[str], Path]:
    """The words of the command that made the labels, and the folder that it was given in.

    Raises:
        InputError: there are none, or that is not known.
    """
    settings = out / "settings.json"
    if not settings.is_file():
        raise InputError(f"{out} holds no labels; make some with dsvlfs label ... --out {out}")
    command = read_json(settings).get("command")
    try:
        words, folder = [str(word) for word in command["arguments"]], Path(command["folder"])
    except (TypeError, KeyError):
        raise InputError(
            f"{out} does not say which command made its labels; run that command (dsvlfs label ...) once more, and it "
            "will."
        ) from None
    if not folder.is_dir():
        raise InputError(f"The labels were made from the folder {folder}, which is gone; run dsvlfs label ... again.")
    return words, folder
