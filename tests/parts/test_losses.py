"""The mask losses against values worked out by hand."""

import math

import pytest
import torch

from dsvlfs.parts.losses import bce_loss, dice_loss


def test_bce_is_the_mean_over_the_pixels_of_each_sample():
    logits = torch.tensor([[[0.0, math.log(3)]], [[0.0, 0.0]]])
    target = torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]]])
    expected = [(-math.log(0.5) - math.log(0.25)) / 2, math.log(2)]
    assert bce_loss(logits, target).tolist() == pytest.approx(expected)


def test_dice_is_one_minus_the_smoothed_coefficient():
    logits = torch.tensor([[[0.0, math.log(3)]]])  # probabilities 1/2 and 3/4
    target = torch.tensor([[[1.0, 0.0]]])
    assert dice_loss(logits, target).item() == pytest.approx(1 - (2 * 0.5 + 1) / (1.25 + 1 + 1))
    assert dice_loss(torch.full((1, 2, 2), -40.0), torch.zeros(1, 2, 2)).item() == pytest.approx(0)
    assert dice_loss(torch.full((1, 2, 2), 40.0), torch.ones(1, 2, 2)).item() == pytest.approx(0)


def test_what_does_not_count_changes_no_loss():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, generator=generator)
    target = (torch.rand(2, 3, 4, generator=generator) > 0.5).float()
    counted = torch.ones(2, 3, 4)
    counted[:, :, 2:] = 0
    for loss in (bce_loss, dice_loss):
        kept = loss(logits[:, :, :2], target[:, :, :2])
        torch.testing.assert_close(loss(logits, target, counted), kept)
        torch.testing.assert_close(loss(logits, target, torch.ones(2, 3, 4)), loss(logits, target))
        wild = torch.where(counted > 0, logits, 100.0).requires_grad_()
        result = loss(wild, target, counted)
        torch.testing.assert_close(result, kept)
        (gradient,) = torch.autograd.grad(result.sum(), wild)
        assert gradient[:, :, 2:].abs().max() == 0
        assert loss(logits, target, torch.zeros(2, 3, 4)).tolist() == [0, 0]
