"""`dsvlfs segment`: masks and overlays of some photos."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import InputError
from ..files import place_of
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
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the results")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns its exit status."""
    from tqdm import tqdm

    from ..files import write_image
    from ..inference.checks import class_name_of, description_of
    from ..inference.photos import load_photo
    from ..inference.pictures import for_viewing, overlay
    from ..labelling.colours import class_map_image

    class_name_of(arguments.class_name)
    description_of(arguments.description)
    supports = supports_of(arguments)
    mode = mode_of(arguments, supports)
    queries = _find_queries(arguments.query)
    outputs = _outputs(queries, arguments.out)
    _check_outputs(outputs, inputs=[*queries, *(file for support in supports for file in support.files)])
    running.make_folder(arguments.out)

    model = running.load_model(arguments.model)
    examples = [support.load(model) for support in supports] if mode != "semantic" else []
    support = model.encode_support(examples) if examples else None
    unreadable = 0
    for query in tqdm(queries, unit="photo", disable=len(queries) == 1):
        try:
            photo = load_photo(query)
        except InputError as error:
            with tqdm.external_write_mode(file=sys.stderr):
                running.complain(error)
            unreadable += 1
            continue
        found = model.segment(
            photo,
            arguments.class_name,
            support=support,
            description=arguments.description,
            mode=mode,
            threshold=arguments.threshold,
            min_presence=arguments.min_presence,
            aggregation=arguments.aggregation,
        )
        if getattr(found, "is_emptied", False):  # a model that has no calibration need not know
            with tqdm.external_write_mode(file=sys.stderr):
                running.complain(
                    f"the mask of {query} is left empty, for its presence is {found.presence:.2f}; lower "
                    "--min-presence to keep such masks."
                )
        mask_file, overlay_file = outputs[query]
        write_image(mask_file, class_map_image(found.mask, 1))
        write_image(overlay_file, overlay(*for_viewing(photo, found.mask)), compress_level=1)
    if unreadable == len(queries):
        return 2
    return 1 if unreadable else 0


def _find_queries(paths: Sequence[Path]) -> list[Path]:
    """The photos named, and those in the folders named, once each."""
    from ..labelling.photo_files import find_photos

    queries: dict[Path, Path] = {}
    for path in paths:
        found = [path]
        if path.is_dir():
            found = find_photos(path, deep=False)
            if not found:
                raise InputError(f"The folder {path} holds no photos; give one that does.")
        for file in found:
            queries.setdefault(place_of(file), file)
    return list(queries.values())


def _outputs(queries: Sequence[Path], out: Path) -> dict[Path, tuple[Path, Path]]:
    """The mask and the overlay of each query, named like it."""
    from ..labelling.names import plain_stem

    by_stem: dict[str, Path] = {}
    outputs = {}
    for query in queries:
        stem = plain_stem(query.name)
        # Some file systems take 'Fox' and 'fox' for one name.
        other = by_stem.setdefault(stem.casefold(), query)
        if other != query:
            raise InputError(
                f"The results of {other} and {query} would have the same name; rename one, or run them apart with "
                "different --out."
            )
        outputs[query] = out / f"{stem}_mask.png", out / f"{stem}_overlay.png"
    return outputs


def _check_outputs(outputs: Mapping[Path, tuple[Path, Path]], inputs: Sequence[Path]) -> None:
    """Nobody's input is overwritten."""
    protected = {place_of(file) for file in inputs}
    for query, files in outputs.items():
        for file in files:
            if place_of(file) in protected:
                raise InputError(f"The results of {query} would overwrite {file}, an input; give another --out.")
