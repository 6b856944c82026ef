"""Arguments that several commands have."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import InputError

MODES = ("both", "semantic", "visual")
AGGREGATIONS = ("votes", "logits", "joint", "attention")
SETS = ("pascal-5i", "coco-20i", "fss-1000", "lvis-92i", "folder")


def add_request_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--class-name", required=True, metavar="NAME", help="what to find, such as 'red fox'")
    parser.add_argument("--description", metavar="TEXT", help="what the class looks like, in a sentence or a paragraph")
    parser.add_argument(
        "--support",
        nargs=2,
        action="append",
        default=[],
        type=Path,
        metavar=("IMAGE", "MASK"),
        help="an example photo with its mask (foreground is not zero); repeat for more shots",
    )
    parser.add_argument(
        "--mode", choices=MODES, help="prompts to use; default: both where there is a support, else semantic"
    )
    parser.add_argument(
        "--threshold", type=fraction, default=0.5, help="probability from which a pixel is foreground (default: 0.5)"
    )
    parser.add_argument(
        "--min-presence",
        type=fraction,
        metavar="SCORE",
        help="leave the mask empty where less speaks for the class being in the photo; 0 empties none "
        "(default: the checkpoint's own limit)",
    )
    add_aggregation_argument(parser)
    add_model_argument(parser)


def add_protocol_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fold", type=int, metavar="N", help="fold of --set, from 0 on (default: every class)")
    parser.add_argument("--shots", type=count, metavar="K", help="supports of an episode of --set (default: 1)")
    parser.add_argument("--seeds", type=count, metavar="N", help="repetitions for --set (default: the protocol's)")


def add_aggregation_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--aggregation",
        choices=AGGREGATIONS,
        help="how several supports become one mask: votes, as in the paper; logits, their mean; joint, all compared "
        "with at once; attention, weighed as the checkpoint learned to (default: the checkpoint's own way)",
    )


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default="dsvlfs-tiny",
        metavar="NAME_OR_PATH",
        help="a checkpoint's folder or name (default: dsvlfs-tiny)",
    )


def mode_of(arguments: argparse.Namespace) -> str:
    """The mode asked for, or the one that fits what is given."""
    mode = arguments.mode or ("both" if arguments.support else "semantic")
    if mode != "semantic" and not arguments.support:
        raise InputError(f"Mode {mode} needs an example; give --support IMAGE MASK, or use --mode semantic.")
    return mode


def protocol_options(arguments: argparse.Namespace) -> dict[str, int | None]:
    return {
        "fold": arguments.fold,
        "shots": arguments.shots or 1,
        "seeds": arguments.seeds,
        "limit": arguments.limit,
    }


def fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def set_and_fold(text: str) -> tuple[str, int | None]:
    name, _, fold = text.partition(":")
    if name not in SETS:
        raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(SETS)}")
    return name, int(fold) if fold else None


def count(text: str) -> int:
    """An argument that is a whole number from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value
