"""Checkpoints as files: from a name to a folder, its config and its tensors."""

import errno
import os
import re
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..configuration import DSVLFSConfig
from ..errors import InputError
from ..files import checked, open_regular, read_json, whole_files, write_error
from .config_schema import Settings
from .digests import tensor_digest

PACKAGED_CHECKPOINTS = {"dsvlfs-tiny": Path(__file__).parents[1] / "checkpoints" / "tiny"}

CONFIG, CARD, WEIGHTS = "config.json", "README.md", "model.safetensors"
"""The files of a checkpoint."""

_DIGEST = "sha256"  # in the tensors' metadata, of the tensors


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
    """The tensors of a safetensors file.

    Raises:
        InputError: it is missing or damaged, or holds values that are no numbers.
    """
    open_regular(file, "checkpoint").close()
    try:
        with safe_open(file, framework="pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (no mapping)
    except Exception as error:  # of Rust, of torch, of an odd type or shape
        raise InputError(f"The checkpoint {file} is damaged ({error}); get it again.") from error
    if metadata.get(_DIGEST, digest := tensor_digest(tensors)) != digest:
        raise InputError(
            f"The checkpoint {file} is damaged (its tensors are not those it was saved with); get it again."
        )
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InputError(
                f"The checkpoint {file} is damaged ({name} holds values that are no numbers); get it again."
            )
    return tensors


def write_tensors(file: Path, tensors: dict[str, Tensor]) -> None:
    """Writes all of a safetensors file or nothing. Raises WriteError."""
    with whole_files(file) as (partial,):
        _save(tensors, partial, file)


def write_checkpoint(folder: Path, config: DSVLFSConfig, card: str, tensors: dict[str, Tensor]) -> None:
    """Writes the files of a checkpoint, all or none.

    Args:
        folder: made where it is missing.
        config: of the model.
        card: as Markdown.
        tensors: that were trained.

    Raises:
        WriteError: they cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error
    with whole_files(folder / WEIGHTS, folder / CARD, folder / CONFIG) as (weights, readme, settings):
        _save(tensors, weights, folder / WEIGHTS)
        readme.write_text(card, encoding="utf-8")
        settings.write_text(config.to_json_string(), encoding="utf-8")


def _save(tensors: dict[str, Tensor], partial: Path, file: Path) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        save_file(tensors, partial, metadata={"format": "pt", _DIGEST: tensor_digest(tensors)})
    except SafetensorError as error:  # hides the system's own error in its text
        number = re.search(r"os error (\d+)", str(error))
        code = int(number[1]) if number else errno.EIO
        raise write_error(file, OSError(code, os.strerror(code) if number else str(error))) from error


def checkpoint_folder(name_or_path: str | os.PathLike, revision: str | None) -> Path:
    """The folder of a checkpoint: packaged, local, or of the Hugging Face hub.

    Args:
        name_or_path: one of `PACKAGED_CHECKPOINTS`, a folder, or a model id.
        revision: of the model on the hub.

    Raises:
        InputError: it is none of these, or cannot be had.
    """
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise InputError(f"A checkpoint's name is of type {type(name_or_path).__name__}; give a name or a folder.")
    folder = PACKAGED_CHECKPOINTS.get(str(name_or_path), Path(name_or_path))
    if os.path.isdir(folder):
        return folder
    try:
        return Path(snapshot_download(str(name_or_path), revision=revision, allow_patterns=[CONFIG, CARD, WEIGHTS]))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise InputError(
            f"The model '{name_or_path}' is neither packaged ({', '.join(PACKAGED_CHECKPOINTS)}), nor a folder, nor to "
            "be had from the Hugging Face hub; check the name, or the network."
        ) from error
