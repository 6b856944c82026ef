"""The size for one graphics card: its shapes on the meta device, and its way from the hub's classes to a mask."""

import paper_like
import pytest
import torch

from dsvlfs import DSVLFSConfig, DSVLFSModel
from dsvlfs.inference.encoded import View
from dsvlfs.measuring.costs import cost


@pytest.fixture(scope="module")
def base() -> DSVLFSModel:
    with torch.device("meta"):
        return DSVLFSModel(DSVLFSConfig.base(), load_bases=False).eval()


def _parameters(module: torch.nn.Module, *, trained: bool) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


def test_shapes(base):
    side, grid = 1024, 64
    pixels, vlm_pixels = (torch.empty(1, 3, size, size, device="meta") for size in (side, 384))
    features = base.frozen_features(View(pixels, vlm_pixels, (side, side), (side, side)))
    assert all(features[f"image.{n}"].shape == (1, 768, grid, grid) for n in range(1, 13))
    assert features["image.embedding"].shape == (1, 256, grid, grid)
    assert features["tokens"].shape == (1, 729, 1152)
    layers, mask = base.support_features(features, torch.empty(1, side, side, device="meta"))
    visual = base.visual_prompt(features, layers, mask, grid)
    semantic = base.semantic_encoder.project(torch.empty(1, 1024, device="meta"))
    assert base.mask_decoder(features["image.embedding"], semantic, visual).shape == (1, 256, 256)


def test_what_is_trained_and_what_is_not(base):
    assert _parameters(base.image_encoder, trained=False) == 89_670_912  # SAM ViT-B's image encoder
    assert _parameters(base.image_encoder, trained=True) == 0
    encoder = base.semantic_encoder
    lora = 24 * 2 * 8 * (1024 + 1024)  # rank 8 on q_proj and v_proj of 24 layers
    projection = 1024 * 1024 + 1024 + 1024 * 256 + 256
    assert _parameters(encoder, trained=True) == lora + projection + 1024  # and the added token's row


def test_it_fits_one_card():
    assert cost(DSVLFSConfig.base()).memory("bfloat16", training=True) < 8 * 2**30


def test_it_is_made_of_the_hubs_classes_and_segments(tmp_path, circle):
    bases = paper_like.save_bases(tmp_path, paper_like.base_llava_config())
    model = DSVLFSModel(paper_like.base_config(*bases))
    support = model.encode_support([circle])
    result = model.segment(circle[0], "circle", support=support, description="red and round")
    assert result.mask.shape == circle[1].shape
    model.save_pretrained(tmp_path / "checkpoint")
    again = DSVLFSModel.from_pretrained(tmp_path / "checkpoint")
    own = again.segment(circle[0], "circle", support=again.encode_support([circle]), description="red and round")
    torch.testing.assert_close(torch.from_numpy(own.probability), torch.from_numpy(result.probability))
