"""`dsvlfs bases`: the frozen bases, fetched before they are needed."""

from __future__ import annotations

import argparse


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "bases",
        help="fetch the frozen bases",
        description="Fetches and converts the frozen bases of size tiny, once, and prints their folders; with them, "
        "everything else works offline.",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns its exit status."""
    from ..hub.bases import resolve_base
    from ..hub.pinned_bases import PINNED_BASES

    for name in PINNED_BASES:
        print(f"{name}: {resolve_base(name)}", flush=True)
    return 0
