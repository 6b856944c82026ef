"""Checkpoints as files: from a name to a folder, its config and its tensors; and a folder written whole."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NotRequired

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from typing_extensions import TypedDict

from ..configuration import DSVLFSConfig
from ..errors import InputError
from ..files import checked, open_regular, read_json, whole_contents, whole_file
from .config_schema import Settings
from .digests import tensor_digest

PACKAGED_CHECKPOINTS = {"dsvlfs-tiny": Path(__file__).parents[1] / "checkpoints" / "tiny"}

CONFIG, TENSORS = "config.json", "model.safetensors"
_INDEX = ".index.json"
_SHARD = re.compile(r"(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
_DIGEST = "sha256"  # in the tensors' metadata, of the tensors


class _Index(TypedDict):
    weight_map: dict[str, str]
    metadata: NotRequired[dict[str, Any]]


def read_config(folder: Path) -> DSVLFSConfig:
    """The config of a checkpoint's folder.

    Raises:
        InputError: it is missing, damaged, or of another kind of model.
    """
    file = folder / CONFIG
    settings = read_json(file)
    if settings.get("model_type") != DSVLFSConfig.model_type:
        raise InputError(
            f"{folder} holds no DSV-LFS checkpoint (its model_type is {settings.get('model_type')!r}); give the folder "
            "that save_pretrained wrote."
        )
    try:
        config = DSVLFSConfig.from_dict(checked(settings, Settings, str(file)))
        config.image_encoder_config()
        config.llava_config()
        if not (config.image_base and (config.vlm_base or (config.vision_base and config.language_base))):
            raise InputError(f"{file} names no bases; get the checkpoint again.")
        return config
    except InputError:
        raise
    except Exception as error:  # transformers' configs refuse in many ways
        raise InputError(f"{file} is damaged ({type(error).__name__}: {error}); get the checkpoint again.") from error


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of `read_checkpoint` alone."""
    return read_checkpoint(file)[0]


def read_checkpoint(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a safetensors file, or of the shards that stand for it, and their metadata.

    Raises:
        InputError: it is missing or damaged, or holds values that are no numbers.
    """
    index, shards = file.with_name(file.name + _INDEX), [file]
    known: dict[str, Any] = {}
    if not file.is_file() and index.is_file():
        content = read_json(index, _Index)
        shards = [file.parent / Path(name).name for name in sorted(set(content["weight_map"].values()))]
        known = content.get("metadata", {})
    tensors = {}
    for shard in shards:
        found, said = _stored_in(shard, "checkpoint", "get it again")
        tensors, known = tensors | found, said | known
    _check_numbers(tensors, known, f"The checkpoint {file}", "get it again")
    return tensors, known


def read_tensor_file(file: Path, what: str, mend: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of one safetensors file that is no checkpoint, and what `write_tensors` was told of them.

    Args:
        file: to read.
        what: it is, and how to mend one that is damaged, for the error's sentence.

    Raises:
        InputError: it is missing or damaged, or holds values that are no numbers.
    """
    tensors, known = _stored_in(file, what, mend)
    _check_numbers(tensors, known, f"The {what} {file}", mend)
    return tensors, known


def _stored_in(file: Path, what: str, mend: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    open_regular(file, what).close()
    try:
        with safe_open(file, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (no mapping)
            return tensors, stored.metadata() or {}
    except Exception as error:  # of Rust, of torch, of an odd type or shape
        raise InputError(f"The {what} {file} is damaged ({error}); {mend}.") from error


def _check_numbers(tensors: dict[str, Tensor], known: Mapping[str, str], title: str, mend: str) -> None:
    if _DIGEST in known and known[_DIGEST] != tensor_digest(tensors):
        raise InputError(f"{title} is damaged (its tensors have changed since); {mend}.")
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InputError(f"{title} is damaged ({name} is not all numbers); {mend}.")


def write_tensors(file: Path, tensors: dict[str, Tensor], **said: str) -> None:
    """Writes all of a safetensors file or nothing, with what is said of the tensors in its metadata. Raises
    WriteError."""
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with whole_file(file) as partial, _system_errors():
        save_file(tensors, partial, metadata={"format": "pt", **digest_metadata(tensors), **said})


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A scratch folder, whose files take their places in `folder` once all are written: the config last, without which
    no folder is a checkpoint. Other files stay, but for tensors that these replace.

    Raises:
        WriteError: one cannot be written.
    """
    with whole_contents(folder, last=CONFIG) as scratch:
        with _system_errors():
            yield scratch
        names = files_of(scratch)
    stem = TENSORS.partition(".")[0]
    for file in folder.glob(f"{stem}*"):
        if file.name not in names and _SHARD.fullmatch(file.name.removeprefix(stem)):
            file.unlink()


def files_of(folder: Path) -> list[str]:
    """Paths of all files, relative to the folder."""
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def digest_metadata(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Metadata of a safetensors file, or of its index, that `read_tensors` knows the tensors by."""
    return {_DIGEST: tensor_digest(tensors)}


@contextmanager
def _system_errors() -> Iterator[None]:
    """The system's own error in place of that of safetensors, which hides it in its text."""
    try:
        yield
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        if not found:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1]))) from error


def checkpoint_folder(name_or_path: str | os.PathLike, *, subfolder: str = "", **hub_options: Any) -> Path:
    """The folder of a checkpoint: packaged, local, or of the Hugging Face hub.

    Args:
        name_or_path: one of `PACKAGED_CHECKPOINTS`, a folder, or a model id.
        subfolder: of the folder or model, where the checkpoint lies.
        hub_options: `revision`, `token`, `cache_dir`, `force_download`, `local_files_only`, as
            `huggingface_hub.snapshot_download` takes them.

    Raises:
        InputError: it is none of these, or cannot be had.
    """
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise InputError(f"A checkpoint's name is of type {type(name_or_path).__name__}; give a name or a folder.")
    folder = PACKAGED_CHECKPOINTS.get(str(name_or_path), Path(name_or_path))
    if os.path.isdir(folder):
        return folder / subfolder
    prefix = f"{subfolder}/" if subfolder else ""
    wanted = [f"{prefix}{pattern}" for pattern in ("README.md", "*.safetensors", "*.json")]
    try:
        # An asterisk stands for folders too: the adapter says nothing that the tensors do not.
        found = snapshot_download(
            str(name_or_path), allow_patterns=wanted, ignore_patterns=f"{prefix}adapter/*", **hub_options
        )
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise InputError(
            f"The model '{name_or_path}' is neither packaged ({', '.join(PACKAGED_CHECKPOINTS)}), nor a folder, nor to "
            "be had from the Hugging Face hub; check the name, or the network."
        ) from error
    return Path(found) / subfolder
