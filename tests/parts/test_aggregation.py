"""Several shots to one prediction."""

import numpy as np
import pytest
import torch
from conftest import build_micro_model

from dsvlfs import InputError
from dsvlfs.hub.checkpoint_files import write_tensors
from dsvlfs.inference.encoded import Support
from dsvlfs.modeling import DSVLFSModel
from dsvlfs.parts.aggregation import AGGREGATIONS, ShotAttention, support_evidence


def _random_attention() -> ShotAttention:
    torch.manual_seed(1)
    attention = ShotAttention(layers=2, prompt_dim=8)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return attention.eval()


@pytest.fixture
def shots() -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts and evidence of four shots."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(4, 8, 5, 5, generator=generator), torch.randn(4, 7, generator=generator)


@pytest.fixture
def attentive_model() -> DSVLFSModel:
    model = build_micro_model()
    model.add_shot_attention()
    return model


def _pick(support: Support, *order: int) -> Support:
    return Support(tuple(layer[list(order)] for layer in support.layers), support.masks[list(order)])


@pytest.fixture
def support(attentive_model, circle) -> Support:
    image, mask = circle
    moved = np.roll(mask, (10, -15), axis=(0, 1))
    return attentive_model.encode_support([(image, mask), (image, ~mask), (image, moved)])


def test_before_training_the_attention_is_the_mean(shots):
    prompts, evidence = shots
    attention = ShotAttention(layers=2, prompt_dim=8)
    torch.testing.assert_close(attention(prompts, evidence), prompts.mean(dim=0, keepdim=True))


def test_the_attention_does_not_depend_on_the_order(shots):
    prompts, evidence = shots
    attention, order = _random_attention(), [2, 0, 3, 1]
    torch.testing.assert_close(attention(prompts[order], evidence[order]), attention(prompts, evidence))
    weights = attention.weights(prompts, evidence)
    torch.testing.assert_close(attention.weights(prompts[order], evidence[order]), weights[order])
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(5, 5))
    assert not torch.allclose(weights, torch.full_like(weights, 0.25))


@pytest.mark.parametrize("count", [2, 3, 10])
def test_equal_shots_are_one_shot(shots, count):
    prompts, evidence = shots
    same = _random_attention()(prompts[:1].expand(count, -1, -1, -1), evidence[:1].expand(count, -1))
    torch.testing.assert_close(same, prompts[:1])


def test_a_dropped_shot_changes_nothing(shots):
    """All that a shot does goes through its weight, the spread too."""
    prompts, _ = shots
    attention = _random_attention()
    torch.nn.init.zeros_(attention.position_score[-1].weight)
    torch.nn.init.zeros_(attention.shot_score[-1].weight)
    torch.nn.init.zeros_(attention.shot_score[-1].bias)
    both = attention(prompts[:2], torch.zeros(2, 7))
    with torch.no_grad():  # a shot whose first piece of evidence is high is dropped
        first, _, last = attention.shot_score
        first.weight.zero_()
        first.weight[0, 8] = 1
        last.weight[0, 0] = -1e4
    evidence = torch.zeros(3, 7)
    evidence[2, 0] = 1
    torch.testing.assert_close(attention(prompts[:3], evidence), both)


