"""`dsvlfs label`: a labelled data set from a folder of photos."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..collecting import uncollected
from ..errors import InputError
from ..files import place_of
from ..labelling.formats import ALWAYS, FORMATS
from . import running
from .arguments import add_request_arguments, mode_of, supports_of

if TYPE_CHECKING:
    from ..labelling.photos_source import Photos
    from ..labelling.project import ProjectClass
    from ..labelling.request import Request


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "label",
        help="label a data set",
        description="Writes a mask and an overlay for each photo, and of all a COCO JSON, a data set for "
        "datasets.load_dataset, and a contact sheet. Run again, it goes on where it stopped. In several processes: "
        "'accelerate launch --multi_gpu -m dsvlfs label ...' or, without GPUs, 'torchrun --nproc_per_node N -m dsvlfs "
        "label ...'.",
    )
    advice = "what is labelled is kept: the same command goes on from there."
    parser.set_defaults(run=running.stoppable(running.in_all_processes(run), advice))
    add_request_arguments(parser, needs_class=False)
    parser.add_argument(
        "--project",
        type=Path,
        metavar="PATH",
        help="several classes at once, in --class-name's place: a YAML file, a folder with classes/NAME/photos and "
        "classes/NAME/masks, COCO's JSON, or a folder of labelme's",
    )
    parser.add_argument(
        "--photos",
        required=True,
        metavar="FOLDER_OR_DATASET",
        help="a folder of photos (its subfolders and archives too), an archive, or a data set as "
        "datasets.load_dataset names it",
    )
    parser.add_argument("--split", default="train", help="of the data set (default: train)")
    parser.add_argument("--image-column", default="image", metavar="COLUMN", help="of the data set (default: image)")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--instances",
        action="store_true",
        help="tell the objects of a class apart; takes five times as long, for each photo is also looked at closer",
    )
    parser.add_argument(
        "--alike",
        action="store_true",
        help="the classes look alike, and a photo seldom shows several: leave it to those that are surest to be there",
    )
    parser.add_argument(
        "--formats",
        nargs="+",
        default=[],
        choices=FORMATS,
        metavar="FORMAT",
        help=f"write these too ({', '.join(name for name in FORMATS if name not in ALWAYS)})",
    )
    parser.add_argument(
        "--push-to-hub",
        metavar="USER/NAME",
        help="send the data set to the Hugging Face hub, to a private repository",
    )
    parser.add_argument(
        "--redo", nargs="+", default=[], metavar="NAME", help="label these photos again ('*' stands for any characters)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns its exit status."""
    with uncollected():
        from ..labelling.label import label_photos

    photos, place, request = asked(arguments)
    running.make_folder(arguments.out)
    running.quieten()
    summary = label_photos(
        photos,
        place,
        request,
        arguments.out,
        redo=arguments.redo,
        to=arguments.formats,
        command={"arguments": again(arguments.argv), "folder": os.getcwd()},
    )
    if running.is_first_process():
        print(f"{summary}. Results in {arguments.out}.")
        if arguments.push_to_hub:
            from ..labelling.formats.huggingface import push_to_hub

            print(push_to_hub(arguments.out, arguments.push_to_hub, private=True))
    if len(summary.unreadable) == len(photos.names):
        return 2
    return 1 if summary.unreadable else 0


def asked(arguments: argparse.Namespace) -> tuple[Photos, str, Request]:
    """The photos to label, where they are, and what to look for.

    Raises:
        InputError: one of these cannot be used.
    """
    with uncollected():
        from ..labelling.photos_source import open_photos
        from ..labelling.request import Request

    if place_of(arguments.out).is_relative_to(place_of(Path(arguments.photos))):
        raise InputError(f"The results in {arguments.out} would be taken for photos to label; give an --out elsewhere.")
    classes = _classes(arguments)
    files = [file for entry in classes for support in entry.supports for file in support.files]
    photos = open_photos(arguments.photos, arguments.split, arguments.image_column, exclude=files)
    request = Request(
        classes=classes,
        mode=arguments.mode,
        threshold=arguments.threshold,
        min_presence=arguments.min_presence,
        aggregation=arguments.aggregation,
        model=arguments.model,
        instances=arguments.instances,
        alike=arguments.alike,
        keeps_supports=not arguments.no_cache,
    )
    place = str(place_of(Path(arguments.photos))) if Path(arguments.photos).exists() else arguments.photos
    return photos, place, request


def again(argv: Sequence[str]) -> list[str]:
    """The words of a command less what it is to do but once: --redo, --push-to-hub."""
    once, kept, is_dropped = ("--redo", "--push-to-hub"), [], False
    for word in argv:
        if word.startswith("--"):
            name = word.partition("=")[0]
            is_dropped = len(name) > 2 and any(option.startswith(name) for option in once)
        if not is_dropped:
            kept.append(word)
    return kept


def _classes(arguments: argparse.Namespace) -> list[ProjectClass]:
    """What is to be labelled, checked before the photos, of which there may be many."""
    from ..labelling.project import ProjectClass, read_project

    if (arguments.project is None) == (arguments.class_name is None):
        raise InputError("There is nothing to label, or it is said twice; give --class-name NAME or --project PATH.")
    if arguments.project is None:
        supports = supports_of(arguments)
        mode_of(arguments, supports)
        return [ProjectClass(arguments.class_name, supports, arguments.description)]
    given = (arguments.support, arguments.box, arguments.point, arguments.annotation, arguments.description)
    if any(given) or arguments.mask_value is not None:
        raise InputError("A project has its own examples and descriptions; put them into it, or leave --project out.")
    classes = read_project(arguments.project)
    for entry in classes:
        for support in entry.supports:
            support.check()
    return classes
