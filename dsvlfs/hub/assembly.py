"""The frozen bases put together as the parts that `DSVLFSModel` wires: the image encoder, and the LLaVA."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn
from transformers import (
    Dinov2Model,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    SamModel,
)
from transformers.initialization import no_init_weights
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from ..configuration import IMAGE_TOKEN, SEMANTIC_TOKEN, DSVLFSConfig
from ..parts.efficientnet_lite import EfficientNetLiteModel
from ..parts.mask_decoder import MaskDecoder
from .bases import HUB_OPTIONS, load_base


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
        options: of `load_base`.
    """
    if config.embedding_layers:
        return load_base(Dinov2Model, config.image_base, **options)
    encoder = sam = load_base(SamModel, config.image_base, **options)
    if "quantization_config" in options:  # what is trained is none of it
        sam = load_base(SamModel, config.image_base, **_only(options, *HUB_OPTIONS))
    decoder.decoder.load_state_dict(_fetched(sam.mask_decoder), strict=False)  # all but the head of qualities
    decoder.position.load_state_dict(_fetched(sam.shared_image_embedding))
    with torch.no_grad():
        decoder.no_visual_prompt.copy_(_fetched(sam.prompt_encoder)["no_mask_embed.weight"][0])
    return encoder.vision_encoder


def _only(options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: options[name] for name in names if name in options}


def _fetched(part: nn.Module) -> dict[str, Tensor]:
    """The state of a part, some of whose modules accelerate may have offloaded."""
    state = {}
    for path, module in part.named_modules():
        with align_module_device(module):
            own = {name: tensor.clone() for name, tensor in module.state_dict().items() if "." not in name}
        state |= {f"{path}.{name}" if path else name: tensor for name, tensor in own.items()}
    return state


def load_llava(
    config: DSVLFSConfig, tokenizer: PreTrainedTokenizerBase | None, options: Mapping[str, Any]
) -> tuple[LlavaForConditionalGeneration, int]:
    """The LLaVA with rows for the added tokens, and the id of `<SEM_prompt>`.

    Args:
        config: of the model.
        tokenizer: of the language model, with the added tokens; without one all weights are random.
        options: of `load_base`; where the LLaVA is joined from two bases, those of the language model, of which the
            vision tower takes the precision and the place.
    """
    llava_config = config.llava_config()
    text = llava_config.text_config
    if tokenizer is None:
        if config.vlm_base is None:  # a LLaVA made whole has an image token and spare rows
            text.vocab_size += 2
            llava_config.image_token_id = text.vocab_size - 2
        return LlavaForConditionalGeneration(llava_config), text.vocab_size - 1
    semantic_token_id = tokenizer.convert_tokens_to_ids(SEMANTIC_TOKEN)
    if config.vlm_base is not None:
        llava = load_base(LlavaForConditionalGeneration, config.vlm_base, **options)
        _add_token_rows(llava, len(tokenizer))
        return llava, semantic_token_id
    language = load_base(LlamaForCausalLM, config.language_base, **{"dtype": torch.float32, **options})
    _add_token_rows(language, len(tokenizer))
    text.vocab_size = len(tokenizer)
    llava_config.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    with ExitStack() as stack:  # a skeleton: each part is put in below
        stack.enter_context(torch.device("meta"))
        stack.enter_context(no_init_weights())
        llava = LlavaForConditionalGeneration(llava_config)
    tower = load_base(
        EfficientNetLiteModel,
        config.vision_base,
        config=llava_config.vision_config,
        **_only(options, "dtype", *HUB_OPTIONS),
    )
    llava.model.vision_tower = tower.for_inference()
    llava.model.language_model = language.model
    llava.model.multi_modal_projector = _silent_projector(llava_config, language, tokenizer)
    llava.lm_head = language.lm_head
    embeddings = language.get_input_embeddings()
    hook = getattr(embeddings, "_hf_hook", None)  # of what is offloaded
    device = embeddings.weight.device if hook is None else hook.execution_device
    llava.model.vision_tower.to(device)
    llava.model.multi_modal_projector.to(device)
    return llava, semantic_token_id


def _silent_projector(
    config: LlavaConfig, language: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> LlavaMultiModalProjector:
    """A new projector that says "photo" for every token until it has learned: the answer starts free of noise."""
    projector = LlavaMultiModalProjector(config)
    word = tokenizer(" photo", add_special_tokens=False).input_ids[-1]
    with torch.no_grad():
        projector.linear_2.weight.zero_()
        projector.linear_2.bias.copy_(language.get_input_embeddings().weight[word])
    return projector


def _add_token_rows(model: PreTrainedModel, vocabulary: int) -> None:
    """Grows the vocabulary to `vocabulary` rows at least; a new row starts as the mean of the old ones (no chance)."""
    old = model.get_input_embeddings().num_embeddings
    if vocabulary <= old:
        return
    with no_init_weights(), _drawing_nothing(model):  # every row is copied, or set below
        model.resize_token_embeddings(vocabulary, mean_resizing=False)
    with torch.no_grad():
        for matrix in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
            matrix[old:] = matrix[:old].mean(dim=0)


@contextmanager
def _drawing_nothing(model: PreTrainedModel) -> Iterator[None]:
    """The model's modules are not initialised meanwhile: 28 million random numbers take as long as all else."""
    model._init_weights = lambda module: None
    try:
        yield
    finally:
        del model._init_weights
