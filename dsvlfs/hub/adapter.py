"""The trained language model in peft's own form, for those who want it without the rest."""

import copy
from pathlib import Path

from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

from ..configuration import DSVLFSConfig

_LLAVA_LANGUAGE, _OWN_LANGUAGE = "base_model.model.model.language_model.", "base_model.model.model."


def write_adapter(folder: Path, vlm: PeftModel, trained: dict[str, Tensor], config: DSVLFSConfig) -> None:
    """Writes `adapter_config.json` and `adapter_model.safetensors`, which `PeftModel.from_pretrained` puts on the base
    that the config names: the LLaVA, or the language model that a LLaVA is joined from. The base is to be as it comes:
    rows of tokens that it lacks are left out.

    Args:
        folder: made where it is missing.
        vlm: the adapted LLaVA; its settings.
        trained: tensors under `vlm`'s names.
        config: of the model.
    """
    rows = config.llava_config().text_config.vocab_size
    settings = copy.deepcopy(vlm.peft_config["default"])
    settings.inference_mode = True
    settings.base_model_name_or_path = config.vlm_base or config.language_base
    if settings.trainable_token_indices:
        known = [index for index in settings.trainable_token_indices["embed_tokens"] if index < rows]
        settings.trainable_token_indices = {"embed_tokens": known} if known else None
    tensors = get_peft_model_state_dict(vlm, state_dict=trained, save_embedding_layers=False)
    if settings.trainable_token_indices is None:
        tensors = {name: tensor for name, tensor in tensors.items() if "token_adapter" not in name}
    for name in tensors:
        if settings.modules_to_save and any(f".{part}." in name for part in settings.modules_to_save):
            tensors[name] = tensors[name][:rows].clone()
    if config.vlm_base is None:
        settings.target_modules = r".*\.(q_proj|v_proj)"
        tensors = {name.replace(_LLAVA_LANGUAGE, _OWN_LANGUAGE, 1): tensor for name, tensor in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings.save_pretrained(folder)
