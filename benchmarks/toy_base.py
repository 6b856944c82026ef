"""The size `base` at toy widths: a SAM and a LLaVA of the same classes with random weights, saved as folders, and a
tokenizer of the few words that it is asked with."""

import re
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
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

SIDE, PATCH = 64, 8  # pixels
LAYERS, IMAGE_WIDTH, WIDTH, PROMPT = 2, 32, 64, 64
QUESTION = "user {image} {description}Where in this photo is the {class_name}? assistant"
SPARE_ROWS = 8  # of the vocabulary, for the added token


def save(folder: Path, names: Iterable[str], *, seed: int = 0) -> DSVLFSConfig:
    """Makes both bases.

    Args:
        folder: for them.
        names: of classes, whose words the tokenizer knows beside those of question and answer.
        seed: of the weights.

    Returns:
        Like `DSVLFSConfig.base`, on these bases.
    """
    torch.manual_seed(seed)
    texts = [QUESTION, DSVLFSConfig.base().answer_template, *names]
    words = ["[UNK]", "[PAD]", *dict.fromkeys(word for text in texts for word in re.findall(r"\w+|[^\w\s]+", text))]
    llava = _llava(len(words))
    sam = _sam()
    SamModel(sam).save_pretrained(folder / "sam")
    LlavaForConditionalGeneration(llava).save_pretrained(folder / "llava")
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<image>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")
    fast.save_pretrained(folder / "llava")
    config = DSVLFSConfig.base()
    config.update(
        {
            "image_base": str(folder / "sam"),
            "image_config": sam.vision_config.to_dict(),
            "image_size": SIDE,
            "support_size": SIDE,
            "vlm_base": str(folder / "llava"),
            "vlm_config": llava.to_dict(),
            "vlm_image_size": llava.vision_config.image_size,
            "prompt_template": QUESTION,
            "correlation_layers": [f"image.{n + 1}" for n in range(LAYERS)],
            "match_channels": (8, 16, 32),
            "prompt_dim": PROMPT,
        }
    )
    return config


def _sam() -> SamConfig:
    vision = SamVisionConfig(
        hidden_size=IMAGE_WIDTH,
        output_channels=PROMPT,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=PATCH,
        window_size=4,
        global_attn_indexes=[LAYERS - 1],
        mlp_dim=2 * IMAGE_WIDTH,
        num_pos_feats=PROMPT // 2,
        initializer_range=0.05,  # transformers' own is 1e-10: such a tower sees the same in every photo
    )
    prompts = {"hidden_size": PROMPT, "image_size": SIDE, "patch_size": PATCH, "mask_input_channels": 4}
    return SamConfig(
        vision_config=vision.to_dict(), prompt_encoder_config=prompts, mask_decoder_config={"hidden_size": PROMPT}
    )


def _llava(words: int) -> LlavaConfig:
    vision = SiglipVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=28,
        patch_size=14,
        vision_use_head=False,
    )
    text = Qwen2Config(
        vocab_size=words + SPARE_ROWS,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        initializer_range=0.2,  # at such widths with less a word's state hardly depends on those before it
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=words,
        image_seq_length=4,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )
