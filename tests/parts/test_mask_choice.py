"""One of several masks is chosen by the IoU that is predicted of each."""

import pytest
import torch
import torch.nn.functional as F

from dsvlfs.parts.mask_choice import MARGIN, READINGS, SIGNS, MaskChoice, about_request, chosen, mask_signs, readings

SIDE = 16
NAMED = ("asked", "visual", "semantic")


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def request_of():
    masks = {name: drawn(1, SIDE, SIDE, seed=place) for place, name in enumerate(NAMED)}
    return masks, drawn(1, 4, 4, seed=3), drawn(1, 8, 8, seed=4), torch.tensor([0.5, 0.2, 0.25])


def test_readings_are_what_they_say(request_of):
    masks, whole, fit, _ = request_of
    wide, near = (
        F.interpolate(own[None], (SIDE, SIDE), mode="bilinear", align_corners=False)[0] for own in (whole, fit)
    )
    logits = readings(masks, whole, fit)
    assert len(logits) == len(READINGS)
    for reading, own in zip(READINGS, logits):
        start = masks[reading.start] if reading.start else torch.zeros(1, SIDE, SIDE)
        torch.testing.assert_close(own[None], start + reading.whole * wide + reading.fit * near + reading.shift)


def test_without_a_name_those_that_need_none_are_left(request_of):
    masks, whole, fit, _ = request_of
    alone = readings({"asked": masks["asked"]}, whole, fit)
    kept = [place for place, reading in enumerate(READINGS) if reading.start not in ("visual", "semantic")]
    assert torch.equal(alone, readings(masks, whole, fit)[kept])


def test_signs_of_masks_that_are_sure():
    """Two that agree on a quarter of the photo, and one that finds nothing; the supports' share is a quarter too."""
    logits = torch.full((3, SIDE, SIDE), -40.0)
    logits[:2, : SIDE // 2, : SIDE // 2] = 40.0
    signs = mask_signs(logits, torch.tensor([0.6, 0.25, 0.5]))
    assert signs.shape == (3, SIGNS)
    agreement, consensus, own, area, away, found, likeness, further = signs.T
    torch.testing.assert_close(agreement, torch.tensor([2 / 3, 2 / 3, 0.0]))
    torch.testing.assert_close(consensus[:2], torch.full((2,), 2 / 3))  # of a mean of two thirds on that quarter
    torch.testing.assert_close(own, torch.tensor([1.0, 1.0, 0.0]))
    torch.testing.assert_close(area, torch.tensor([0.25, 0.25, 0.0]))
    assert away[:2].abs().max() < 1e-6
    assert away[2] > 5
    assert found.tolist() == [1, 1, 0]
    assert likeness.tolist() == pytest.approx([0.6] * 3)
    assert further.tolist() == [0.5] * 3


@pytest.mark.parametrize("names", [NAMED, NAMED[:1]])
def test_the_mask_of_the_largest_predicted_iou_is_taken(request_of, names):
    masks, whole, fit, about = request_of
    masks = {name: masks[name] for name in names}
    choice = MaskChoice()
    weights = choice.named if "semantic" in masks else choice.unnamed
    weights.copy_(drawn(*weights.shape, seed=5) / 10)
    weights[:, -1] += 0.5
    logits = readings(masks, whole, fit)
    predicted = torch.tensor(
        [float(sign @ own[:-1] + own[-1]) for sign, own in zip(mask_signs(logits, about), weights)]
    )
    taken, iou = choice(masks, whole, fit, about)
    assert torch.equal(taken[0], logits[predicted.argmax()])
    assert float(iou) == pytest.approx(min(1, max(0, float(predicted.max()))), abs=1e-6)
    assert predicted.max() > predicted[0] + MARGIN


def test_what_was_asked_for_is_left_for_one_that_is_much_better():
    assert chosen(torch.tensor([0.5, 0.5 + 0.9 * MARGIN, 0.1])) == 0
    assert chosen(torch.tensor([0.5, 0.5 + 1.1 * MARGIN, 0.1])) == 1


def test_weights_that_nobody_fitted_take_what_was_asked_for(request_of):
    masks, whole, fit, about = request_of
    taken, _ = MaskChoice()(masks, whole, fit, about)
    torch.testing.assert_close(taken, masks["asked"])


def test_what_is_known_of_a_request():
    shown = torch.zeros(3, 4, 4)
    shown[0] = 1
    assert about_request(torch.tensor(0.7), shown).tolist() == pytest.approx([0.7, 1 / 3, 0.5])
    assert about_request(torch.tensor(0.7), torch.ones(9, 4, 4))[2] == 1
