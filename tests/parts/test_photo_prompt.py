"""The prompt of a class read alone, and what the photo adds to it."""

import pytest
import torch

from dsvlfs import DSVLFSModel
from dsvlfs.parts.semantic_encoder import SemanticEncoder


@pytest.fixture
def seeing_model(micro_model) -> DSVLFSModel:
    """With a projector of random weights, and a photo's share that has learned nothing."""
    encoder = micro_model.semantic_encoder
    encoder.add_photo_prompt()
    micro_model.config.photo_state = True
    encoder.photo_prompt.silent.copy_(encoder.llava.model.multi_modal_projector.linear_2.bias.detach())
    return micro_model


def _learn(encoder: SemanticEncoder) -> None:
    with torch.no_grad():
        encoder.photo_prompt.to_prompt[-1].weight.normal_(generator=torch.Generator().manual_seed(3))


def _prompts(model: DSVLFSModel, *names: str) -> list[torch.Tensor]:
    """Of two photos that differ, for each name."""
    encoder = model.semantic_encoder
    width = encoder.llava.model.multi_modal_projector.linear_1.in_features
    tokens = torch.randn(2, encoder.llava.config.image_seq_length, width, generator=torch.Generator().manual_seed(1))
    return [encoder.prompt(tokens, model.processor.question([(name, None)])) for name in names]


def test_an_unlearned_share_leaves_the_classes_prompts_as_a_silent_photo_gives_them(seeing_model):
    encoder = seeing_model.semantic_encoder
    assert not encoder.reads_photo
    (prompt,) = _prompts(seeing_model, "circle")
    question = seeing_model.processor.question([("circle", None)])
    projector = encoder.llava.model.multi_modal_projector
    with torch.no_grad():
        projector.linear_2.weight.zero_()
        silent, _ = encoder.read(encoder.silent_tokens(1), question)
        assert torch.allclose(prompt, encoder.project(silent).expand(2, -1), atol=1e-5)


def test_a_learned_share_differs_by_photo_and_is_added_to_the_class(seeing_model):
    encoder = seeing_model.semantic_encoder
    circle, square = _prompts(seeing_model, "circle", "square")
    _learn(encoder)
    assert encoder.reads_photo
    seen, _ = _prompts(seeing_model, "circle", "square")
    share = seen - circle
    assert not torch.allclose(share[0], share[1])
    tokens = torch.zeros(1, encoder.llava.config.image_seq_length, encoder.vision_tower.config.hidden_size)
    question = seeing_model.processor.question([("square", None)])
    with torch.no_grad():
        prompt, _ = encoder(tokens, question)
        expected = square[:1] + encoder.photo_share(tokens, question)
    assert torch.allclose(prompt, expected, atol=1e-5)


def test_the_classes_share_has_no_gradient_of_the_language_model(seeing_model):
    encoder = seeing_model.semantic_encoder
    _learn(encoder)
    encoder.requires_grad_(False)
    encoder.photo_prompt.requires_grad_(True)
    tokens = torch.ones(1, encoder.llava.config.image_seq_length, encoder.vision_tower.config.hidden_size)
    encoder.photo_share(tokens, seeing_model.processor.question([("circle", None)])).sum().backward()
    moved = {name for name, parameter in encoder.named_parameters() if parameter.grad is not None}
    assert moved
    assert all(name.startswith("photo_prompt.") for name in moved)


def test_adapters_change_what_is_read_of_the_photo_and_not_the_class(seeing_model):
    encoder = seeing_model.semantic_encoder
    tokens = torch.ones(1, encoder.llava.config.image_seq_length, encoder.vision_tower.config.hidden_size)
    question = seeing_model.processor.question([("circle", None)])
    _learn(encoder)

    @torch.no_grad()
    def read():
        return encoder.class_state(tokens, question), encoder.photo_share(tokens, question)

    (alone, share) = read()
    with torch.no_grad():
        for name, parameter in encoder.vlm.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5, generator=torch.Generator().manual_seed(5))
    (adapted_alone, adapted_share) = read()
    assert torch.allclose(alone, adapted_alone, atol=1e-5)
    assert not torch.allclose(share, adapted_share, atol=1e-3)


def test_a_checkpoint_keeps_what_the_photo_adds(seeing_model, tmp_path):
    _learn(seeing_model.semantic_encoder)
    state = seeing_model.trained_state_dict()
    assert {name for name in state if "photo_prompt" in name} == {
        f"semantic_encoder.photo_prompt.{name}"
        for name in (
            *("silent", "mean", "scale"),
            *(f"to_prompt.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")),
        )
    }
    seeing_model.save_pretrained(tmp_path)
    other = DSVLFSModel(type(seeing_model.config).from_pretrained(tmp_path), load_bases=False)
    other.load_trained(tmp_path / "model.safetensors")
    weight = other.semantic_encoder.photo_prompt.to_prompt[-1].weight
    assert torch.equal(weight, seeing_model.semantic_encoder.photo_prompt.to_prompt[-1].weight)
