"""`dsvlfs fit-choice`: what chooses among several masks of a request, fitted."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import running
from .arguments import count


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "fit-choice",
        help="fit what chooses among several masks",
        description="Fits what predicts the IoU of several masks of a request, of which the best is then taken, on "
        "requests whose class or field was not learned. Nothing else of the checkpoint changes.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("checkpoint", metavar="NAME_OR_PATH", help="the checkpoint's folder or name")
    parser.add_argument("--data-root", required=True, type=Path, metavar="DIR", help="folder of the training packs")
    parser.add_argument(
        "--fields", nargs="+", default=(), metavar="NAME", help="folders of the pack domains that training left out"
    )
    parser.add_argument(
        "--folds",
        nargs=4,
        default=(),
        type=Path,
        metavar="DIR",
        help="checkpoints of PASCAL-5i's folds 0 to 3, to ask for what they have not learned",
    )
    parser.add_argument(
        "--requests", type=count, default=20, metavar="N", help="of each field; others in proportion (default: 20)"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the result, a checkpoint")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns its exit status."""
    from ..training.choice_fit import fit_choice

    running.quieten()
    fitted = fit_choice(
        arguments.checkpoint,
        arguments.data_root,
        arguments.out,
        fields=arguments.fields,
        folds=arguments.folds,
        requests=arguments.requests,
    )
    print(
        f"Mean IoU of {fitted.requests} requests {fitted.before:.1f} before and {fitted.after:.1f} by choice, on what "
        f"it is fitted to; written to {arguments.out}"
    )
    return 0
