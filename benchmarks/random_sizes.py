"""The sizes `paper` and `base` with weights of chance, made where they are to be, in seconds, without a network; and
`toy`, the paper's classes at widths that try every line of what measures them."""

import itertools
import re
from collections.abc import Iterator
from unittest import mock

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, PreTrainedTokenizerFast, SamVisionConfig

from dsvlfs import DSVLFSConfig, DSVLFSModel, modeling
from dsvlfs.configuration import IMAGE_TOKEN, SEMANTIC_TOKEN
from dsvlfs.measuring.costs import TEXT_TOKENS
from dsvlfs.processing import DSVLFSProcessor
from dsvlfs.training.episode_losses import set_precision

NAME = "thing"
SIZES = ("toy", "base", "paper")


def config_of(size: str) -> DSVLFSConfig:
    """One of `SIZES`."""
    return _toy() if size == "toy" else getattr(DSVLFSConfig, size)()


def for_inference(config: DSVLFSConfig, dtype: torch.dtype, device: torch.device) -> DSVLFSModel:
    """As `from_pretrained` gives it with the bases in `dtype`: what is trained is in float32."""
    load_llava = modeling.load_llava

    def narrow(*arguments: object) -> tuple[nn.Module, int]:
        llava, token = load_llava(*arguments)
        return _cast(llava, dtype), token

    with mock.patch.object(modeling, "load_llava", narrow), torch.device("meta"):
        model = DSVLFSModel(config, load_bases=False)
    _cast(model.image_encoder, dtype)
    return _filled(model, device).eval()


def for_training(config: DSVLFSConfig, mixed_precision: str, device: torch.device) -> DSVLFSModel:
    """As `train.py` has it, the language model's activations computed again."""
    with torch.device("meta"):
        model = DSVLFSModel(config, load_bases=False)
    set_precision(model, mixed_precision)
    model.semantic_encoder.llava.model.language_model.activation_checkpointing_enable({"use_reentrant": False})
    return _filled(model, device).train()


def description(model: DSVLFSModel) -> str:
    """Of as many words as make the question and its answer `TEXT_TOKENS` long."""
    processor = model.processor
    length = processor.question([(NAME, "word")], photo_tokens=0).input_ids.shape[1]
    return " ".join(["word"] * max(1, TEXT_TOKENS - length + 1))


def _cast(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Parameters alone, as transformers loads them: buffers stay as they are."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)
    return module


@torch.no_grad()
def _filled(model: DSVLFSModel, device: torch.device, seed: int = 0) -> DSVLFSModel:
    """Gives a model of the meta device memory and numbers, the same in every precision; tied weights stay so."""
    generator = torch.Generator(device).manual_seed(seed)
    made: dict[Tensor, Tensor] = {}
    for path, module in model.named_modules():
        for name, old in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if old not in made:
                new = torch.empty_like(old, device=device)
                new.copy_(_numbers(f"{path}.{name}", old, generator, model.config))
                made[old] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
            kept = module._parameters if name in module._parameters else module._buffers
            kept[name] = made[old]
    left = [name for name, tensor in _tensors(model) if tensor.device.type != device.type]
    if left:
        raise SystemExit(f"{len(left)} tensors are not on {device}, first {left[0]}.")
    model.processor = DSVLFSProcessor(model.config, _tokenizer(model))
    return model


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _numbers(name: str, like: Tensor, generator: torch.Generator, config: DSVLFSConfig) -> Tensor:
    """What a weight or a buffer is filled with, in float32."""
    own, device = name.rsplit(".", 1)[-1], generator.device
    if "inv_freq" in own:
        theta = (config.llava_config().text_config.rope_parameters or {}).get("rope_theta", 10000.0)
        return theta ** -(torch.arange(len(like), device=device) / len(like))
    if "position_ids" in own:
        return torch.arange(like.numel(), device=device).view(like.shape)
    if own == "positional_embedding":
        return torch.randn(like.shape, generator=generator, device=device)
    if not like.is_floating_point() or like.ndim == 0:
        return torch.zeros(like.shape, device=device)
    if like.ndim == 1:
        return torch.full(like.shape, float(own == "weight"), device=device)  # of norms; or a bias
    deviation = 0.02 if len(like) == 1 else (like.numel() // len(like)) ** -0.5
    return torch.randn(like.shape, generator=generator, device=device).mul_(deviation)


def _tokenizer(model: DSVLFSModel) -> PreTrainedTokenizerFast:
    """Of whole words, whose added tokens have the rows that the language model has for them."""
    config = model.config
    llava = model.semantic_encoder.llava.config
    texts = [config.prompt_template, config.answer_template, NAME, "word"]
    words = ["[UNK]", "[PAD]", *dict.fromkeys(word for text in texts for word in re.findall(r"\w+|[^\w\s]+", text))]
    rows = {IMAGE_TOKEN: llava.image_token_id, SEMANTIC_TOKEN: llava.text_config.vocab_size - 1}
    free = (row for row in itertools.count() if row not in (llava.image_token_id, rows[SEMANTIC_TOKEN]))
    rows |= dict(zip(words, free))
    tokenizer = Tokenizer(models.WordLevel(rows, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([IMAGE_TOKEN, SEMANTIC_TOKEN])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")
    if fast.convert_tokens_to_ids([IMAGE_TOKEN, SEMANTIC_TOKEN]) != [rows[IMAGE_TOKEN], rows[SEMANTIC_TOKEN]]:
        raise SystemExit("The tokenizer gave the added tokens other rows than the language model.")
    return fast


def _toy() -> DSVLFSConfig:
    layers, side, prompt = 2, 128, 32
    vision = SamVisionConfig(
        hidden_size=24,
        output_channels=prompt,
        num_hidden_layers=layers,
        num_attention_heads=2,
        image_size=side,
        patch_size=8,
        window_size=4,
        global_attn_indexes=[1],
        mlp_dim=48,
        num_pos_feats=prompt // 2,
    )
    tower = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    text = LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=2
    )
    llava = LlavaConfig(vision_config=tower, text_config=text, image_token_index=60, image_seq_length=4)
    config = DSVLFSConfig.paper()
    config.update(
        {
            "image_config": vision.to_dict(),
            "image_size": side,
            "support_size": side,
            "vlm_config": llava.to_dict(),
            "vlm_image_size": 28,
            "correlation_layers": [f"image.{n + 1}" for n in range(layers)],
            "match_channels": (4, 8),
            "prompt_dim": prompt,
        }
    )
    return config
