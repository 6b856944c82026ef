"""`dsvlfs fit-names`: a checkpoint's semantic prompt, fitted again."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import running


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "fit-names",
        help="fit a checkpoint's semantic prompt again",
        description="Fits a checkpoint's semantic prompt again, in closed form, to the feature cache that it was "
        "trained from: with other settings of the descriptions, nothing else changes.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("checkpoint", metavar="NAME_OR_PATH", help="the checkpoint's folder or name")
    parser.add_argument(
        "--config", required=True, type=Path, metavar="FILE.yaml", help="its settings of the descriptions are used"
    )
    parser.add_argument(
        "--cache", required=True, type=Path, metavar="DIR", help="the feature cache that it was trained from"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the result, a checkpoint")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns its exit status."""
    from ..training.fit_names import fit_names

    running.quieten()
    accuracy = fit_names(arguments.checkpoint, arguments.config, arguments.cache, arguments.out)
    print(f"Held-out names find their own photo among four in {accuracy:.0%}; written to {arguments.out}")
    return 0
