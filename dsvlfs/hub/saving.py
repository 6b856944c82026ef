"""All files of a checkpoint: the config, what was trained, the language model's share of it for peft, the processor's
class, and the card."""

import json
from pathlib import Path

from huggingface_hub import save_torch_state_dict
from peft import PeftModel
from torch import Tensor

from ..configuration import DSVLFSConfig
from .adapter import write_adapter
from .checkpoint_files import digest_metadata, files_of, written_whole
from .language_share import LANGUAGE_MODEL, LEFT_OUT

PROCESSOR_FILE = {"processor_class": "DSVLFSProcessor"}


def save_checkpoint(
    folder: Path,
    *,
    config: DSVLFSConfig,
    tensors: dict[str, Tensor],
    leave_out: bool,
    vlm: PeftModel,
    card: str,
    max_shard_size: int | str = "50GB",
) -> list[str]:
    """Writes a checkpoint whole, or not at all.

    Args:
        folder: made where it is missing.
        config: of the model.
        tensors: what was trained, on the CPU.
        leave_out: the language model's share of them, which learned nothing, from all but the adapter.
        vlm: the adapted LLaVA; its settings.
        card: Markdown with metadata.
        max_shard_size: of one file, in bytes or as "2GB".

    Returns:
        Paths of the files in the folder.
    """
    tensors = {name: _alone(tensor) for name, tensor in tensors.items()}
    share = {name: tensor for name, tensor in tensors.items() if name.startswith(LANGUAGE_MODEL)}
    said = {}
    if leave_out:
        tensors, said = {name: tensor for name, tensor in tensors.items() if name not in share}, LEFT_OUT
    with written_whole(folder) as scratch:
        config.save_pretrained(scratch)
        (scratch / "processor_config.json").write_text(json.dumps(PROCESSOR_FILE, indent=2) + "\n", encoding="utf-8")
        (scratch / "README.md").write_text(card, encoding="utf-8")
        save_torch_state_dict(tensors, scratch, max_shard_size=max_shard_size, metadata=digest_metadata(tensors) | said)
        language = {name.removeprefix(LANGUAGE_MODEL): tensor for name, tensor in share.items()}
        write_adapter(scratch / "adapter", vlm, language, config)
        return files_of(scratch)


def _alone(tensor: Tensor) -> Tensor:
    """A tensor with memory of its own: what is gathered from several processes may lie in a larger piece, which is not
    to be written."""
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
