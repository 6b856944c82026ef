"""`dsvlfs calibrate`: how far a checkpoint's probability can be believed, fitted."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import running
from .arguments import count


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "calibrate",
        help="fit a checkpoint's calibration",
        description="Fits the calibration of a checkpoint's probability on mosaics and COCO scenes of the training "
        "packs, and on fields that training left out, and writes it to the checkpoint's config.json. No mask changes "
        "but for those that its limit on the presence leaves empty.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("checkpoint", type=Path, metavar="DIR", help="folder of the checkpoint")
    parser.add_argument("--data-root", required=True, type=Path, metavar="DIR", help="folder of the training packs")
    parser.add_argument(
        "--fields", nargs="+", default=(), metavar="NAME", help="folders of the pack domains that training left out"
    )
    parser.add_argument("--requests", type=count, default=60, metavar="N", help="of each kind (default: 60)")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns its exit status."""
    from ..training.calibrate import calibrate

    running.quieten()
    fitted = calibrate(arguments.checkpoint, arguments.data_root, arguments.requests, arguments.fields)
    for title, error in (("before", fitted.error_before), ("after", fitted.error_after)):
        print(f"{title}: expected calibration error {error:.4f} on what it is fitted to")
    print(f"temperature {fitted.temperature} and bias {fitted.bias} written to {arguments.checkpoint}")
    return 0
