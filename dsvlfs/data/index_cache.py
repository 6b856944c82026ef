"""Indices of data sets on disk: built once, read by memory map."""

import errno
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset, Features, Value
from datasets.exceptions import DatasetGenerationError

from ..errors import InputError
from ..files import write_error
from ..hub.bases import cache_folder
from .photos import FEATURES

Split = Literal["train", "test"]

# `area`: pixels of the mask, or None where no one counted.
INDEX_FEATURES = Features({**FEATURES, "class_index": Value("int32"), "area": Value("int32")})

# Part of every index's key: a change of the rows' content asks for another.
_INDEX_VERSION = 1


def cached_index(name: str, key: tuple, rows: Callable[[], Iterator[dict[str, Any]]]) -> Dataset:
    """An index in the cache folder (`dsvlfs.hub.bases.cache_folder`), built at its first use. Of several processes one
    builds and the others wait.

    Args:
        name: of the data set.
        key: whatever the rows depend on.
        rows: of `INDEX_FEATURES`.

    Raises:
        InputError: `rows` did.
    """
    fingerprint = hashlib.sha256(repr((_INDEX_VERSION, *map(str, key))).encode()).hexdigest()[:16]
    try:
        return Dataset.from_generator(
            rows,
            features=INDEX_FEATURES,
            cache_dir=str(cache_folder() / "indices"),
            fingerprint=f"{name}-{fingerprint}",
        )
    except DatasetGenerationError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, (InputError, OSError)):
            cause = cause.__cause__
        if isinstance(cause, OSError):
            raise _not_kept(name, cause) from error
        raise (cause or error) from None
    except OSError as error:
        raise _not_kept(name, error) from error


def _not_kept(name: str, error: OSError) -> InputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return write_error(cache_folder() / "indices", error)
    return InputError(
        f"The index of {name} cannot be kept in {cache_folder()} ({error.strerror or error}); set DSVLFS_CACHE to a "
        "folder that you may write to."
    )


def file_state(path: Path) -> tuple[int, int]:
    """What changes when a file is written, or a folder gets or loses one."""
    state = path.stat()
    return state.st_mtime_ns, state.st_size


def layout_error(name: str, tree: str, root: Path, missing: str) -> InputError:
    """Says what a data set's root lacks, and what it should hold."""
    return InputError(f"There is no {missing} in {root}; for {name} the folder must hold {tree}.")
