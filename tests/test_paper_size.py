"""The paper's model on the meta device: every shape, and the trained parameters against the reference's."""

import itertools
import re

import pytest
import torch

from dsvlfs import DSVLFSConfig, DSVLFSModel
from dsvlfs.inference.encoded import View


@pytest.fixture(scope="module")
def paper() -> DSVLFSModel:
    with torch.device("meta"):
        return DSVLFSModel(DSVLFSConfig.paper(), load_bases=False).eval()


def _count(module: torch.nn.Module, part: str = "", trained: bool = True) -> int:
    return sum(p.numel() for n, p in module.named_parameters() if part in n and (p.requires_grad or not trained))


def test_shapes(paper):
    side, grid = 1024, 64
    view = View(
        torch.empty(1, 3, side, side, device="meta"),
        torch.empty(1, 3, 336, 336, device="meta"),
        (side, side),
        (side, side),
    )
    features = paper.frozen_features(view)
    blocks = [name for name in features if name.startswith("image.") and name != "image.embedding"]
    assert len(blocks) == 32
    assert all(features[name].shape == (1, 1280, grid, grid) for name in blocks)
    assert features["image.embedding"].shape == (1, 256, grid, grid)
    assert features["tokens"].shape == (1, 576, 1024)
    layers, mask = paper.support_features(features, torch.empty(1, side, side, device="meta"))
    assert len(layers) == 32
    assert mask.shape == (1, grid, grid)
    visual = paper.visual_prompt(features, layers, mask, grid)
    assert visual.shape == (1, 256, grid, grid)
    semantic = paper.semantic_encoder.project(torch.empty(1, 4096, device="meta"))
    assert semantic.shape == (1, 256)
    assert paper.mask_decoder(features["image.embedding"], semantic, visual).shape == (1, 256, 256)


def test_trained_parameters(paper):
    encoder = paper.semantic_encoder
    # LoRA: rank 8 on q_proj and v_proj (4096 x 4096) of 32 layers.
    assert _count(encoder, "lora_") == 32 * 2 * 8 * (4096 + 4096)
    # Embeddings and LM head: LLaVA-1.5's 32064 rows, of which 62 are spare; the added token takes one of them.
    assert _count(encoder, "embed_tokens") == _count(encoder, "lm_head") == 32064 * 4096
    # Linear-ReLU-Linear to the prompt.
    assert _count(encoder.to_prompt) == 4096 * 4096 + 4096 + 4096 * 256 + 256
    assert _count(encoder, "multi_modal_projector") == _count(encoder, "vision_tower") == 0
    assert _count(paper.image_encoder) == 0
    # Center-pivot blocks 32 > 16 > 128 > 256: two 3x3 kernels with biases, and a GroupNorm, each.
    sizes = [32, 16, 128, 256]
    blocks = sum(2 * (9 * a * b + b) + 2 * b for a, b in itertools.pairwise(sizes))
    assert _count(paper.matcher.blocks) == blocks
    assert _count(paper.matcher.to_prompt) == 2 * (9 * 256 * 256 + 256)
    # SAM's decoder has 4,058,340; its head of mask qualities, that no loss reaches, is left out here.
    quality_head = 2 * (256 * 256 + 256) + 256 * 4 + 4
    assert _count(paper.mask_decoder.decoder) == 4_058_340 - quality_head


def test_frozen_bases(paper):
    assert _count(paper.image_encoder, trained=False) == 637_026_048  # SAM ViT-H's image encoder


def test_gradients_reach_what_the_paper_trains_and_nothing_else(paper):
    side, grid = 1024, 64
    pixels, vlm_pixels = (torch.empty(1, 3, size, size, device="meta") for size in (side, 336))
    features = paper.frozen_features(View(pixels, vlm_pixels, (side, side), (side, side)))
    layers, mask = paper.support_features(features, torch.empty(1, side, side, device="meta"))
    # A forward pass's choices depend on values, of which there are none here: its parts are wired by hand.
    llava = paper.semantic_encoder.llava
    hidden = llava.model(input_ids=torch.empty(1, 20, dtype=torch.long, device="meta")).last_hidden_state
    semantic = paper.semantic_encoder.project(hidden[:, -1])
    visual = paper.visual_prompt(features, layers, mask, grid)
    embedding = paper.image_embedding(features)
    both, none = paper.mask_decoder(embedding, semantic, visual), paper.mask_decoder(embedding, None, None)
    (both.mean() + none.mean() + llava.lm_head(hidden).mean()).backward()
    reached = {name for name, parameter in paper.named_parameters() if parameter.grad is not None}
    paper.zero_grad()
    trained = re.compile(
        r"matcher\..*|mask_decoder\.(?!position).*|semantic_encoder\.(to_prompt\..*|vlm\.base_model\.model\.("
        r"model\.language_model\.layers\.\d+\.self_attn\.[qv]_proj\.lora_[AB]\..*"
        r"|(model\.language_model\.embed_tokens|lm_head)\.modules_to_save\..*))"
    )
    assert reached == {name for name, _ in paper.named_parameters() if trained.fullmatch(name)}
    assert reached == {name for name, parameter in paper.named_parameters() if parameter.requires_grad}
