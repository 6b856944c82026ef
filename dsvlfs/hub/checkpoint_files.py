"""Checkpoints as files: from a name to a folder, its config and its tensors; and a folder written whole."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..configuration import DSVLFSConfig
from ..errors import InputError

PACKAGED_CHECKPOINTS = {"dsvlfs-tiny": Path(__file__).parents[1] / "checkpoints" / "tiny"}
TENSORS = "model.safetensors"
_INDEX = ".index.json"
_SHARD = re.compile(r"(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")


def read_config(folder: Path) -> DSVLFSConfig:
    """The config of a checkpoint's folder.

    Raises:
        InputError: it is missing, damaged, or of another kind of model.
    """
    damaged = f"{folder / 'config.json'} is missing or damaged; get the checkpoint again."
    try:
        settings, _ = DSVLFSConfig.get_config_dict(folder)
    except (OSError, TypeError, ValueError) as error:
        raise InputError(damaged) from error
    if settings.get("model_type") != DSVLFSConfig.model_type:
        raise InputError(
            f"{folder} holds no DSV-LFS checkpoint (its model_type is {settings.get('model_type')}); give the folder "
            "that save_pretrained wrote."
        )
    try:
        return DSVLFSConfig.from_dict(settings)
    except (TypeError, ValueError) as error:
        raise InputError(damaged) from error


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of the shards that stand for it.

    Raises:
        InputError: it is missing or damaged.
    """
    index = file.with_name(file.name + _INDEX)
    try:
        if file.is_file() or not index.is_file():
            return load_file(file)
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        return {name: tensor for shard in shards for name, tensor in load_file(file.parent / Path(shard).name).items()}
    except (OSError, SafetensorError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"The checkpoint {file} is missing or damaged ({error}); get it again.") from error


def write_tensors(file: Path, tensors: dict[str, Tensor]) -> None:
    """Writes all of a safetensors file or nothing."""
    partial = file.with_name(f"{file.name}.part")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, metadata={"format": "pt"})
    os.replace(partial, file)


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A scratch folder, whose files take their places in `folder` once all are written: the config last, without which
    no folder is a checkpoint. Other files stay, but for tensors that these replace."""
    scratch = folder / ".part"
    shutil.rmtree(scratch, ignore_errors=True)  # what a killed process left
    scratch.mkdir(parents=True)
    try:
        yield scratch
        names = files_of(scratch)
        for name in sorted(names, key=lambda name: name == "config.json"):
            (folder / name).parent.mkdir(exist_ok=True)
            os.replace(scratch / name, folder / name)
        stem = TENSORS.partition(".")[0]
        for file in folder.glob(f"{stem}*"):
            if file.name not in names and _SHARD.fullmatch(file.name.removeprefix(stem)):
                file.unlink()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def files_of(folder: Path) -> list[str]:
    """Paths of all files, relative to the folder."""
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


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
    folder = PACKAGED_CHECKPOINTS.get(str(name_or_path), Path(name_or_path))
    if folder.is_dir():
        return folder / subfolder
    wanted = ["config.json", "README.md", "*.safetensors", "*.json"]
    prefix = f"{subfolder}/" if subfolder else ""
    try:
        found = snapshot_download(
            str(name_or_path), allow_patterns=[f"{prefix}{pattern}" for pattern in wanted], **hub_options
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise InputError(
            f"The model '{name_or_path}' is neither packaged ({', '.join(PACKAGED_CHECKPOINTS)}), nor a folder, nor to "
            "be had from the Hugging Face hub; check the name, or the network."
        ) from error
    return Path(found) / subfolder
