"""The dry run: costs against those of a model that is really built and run."""

import paper_like
import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from conftest import micro_config

from dsvlfs.cli import main
from dsvlfs.measuring import costs as info
from dsvlfs.measuring.peak_memory import HalvedProducts, PeakMemory, backward
from dsvlfs.modeling import DSVLFSModel


def test_parameters_are_the_models():
    found = info.cost(micro_config())
    model = DSVLFSModel(micro_config(), load_bases=False)
    # Beside the parts there are only the rows that peft keeps of the added token, and the prompts not given.
    assert sum(part.parameters for part in found.parts) == sum(p.numel() for p in model.parameters())
    assert sum(part.trained for part in found.parts) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert all(part.flops > 0 for part in found.parts)
    assert all(0 < part.activations <= found.inference_activations["float32"] for part in found.parts)


def test_memory_is_that_of_weights_gradients_optimizer_and_activations():
    parts = (info.PartCost("a", 1000, 0, 1), info.PartCost("b", 500, 100, 1))
    cost = info.Cost(parts, {"float32": 40, "bfloat16": 25}, {"float32": 1000, "bfloat16": 600})
    assert cost.memory("float32", training=False) == 1400 * 4 + 100 * 4 + 40
    assert cost.memory("4 bit", training=False) == 1400 / 2 + 100 * 2 + 25
    assert cost.memory("bfloat16", training=True) == 1400 * 2 + 100 * (4 + 8) + 600  # gradients are in the 600
    assert cost.memory("float32", training=True) == 1400 * 4 + 100 * (4 + 8) + 1000


def test_peak_memory_follows_what_is_alive():
    with PeakMemory() as memory:
        first = torch.empty(100, device="meta") + 1  # the empty one is gone when the next is made
        second = first * 2
        del first
        second.add_(1)
        view = second[:50]
        del second
        assert memory.live == 400
        del view
    assert memory.live == 0
    assert memory.peak == 800


def test_what_is_remembered_by_shape_has_the_shape_and_the_type():
    whole, share = torch.empty(3, 1, dtype=torch.int64, device="meta"), torch.empty(4, device="meta")
    with PeakMemory() as memory:
        for _ in range(2):  # looked up the second time
            assert (whole * share).shape == (3, 4)
            assert (whole * whole).shape == (3, 1)
            assert (whole * 2).dtype == torch.int64
            assert (whole * 2.0).dtype == torch.float32
            assert share.add_(1) is share
            assert share.t().untyped_storage()._cdata == share.untyped_storage()._cdata
    assert memory.peak == 3 * 4 * 4
    with PeakMemory():
        numbers = torch.ones(2)
        assert (numbers + 1).tolist() == (numbers + 1).tolist() == [2, 2]


def test_products_are_halved_as_autocast_halves_them_also_when_computed_again():
    torch.manual_seed(0)
    weight = torch.randn(3, 3, requires_grad=True)

    def layer(x):
        return torch.utils.checkpoint.checkpoint(
            lambda x: F.linear((x @ weight).float(), weight), x, use_reentrant=False
        )

    x = torch.randn(2, 3)
    with HalvedProducts():
        halved = layer(x)
        backward(halved.float().sum())
    gradient, weight.grad = weight.grad, None
    with torch.autocast("cpu", torch.bfloat16):
        own = layer(x)
    own.float().sum().backward()
    assert halved.dtype == own.dtype == torch.bfloat16
    torch.testing.assert_close(halved, own)
    # Autocast adds up in bfloat16 what the two products say of their one weight.
    torch.testing.assert_close(gradient, weight.grad, rtol=0.02, atol=0.02)


def test_more_supports_take_more_memory_and_leave_training_as_it_is():
    one, three = (info.cost(paper_like.config(), supports) for supports in (1, 3))
    for precision in ("float32", "bfloat16"):
        assert one.training_activations[precision] == pytest.approx(three.training_activations[precision], rel=0.05)
        assert one.inference_activations[precision] < three.inference_activations[precision]


def test_the_report_has_every_part_and_precision():
    text = info.report(info.cost(micro_config()))
    for name in ("image encoder", "vision tower", "language model", "dense matching", "mask decoder", *info.BYTES):
        assert name in text


def test_the_command_prints_a_sizes_cost(capsys):
    assert main(["info", "--config", "tiny"]) == 0
    assert "mask decoder" in capsys.readouterr().out
