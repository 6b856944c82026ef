"""The added token's row, put among the language model's embeddings for inference."""

import pytest
import torch
from conftest import build_micro_model

from dsvlfs.modeling import DSVLFSModel
from dsvlfs.parts.added_token import merge_token, part_token


@pytest.fixture
def taught():
    """A model whose added token has learned a row."""
    model = build_micro_model(train_token_embeddings="added")
    (row,) = (own for name, own in model.named_parameters() if "trainable_tokens_delta" in name and "embed" in name)
    row.data.normal_(generator=torch.Generator().manual_seed(0))
    return model


def asked(model: DSVLFSModel) -> torch.Tensor:
    encoder = model.semantic_encoder
    encoder._states.clear()
    question = model.processor.question([("red circle", None)])
    with torch.inference_mode():
        return encoder.prompt(encoder.silent_tokens(1), question)


def answered(model: DSVLFSModel) -> torch.Tensor:
    """The logits of the vocabulary, which a last layer gives that may share the embeddings' matrix."""
    with torch.inference_mode():
        return model.semantic_encoder.vlm(input_ids=torch.arange(4)[None]).logits


def test_prompts_and_answers_stay_as_they_were(taught):
    prompt, answer = asked(taught), answered(taught)
    names = taught.trained_state_dict().keys()
    saved = {name: tensor.clone() for name, tensor in taught.trained_state_dict().items()}
    for _ in range(2):  # twice is as once
        merge_token(taught.semantic_encoder.vlm)
        assert torch.equal(asked(taught), prompt)
        torch.testing.assert_close(answered(taught), answer)
        after = taught.trained_state_dict()
        assert after.keys() == names
        assert all(torch.equal(after[name], saved[name]) for name in names)
    part_token(taught.semantic_encoder.vlm)
    assert torch.equal(asked(taught), prompt)


def test_the_vocabulary_is_copied_no_more(taught):
    table = taught.get_input_embeddings()

    def copies() -> int:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            table(torch.arange(3))
        return sum(event.count for event in profile.key_averages() if event.key == "aten::index_copy")

    assert copies() == 1
    merge_token(taught.semantic_encoder.vlm)
    assert copies() == 0


def test_another_row_can_be_loaded(taught, tmp_path):
    other = build_micro_model(train_token_embeddings="added")
    other.load_state_dict(taught.state_dict())
    (row,) = (own for name, own in other.named_parameters() if "trainable_tokens_delta" in name and "embed" in name)
    row.data.neg_()
    other.save_pretrained(tmp_path)
    assert not torch.equal(asked(other), asked(taught))
    merge_token(taught.semantic_encoder.vlm)
    taught.load_trained(tmp_path / "model.safetensors")
    assert torch.equal(asked(taught), asked(other))


def test_a_model_that_trains_all_embeddings_is_left_alone(micro_model):
    before = asked(micro_model)
    merge_token(micro_model.semantic_encoder.vlm)
    part_token(micro_model.semantic_encoder.vlm)
    assert torch.equal(asked(micro_model), before)
