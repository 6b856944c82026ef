"""`dsvlfs info`: what a size costs."""

from __future__ import annotations

import argparse

from .arguments import count


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "info",
        help="what a size costs",
        description="Prints parameters, operations and memory of a size, without loading any weights.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("--supports", type=count, default=1, metavar="K", help="of the query (default: 1)")
    parser.add_argument(
        "--config", choices=("tiny", "base", "paper"), default="paper", help="the size (default: paper)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns its exit status."""
    from ..configuration import DSVLFSConfig
    from ..measuring.costs import cost, report

    print(report(cost(getattr(DSVLFSConfig, arguments.config)(), arguments.supports)))
    return 0
