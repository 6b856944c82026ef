"""What is installed, where the cache is, which bases and checkpoints are whole, and what to do about what is not."""

import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import torch
from packaging.requirements import Requirement

from ..configuration import DSVLFSConfig
from ..errors import BaseNotAvailableError, InputError
from .bases import base_damage, cache_folder, find_base
from .checkpoint_files import PACKAGED_CHECKPOINTS, TENSORS, read_config, read_tensors
from .pinned_bases import PINNED_BASES

_ROOM = 2 * 2**30  # bytes that the bases take while they are converted


@dataclass(frozen=True)
class Finding:
    """A line of the report.

    Args:
        what: is looked at.
        state: it is in.
        mend: what to do; None where nothing is to be done.
    """

    what: str
    state: str
    mend: str | None = None


def examine() -> Iterator[Finding]:
    """Everything, read in full, one finding at a time."""
    yield Finding("Python", platform.python_version())
    yield from _packages()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none, the CPU is used"
    yield Finding("GPU", device)
    yield from _cache()
    for name in PINNED_BASES:
        yield _base(name, needed=True)
    paper = DSVLFSConfig.paper()
    for name in (paper.image_base, paper.vlm_base):
        yield _base(name, needed=False)
    for name, folder in PACKAGED_CHECKPOINTS.items():
        yield _checkpoint(name, folder)


def _packages() -> Iterator[Finding]:
    """dsvlfs itself, and what it asks for; what an extra asks for counts where it is there."""
    try:
        yield Finding("dsvlfs", version("dsvlfs"))
        wanted = [Requirement(text) for text in requires("dsvlfs") or ()]
    except PackageNotFoundError:
        yield Finding("dsvlfs", "runs from its source without being installed", "install it: pip install -e .")
        return
    for requirement in wanted:
        is_extra = requirement.marker is not None
        if requirement.name == "dsvlfs":
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            if not is_extra:
                yield Finding(requirement.name, "missing", f"install it: pip install '{_asked(requirement)}'")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            yield Finding(requirement.name, found, f"install another: pip install '{_asked(requirement)}'")
        elif not is_extra:
            yield Finding(requirement.name, found)


def _asked(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"


def _cache() -> Iterator[Finding]:
    try:
        folder = cache_folder()
    except BaseNotAvailableError as error:
        yield Finding("cache", "nowhere", str(error))
        return
    place = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryDirectory(dir=place):
            pass
    except OSError as error:
        mend = "set DSVLFS_CACHE to a folder that you may write to, unless its bases are whole"
        yield Finding("cache", f"{folder}, cannot be written ({error.strerror})", mend)
        return
    free = shutil.disk_usage(place).free
    yield Finding("cache", f"{folder}, {free / 2**30:.1f} GiB free", None if free > _ROOM else "make room on that disk")


def _base(name: str, *, needed: bool) -> Finding:
    what = f"base {name}"
    try:
        folder = find_base(name)
    except BaseNotAvailableError as error:
        return Finding(what, "nowhere", str(error))
    if folder is None:
        if not needed:
            return Finding(what, "not here (the paper's size alone needs it)")
        return Finding(what, "missing", "fetch it: dsvlfs bases")
    if damage := base_damage(name, folder, fully=True):
        return Finding(what, f"damaged: {damage}", f"delete {folder}, then: dsvlfs bases")
    return Finding(what, f"whole, in {folder}")


def _checkpoint(name: str, folder: Path) -> Finding:
    try:
        read_config(folder)
        read_tensors(folder / TENSORS)
    except InputError as error:
        return Finding(f"checkpoint {name}", f"damaged: {error}", "install dsvlfs again")
    return Finding(f"checkpoint {name}", "whole")
