"""The sizes `paper` and `base` at toy widths: a SAM and a LLaVA of transformers' own classes, saved as folders, on
which `from_pretrained` runs as it does on those of the hub."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SamConfig,
    SamModel,
    SamVisionConfig,
    SiglipVisionConfig,
)

from dsvlfs import DSVLFSConfig

WORDS = ["[UNK]", "[PAD]", "USER", ":", "ASSISTANT", "Where", "in", "this", "photo", "is", "the", "?", "It", "."]
WORDS += ["circle", "square", "red", "round"]
IMAGE, SPARE_ROWS = len(WORDS), 8
LAYERS, WIDTH, PROMPT = 2, 64, 32  # a kernel of 4-bit weights for CPUs takes multiples of 64 alone


def sam_config() -> SamConfig:
    vision = SamVisionConfig(
        hidden_size=24,
        output_channels=PROMPT,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        image_size=64,
        patch_size=8,
        window_size=4,
        global_attn_indexes=[1],
        mlp_dim=48,
        num_pos_feats=PROMPT // 2,
    )
    prompts = {"hidden_size": PROMPT, "image_size": 64, "patch_size": 8, "mask_input_channels": 4}
    return SamConfig(
        vision_config=vision.to_dict(), prompt_encoder_config=prompts, mask_decoder_config={"hidden_size": PROMPT}
    )


def llava_config() -> LlavaConfig:
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    text = LlamaConfig(
        vocab_size=len(WORDS) + SPARE_ROWS,
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
    )
    return LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE, image_seq_length=4)


def base_llava_config() -> LlavaConfig:
    """As of `base`: SigLIP and Qwen2."""
    vision = SiglipVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        vision_use_head=False,
    )
    text = Qwen2Config(
        vocab_size=len(WORDS) + SPARE_ROWS,
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        image_seq_length=4,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )


def base_config(image_base: Path | str = "sam", vlm_base: Path | str = "llava") -> DSVLFSConfig:
    """Like `DSVLFSConfig.base`, on these bases."""
    own = config(image_base, vlm_base)
    own.update({"vlm_config": base_llava_config().to_dict(), "train_token_embeddings": "added", "vlm_crop": False})
    return own


def config(image_base: Path | str = "sam", vlm_base: Path | str = "llava") -> DSVLFSConfig:
    """Like `DSVLFSConfig.paper`, on these bases."""
    return DSVLFSConfig(
        image_base=str(image_base),
        image_config=sam_config().vision_config.to_dict(),
        image_size=64,
        vlm_base=str(vlm_base),
        vlm_config=llava_config().to_dict(),
        vlm_image_size=28,
        correlation_layers=[f"image.{n + 1}" for n in range(LAYERS)],
        support_size=64,
        match_channels=(4, 8),
        prompt_dim=PROMPT,
    )


def save_bases(folder: Path, llava_of: LlavaConfig | None = None) -> tuple[Path, Path]:
    """Random SAM and LLaVA (`llava_config`'s where no other is given), the latter with a tokenizer that has `<image>`:
    their folders."""
    torch.manual_seed(0)
    sam, llava = folder / "sam", folder / "llava"
    SamModel(sam_config()).save_pretrained(sam)
    LlavaForConditionalGeneration(llava_of or llava_config()).save_pretrained(llava)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    tokenizer.add_special_tokens(["<image>"])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(llava)
    return sam, llava
