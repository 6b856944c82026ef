"""The space that names and photos share: the map over a photo, and the fit in closed form."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dsvlfs.parts.grounding import SemanticGrounding
from dsvlfs.parts.unknown_words import UnknownWords
from dsvlfs.training import alignment

CHANNELS, WIDTH, PROMPT = 12, 40, 16


def _model() -> SimpleNamespace:
    torch.manual_seed(0)
    return SimpleNamespace(
        config=SimpleNamespace(prompt_dim=PROMPT, unknown_word=None),
        grounding=SemanticGrounding(channels=[CHANNELS], prompt_dim=PROMPT),
        semantic_encoder=SimpleNamespace(
            state_mean=torch.zeros(WIDTH),
            state_scale=torch.ones(WIDTH),
            to_prompt=nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, PROMPT)),
        ),
    )


def _entries(families: int = 20, members: int = 8) -> list[dict]:
    return [
        {"names": [f"member {family}-{member}", f"family {family}"], "definition": ""}
        for family in range(families)
        for member in range(members)
    ]


def _fit(monkeypatch, features, states, entries, model=None):
    """An alignment of these objects and states, and the model it was fitted to."""
    model = model or _model()
    objects = alignment.Objects(F.normalize(features, dim=1), entries, torch.zeros(CHANNELS))
    monkeypatch.setattr(alignment, "read_objects", lambda *_: objects)
    cache = SimpleNamespace(names=lambda part: {"0": {"objects": entries}})
    fitted = alignment.SemanticAlignment(model, cache, lambda texts: torch.stack([states[name] for name, _ in texts]))
    fitted.apply(model)
    return fitted, model


@pytest.fixture
def world():
    """Objects that look as a linear map of their names' states says, but for a little noise."""
    generator = torch.Generator().manual_seed(1)
    entries = _entries()
    linear = torch.randn(WIDTH, CHANNELS, generator=generator)
    # As a language model's: nearly the same for all names.
    common = 30 * torch.randn(WIDTH, generator=generator)
    deviation = {name: torch.randn(WIDTH, generator=generator) for entry in entries for name in entry["names"]}
    states = {name: common + value for name, value in deviation.items()}
    looks = torch.stack([deviation[e["names"][0]] + deviation[e["names"][1]] for e in entries]) @ linear
    return looks + 0.1 * torch.randn(looks.shape, generator=generator), states, entries


def test_the_projection_computes_the_fit(monkeypatch, world):
    features, states, entries = world
    _, model = _fit(monkeypatch, features, states, entries)
    encoder = model.semantic_encoder
    state = torch.stack([states[entry["names"][0]] for entry in entries])
    prompts = encoder.to_prompt((state - encoder.state_mean) * encoder.state_scale)
    looks = F.normalize(features, dim=1) @ model.grounding.basis.T
    own = F.cosine_similarity(prompts, looks).mean()
    others = F.cosine_similarity(prompts, looks.roll(8, dims=0)).mean()
    assert own > 0.5
    assert abs(others) < 0.2
    assert prompts.norm(dim=1).mean().item() == pytest.approx(PROMPT**0.5, rel=0.2)


def test_it_learns_where_words_that_mean_nothing_lie(monkeypatch, world):
    features, states, entries = world
    aside = torch.randn(WIDTH, generator=torch.Generator().manual_seed(4))
    first = states[entries[0]["names"][0]]
    meaningless = {word: first + 3 * aside for word, _ in alignment._MEANINGLESS}
    model = _model()
    model.config.unknown_word, model.semantic_encoder.unknown_words = 0.5, UnknownWords(width=WIDTH)
    _, model = _fit(monkeypatch, features, states | meaningless, entries, model)
    encoder = model.semantic_encoder

    def unknown(own):
        strange = encoder.unknown_words((torch.stack(own) - encoder.state_mean) * encoder.state_scale)
        return (strange >= 0.5).float().mean()

    assert unknown([states[name] + 2 * aside for name in list(states)[10:20]]) > 0.9
    assert unknown(list(states.values())) < 0.2


def test_held_out_names_find_their_photo(monkeypatch, world):
    features, states, entries = world
    assert _fit(monkeypatch, features, states, entries)[0].accuracy > 0.6
    shuffled = features[torch.randperm(len(features), generator=torch.Generator().manual_seed(2))]
    assert _fit(monkeypatch, shuffled, states, entries)[0].accuracy < 0.4


def test_a_held_out_prompt_does_not_know_its_family(monkeypatch, world):
    features, states, entries = world
    family = [i for i, entry in enumerate(entries) if entry["names"][1] == "family 3"]
    changed = features.clone()
    changed[family] = torch.randn(len(family), CHANNELS, generator=torch.Generator().manual_seed(3))

    def directions(features, name):
        """Held-out prompt and the model's own, back in the features' space."""
        fitted, model = _fit(monkeypatch, features, states, entries)
        encoder = model.semantic_encoder
        own = encoder.to_prompt((states[name] - encoder.state_mean) * encoder.state_scale)[None]
        return [
            F.normalize(prompt @ model.grounding.basis, dim=1)
            for prompt in (fitted.held_out_prompts([(name, None)]), own)
        ]

    held_out, own = directions(features, entries[family[0]]["names"][0])
    held_out_changed, own_changed = directions(changed, entries[family[0]]["names"][0])
    torch.testing.assert_close(held_out, held_out_changed, atol=1e-5, rtol=0)
    assert (own - own_changed).abs().max() > 0.01


def test_a_space_that_a_decoder_reads_stays(monkeypatch, world):
    features, states, entries = world
    _, first = _fit(monkeypatch, features, states, entries)
    own = first.grounding.basis.clone()
    _, other = _fit(monkeypatch, features.flip(0)[:100], states, entries[::-1][:100])
    assert not torch.allclose(other.grounding.basis, own, atol=0.1)
    _, further = _fit(monkeypatch, features.flip(0)[:100], states, entries[::-1][:100], first)
    assert torch.equal(further.grounding.basis, own)


def test_the_map_is_highest_where_the_prompt_fits():
    grounding = _model().grounding
    grounding.centre.copy_(torch.randn(CHANNELS))
    grounding.basis.copy_(torch.eye(PROMPT, CHANNELS))
    wanted = torch.randn(CHANNELS)
    layer = grounding.centre[None, :, None, None] + torch.randn(1, CHANNELS, 4, 4)
    layer[0, :, 2, 1] = grounding.centre + 5 * wanted
    cosine = grounding.cosine(F.pad(wanted, (0, PROMPT - CHANNELS))[None], [layer], 4)[0]
    assert cosine.argmax() == 2 * 4 + 1
    assert cosine[2, 1] == pytest.approx(1, abs=1e-5)
    assert grounding(wanted.new_ones(1, PROMPT), [layer], 8).shape == (1, PROMPT, 8, 8)
