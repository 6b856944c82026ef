"""The frozen bases put together as the parts that `DSVLFSModel` wires: the image encoder, and the LLaVA."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn
from transformers import Dinov2Model, LlamaForCausalLM, LlavaConfig, LlavaForConditionalGeneration, SamModel
from transformers.initialization import no_init_weights
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from ..configuration import DSVLFSConfig
from ..parts.efficientnet_lite import EfficientNetLiteModel
from ..parts.mask_decoder import MaskDecoder
from ..processing import DSVLFSProcessor
from .bases import load_base


def layer_channels(config: DSVLFSConfig, name: str) -> int:
    """Channels of a frozen layer, such as `image.9`."""
    source, number = name.split(".")
    if source == "image":
        return config.image_encoder_config().hidden_size
    return config.llava_config().vision_config.stage_channels[int(number)]


def load_image_base(config: DSVLFSConfig, decoder: MaskDecoder, options: Mapping[str, Any]) -> nn.Module:
    """The image encoder; with SAM's, its decoder's weights go into ours as a start.

    Args:
        config: of the model.
        decoder: ours.
        options: of transformers' `from_pretrained`.
    """
    if config.embedding_layers:
        return load_base(Dinov2Model, config.image_base, **options)
    sam = load_base(SamModel, config.image_base, **options)
    decoder.decoder.load_state_dict(_fetched(sam.mask_decoder), strict=False)  # all but the head of qualities
    decoder.position.load_state_dict(_fetched(sam.shared_image_embedding))
    with torch.no_grad():
        decoder.no_visual_prompt.copy_(_fetched(sam.prompt_encoder)["no_mask_embed.weight"][0])
    return sam.vision_encoder


def _fetched(part: nn.Module) -> dict[str, Tensor]:
    """The state of a part, some of whose modules accelerate may have offloaded."""
    state = {}
    for path, module in part.named_modules():
        with align_module_device(module):
            own = {name: tensor.clone() for name, tensor in module.state_dict().items() if "." not in name}
        state |= {f"{path}.{name}" if path else name: tensor for name, tensor in own.items()}
    return state


def load_llava(
    config: DSVLFSConfig, processor: DSVLFSProcessor | None, options: Mapping[str, Any]
) -> tuple[LlavaForConditionalGeneration, int]:
    """The LLaVA with rows for the added tokens, and the id of `<SEM_prompt>`.

    Args:
        config: of the model.
        processor: its tokenizer has the tokens; without one all weights are random.
        options: of transformers' `from_pretrained`; of the language model where the LLaVA is joined from two bases.
    """
    llava_config = config.llava_config()
    text = llava_config.text_config
    if processor is None:
        if config.vlm_base is None:  # a LLaVA made whole has an image token and spare rows
            text.vocab_size += 2
            llava_config.image_token_id = text.vocab_size - 2
        return LlavaForConditionalGeneration(llava_config), text.vocab_size - 1
    if config.vlm_base is not None:
        llava = load_base(LlavaForConditionalGeneration, config.vlm_base, **options)
        _add_token_rows(llava, len(processor.tokenizer))
        return llava, processor.semantic_token_id
    language = load_base(LlamaForCausalLM, config.language_base, **{"dtype": torch.float32, **options})
    _add_token_rows(language, len(processor.tokenizer))
    text.vocab_size = len(processor.tokenizer)
    llava_config.image_token_id = processor.image_token_id
    with ExitStack() as stack:  # a skeleton: each part is put in below
        stack.enter_context(torch.device("meta"))
        stack.enter_context(no_init_weights())
        llava = LlavaForConditionalGeneration(llava_config)
    tower = load_base(EfficientNetLiteModel, config.vision_base, config=llava_config.vision_config)
    llava.model.vision_tower = tower.for_inference()
    llava.model.language_model = language.model
    llava.model.multi_modal_projector = _silent_projector(llava_config, language, processor)
    llava.lm_head = language.lm_head
    return llava, processor.semantic_token_id


def _silent_projector(
    config: LlavaConfig, language: LlamaForCausalLM, processor: DSVLFSProcessor
) -> LlavaMultiModalProjector:
    """A new projector that says "photo" for every token until it has learned: the answer starts free of noise."""
    projector = LlavaMultiModalProjector(config)
    word = processor.tokenizer(" photo", add_special_tokens=False).input_ids[-1]
    with torch.no_grad():
        projector.linear_2.weight.zero_()
        projector.linear_2.bias.copy_(language.get_input_embeddings().weight[word])
    return projector


def _add_token_rows(model: nn.Module, vocabulary: int) -> None:
    """Grows the vocabulary to `vocabulary` rows at least; a new row starts as the mean of the old ones (no chance)."""
    old = model.get_input_embeddings().num_embeddings
    if vocabulary <= old:
        return
    model.resize_token_embeddings(vocabulary, mean_resizing=False)
    with torch.no_grad():
        for matrix in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
            matrix[old:] = matrix[:old].mean(dim=0)
