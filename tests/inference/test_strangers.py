"""Parts of a mask that are something else are left out."""

import pytest
import torch

from dsvlfs.inference.calibration import Calibration
from dsvlfs.inference.results import Prediction
from dsvlfs.inference.strangers import on_square, without_strangers

SIZE = (640, 480)
THING, STRANGER, EDGE = (slice(4, 14), slice(4, 14)), (slice(20, 30), slice(20, 30)), (slice(20, 30), slice(30, 31))


def _logits() -> torch.Tensor:
    """Two squares of a hundred positions, the second with an edge that is hardly background."""
    logits = torch.full((1, 40, 40), -6.0)
    logits[0][THING], logits[0][STRANGER], logits[0][EDGE] = 2.0, 3.0, -0.5
    return logits


def _fits(*values: float):
    """Of the parts that cover the first square, and of others."""

    def fit(parts: torch.Tensor) -> torch.Tensor:
        return torch.where(parts[(slice(None), *THING)].sum(dim=(1, 2)) > 0, *values)

    return fit


@pytest.mark.parametrize("joined", [False, True])
def test_a_part_that_fits_less_is_left_out_with_its_edge(joined):
    logits = _logits()
    found = Prediction(logits.expand(3, -1, -1), SIZE, 0.5, logits[0]) if joined else Prediction(logits, SIZE, 0.5)
    left = without_strangers(found, _fits(0.6, 0.3), 0.2).deciding[0]
    assert torch.equal(left[THING], logits[0][THING])
    assert (left[STRANGER] == -4).all()
    assert (left[EDGE] == -4).all()
    assert (left == -6).sum() == (logits == -6).sum()


@pytest.mark.parametrize("fits", [(0.6, 0.45), (0.3, 0.45)])
def test_parts_that_fit_nearly_as_well_stay(fits):
    found = Prediction(_logits(), SIZE, 0.5)
    assert torch.equal(without_strangers(found, _fits(*fits), 0.2).logits, found.logits)


def test_a_speck_is_no_measure_for_the_others():
    logits = _logits()
    logits[0, 36:38, 36:38] = 2.0
    found = Prediction(logits, SIZE, 0.5)

    def fit(parts):
        return torch.where(parts[:, 36, 36] > 0, 0.9, 0.5)

    assert torch.equal(without_strangers(found, fit, 0.2).logits, logits)


def test_parts_are_read_by_the_calibrated_probability():
    seen = []
    calibration = Calibration(2.0, -1.0)
    found = Prediction(_logits(), SIZE, 0.5, calibration=calibration)
    without_strangers(found, lambda parts: seen.append(parts) or torch.zeros(len(parts)), 0.2)
    largest, other = seen[0]
    sure = calibration(torch.tensor(3.0)).sigmoid().item()
    assert float(largest[STRANGER].sum() + other[STRANGER].sum()) == pytest.approx(100 * sure)
    assert {float((part > 0).sum()) for part in seen[0]} == {100, 110}


def test_votes_and_masks_of_one_part_stay_as_they_are():
    single = torch.full((1, 40, 40), -6.0)
    single[0][THING] = 2.0
    for logits in (_logits().expand(2, -1, -1), single, torch.full((1, 40, 40), -6.0)):
        found = Prediction(logits, SIZE, 0.5)
        assert without_strangers(found, lambda parts: pytest.fail("nothing to compare"), 0.2) is found


def test_parts_lie_where_the_encoders_see_them():
    part = torch.zeros(1, 24, 32)
    part[0, :, 16:] = 1.0
    square = on_square(part, (64, 48), 64, 8)
    assert square[0, :6, 4:].eq(1).all()
    assert square.sum() == 24


def test_a_mask_by_name_loses_them_and_one_by_support_does_not(micro_model, circle, monkeypatch):
    support = micro_model.encode_support([circle])
    with torch.no_grad():
        micro_model.grounding.basis.normal_(generator=torch.Generator().manual_seed(0))

    def deciding(margin):
        micro_model.config.stranger_margin = margin
        found = micro_model.predict(circle[0], "circle", support=support, modes=["both", "semantic", "visual"])
        return {mode: own.deciding for mode, own in found.items()}

    asked = []
    monkeypatch.setattr(
        "dsvlfs.inference.segmenting.without_strangers",
        lambda found, fit, margin: asked.append((fit(torch.ones(3, 16, 16)), margin)) or found,
    )
    before, after = deciding(None), deciding(0.3)
    assert all(torch.equal(before[mode], after[mode]) for mode in before)
    assert [margin for _, margin in asked] == [0.3, 0.3]
    (both, _), (semantic, _) = asked
    assert both.shape == semantic.shape == (3,)
    assert torch.allclose(both, both[:1].expand(3))
    assert not torch.allclose(both, semantic)


@pytest.mark.parametrize(("shots", "doubt", "asked"), [(1, 1.0, 1), (2, 1.0, 0), (2, -1.0, 1)])
def test_a_doubted_name_beside_several_supports_leaves_out_no_part(
    micro_model, circle, monkeypatch, shots, doubt, asked
):
    micro_model.config.update({"stranger_margin": 0.3, "name_doubt": doubt, "shot_aggregation": "joint"})
    margins = []
    monkeypatch.setattr(
        "dsvlfs.inference.segmenting.without_strangers",
        lambda found, fit, margin: margins.append(margin) or found,
    )
    support = micro_model.encode_support([circle] * shots)
    micro_model.predict(circle[0], "circle", support=support, modes=["both"])
    assert len(margins) == asked
