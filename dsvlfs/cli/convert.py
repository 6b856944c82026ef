"""`dsvlfs import`: others' checkpoints, converted."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import InputError


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "import", help="convert others' checkpoints", description="Converts a checkpoint; nothing in it is run."
    )
    parser.set_defaults(run=run)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--sam", type=Path, metavar="FILE.pth", help="official SAM, to a base for `image_base`")
    source.add_argument(
        "--reference", type=Path, metavar="FILE.bin", help="the authors' code, after zero_to_fp32, to a checkpoint"
    )
    parser.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE.json",
        help="what the authors' run asked: prompt_template, answer_template, further_templates, answer_ends and "
        "photo_markers (default: ours, which such weights never saw)",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the result")
    parser.add_argument(
        "--check", action="store_true", help="compare the result with segment-anything's own modules (dsvlfs[sam])"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns its exit status."""
    if arguments.check and not arguments.sam:
        raise InputError("--check is for --sam alone; leave it out.")
    if arguments.prompts and not arguments.reference:
        raise InputError("--prompts is for --reference alone; leave it out.")
    if arguments.sam:
        from ..convert.sam import import_sam

        import_sam(arguments.sam, arguments.out)
        if arguments.check:
            from ..convert.sam_check import check_sam

            found = check_sam(arguments.sam, arguments.out)
            print(f"as in segment-anything: features and masks differ by {found:.1e} of the largest value at most")
    else:
        from ..convert.reference import import_reference

        import_reference(arguments.reference, arguments.out, prompts=arguments.prompts)
    print(f"written to {arguments.out}")
    return 0
