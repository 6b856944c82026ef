"""`dsvlfs label`: a labelled data set from a folder of photos."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import InputError
from . import running
from .arguments import add_request_arguments, mode_of


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
    parser.set_defaults(run=running.in_all_processes(run))
    add_request_arguments(parser)
    parser.add_argument(
        "--photos",
        required=True,
        metavar="FOLDER_OR_DATASET",
        help="a folder of photos (its subfolders too), or a data set as datasets.load_dataset names it",
    )
    parser.add_argument("--split", default="train", help="of the data set (default: train)")
    parser.add_argument("--image-column", default="image", metavar="COLUMN", help="of the data set (default: image)")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the results")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns its exit status."""
    from ..inference.photos import load_mask, load_photo
    from ..labelling.label import Request, label_photos, open_photos

    mode = mode_of(arguments)
    if arguments.out.resolve().is_relative_to(Path(arguments.photos).resolve()):
        raise InputError(f"The results in {arguments.out} would be taken for photos to label; give an --out elsewhere.")
    for photo_file, mask_file in arguments.support:  # before the photos, of which there may be many
        load_mask(mask_file, load_photo(photo_file).size)
    photos = open_photos(arguments.photos, arguments.split, arguments.image_column)
    request = Request(
        class_name=arguments.class_name,
        examples=arguments.support,
        description=arguments.description,
        mode=mode,
        threshold=arguments.threshold,
        min_presence=arguments.min_presence,
        aggregation=arguments.aggregation,
        model=arguments.model,
    )
    running.make_folder(arguments.out)
    running.quieten()
    unreadable = label_photos(photos, request, arguments.out)
    if unreadable == len(photos.names):
        return 2
    return 1 if unreadable else 0
