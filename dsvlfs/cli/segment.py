"""`dsvlfs segment`: masks and overlays of some photos."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..files import PHOTO_SUFFIXES
from . import running
from .arguments import add_request_arguments, mode_of


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
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the results")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns its exit status."""
    from PIL import Image
    from tqdm import tqdm

    from ..inference.photos import load_mask, load_photo
    from ..inference.pictures import overlay

    mode = mode_of(arguments)
    queries = _find_queries(arguments.query)
    _check_outputs(queries, arguments.out, inputs=[*queries, *(file for pair in arguments.support for file in pair)])
    examples = []
    for photo_file, mask_file in arguments.support:
        photo = load_photo(photo_file)
        examples.append((photo, load_mask(mask_file, photo.size)))
    running.make_folder(arguments.out)

    model = running.load_model(arguments.model)
    support = model.encode_support(examples) if mode != "semantic" else None
    unreadable = 0
    for query in tqdm(queries, unit="photo", disable=len(queries) == 1):
        try:
            photo = load_photo(query)
        except InputError as error:
            with tqdm.external_write_mode(file=sys.stderr):
                running.complain(error)
            unreadable += 1
            continue
        mask = model.segment(
            photo,
            arguments.class_name,
            support=support,
            description=arguments.description,
            mode=mode,
            threshold=arguments.threshold,
            min_presence=arguments.min_presence,
            aggregation=arguments.aggregation,
        ).mask
        mask_file, overlay_file = _outputs(query, arguments.out)
        Image.fromarray(mask.astype("uint8") * 255).save(mask_file)
        overlay(photo, mask).save(overlay_file)
    if unreadable == len(queries):
        return 2
    return 1 if unreadable else 0


def _find_queries(paths: Sequence[Path]) -> list[Path]:
    """The photos named, and those in the folders named, once each."""
    queries: dict[Path, Path] = {}
    for path in paths:
        found = [path]
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if file.suffix.lower() in PHOTO_SUFFIXES)
            if not found:
                raise InputError(f"The folder {path} holds no photos ({', '.join(sorted(PHOTO_SUFFIXES))}).")
        for file in found:
            queries.setdefault(file.resolve(), file)
    return list(queries.values())


def _outputs(query: Path, out: Path) -> tuple[Path, Path]:
    return out / f"{query.stem}_mask.png", out / f"{query.stem}_overlay.png"


def _check_outputs(queries: Sequence[Path], out: Path, inputs: Sequence[Path]) -> None:
    """Nobody's result and nobody's input is overwritten."""
    protected = {file.resolve() for file in inputs}
    queries_by_stem: dict[str, Path] = {}
    for query in queries:
        # Some file systems take 'Fox' and 'fox' for one name.
        other = queries_by_stem.setdefault(query.stem.casefold(), query)
        if other != query:
            raise InputError(
                f"The results of {other} and {query} would have the same name; rename one, or run them apart with "
                "different --out."
            )
        for file in _outputs(query, out):
            if file.resolve() in protected:
                raise InputError(f"The results of {query} would overwrite {file}, an input; give another --out.")
