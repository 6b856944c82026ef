"""`dsvlfs episodes`: the episodes of a test protocol, as a file."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import InputError
from . import running
from .arguments import SETS, add_protocol_arguments, count, protocol_options


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "episodes",
        help="write a test protocol's episodes",
        description="Writes the episodes of a named set's test protocol, for `evaluate --episodes` and other systems.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("--root", required=True, type=Path, metavar="DIR", help="the set's folder")
    parser.add_argument("--set", required=True, choices=SETS, help="the set")
    add_protocol_arguments(parser)
    parser.add_argument("--limit", type=count, metavar="N", help="only each seed's first N episodes")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.jsonl", help="file for the episodes")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns its exit status."""
    from ..data.protocol import protocol_episodes, write_episodes

    if arguments.out.is_dir():
        raise InputError(f"{arguments.out} is a folder; give a file for the episodes, such as episodes.jsonl.")
    entries = protocol_episodes(arguments.set, arguments.root, **protocol_options(arguments))
    running.make_folder(arguments.out.parent)
    write_episodes(arguments.out, entries)
    print(f"{len(entries)} episodes in {arguments.out}")
    return 0
