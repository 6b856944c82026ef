"""Arguments that several commands have."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from ..labelling.supports import SupportPhoto

MODES = ("both", "semantic", "visual")
AGGREGATIONS = ("votes", "logits", "joint", "attention")
SETS = ("pascal-5i", "coco-20i", "coco-20i-exclusive", "fss-1000", "lvis-92i", "folder", "labels")


def add_request_arguments(parser: argparse.ArgumentParser, *, needs_class: bool = True) -> None:
    """What to find, and how.

    Args:
        parser: to add to.
        needs_class: whether there is no other way to say what to find.
    """
    parser.add_argument("--class-name", required=needs_class, metavar="NAME", help="what to find, such as 'red fox'")
    parser.add_argument(
        "--description",
        metavar="TEXT",
        help="what the class looks like, in a sentence or a paragraph; it counts most where the name is unusual",
    )
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
        "--mask-value",
        type=int,
        metavar="N",
        help="the class's number in the masks of --support, where they are index images that hold other classes too",
    )
    parser.add_argument(
        "--box",
        nargs=5,
        action="append",
        default=[],
        metavar=("IMAGE", "LEFT", "TOP", "RIGHT", "BOTTOM"),
        help="an example photo with a box around the object, in pixels, in a mask's place",
    )
    parser.add_argument(
        "--point",
        nargs=3,
        action="append",
        default=[],
        metavar=("IMAGE", "X", "Y"),
        help="an example photo with a point on the object, in pixels; repeat for more points or photos",
    )
    parser.add_argument(
        "--annotation",
        action="append",
        default=[],
        type=Path,
        metavar="FILE.json",
        help="the examples that a file of COCO's or labelme's has of the class",
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
    parser.add_argument(
        "--no-cache",
        action="store_true",
        help="encode the examples anew, and keep nothing of them for the next command (in the folder of the bases)",
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


def add_address_arguments(parser: argparse.ArgumentParser) -> None:
    """Where a page is served."""
    parser.add_argument(
        "--host", metavar="ADDRESS", help="to be reached at; 0.0.0.0 from other machines too (default: 127.0.0.1)"
    )
    parser.add_argument("--port", type=_port, metavar="N", help="(default: 7860, or the next that is free)")


def _port(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 65535")
    return value


def supports_of(arguments: argparse.Namespace) -> list[SupportPhoto]:
    """The examples that the arguments give, checked as far as that goes without a model.

    Raises:
        InputError: one cannot be used.
    """
    from ..labelling.project import MOST_SUPPORTS
    from ..labelling.supports import AtPoints, InBox, MaskFile, SupportPhoto

    supports = [SupportPhoto(photo, MaskFile(mask, arguments.mask_value)) for photo, mask in arguments.support]
    supports += [SupportPhoto(Path(photo), InBox(tuple(_pixels(corners)))) for photo, *corners in arguments.box]
    points: dict[str, list[tuple[float, float]]] = {}
    for photo, *place in arguments.point:
        points.setdefault(photo, []).append(tuple(_pixels(place)))
    supports += [SupportPhoto(Path(photo), AtPoints(tuple(places))) for photo, places in points.items()]
    for file in arguments.annotation:
        from ..labelling.annotations import annotated_classes

        found = annotated_classes(file, MOST_SUPPORTS)
        if arguments.class_name not in found:
            names = ", ".join(list(found)[:10]) or "nothing"
            raise InputError(f"{file} annotates no '{arguments.class_name}' but {names}; give one as --class-name.")
        supports += found[arguments.class_name]
    if arguments.mask_value is not None and not arguments.support:
        raise InputError("--mask-value is of the masks of --support, and there is none; give --support IMAGE MASK.")
    for support in supports:
        support.check()
    return supports


def _pixels(values: Sequence[str]) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)):
        raise InputError(f"'{' '.join(values)}' is no place in a photo; give numbers of pixels.")
    return numbers


def mode_of(arguments: argparse.Namespace, supports: Sequence[object]) -> str:
    """The mode asked for, or the one that fits what is given."""
    mode = arguments.mode or ("both" if supports else "semantic")
    if mode != "semantic" and not supports:
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
