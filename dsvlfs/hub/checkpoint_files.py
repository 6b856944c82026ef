"""Checkpoints as files: from a name to a folder, its config and its tensors."""

import os
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..configuration import DSVLFSConfig
from ..errors import InputError

PACKAGED_CHECKPOINTS = {"dsvlfs-tiny": Path(__file__).parents[1] / "checkpoints" / "tiny"}


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
    """The tensors of a safetensors file.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise InputError(f"The checkpoint {file} is missing or damaged ({error}); get it again.") from error


def write_tensors(file: Path, tensors: dict[str, Tensor]) -> None:
    """Writes all of a safetensors file or nothing."""
    partial = file.with_name(f"{file.name}.part")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, metadata={"format": "pt"})
    os.replace(partial, file)


def checkpoint_folder(name_or_path: str | os.PathLike, revision: str | None) -> Path:
    """The folder of a checkpoint: packaged, local, or of the Hugging Face hub.

    Args:
        name_or_path: one of `PACKAGED_CHECKPOINTS`, a folder, or a model id.
        revision: of the model on the hub.

    Raises:
        InputError: it is none of these, or cannot be had.
    """
    folder = PACKAGED_CHECKPOINTS.get(str(name_or_path), Path(name_or_path))
    if folder.is_dir():
        return folder
    try:
        return Path(
            snapshot_download(
                str(name_or_path), revision=revision, allow_patterns=["config.json", "README.md", "*.safetensors"]
            )
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise InputError(
            f"The model '{name_or_path}' is neither packaged ({', '.join(PACKAGED_CHECKPOINTS)}), nor a folder, nor to "
            "be had from the Hugging Face hub; check the name, or the network."
        ) from error
