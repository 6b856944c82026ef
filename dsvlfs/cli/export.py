"""`dsvlfs export`: a checkpoint for other engines."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import running
from .arguments import add_model_argument


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "export",
        help="write ONNX files",
        description="Writes a checkpoint as ONNX files with a manifest, for programs without PyTorch (dsvlfs[onnx]).",
    )
    parser.set_defaults(run=run)
    parser.add_argument("--onnx", required=True, type=Path, metavar="DIR", help="folder for the files")
    parser.add_argument(
        "--class-name",
        nargs="+",
        default=[],
        metavar="NAME",
        help="classes to be asked for by name too; without, supports alone say what to find",
    )
    add_model_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns its exit status."""
    from .. import DSVLFSModel
    from ..export.onnx import export_onnx

    running.quieten()
    model = DSVLFSModel.from_pretrained(arguments.model)
    for file in export_onnx(model, arguments.onnx, arguments.class_name):
        print(file)
    return 0
