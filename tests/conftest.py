"""Models small enough for unit tests, and photos that the tests draw themselves."""

import uuid

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import Dinov2Config, LlamaConfig, LlavaConfig, PreTrainedTokenizerFast

from dsvlfs.configuration import DSVLFSConfig
from dsvlfs.modeling import DSVLFSModel
from dsvlfs.parts.efficientnet_lite import EfficientNetLiteConfig
from dsvlfs.processing import DSVLFSProcessor

pytest_plugins = ["page_browser"]

WORDS = [
    "[UNK]",
    "[PAD]",
    "It",
    "is",
    ".",
    "Class",
    ":",
    "Photo",
    "Where",
    "the",
    "?",
    "circle",
    "square",
    "red",
    "blue",
    "round",
    "shape",
]


@pytest.fixture(autouse=True)
def kept_supports_folder(monkeypatch, tmp_path_factory):
    """Commands keep their supports apart from the user's, each test's for itself."""
    folder = tmp_path_factory.getbasetemp() / f"supports-{uuid.uuid4().hex}"
    monkeypatch.setattr("dsvlfs.inference.kept_supports.kept_folder", lambda: folder)
    return folder


def micro_config() -> DSVLFSConfig:
    """The tiny model's parts at toy widths."""
    vision = EfficientNetLiteConfig(width=0.2, depth=0.3, image_size=56, token_grid=2)
    llava = LlavaConfig(
        vision_config=vision,
        text_config=LlamaConfig(
            vocab_size=len(WORDS),
            hidden_size=64,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        ),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_seq_length=4,
        tie_word_embeddings=True,
    )
    config = DSVLFSConfig.tiny()
    config.update(
        {
            "image_config": Dinov2Config(
                hidden_size=24, num_hidden_layers=3, num_attention_heads=2, image_size=56, patch_size=14
            ).to_dict(),
            "image_size": 56,
            "vlm_config": llava.to_dict(),
            "vlm_image_size": 56,
            "correlation_layers": ["image.2", "vision.5"],
            "embedding_layers": ["image.3", "vision.6"],
            "grounding_layers": ["vision.5"],
            "support_size": 42,
            "support_grid": 3,
            "match_channels": (4, 8),
            "prompt_dim": 32,
        }
    )
    return config


def micro_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")


def build_micro_model(**settings: object) -> DSVLFSModel:
    torch.manual_seed(0)
    config = micro_config()
    config.update(settings)
    model = DSVLFSModel(config, load_bases=False)
    model.processor = DSVLFSProcessor(config, micro_tokenizer())
    return model.eval()


@pytest.fixture
def micro_model() -> DSVLFSModel:
    """Random weights: for shapes and wiring only."""
    return build_micro_model()


@pytest.fixture
def circle() -> tuple[Image.Image, np.ndarray]:
    """A photo (80 x 60) of a red circle, and its mask."""
    image = Image.new("RGB", (80, 60), "gray")
    mask = Image.new("L", (80, 60))
    ImageDraw.Draw(image).ellipse((20, 15, 50, 45), fill="red")
    ImageDraw.Draw(mask).ellipse((20, 15, 50, 45), fill=255)
    return image, np.array(mask) > 0
