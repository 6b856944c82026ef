"""Words that a language model does not know, and what their descriptions count."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from dsvlfs import DSVLFSModel
from dsvlfs.descriptions.made_up import made_up_names
from dsvlfs.parts.semantic_encoder import SemanticEncoder
from dsvlfs.parts.unknown_words import UnknownWords

SEEN = "A round thing."
DIRECTION = "semantic_encoder.unknown_words.direction"


@pytest.fixture
def halving(micro_model, monkeypatch):
    """A model of which a description has half of the weight, and the semantic logits of a photo by a name and it."""
    monkeypatch.setattr(SemanticEncoder, "reads_photo", False)
    micro_model.config.description_weight = 0.5
    with torch.no_grad():
        micro_model.grounding.basis.normal_(generator=torch.Generator().manual_seed(0))
    return micro_model


def _forget(model: DSVLFSModel, name: str) -> None:
    """Makes a name a word that means nothing."""
    encoder, question = model.semantic_encoder, model.processor.question([(name, None)])
    state = encoder._standardised(encoder.class_state(encoder.silent_tokens(1), question))
    encoder.unknown_words.fit(state.detach())


def _logits(model: DSVLFSModel, photo, name: str) -> torch.Tensor:
    found = model.predict(photo, name, support=None, description=SEEN, modes=["semantic"])
    return found["semantic"].logits


def test_a_state_is_compared_with_those_of_words_that_mean_nothing():
    words = UnknownWords(width=3)
    states = torch.tensor([[2.0, 0, 0], [1, 1, 0], [0, 0, 3], [-1, 0, 0]])
    assert words(states).tolist() == [-1, -1, -1, -1]
    words.fit(torch.tensor([[1.0, 1, 0], [1, -1, 0]]))
    torch.testing.assert_close(words(states), torch.tensor([1, 0.5**0.5, 0, -1]))


def test_the_description_of_an_unknown_word_has_the_whole_weight(halving, circle):
    mixed = _logits(halving, circle[0], "circle")
    _forget(halving, "circle")
    described = _logits(halving, circle[0], "circle")
    halving.config.unknown_word = None
    assert torch.equal(_logits(halving, circle[0], "circle"), mixed)
    halving.config.description_weight = 1.0
    assert torch.equal(_logits(halving, circle[0], "circle"), described)
    assert not torch.allclose(described, mixed)


def test_a_name_that_was_taught_is_known(halving, circle):
    mixed = _logits(halving, circle[0], "circle")
    _forget(halving, "circle")
    halving.config.remembered_classes = ["Circle"]
    assert torch.equal(_logits(halving, circle[0], "circle"), mixed)


def test_a_name_is_read_once_and_only_where_it_is_asked(halving, circle, monkeypatch):
    support, read = halving.encode_support([circle]), []
    forward = halving.semantic_encoder._hidden
    monkeypatch.setattr(halving.semantic_encoder, "_hidden", lambda *given: read.append(given) or forward(*given))
    asked = {"support": support, "description": SEEN}
    halving.predict(circle[0], "circle", **asked, modes=["visual"])
    assert not read
    for _ in range(2):
        halving.predict(circle[0], "circle", **asked, modes=["both", "semantic"])
    assert len(read) == 2  # the name, and with its description


def test_a_checkpoint_of_before_knows_every_word(halving, tmp_path):
    _forget(halving, "circle")
    question = halving.processor.question([("circle", None)])
    assert halving.semantic_encoder.strangeness(question) > 0.99
    file = tmp_path / "model.safetensors"
    save_file({n: t.contiguous() for n, t in halving.trained_state_dict().items() if n != DIRECTION}, file)
    halving.semantic_encoder.unknown_words.direction.zero_()
    halving.load_trained(file)
    assert halving.semantic_encoder.strangeness(question) == -1
    assert DIRECTION not in load_file(file)


def test_the_packaged_checkpoint_tells_names_from_words_that_mean_nothing():
    model = DSVLFSModel.from_pretrained("dsvlfs-tiny", unknown_word=None)
    usual = ["dog", "red fox", "dining table", "car", "parrot", "wine glass", "building", "penguin", "tree", "bicycle"]

    def strange(names):
        questions = [model.processor.question([(name, None)]) for name in names]
        return sum(model.semantic_encoder.strangeness(question) >= 0.25 for question in questions)

    assert strange(usual) <= 1
    assert strange(made_up_names()[:10]) >= 8
