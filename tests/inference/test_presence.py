"""Whether a class is in a photo: the signs, by hand and through the model."""

import numpy as np
import pytest
import torch

from dsvlfs.inference.presence import presence, support_fit


def test_presence_is_the_mean_of_what_is_known():
    assert presence([0.3, 0.5, -0.2]) == pytest.approx(0.8 / 3)
    assert presence([1.2, 0.0]) == 0.5


def test_what_the_mask_covers_is_compared_with_the_supports_mean_foreground():
    query = torch.tensor([[[[3.0, 0.0]], [[4.0, 2.0]]]])  # two channels, one row of two positions
    support = torch.tensor([[[[5.0, 0.0]], [[0.0, 7.0]]]])
    left = torch.tensor([[[1.0, 0.0]]])
    on_left, on_right = torch.zeros(2, 1, 4, 4)
    on_left[:, :, :2] = 1
    on_right[:, :, 2:] = 0.1  # how sure the mask is does not count, only where
    assert support_fit(query, on_left, support, left) == pytest.approx(0.6)
    assert support_fit(query, on_left, support, left.flip(2)) == pytest.approx(0.8)
    assert support_fit(query, on_right, support, left.flip(2)) == pytest.approx(1)
    # Two supports that show different things count the same, however large their masks and features are.
    both = support_fit(query, on_left, torch.cat([support, 9 * support]), torch.cat([left, 0.1 * left.flip(2)]))
    assert both == pytest.approx((0.6 + 0.8) * 0.5**0.5)


def test_a_mode_knows_the_signs_of_its_own_prompts(micro_model, circle):
    micro_model.config.calibration = [1.0, 0.0]
    support = micro_model.encode_support([circle])
    found = micro_model.predict(circle[0], "circle", support=support)
    assert [len(found[mode].fits) for mode in ("both", "semantic", "visual")] == [2, 1, 1]
    name, example = found["both"].fits
    query = micro_model.encode_query(circle[0])
    width, height = query.valid
    side = micro_model.config.image_size
    covered = torch.zeros(1, side, side)
    covered[0, :height, :width] = torch.from_numpy(found["both"].calibrated(query.valid))
    features = query.features
    assert example == support_fit(features["vision.5"], covered, support.layers[-1], support.masks)
    prompt = micro_model.semantic_encoder.prompt(features["tokens"], micro_model.processor.question([("circle", None)]))
    named = [features[layer] for layer in micro_model.config.grounding_layers]
    look = micro_model.grounding.look(named, torch.nn.functional.adaptive_avg_pool2d(covered, named[0].shape[-1]))
    assert name == pytest.approx(float(torch.cosine_similarity(look, prompt)), abs=1e-3)
    result = micro_model.segment(circle[0], "circle", support=support)
    assert result.presence == pytest.approx(presence([result.expected_iou, name, example]))
    micro_model.config.min_presence = 1.0  # for masks by name and supports; the others have fewer signs
    limited = micro_model.predict(circle[0], "circle", support=support)
    assert {mode: own.segmentation().is_emptied for mode, own in limited.items()} == {
        "both": True,
        "semantic": False,
        "visual": False,
    }
    emptied = micro_model.segment(circle[0], "circle", support=support, min_presence=1.0)
    assert emptied.is_emptied
    assert not emptied.mask.any()
    np.testing.assert_array_equal(emptied.probability, result.probability)


def test_bases_of_two_precisions_are_compared(micro_model, circle):
    micro_model.config.calibration = [1.0, 0.0]
    expected = micro_model.segment(circle[0], "circle", support=micro_model.encode_support([circle])).probability
    micro_model.image_encoder.backbone.to(torch.bfloat16)
    for aggregation in ("votes", "joint"):
        support = micro_model.encode_support([circle] * 2)
        found = micro_model.segment(circle[0], "circle", support=support, aggregation=aggregation)
        assert np.abs(found.probability - expected).max() < 0.1
