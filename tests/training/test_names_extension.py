"""Names that join a fit of names in closed form."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dsvlfs.errors import InputError
from dsvlfs.parts.grounding import SemanticGrounding
from dsvlfs.training import names_extension
from dsvlfs.training.alignment import Objects, set_linear
from dsvlfs.training.names_extension import NamesExtension

CHANNELS, WIDTH, PROMPT = 12, 200, 8


@pytest.fixture
def world(monkeypatch):
    """A model with a fit of names, and two new classes of three objects each that it knows nothing of."""
    generator = torch.Generator().manual_seed(0)
    model = SimpleNamespace(
        config=SimpleNamespace(prompt_dim=PROMPT),
        device=torch.device("cpu"),
        grounding=SemanticGrounding(channels=[CHANNELS], prompt_dim=PROMPT),
        semantic_encoder=SimpleNamespace(
            state_mean=torch.randn(WIDTH, generator=generator),
            state_scale=torch.full((WIDTH,), 0.5),
            to_prompt=nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, PROMPT)),
        ),
    )
    with torch.no_grad():
        set_linear(model.semantic_encoder.to_prompt, 0.1 * torch.randn(WIDTH, PROMPT, generator=generator))
    model.grounding.basis.copy_(torch.eye(PROMPT, CHANNELS))
    names = ["weld", "scratch", "dog", "cat", "chair"]
    states = {name: 2 * torch.randn(WIDTH, generator=generator) for name in names}
    entries = [{"names": [name, "damage"], "definition": ""} for name in ("weld", "scratch") for _ in range(3)]
    features = F.normalize(torch.randn(6, CHANNELS, generator=generator).abs(), dim=1)
    features[3:] *= -1
    monkeypatch.setattr(names_extension, "read_objects", lambda *_: Objects(features, entries, torch.zeros(CHANNELS)))
    states["damage"] = (states["weld"] + states["scratch"]) / 2
    extension = NamesExtension(model, None, lambda texts: torch.stack([states[name] for name, _ in texts]))
    return model, extension, features


def _prompts(extension, *names):
    return extension.held_out_prompts([(name, None) for name in names])


def test_new_names_say_what_their_objects_look_like(world):
    model, extension, features = world
    extension.apply(model)
    looks = features[:, :PROMPT]
    weld, scratch = _prompts(extension, "weld", "scratch")
    assert F.cosine_similarity(weld, looks[:3].mean(dim=0), dim=0) > 0.85
    assert F.cosine_similarity(scratch, looks[3:].mean(dim=0), dim=0) > 0.85


def test_other_names_stay_what_they_were(world):
    model, extension, _ = world
    before, new_before = _prompts(extension, "dog", "cat", "chair"), _prompts(extension, "weld")
    extension.apply(model)
    assert F.cosine_similarity(_prompts(extension, "dog", "cat", "chair"), before).min() > 0.8
    assert F.cosine_similarity(_prompts(extension, "weld"), new_before).max() < 0.6


def test_names_are_added_once(world):
    model, extension, _ = world
    extension.apply(model)
    once = _prompts(extension, "weld", "dog")
    extension.apply(model)
    torch.testing.assert_close(_prompts(extension, "weld", "dog"), once, rtol=0.2, atol=0.5)


def test_names_that_were_trained_are_refused(world):
    model, extension, _ = world
    with torch.no_grad():
        model.semantic_encoder.to_prompt[0].bias.add_(3.0)
        model.semantic_encoder.to_prompt[2].bias.add_(3.0)
    with pytest.raises(InputError, match="trained, not fitted"):
        NamesExtension(model, None, extension._states)