def test_a_support_of_another_kind_or_with_an_inverted_mask_disagrees():
    generator = torch.Generator().manual_seed(0)
    classes = torch.nn.functional.normalize(torch.randn(3, 16, generator=generator), dim=1)
    masks = torch.zeros(5, 4, 4)
    masks[:, 1:3, 1:3] = 1
    shown = torch.zeros(5, dtype=torch.long)
    shown[3] = 1
    layer = torch.where(masks[:, None] > 0, classes[shown][:, :, None, None], classes[2][:, None, None])
    layer = layer + 0.05 * torch.randn(layer.shape, generator=generator)
    masks[4] = 1 - masks[4]
    fit = torch.einsum("kchw,c->khw", layer, classes[0])
    evidence = support_evidence([layer], masks, fit)
    assert evidence.shape == (5, 5)
    assert (evidence[:3, :4].amin(dim=0) > evidence[3:, :4].amax(dim=0)).all()
    assert evidence[4, 1] < 0  # object and background have changed places
    unnamed = support_evidence([layer], masks)
    torch.testing.assert_close(unnamed[:, :2], evidence[:, :2])
    assert not unnamed[:, 2:].any()
    assert (evidence[:, 4] == 1).all()


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_one_shot_is_the_same_however_shots_are_aggregated(attentive_model, circle, support, aggregation):
    for parameter in attentive_model.shot_attention.parameters():
        torch.nn.init.normal_(parameter)
    one = _pick(support, 0)
    asked = attentive_model.predict(circle[0], "circle", support=one, aggregation=aggregation)
    plain = build_micro_model().predict(circle[0], "circle", support=one)
    for mode in plain:
        torch.testing.assert_close(asked[mode].logits, plain[mode].logits)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_shots_in_any_order_give_one_mask(attentive_model, circle, support, aggregation):
    for parameter in attentive_model.shot_attention.parameters():
        torch.nn.init.normal_(parameter)
    given, turned = (
        attentive_model.predict(circle[0], "circle", support=shots, aggregation=aggregation)["both"]
        for shots in (support, _pick(support, 2, 0, 1))
    )
    assert (given.joined is None) == (aggregation == "votes")
    a, b = given.segmentation(), turned.segmentation()
    np.testing.assert_allclose(a.probability, b.probability, atol=1e-5)
    # Each shot alone still votes, whatever they become together.
    votes = attentive_model.predict(circle[0], "circle", support=support, aggregation="votes")["both"].segmentation()
    np.testing.assert_array_equal(a.votes, votes.votes)


def test_mean_logits_are_the_mean_of_the_votes(attentive_model, circle, support):
    given = attentive_model.predict(circle[0], "circle", support=support, aggregation="logits")["both"]
    assert len(given.logits) == 3
    torch.testing.assert_close(given.joined, given.logits.mean(dim=0))


def test_the_joint_correlation_sees_every_support(attentive_model, circle, support):
    def prompt(shots: Support) -> torch.Tensor:
        features = attentive_model.frozen_features(attentive_model.processor.query_view(circle[0]))
        match = attentive_model.match(features, shots.layers, shots.masks, 4)
        return attentive_model.matcher.prompt(match.joint())

    whole = prompt(support)
    assert len(whole) == 1
    torch.testing.assert_close(prompt(_pick(support, 0, 0, 0)), prompt(_pick(support, 0)))
    torch.testing.assert_close(prompt(_pick(support, 0, 1, 2, 0, 1, 2)), whole)
    for left_out in range(3):
        assert not torch.allclose(prompt(_pick(support, *({0, 1, 2} - {left_out}))), whole)


def test_the_config_decides_unless_one_is_asked_for(attentive_model, circle, support):
    image = circle[0]
    own = attentive_model.segment(image, "circle", support=support)
    asked = attentive_model.segment(image, "circle", support=support, aggregation="attention")
    np.testing.assert_array_equal(own.probability, asked.probability)
    votes = attentive_model.segment(image, "circle", support=support, aggregation="votes")
    assert not np.array_equal(own.probability, votes.probability)


def test_what_a_model_lacks_gets_a_sentence(micro_model, circle):
    support = micro_model.encode_support([circle])
    with pytest.raises(InputError, match="no aggregation 'sum'"):
        micro_model.segment(circle[0], "circle", support=support, aggregation="sum")
    with pytest.raises(InputError, match="learned no attention"):
        micro_model.segment(circle[0], "circle", support=support, aggregation="attention")


def test_the_attention_belongs_to_the_checkpoint(attentive_model, micro_model, tmp_path):
    torch.nn.init.normal_(attentive_model.shot_attention.shot_score[-1].weight)
    state = attentive_model.trained_state_dict()
    added = {name for name in state if name.startswith("shot_attention.")}
    assert added == state.keys() - micro_model.trained_state_dict().keys()
    assert added == {f"shot_attention.{name}" for name in attentive_model.shot_attention.state_dict()}
    file = tmp_path / "model.safetensors"
    write_tensors(file, state)
    other = build_micro_model()
    with pytest.raises(InputError, match="does not fit"):
        other.load_trained(file)
    other.add_shot_attention()
    other.load_trained(file)
    for name, tensor in other.shot_attention.state_dict().items():
        assert torch.equal(tensor, state[f"shot_attention.{name}"])


def test_freezing_a_part_leaves_it_in_the_checkpoint(micro_model):
    before = micro_model.trained_state_dict().keys()
    micro_model.requires_grad_(False)
    assert micro_model.trained_state_dict().keys() == before
