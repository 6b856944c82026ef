"""`dsvlfs segment`: masks and overlays of some photos."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..collecting import uncollected
from . import running
from .arguments import add_request_arguments, mode_of, supports_of


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "segment", help="segment photos", description="Writes STEM_mask.png and STEM_overlay.png for each query photo."
    )
    parser.set_defaults(run=run)
    add_request_arguments(parser)
    parser.add_argument(
        "--query", nargs="+", required=True, type=Path, metavar="IMAGE_OR_FOLDER", help="photos to segment"
    )
    parser.add_argument(
        "--no-zoom", action="store_true", help="look at each photo once, also where what is found in it is small"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the results")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns its exit status."""
    with uncollected():
        from ..inference.checks import class_name_of, description_of
        from ..labelling.segment import outputs_of, segment_photos

        class_name_of(arguments.class_name)
        description_of(arguments.description)
        supports = supports_of(arguments)
        mode = mode_of(arguments, supports)
        outputs = outputs_of(arguments.query, arguments.out, [file for support in supports for file in support.files])
        running.make_folder(arguments.out)
        model = running.load_model(arguments.model)
    unreadable = segment_photos(
        model,
        outputs,
        arguments.class_name,
        supports if mode != "semantic" else (),
        running.complain,
        description=arguments.description,
        mode=mode,
        threshold=arguments.threshold,
        min_presence=arguments.min_presence,
        aggregation=arguments.aggregation,
        keeps_supports=not arguments.no_cache,
        **({"zoom": False} if arguments.no_zoom else {}),
    )
    if unreadable == len(outputs):
        return 2
    return 1 if unreadable else 0
