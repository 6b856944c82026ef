"""What the frozen bases are built like, as transformers' configs."""

from transformers import (
    CLIPVisionConfig,
    Dinov2Config,
    LlamaConfig,
    LlavaConfig,
    Qwen2Config,
    SamVisionConfig,
    SiglipVisionConfig,
)

from .efficientnet_lite import EfficientNetLiteConfig


def sam_vit_huge() -> SamVisionConfig:
    """SAM's ViT-H."""
    return SamVisionConfig(
        hidden_size=1280, num_hidden_layers=32, num_attention_heads=16, global_attn_indexes=[7, 15, 23, 31]
    )


def sam_vit_base() -> SamVisionConfig:
    """SAM's ViT-B."""
    return SamVisionConfig(
        hidden_size=768, num_hidden_layers=12, num_attention_heads=12, global_attn_indexes=[2, 5, 8, 11]
    )


def llava_half_b() -> LlavaConfig:
    """LLaVA-Interleave of 0.5 B parameters: SigLIP and Qwen2."""
    vision = SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=26,
        num_attention_heads=16,
        image_size=384,
        patch_size=14,
        vision_use_head=False,
    )
    text = Qwen2Config(
        vocab_size=152000,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=24,
        num_attention_heads=16,
        num_key_value_heads=16,
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        tie_word_embeddings=True,
        bos_token_id=151643,
        eos_token_id=151645,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=151646,
        image_seq_length=729,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )


def llava_15_7b() -> LlavaConfig:
    """LLaVA-1.5-7B: CLIP ViT-L/14 and Vicuna."""
    vision = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    )
    return LlavaConfig(
        vision_config=vision, text_config=LlamaConfig(vocab_size=32064), image_token_index=32000, image_seq_length=576
    )


def dinov2_small_config() -> Dinov2Config:
    """DINOv2 ViT-S/14."""
    return Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14)


def tiny_llava() -> LlavaConfig:
    """EfficientNet-Lite2 and SmolLM2-135M, joined to a LLaVA."""
    text = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    vision = EfficientNetLiteConfig(token_grid=4)
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_seq_length=vision.token_grid**2,
        tie_word_embeddings=True,
    )
