import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from dsvlfs.parts import token_merging
from dsvlfs.parts.image_encoder import ImageEncoder
from dsvlfs.parts.token_merging import _merge, _Tokens


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=24, num_hidden_layers=3, num_attention_heads=2, image_size=56, patch_size=14)
    return ImageEncoder(backbone=Dinov2Model(config), blocks=[1, 3])


def photos(number=1):
    return torch.randn(number, 3, 56, 56, generator=torch.Generator().manual_seed(1))


def tokens_of(states):
    states = torch.tensor(states)
    return _Tokens(states, torch.ones(len(states)), torch.arange(len(states)))


def test_without_merging_features_are_the_encoders_own(encoder, monkeypatch):
    monkeypatch.setattr(token_merging, "SHARES", (1.0, 1.0))
    exact, own = encoder(photos()), encoder(photos(), merge_tokens=True)
    assert own.keys() == exact.keys()
    for name in exact:
        assert torch.allclose(own[name], exact[name], atol=1e-5)


def test_merged_features_keep_their_grid_and_share_what_was_merged(encoder, monkeypatch):
    monkeypatch.setattr(token_merging, "SHARES", (0.75, 0.5))
    merged = encoder(photos(), merge_tokens=True)
    for name, left in (("image.1", 12), ("image.3", 8)):
        assert merged[name].shape == (1, 24, 4, 4)
        assert len(merged[name].flatten(2)[0].T.unique(dim=0)) == left


def test_a_batch_is_merged_photo_by_photo(encoder):
    together = encoder(photos(2), merge_tokens=True)
    for place, photo in enumerate(photos(2)):
        for name, alone in encoder(photo[None], merge_tokens=True).items():
            assert torch.allclose(together[name][place], alone[0], atol=1e-6)


def test_weights_are_read_when_the_photo_is(encoder):
    before = encoder(photos(), merge_tokens=True)["image.3"]
    with torch.no_grad():
        encoder.backbone.encoder.layer[0].mlp.fc1.weight.mul_(2)
    assert not torch.allclose(encoder(photos(), merge_tokens=True)["image.3"], before)


def test_half_precision_stays_what_it_is(encoder):
    assert encoder.to(torch.bfloat16)(photos().bfloat16(), merge_tokens=True)["image.3"].dtype == torch.bfloat16


def test_those_most_alike_become_their_mean():
    tokens = tokens_of([[0.0], [10.0], [20.0], [30.0]])
    keys = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.1, 1.0]])
    merged = _merge(tokens, keys, left=3, side=None)
    assert merged.states[merged.places].flatten().tolist() == [0.0, 10.0, 25.0, 25.0]
    assert merged.sizes[merged.places].tolist() == [1.0, 1.0, 2.0, 2.0]


def test_a_token_that_stands_for_more_weighs_more():
    tokens = _Tokens(torch.tensor([[0.0], [30.0]]), torch.tensor([2.0, 1.0]), torch.tensor([0, 0, 1]))
    merged = _merge(tokens, torch.ones(2, 2), left=1, side=None)
    assert merged.states.tolist() == [[10.0]]
    assert merged.places.tolist() == [0, 0, 0]


def test_no_more_than_half_are_merged_at_once():
    merged = _merge(tokens_of([[float(n)] for n in range(16)]), torch.ones(16, 2), left=1, side=4)
    assert len(merged.states) == 8
