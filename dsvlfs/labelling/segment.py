"""Segments some photos, each to a mask and an overlay; whole data sets are labelled (`dsvlfs.labelling.label`)."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ..errors import InputError
from ..files import place_of, write_image
from ..inference.kept_supports import encoding_once
from ..inference.photos import load_photo
from ..inference.pictures import for_viewing, overlay
from .colours import class_map_image
from .names import plain_stem
from .photo_files import find_photos
from .supports import SupportPhoto

if TYPE_CHECKING:
    from ..modeling import DSVLFSModel


def outputs_of(paths: Sequence[Path], out: Path, inputs: Sequence[Path]) -> dict[Path, tuple[Path, Path]]:
    """Where the results of photos go.

    Args:
        paths: photos, and folders of photos.
        out: folder for the results.
        inputs: further files that nothing may overwrite.

    Returns:
        For each photo, once, its mask and its overlay, named like it.

    Raises:
        InputError: a folder holds no photos, two results would have one name, or one an input's.
    """
    queries = _find_queries(paths)
    protected = {place_of(file) for file in [*queries, *inputs]}
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
    for query, files in outputs.items():
        for file in files:
            if place_of(file) in protected:
                raise InputError(f"The results of {query} would overwrite {file}, an input; give another --out.")
    return outputs


def _find_queries(paths: Sequence[Path]) -> list[Path]:
    """The photos named, and those in the folders named, once each."""
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


def segment_photos(
    model: "DSVLFSModel",
    outputs: Mapping[Path, tuple[Path, Path]],
    class_name: str,
    supports: Sequence[SupportPhoto],
    say: Callable[[str], None],
    *,
    keeps_supports: bool = False,
    **options: Any,
) -> int:
    """Writes a mask and an overlay for each photo.

    Args:
        model: to ask.
        outputs: of `outputs_of`.
        class_name: what to find.
        supports: of the class; none to ask by its name alone.
        say: is told, in a sentence, which photos cannot be read, and which masks are left empty.
        keeps_supports: encode each support once for all commands (`dsvlfs.inference.kept_supports`).
        options: others of `DSVLFSModel.segment`.

    Returns:
        Number of photos that could not be read.

    Raises:
        InputError: a support or an option cannot be used.
        WriteError: a result cannot be written.
    """
    encode = encoding_once(model) if keeps_supports and supports else model.encode_support
    support = encode([entry.load(model) for entry in supports]) if supports else None
    unreadable, is_believed = 0, True
    for query, (mask_file, overlay_file) in tqdm(outputs.items(), unit="photo", disable=len(outputs) == 1):
        try:
            photo = load_photo(query)
        except InputError as error:
            with tqdm.external_write_mode(file=sys.stderr):
                say(str(error))
            unreadable += 1
            continue
        found = model.segment(photo, class_name, support=support, **options)
        if getattr(found, "is_emptied", False):  # a model that has no calibration need not know
            with tqdm.external_write_mode(file=sys.stderr):
                say(
                    f"the mask of {query} is left empty, for its presence is {found.presence:.2f}; lower "
                    "--min-presence to keep such masks."
                )
        if is_believed and not getattr(found, "is_name_heard", True):  # so it is for all photos
            is_believed = False
            with tqdm.external_write_mode(file=sys.stderr):
                say(f"the name '{class_name}' does not fit what the supports show; it is left out.")
        write_image(mask_file, class_map_image(found.mask, 1))
        write_image(overlay_file, overlay(*for_viewing(photo, found.mask)), compress_level=1)
    return unreadable
