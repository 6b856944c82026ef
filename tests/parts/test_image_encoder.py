import pytest
import torch
from torch import nn
from transformers import Dinov2Config, Dinov2Model

from dsvlfs.errors import InputError
from dsvlfs.parts.image_adapter import ROLES
from dsvlfs.parts.image_encoder import ImageEncoder, _is_quick_in_bfloat16


def adapted(*, rank: int = 2, roles: object = ROLES, swiglu: bool = False) -> ImageEncoder:
    config = Dinov2Config(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        use_swiglu_ffn=swiglu,
    )
    return ImageEncoder(backbone=Dinov2Model(config), blocks=[2], lora_rank=rank, lora_layers=roles)


@pytest.mark.parametrize(
    ("cpu", "quick"),
    [
        ({"cpu_name": "AMD EPYC 9R14", "avx512_bf16": True, "amx_bf16": False}, True),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, True),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, False),
        ({"cpu_name": "AMD EPYC 7B13", "avx512_bf16": False, "amx_bf16": False}, False),
        ({"architecture": "aarch64", "bf16": True}, False),
    ],
)
def test_bfloat16_is_taken_where_it_is_quick(cpu, quick):
    assert _is_quick_in_bfloat16(cpu) is quick


@pytest.mark.parametrize("roles", [["qkv"], "query", ["query", "query"], []])
def test_layers_that_there_are_not_are_named(roles):
    with pytest.raises(InputError, match="each once at most"):
        adapted(roles=roles)


def test_a_rank_below_one_is_refused():
    with pytest.raises(InputError, match="image_lora_rank is -1"):
        adapted(rank=-1)


def test_lora_is_not_for_an_encoder_with_swiglu():
    with pytest.raises(InputError, match="without SwiGLU"):
        adapted(swiglu=True)


class Scaled(nn.Linear):
    """A layer whose weight is not all that it multiplies with, as a quantised one's of a floating type."""


def test_matrices_are_merged_into_plain_layers_alone():
    encoder = adapted(roles=["query", "value"])
    for own in (module for module in encoder.adapter.modules() if hasattr(module, "up")):
        nn.init.normal_(own.up)
    layers = (module for module in encoder.backbone.encoder.layer[0].modules() if isinstance(module, nn.Linear))
    query, _, value, *_ = layers
    query.__class__ = Scaled
    before = [layer.weight.clone() for layer in (query, value)]
    pixels = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    wanted = encoder(pixels)
    encoder.merge()
    assert torch.equal(query.weight, before[0])
    assert not torch.equal(value.weight, before[1])
    torch.testing.assert_close(encoder(pixels)["image.2"], wanted["image.2"], rtol=1e-4, atol=1e-4)
    assert encoder.adapter.unmerged().keys() == {f"blocks.0.query.{name}" for name in ("down", "up", "scale")}
