"""How files are named after photos: like them, apart from each other, and as every file system takes it."""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePosixPath

LONGEST = 200
"""Bytes of a folder's or file's name, without its suffix."""


def shown(name: str) -> str:
    """A name as text: what is not UTF-8 in it, written out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def plain_stem(photo: str) -> str:
    """A photo's path without its suffix, every part as a file system takes it."""
    return _plain(photo, cut=True)


def result_stems(photos: Sequence[str], taken: Mapping[str, str]) -> dict[str, str]:
    """Paths, without a suffix, for the results of photos.

    A photo's results are named like it. Where two photos would share a path (`a.jpg` and `a.png`), both keep their
    suffix in it; what a file system would not take, or what is still not alone, gets a digest of the photo's name.

    Args:
        photos: names, of any length and characters; folders in them stay.
        taken: the paths of photos that have results already, by the photo's name. They stay.

    Returns:
        A path a photo.
    """
    plain = {photo: plain_stem(photo) for photo in photos}
    times = Counter(_key(stem) for stem in {**plain, **taken}.values())
    used = {_key(stem) for stem in taken.values()}
    folders = {
        _key(str(parent)) for stem in (*plain.values(), *taken.values()) for parent in PurePosixPath(stem).parents
    }
    stems = {}
    for photo in photos:
        stem = taken.get(photo)
        if stem is None:
            stem = plain[photo]
            if times[_key(stem)] > 1:
                stem = _plain(photo, cut=False)
            if _key(stem) in used or _meets_folder(stem, folders):
                stem = f"{stem}-{_digest(photo)}"
            used.add(_key(stem))
        stems[photo] = stem
    return stems


def _plain(photo: str, *, cut: bool) -> str:
    """A photo's path with every part as a file system takes it.

    Args:
        photo: its name.
        cut: without its suffix.
    """
    parts = [part for part in photo.split("/") if part not in ("", ".")] or [photo]
    if cut:
        parts[-1] = PurePosixPath(parts[-1]).stem
    return "/".join(_plain_part(part) for part in parts)


def _plain_part(part: str) -> str:
    clean = "".join("_" if not c.isprintable() or c in '\\:*?"<>|' else c for c in part)
    if clean in ("", ".."):
        clean = "_"
    encoded = clean.encode()
    if len(encoded) > LONGEST:
        clean = encoded[: LONGEST - 9].decode("utf-8", "ignore")
    return clean if clean == part else f"{clean}-{_digest(part)}"


def _meets_folder(stem: str, folders: Collection[str]) -> bool:
    """Whether a folder has the name of a result."""
    return any(_key(stem + suffix) in folders for suffix in ("", ".png", ".jpg", ".json", ".txt"))


def _key(path: str) -> str:
    """Some file systems take 'Fox' and 'fox', or two ways to write 'é', for one name."""
    return unicodedata.normalize("NFC", path).casefold()


def _digest(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
