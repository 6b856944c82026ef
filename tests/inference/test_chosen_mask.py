"""A request with supports is answered with one of several masks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import build_micro_model

from dsvlfs.errors import InputError
from dsvlfs.hub.trained_parts import new_request_fit
from dsvlfs.inference.calibration import Calibration
from dsvlfs.inference.encoded import Support
from dsvlfs.parts.mask_choice import READINGS, Reading
from dsvlfs.parts.request_fit import fit_request
from dsvlfs.parts.whole_fit import whole_fit


@pytest.fixture
def choosing():
    return build_micro_model(fit_ridge=10.0, mask_choice=True)


def take(model, start: str | None, **more: float) -> None:
    """Has the model take one reading, whatever the masks look like."""
    place = READINGS.index(Reading(start, **more))
    model.mask_choice.named[:, -1], model.mask_choice.named[place, -1] = 0.1, 0.7
    unnamed = [r for r in READINGS if r.start in ("asked", None)]
    if READINGS[place] in unnamed:
        model.mask_choice.unnamed[:, -1], model.mask_choice.unnamed[unnamed.index(READINGS[place]), -1] = 0.1, 0.6


def asked(model, circle, mode="both", shots=1, aggregation="joint"):
    support = model.encode_support([circle] * shots)
    found = model.predict(circle[0], "circle", support=support, modes=[mode], aggregation=aggregation)[mode]
    return found, support


@pytest.mark.parametrize("shots", [1, 3])
@pytest.mark.parametrize("mode", ["both", "visual"])
def test_what_is_taken_is_the_reading(choosing, circle, shots, mode):
    plain, support = asked(choosing, circle, mode, shots)
    take(choosing, "asked", whole=8)
    found, _ = asked(choosing, circle, mode, shots)
    query = choosing.encode_query(circle[0])
    layers = [query.features[name] for name in choosing.config.correlation_layers]
    score = whole_fit(layers, support.whole, support.whole_masks, size=4)
    own = torch.nn.functional.interpolate(8 * score[:, None], (16, 16), mode="bilinear", align_corners=False)[:, 0]
    wanted = choosing.processor.prediction(own, query.valid, query.size).logits[0] - choosing.config.logit_offset
    torch.testing.assert_close(found.deciding[0] - plain.deciding[0], wanted, rtol=1e-3, atol=1e-3)
    assert found.predicted_iou == pytest.approx(0.7 if mode == "both" else 0.6)


def test_the_mask_by_one_prompt_alone_can_be_taken(choosing, circle):
    visual, semantic = (asked(choosing, circle, mode)[0].deciding for mode in ("visual", "semantic"))
    for start, wanted in (("visual", visual), ("semantic", semantic)):
        take(choosing, start)
        torch.testing.assert_close(asked(choosing, circle)[0].deciding, wanted, rtol=1e-4, atol=1e-4)


def test_the_fit_to_the_request_alone_can_be_taken(choosing, circle):
    take(choosing, None, fit=8)
    found, support = asked(choosing, circle, shots=2)
    query = choosing.encode_query(circle[0])
    layers = [query.features[name] for name in choosing.config.correlation_layers]
    fit = fit_request(layers, [own[None] for own in support.layers], support.masks[None], ridge=10.0, size=4)
    own = torch.nn.functional.interpolate(8 * fit[:, None], (16, 16), mode="bilinear", align_corners=False)[:, 0]
    wanted = choosing.processor.prediction(own, query.valid, query.size).logits - choosing.config.logit_offset
    torch.testing.assert_close(found.deciding, wanted, rtol=1e-3, atol=1e-3)


def test_nothing_is_chosen_where_shots_vote_or_none_is_shown_or_the_photo_is_blank(choosing, circle):
    before = asked(choosing, circle, shots=2, aggregation="votes")[0].logits
    take(choosing, None, whole=8)
    found = asked(choosing, circle, shots=2, aggregation="votes")[0]
    assert torch.equal(found.logits, before)
    assert found.predicted_iou is None
    assert choosing.predict(circle[0], "circle", modes=["semantic"])["semantic"].predicted_iou is None
    support = choosing.encode_support([circle])
    blank = choosing.predict(np.zeros((40, 40, 3), np.uint8), "circle", support=support, modes=["both"])["both"]
    assert blank.predicted_iou is None
    assert not blank.segmentation().mask.any()


def test_the_iou_to_expect_is_what_is_predicted(choosing, circle):
    found, _ = asked(choosing, circle)
    found = replace(found, calibration=Calibration(2.0, 0.5), predicted_iou=0.4)
    by_itself = replace(found, predicted_iou=None)
    assert found.segmentation().expected_iou == 0.4
    assert found.segmentation().presence == by_itself.segmentation().presence
    low, usual = (by_itself.segmentation(threshold).expected_iou for threshold in (0.3, 0.5))
    assert low != usual
    assert found.segmentation(0.3).expected_iou == pytest.approx(0.4 * low / usual)
    nothing = replace(found, logits=torch.full_like(found.logits, -9.0), joined=None)
    assert nothing.segmentation().expected_iou == 0


def test_supports_keep_the_whole_photos_where_they_are_read(choosing, circle, tmp_path):
    support = choosing.encode_support([circle] * 3)
    assert [len(layer) for layer in (*support.whole, support.whole_masks)] == [3] * 3
    chosen = support[[2, 0]]
    assert torch.equal(chosen.whole_masks, support.whole_masks[[2, 0]])
    support.save(tmp_path / "own.safetensors", choosing)
    loaded = Support.load(tmp_path / "own.safetensors", choosing)
    assert all(torch.equal(a, b) for a, b in zip(loaded.whole, support.whole, strict=True))
    assert torch.equal(loaded.whole_masks, support.whole_masks)
    other = build_micro_model(fit_ridge=10.0)
    with pytest.raises(InputError, match="several models"):
        Support.join([support, other.encode_support([circle])])
    with pytest.raises(InputError, match="encode it again"):
        choosing.predict(circle[0], "circle", support=other.encode_support([circle]), modes=["both"])
    assert other.encode_support([circle]).whole_masks is None
    with pytest.raises(InputError, match="another model"):
        Support.load(tmp_path / "own.safetensors", other)


def test_it_needs_the_fit_to_the_request(micro_model):
    micro_model.config.mask_choice = True
    with pytest.raises(InputError, match="fit_ridge"):
        new_request_fit(micro_model.config)
