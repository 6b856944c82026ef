"""The mask losses against values worked out by hand."""

import math

import pytest
import torch

from dsvlfs.parts.losses import bce_loss, dice_loss
from dsvlfs.parts.request_fit import RequestFit


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


def test_the_fits_loss_is_the_cross_entropy_of_five_times_its_score():
    score = torch.tensor([[[1.0, -1.0], [0.0, 0.2]]])  # of a grid of two
    target = torch.zeros(1, 4, 4)
    target[:, :2, :2] = 1  # the first cell is foreground
    target[:, 2:, 2] = 1  # and half of the last
    logits, wanted = 5 * score, torch.tensor([[[1.0, 0.0], [0.0, 0.5]]])
    probability = torch.sigmoid(logits)
    entropy = -(wanted * probability.log() + (1 - wanted) * (1 - probability).log())
    loss = RequestFit(prompt_dim=8).loss
    torch.testing.assert_close(loss(score, target), entropy.mean())
    torch.testing.assert_close(loss(score, target, torch.ones(1, 4, 4)), entropy.mean())
    counted = torch.ones(1, 4, 4)
    counted[:, 2:, 2:] = 0  # the last cell counts nothing,
    counted[:, :2, 0] = 0  # and of the first, one half
    shares = torch.tensor([[[0.5, 1.0], [1.0, 0.0]]])
    torch.testing.assert_close(loss(score, target, counted), (entropy * shares).sum() / shares.sum())
