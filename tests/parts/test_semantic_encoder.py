"""What the semantic encoder remembers of the classes it was asked for."""

import copy
import pickle

import pytest

from dsvlfs.parts import kept_states
from dsvlfs.parts.semantic_encoder import SemanticEncoder


@pytest.fixture(autouse=True)
def _by_names_alone(monkeypatch):
    monkeypatch.setattr(SemanticEncoder, "reads_photo", False)  # else nothing can be kept


def test_as_many_states_are_kept_as_there_is_room_for(micro_model, circle, monkeypatch):
    encoder = micro_model.semantic_encoder
    asked = []
    forward = encoder._hidden
    monkeypatch.setattr(encoder, "_hidden", lambda *inputs: asked.append(inputs) or forward(*inputs))
    for name in ("circle", "square", "circle"):
        micro_model.segment(circle[0], name, mode="semantic")
    assert len(asked) == len(encoder._states) == 2
    monkeypatch.setattr(kept_states, "STATES_KEPT", 1)
    small = copy.deepcopy(micro_model)
    for name in ("circle", "square"):
        small.segment(circle[0], name, mode="semantic")
    assert len(small.semantic_encoder._states) == 1


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda encoder: pickle.loads(pickle.dumps(encoder))])
def test_a_copy_starts_with_no_states(micro_model, circle, copied):
    encoder = micro_model.semantic_encoder
    micro_model.segment(circle[0], "circle", mode="semantic")
    assert len(encoder._states) == 1
    assert len(copied(encoder)._states) == 0
    assert len(encoder._states) == 1
