"""The support that a query gives itself, and what the model makes of it."""

import pytest
import torch
from conftest import build_micro_model

from dsvlfs.modeling import MODES, DSVLFSModel, Support
from dsvlfs.second_look import own_support


@pytest.fixture
def model() -> DSVLFSModel:
    model = build_micro_model()
    model.add_shot_attention()
    for parameter in model.shot_attention.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.config.logit_offset = 3.0  # random weights are sure of nothing without
    return model


def test_what_the_mask_is_sure_of_is_the_support_and_what_it_doubts_is_left_out():
    probability = torch.full((8, 8), 0.1)
    probability[:, :4] = 0.6  # above 0.5, but far below the best
    probability[:4, :4] = 0.9
    layer = torch.arange(1.0, 65.0).reshape(1, 1, 8, 8)
    (found,), mask = own_support([layer], probability, grid=2, context=None)
    torch.testing.assert_close(mask, torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
    assert found[0, 0, 1, 0] == 0
    quarters = torch.nn.functional.avg_pool2d(layer, 4)[0, 0]
    torch.testing.assert_close(found[0, 0, 0], quarters[0], atol=0.3, rtol=0)
    torch.testing.assert_close(found[0, 0, 1, 1], quarters[1, 1], atol=0.3, rtol=0)


def test_it_is_cut_out_around_what_may_be_the_object():
    probability = torch.zeros(16, 16)
    probability[4:8, 8:12] = 0.9
    layer = torch.zeros(1, 1, 16, 16)
    layer[..., 8:12] = 1
    (found,), mask = own_support([layer], probability, grid=4, context=1.0)
    assert mask.min() > 0.75  # bilinear at the edge
    assert found.min() > 0.75


@pytest.mark.parametrize("highest", [0.2, 0.499])
def test_a_mask_that_is_sure_of_nothing_gives_none(highest):
    probability = torch.full((8, 8), 0.1)
    probability[2:6, 2:6] = highest
    assert own_support([torch.ones(1, 1, 8, 8)], probability, grid=2, context=1.6) is None


@pytest.mark.parametrize("aggregation", ["logits", "joint", "attention"])
def test_it_counts_as_one_more_support(model, circle, aggregation):
    image, support = circle[0], model.encode_support([circle])
    query, config = model.encode_query(image), model.config
    config.second_look = False
    first = model.predict(query, "circle", support=support, modes=["both"])["both"]
    probability = model.processor.square_probability(first.logits[0] - config.logit_offset, query.valid)
    layers = [query.features[name] for name in config.correlation_layers]
    layers, mask = own_support(layers, probability, grid=config.support_grid, context=config.support_context)
    both = Support(tuple(map(torch.cat, zip(support.layers, layers, strict=True))), torch.cat([support.masks, mask]))
    expected = model.predict(query, "circle", support=both, modes=["both"], aggregation=aggregation)["both"].joined
    config.second_look = True
    found = model.predict(query, "circle", support=support, modes=["both"], aggregation=aggregation)["both"]
    torch.testing.assert_close(found.joined, expected)
    torch.testing.assert_close(found.logits, first.logits)  # the shots themselves
    assert not torch.allclose(found.joined, first.logits[0])


def test_names_alone_shots_that_vote_and_masks_of_nothing_are_left_as_they_are(model, circle):
    query, support = model.encode_query(circle[0]), model.encode_support([circle] * 2)
    assert model.predict(query, "circle", support=support)["semantic"].joined is None
    voted = model.predict(query, "circle", support=support, aggregation="votes")
    assert all(voted[mode].joined is None for mode in MODES)
    model.config.logit_offset = -30.0
    found = model.predict(query, "circle", support=support, aggregation="logits")["both"]
    torch.testing.assert_close(found.joined, found.logits.mean(dim=0))


def test_padding_is_nobody(model):
    model.config.image_size = 56
    probability = model.processor.square_probability(torch.full((28, 28), 5.0), (56, 28))
    assert (probability[:14] > 0.9).all()
    assert not probability[14:].any()
