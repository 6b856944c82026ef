"""Import of official SAM checkpoints, against segment-anything's own modules with the same random weights."""

import importlib.util
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import SamModel

from dsvlfs import InputError
from dsvlfs.cli import main
from dsvlfs.convert import sam_check
from dsvlfs.convert.sam import import_sam
from dsvlfs.hub.bases import load_base


@pytest.fixture(scope="module")
def official() -> ModuleType:
    """`segment_anything.modeling`."""
    if importlib.util.find_spec("segment_anything") is None:
        pytest.skip("segment-anything is not installed")
    return sam_check.segment_anything("modeling")


def build(official: ModuleType, *, width: int, depth: int, heads: int, global_blocks: list[int], side: int):
    """SAM with random weights, every tensor of it (the position tables start at zero)."""
    torch.manual_seed(0)
    sam = official.Sam(
        image_encoder=official.ImageEncoderViT(
            depth=depth,
            embed_dim=width,
            img_size=side,
            mlp_ratio=4,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            num_heads=heads,
            patch_size=16,
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=global_blocks,
            window_size=14,
            out_chans=256,
        ),
        prompt_encoder=official.PromptEncoder(
            embed_dim=256,
            image_embedding_size=(side // 16, side // 16),
            input_image_size=(side, side),
            mask_in_chans=16,
        ),
        mask_decoder=official.MaskDecoder(
            num_multimask_outputs=3,
            transformer=official.TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8),
            transformer_dim=256,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
        ),
    ).eval()
    for parameter in sam.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return sam


# Widths, heads and depths of ViT-B, ViT-L and ViT-H; the two large ones with fewer blocks and of a smaller photo.
SIZES = {
    "vit_b": {"width": 768, "depth": 12, "heads": 12, "global_blocks": [2, 5, 8, 11], "side": 320},
    "vit_l": {"width": 1024, "depth": 3, "heads": 16, "global_blocks": [1], "side": 320},
    "vit_h": {"width": 1280, "depth": 2, "heads": 16, "global_blocks": [1], "side": 320},
}
# As they are published: some ten minutes and 8 GB.
WHOLE = {
    "whole_vit_b": SIZES["vit_b"] | {"side": 1024},
    "whole_vit_l": SIZES["vit_l"] | {"depth": 24, "global_blocks": [5, 11, 17, 23], "side": 1024},
    "whole_vit_h": SIZES["vit_h"] | {"depth": 32, "global_blocks": [7, 15, 23, 31], "side": 1024},
}


@pytest.mark.parametrize("size", [*SIZES, *(pytest.param(name, marks=pytest.mark.whole_size) for name in WHOLE)])
def test_features_and_masks_are_those_of_segment_anything(official, tmp_path, size):
    sam = build(official, **(SIZES | WHOLE)[size])
    torch.save(sam.state_dict(), tmp_path / "sam.pth")
    import_sam(tmp_path / "sam.pth", tmp_path / "ours")
    assert sam_check.difference(sam, load_base(SamModel, str(tmp_path / "ours")).eval()) < 1e-4


def test_the_command_compares_with_segment_anything(official, tmp_path, capsys, monkeypatch):
    sam = build(official, width=768, depth=1, heads=12, global_blocks=[0], side=64)
    file, folder = tmp_path / "sam.pth", tmp_path / "ours"
    torch.save(sam.state_dict(), file)
    asked = []
    # Of the published size, but for its depth and its photo.
    monkeypatch.setattr(sam_check, "published_sam", lambda width: asked.append(width) or sam)
    assert main(["import", "--sam", str(file), "--out", str(folder), "--check"]) == 0
    assert asked == [768]
    assert "differ by" in capsys.readouterr().out
    weights = load_file(folder / "model.safetensors")
    weights["vision_encoder.layers.0.mlp.lin1.weight"] *= 1.1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "digests.json").unlink()  # or it would be called damaged
    with pytest.raises(InputError, match="gives other features or masks"):
        sam_check.check_sam(file, folder)
    assert main(["import", "--reference", str(file), "--out", str(folder), "--check"]) == 2
    assert "--check is for --sam" in capsys.readouterr().err


def test_published_sizes_are_segment_anything_s_own(official):
    for width, blocks in ((768, 12), (1024, 24), (1280, 32)):
        encoder = sam_check.published_sam(width).image_encoder
        assert len(encoder.blocks) == blocks
        assert encoder.pos_embed.shape == (1, 64, 64, width)
        assert encoder.pos_embed.device.type == "meta"
    with pytest.raises(InputError, match="no SAM of width 512"):
        sam_check.published_sam(512)


@pytest.mark.parametrize("name", ["absent", "text", "list", "other"])
def test_another_file_is_named(tmp_path, name):
    file = tmp_path / name
    if name == "text":
        file.write_text("no checkpoint")
    if name == "list":
        torch.save([torch.zeros(1)], file)
    if name == "other":
        torch.save({"weight": torch.zeros(1)}, file)
    with pytest.raises(InputError, match=str(file)):
        import_sam(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    torch.save({"weight": Path}, tmp_path / "sam.pth")
    with pytest.raises(InputError, match="cannot be read"):
        import_sam(tmp_path / "sam.pth", tmp_path / "out")


def test_the_command_says_what_is_wrong_with_a_file(tmp_path, capsys):
    for source in ("--sam", "--reference"):
        assert main(["import", source, str(tmp_path / "absent.pth"), "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert "absent.pth cannot be read" in error
        assert len(error.splitlines()) == 1
