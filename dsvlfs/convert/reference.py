"""Checkpoints of the authors' code (github.com/aminpdik/DSV-LFS) to ours.

The authors train with DeepSpeed and publish no weights; what `zero_to_fp32.py` makes of their run is a state dict under
the names of their `PeftModel`. Of it the trained part is taken: LoRA, token embeddings, LM head, the projection to the
semantic prompt, the matcher, and SAM's mask decoder. Their tokens `<im_start>` and `<im_end>` around the photo come
with it: the config's `photo_markers`.
"""

import copy
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..configuration import DSVLFSConfig
from ..errors import InputError
from ..files import read_json
from ..hub.config_schema import Prompts
from ..modeling import DSVLFSModel
from ..processing import DSVLFSProcessor
from .sam import read_pickle, rename

MARKERS = ["<im_start>", "<im_end>"]
"""Tokens that the authors' code puts around the photo. Their rows are the vocabulary's last, after `[SEM]`'s."""

_ROOT = "base_model.model."
_LANGUAGE = "semantic_encoder.vlm.base_model.model."


def import_reference(
    file: Path, folder: Path, config: DSVLFSConfig | None = None, *, prompts: Path | None = None
) -> None:
    """Converts a checkpoint to a folder for `DSVLFSModel.from_pretrained`.

    Args:
        file: what `zero_to_fp32.py` wrote, in one file.
        folder: for config, tensors and card, made where it is missing.
        config: of the model, to which the markers around the photo are added; None is `paper`. Its LLaVA's tokenizer
            is read.
        prompts: JSON of what the run asked, under the config's names: `prompt_template`, `answer_template`,
            `further_templates`, `answer_ends`, `photo_markers`. A prompt that the weights never saw costs them; None
            asks by ours, with `MARKERS` around the photo.

    Raises:
        BaseNotAvailableError: the tokenizer cannot be had.
        InputError: the file cannot be read, or is no checkpoint of that code and configuration.
    """
    config = copy.deepcopy(config or DSVLFSConfig.paper())
    asked = read_json(prompts, Prompts) if prompts else Prompts()
    markers = asked.get("photo_markers", MARKERS) or []
    config.photo_markers = markers
    if len(markers) == 2:
        config.prompt_template = config.prompt_template.replace("{image}", "{image}".join(markers))
    config.update({**asked})
    source = read_pickle(file)
    own = config.llava_config().image_token_id
    found = {len(source[n]) for n in (f"{_ROOT}model.embed_tokens.weight", f"{_ROOT}lm_head.weight") if n in source}
    if other := found - {own + 1 + len(markers)}:
        raise InputError(
            f"{file} has {min(other):,} rows in its vocabulary, not LLaMA's {own:,} and one for each of [SEM], "
            f"{' and '.join(markers)}; give a run of the authors' code on LLaVA-1.5 with its own tokens, and its "
            "markers in the file of prompts."
        )
    tokenizer = DSVLFSProcessor.from_config(config).tokenizer
    with torch.device("meta"):
        model = DSVLFSModel(config, load_bases=False)
    wanted = model.trained_state_dict()
    rows = wanted[f"{_LANGUAGE}lm_head.modules_to_save.default.weight"].shape[0]
    places: Any = tokenizer.convert_tokens_to_ids(markers)  # a list of a list
    state = convert(source, rows, places)
    # The authors' decoder always has both prompts.
    state["mask_decoder.no_semantic_prompt"] = torch.zeros(config.prompt_dim)
    wrong = sorted(wanted.keys() ^ state.keys()) or sorted(n for n in wanted if wanted[n].shape != state[n].shape)
    if wrong:
        raise InputError(
            f"{file} does not come from the authors' code ({len(wrong)} tensors do not fit, first {wrong[0]}); "
            "give the one file that zero_to_fp32.py wrote of a run with its own settings."
        )
    model.save_pretrained(folder, state_dict=state)


def convert(source: dict[str, Tensor], rows: int, markers: list[int]) -> dict[str, Tensor]:
    """The trained tensors under our names.

    Args:
        source: under the names of the authors' code.
        rows: of our vocabulary.
        markers: ids in it of the markers around the photo.
    """
    state = {}
    for name, tensor in source.items():
        name = name.removeprefix(_ROOT)
        if found := re.fullmatch(r"model\.(layers\.\d+\.self_attn\.[qv]_proj\.lora_[AB]\.default\.weight)", name):
            state[f"{_LANGUAGE}model.language_model.{found[1]}"] = tensor
        elif name == "model.embed_tokens.weight":
            embeddings = f"{_LANGUAGE}model.language_model.embed_tokens.modules_to_save.default.weight"
            state[embeddings] = _vocabulary(tensor, rows, markers)
        elif name == "lm_head.weight":
            state[f"{_LANGUAGE}lm_head.modules_to_save.default.weight"] = _vocabulary(tensor, rows, markers)
        elif found := re.fullmatch(r"model\.text_hidden_fcs\.0\.([02]\.\w+)", name):
            state[f"semantic_encoder.to_prompt.{found[1]}"] = tensor
        elif found := re.fullmatch(r"model\.encoder_layerFewshot\.(\d+)\.(\w+)\.?(\w*)", name):
            state[_matcher_name(int(found[1]), found[2], found[3])] = tensor
        elif found := re.fullmatch(r"model\.decoderFewshot\.([02]\.\w+)", name):
            state[f"matcher.to_prompt.{found[1]}"] = tensor
        elif name.startswith("model.visual_model."):
            state |= _of_sam(name.removeprefix("model.visual_model."), tensor)
    return state


def _matcher_name(position: int, part: str, kind: str) -> str:
    """Convolution, normalisation and ReLU take turns in the authors' sequence."""
    block = f"matcher.blocks.{position // 3}."
    if part in ("conv1", "conv2"):
        return f"{block}conv.{'query' if part == 'conv1' else 'support'}_conv.{kind}"
    return f"{block}norm.{part}"


def _of_sam(name: str, tensor: Tensor) -> dict[str, Tensor]:
    [name] = rename({name: tensor})
    if name == "shared_image_embedding.positional_embedding":
        return {"mask_decoder.position.positional_embedding": tensor}
    if name == "prompt_encoder.no_mask_embed.weight":
        return {"mask_decoder.no_visual_prompt": tensor[0]}
    if name.startswith("mask_decoder.") and "iou_prediction_head" not in name:
        return {name.replace("mask_decoder.", "mask_decoder.decoder."): tensor}
    return {}  # the frozen image encoder, and SAM's other prompts


def _vocabulary(tensor: Tensor, rows: int, markers: list[int]) -> Tensor:
    """LLaMA's own rows, the markers' in their places, and `[SEM]`'s in all others that LLaVA has spare, one of which is
    `<SEM_prompt>`'s."""
    own = len(tensor) - 1 - len(markers)
    result = torch.cat([tensor[:own], tensor[own].repeat(rows - own, 1)])
    result[markers] = tensor[own + 1 :]
    return result
