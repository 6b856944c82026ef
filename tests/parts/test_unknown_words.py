"""Words that a language model does not know, and what their descriptions count."""

import pytest
import torch

from dsvlfs import DSVLFSConfig, DSVLFSModel
from dsvlfs.descriptions.made_up import made_up_names
from dsvlfs.errors import InputError
from dsvlfs.parts.semantic_encoder import SemanticEncoder
from dsvlfs.parts.unknown_words import UnknownWords

SEEN = "A round thing."


def test_a_word_is_unknown_where_its_state_lies_with_those_of_meaningless_ones():
    words = UnknownWords(width=3, limit=0.5)
    states = torch.tensor([[2.0, 0, 0], [1, 1, 0], [0, 0, 3], [-1, 0, 0]])
    assert not words(states).any()
    words.fit(torch.tensor([[1.0, 1, 0], [1, -1, 0]]))
    assert words(states).tolist() == [True, True, False, False]


def test_it_needs_standardised_states():
    config = DSVLFSConfig.tiny()
    config.standardise_state = False
    with torch.device("meta"), pytest.raises(InputError, match="unknown_word needs standardise_state"):
        DSVLFSModel(config, load_bases=False)


def test_the_description_of_an_unknown_word_has_the_whole_weight(micro_model, circle, monkeypatch):
    monkeypatch.setattr(SemanticEncoder, "reads_photo", False)
    encoder, processor = micro_model.semantic_encoder, micro_model.processor

    def logits(name):
        asked = {"support": None, "modes": ["semantic"], "description": SEEN}
        return micro_model.predict(circle[0], name, **asked)["semantic"].logits

    micro_model.config.description_weight = 0.5
    mixed = logits("circle")
    name = processor.question([("circle", None)])
    assert encoder.knows(name)
    encoder.unknown_words.fit(encoder.class_state(encoder.silent_tokens(1), name).detach())
    assert not encoder.knows(name)
    described = logits("circle")
    micro_model.config.description_weight = 1.0
    assert torch.equal(described, logits("circle"))
    assert not torch.equal(described, mixed)


def test_the_packaged_checkpoint_tells_names_from_words_that_mean_nothing():
    model = DSVLFSModel.from_pretrained("dsvlfs-tiny")
    known = [model.semantic_encoder.knows(model.processor.question([(name, None)])) for name in _names()]
    assert sum(known[:10]) >= 9
    assert sum(known[10:]) <= 2


def _names() -> list[str]:
    usual = ["dog", "red fox", "dining table", "car", "parrot", "wine glass", "building", "penguin", "tree", "bicycle"]
    return usual + made_up_names()[:10]
