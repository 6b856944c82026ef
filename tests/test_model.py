"""The wiring of `DSVLFSModel`: prompts, shots, what is trained, what is saved. Random weights."""

import json

import numpy as np
import pytest
import torch
from conftest import build_micro_model
from PIL import Image

from dsvlfs import DSVLFSModel, InputError
from dsvlfs.parts.losses import TrainingOutput


def _training_inputs(model: DSVLFSModel, circle, batch: int = 3):
    image, mask = circle
    features = model.frozen_features(model.processor.query_view(image))
    features = {name: tensor.expand(batch, *tensor.shape[1:]) for name, tensor in features.items()}
    view, square = model.processor.support_view(image, mask)
    layers, grid_mask = model.support_features(model.frozen_features(view), square)
    side = 4 * features["image.2"].shape[-1]
    target = torch.zeros(batch, side, side)
    target[:, 4:10, 4:10] = 1
    return features, [layer.expand(batch, -1, -1, -1) for layer in layers], grid_mask.expand(batch, -1, -1), target


def _step(model: DSVLFSModel, circle, use_semantic: list[bool], use_visual: list[bool]) -> TrainingOutput:
    features, layers, mask, target = _training_inputs(model, circle, len(use_semantic))
    names = [("red circle", "round") for used in use_semantic if used]
    return model(
        features,
        layers,
        mask,
        model.processor.question(names) if names else None,
        target,
        use_semantic=torch.tensor(use_semantic),
        use_visual=torch.tensor(use_visual),
    )


def test_results_have_the_photos_own_size(micro_model, circle):
    image, mask = circle
    support = micro_model.encode_support([(image, mask)])
    one = micro_model.segment(image, "circle", support=support)
    assert one.mask.shape == one.probability.shape == (60, 80)
    assert one.mask.dtype == bool
    assert one.probability.dtype == np.float32
    many = micro_model.segment([image, np.zeros((33, 47, 3), np.uint8)], "circle", support=support)
    assert [result.mask.shape for result in many] == [(60, 80), (33, 47)]
    np.testing.assert_array_equal(many[0].probability, one.probability)


def test_each_prompt_matters_in_its_modes_only(micro_model, circle):
    image, mask = circle
    support = micro_model.encode_support([(image, mask)])
    other = micro_model.encode_support([(image, ~mask)])

    def probability(name, given, mode):
        return micro_model.segment(image, name, support=given, mode=mode).probability

    for mode, name_matters, support_matters in (
        ("both", True, True),
        ("semantic", True, False),
        ("visual", False, True),
    ):
        base = probability("circle", support, mode)
        assert np.array_equal(base, probability("square", support, mode)) != name_matters
        assert np.array_equal(base, probability("circle", other, mode)) != support_matters
    np.testing.assert_array_equal(probability("circle", None, "both"), probability("circle", support, "semantic"))


def test_a_description_changes_the_semantic_prompt(micro_model, circle):
    plain = micro_model.segment(circle[0], "circle")
    told = micro_model.segment(circle[0], "circle", description="red round shape")
    assert not np.array_equal(plain.probability, told.probability)


def test_modes_predicted_together_are_those_predicted_alone(micro_model, circle):
    image, mask = circle
    support = micro_model.encode_support([(image, mask), (image, ~mask)])
    together = micro_model.predict(image, "circle", support=support)
    assert list(together) == ["both", "semantic", "visual"]
    assert [len(prediction.logits) for prediction in together.values()] == [2, 1, 2]
    for mode, prediction in together.items():
        alone = micro_model.segment(image, "circle", support=support, mode=mode)
        np.testing.assert_array_equal(prediction.segmentation().probability, alone.probability)
        assert alone.votes.max() <= len(prediction.logits)


@pytest.fixture
def silent_model(micro_model):
    """As packaged: the projector says the same of every photo."""
    torch.nn.init.zeros_(micro_model.semantic_encoder.llava.model.multi_modal_projector.linear_2.weight)
    return micro_model


@pytest.fixture
def readings(micro_model):
    """Grows with each pass of the language model."""
    passes = []
    micro_model.semantic_encoder.llava.model.language_model.register_forward_hook(lambda *_: passes.append(1))
    return passes


def test_a_query_encoded_once_serves_classes_and_supports(micro_model, circle, monkeypatch):
    image, mask = circle
    support = micro_model.encode_support([(image, mask), (image, ~mask)])
    asked = [("circle", support), ("square", None)]
    expected = [micro_model.segment(image, name, support=given) for name, given in asked]
    query = micro_model.encode_query(image)
    monkeypatch.setattr(micro_model.image_encoder, "forward", None)
    for (name, given), result in zip(asked, expected):
        np.testing.assert_array_equal(micro_model.segment(query, name, support=given).probability, result.probability)


@pytest.mark.parametrize("singly", [("cpu",), ()])
def test_photos_encoded_together_are_those_encoded_alone(micro_model, circle, tmp_path, monkeypatch, singly):
    monkeypatch.setattr("dsvlfs.inference.encoding.SINGLY_ON", singly)
    image, mask = circle
    support = micro_model.encode_support([(image, mask)])
    image.save(tmp_path / "photo.png")
    wide = np.linspace(0, 1, 33 * 47 * 3).reshape(33, 47, 3)
    photos = [image, wide, micro_model.encode_query(image.rotate(90)), tmp_path / "photo.png", image.rotate(180)]
    alone = [micro_model.segment(photo, "circle", support=support) for photo in photos]
    seen, forward = set(), micro_model.image_encoder.forward
    counted = lambda pixels, **asked: seen.add(len(pixels)) or forward(pixels, **asked)  # noqa: E731
    monkeypatch.setattr(micro_model.image_encoder, "forward", counted)
    for batch_size in (2, 5, 9):
        together = micro_model.segment(photos, "circle", support=support, batch_size=batch_size)
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_allclose(one.probability, other.probability, atol=1e-5)
    assert seen == ({1} if singly else {1, 2, 4})  # the third is encoded before
    with pytest.raises(InputError, match=r"no photo .*absent\.png"):
        micro_model.segment([image, tmp_path / "absent.png"], "circle", batch_size=2)
    assert micro_model.segment([], "circle") == micro_model.encode_query([]) == []


def test_a_class_is_read_once_where_no_photo_is_read(silent_model, circle, readings):
    encoder, image = silent_model.semantic_encoder, circle[0]
    question = silent_model.processor.question([("circle", "round")])
    with torch.inference_mode():
        expected, _ = encoder(silent_model.encode_query(image).features["tokens"], question)
    del readings[:]
    for photo in (image, image.rotate(90)):
        prompt = encoder.prompt(silent_model.encode_query(photo).features["tokens"], question)
        assert torch.equal(prompt, expected)
    assert len(readings) == 1
    silent_model.segment(image, "circle", description="red")
    assert len(readings) == 2


def test_a_class_is_read_again_for_each_photo_where_the_photo_is_read(micro_model, readings):
    tokens = torch.randn_like(micro_model.semantic_encoder.silent_tokens(2))
    question = micro_model.processor.question([("circle", None)])
    prompts = [micro_model.semantic_encoder.prompt(row[None], question) for row in tokens]
    assert len(readings) == 2
    assert not torch.equal(*prompts)
    torch.testing.assert_close(micro_model.semantic_encoder.prompt(tokens, question), torch.cat(prompts))


@pytest.mark.parametrize("change", ["a step of training", "other weights", "another word for a photo"])
def test_a_class_is_read_again_when_weights_have_changed(silent_model, circle, readings, tmp_path, change):
    silent_model.save_pretrained(tmp_path)
    first = silent_model.segment(circle[0], "circle")
    del readings[:]
    if change == "a step of training":
        optimizer = torch.optim.AdamW([p for p in silent_model.parameters() if p.requires_grad], lr=0.1)
        _step(silent_model, circle, [True], [False]).loss.backward()
        optimizer.step()
        del readings[:]
    elif change == "other weights":
        silent_model.load_trained(tmp_path / "model.safetensors")
    else:
        torch.nn.init.ones_(silent_model.semantic_encoder.llava.model.multi_modal_projector.linear_2.bias)
    second = silent_model.segment(circle[0], "circle")
    assert len(readings) == 1
    assert np.array_equal(first.probability, second.probability) == (change == "other weights")


@pytest.mark.parametrize("colour", ["black", "white", "gray", (255, 200, 0)])
def test_nothing_is_found_in_a_photo_of_one_colour(micro_model, circle, colour, tmp_path):
    support = micro_model.encode_support([circle, circle])
    Image.new("RGB", (70, 50), colour).save(tmp_path / "blank.jpg")
    for mode in ("both", "visual", "semantic"):
        for photo in (tmp_path / "blank.jpg", micro_model.encode_query([tmp_path / "blank.jpg", circle[0]])[0]):
            result = micro_model.segment(photo, "circle", support=support, mode=mode, min_presence=0)
            assert not result.mask.any()
            assert result.probability.max() < 0.001
    assert not micro_model.encode_query(circle[0]).is_blank


def test_several_shots_are_their_mean_prediction(micro_model, circle):
    image, mask = circle
    shots = [(image, mask), (image, ~mask)]
    single = [micro_model.segment(image, "circle", support=micro_model.encode_support([shot])) for shot in shots]
    both = micro_model.segment(image, "circle", support=micro_model.encode_support(shots))
    np.testing.assert_allclose(both.probability, (single[0].probability + single[1].probability) / 2, atol=1e-5)


def test_only_the_trained_parts_have_gradients(micro_model, circle):
    micro_model.train()
    _step(micro_model, circle, [True, True, False], [True, False, True]).loss.backward()
    trained = {name for name, parameter in micro_model.named_parameters() if parameter.grad is not None}
    assert trained == {name for name, parameter in micro_model.named_parameters() if parameter.requires_grad}
    vlm = {name for name in trained if name.startswith("semantic_encoder.vlm.")}
    assert vlm
    for name in vlm:
        assert any(part in name for part in ("lora_", "trainable_tokens", "multi_modal_projector")), name
    assert not any(name.startswith("image_encoder.") for name in trained)
    assert not any("vision_tower" in name for name in trained)


def test_frozen_normalisation_does_not_learn_in_training_mode(micro_model, circle):
    before = {n: b.clone() for n, b in micro_model.named_buffers() if "vision_tower" in n}
    micro_model.train().frozen_features(micro_model.processor.query_view(circle[0]))
    after = dict(micro_model.named_buffers())
    assert before
    assert all(torch.equal(buffer, after[name]) for name, buffer in before.items())


def test_a_dropped_prompt_is_as_if_it_were_not_given(micro_model, circle):
    mixed = _step(micro_model, circle, [True, False, True], [True, True, False])
    for row, (semantic, visual) in enumerate([(True, True), (False, True), (True, False)]):
        alone = _step(micro_model, circle, [semantic], [visual])
        torch.testing.assert_close(mixed.logits[row], alone.logits[0], atol=1e-4, rtol=1e-4)


def test_a_few_steps_of_training_lower_the_loss(micro_model, circle):
    micro_model.train()
    optimizer = torch.optim.AdamW([p for p in micro_model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(12):
        output = _step(micro_model, circle, [True, True, False], [True, False, True])
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_a_round_trip_gives_identical_logits(micro_model, circle, tmp_path):
    image, mask = circle
    optimizer = torch.optim.SGD([p for p in micro_model.parameters() if p.requires_grad], lr=0.1)
    _step(micro_model, circle, [True, True, False], [True, False, True]).loss.backward()
    optimizer.step()  # away from the initial values, which a fresh model would share
    micro_model.eval().save_pretrained(tmp_path)
    restored = build_micro_model()
    restored.load_trained(tmp_path / "model.safetensors")
    support, again = (model.encode_support([(image, mask)]) for model in (micro_model, restored))
    for mode in ("both", "semantic", "visual"):
        first = micro_model.segment(image, "red circle", support=support, mode=mode)
        second = restored.segment(image, "red circle", support=again, mode=mode)
        np.testing.assert_array_equal(first.probability, second.probability)


def test_a_checkpoint_holds_no_frozen_tensor(micro_model):
    names = set(micro_model.trained_state_dict())
    frozen = {name for name, parameter in micro_model.named_parameters() if not parameter.requires_grad}
    assert names & frozen == {"mask_decoder.position.positional_embedding"}  # random, of no base


def test_a_damaged_or_foreign_checkpoint_is_named(micro_model, tmp_path):
    micro_model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="is damaged"):
        micro_model.load_trained(file)
    with pytest.raises(InputError, match="no checkpoint"):
        micro_model.load_trained(tmp_path / "absent.safetensors")
    file.write_bytes(whole)
    micro_model.mask_decoder.no_visual_prompt = torch.nn.Parameter(torch.zeros(7))
    with pytest.raises(InputError, match="does not fit"):
        micro_model.load_trained(file)


def test_a_checkpoint_folder_without_a_config_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dsvlfs"})[:-1])
    with pytest.raises(InputError, match=r"config\.json"):
        DSVLFSModel.from_pretrained(tmp_path)


def test_the_folder_of_another_model_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 8}))
    with pytest.raises(InputError, match="no DSV-LFS checkpoint"):
        DSVLFSModel.from_pretrained(tmp_path)


def test_wrong_requests_are_sentences(micro_model, circle):
    image, _ = circle
    with pytest.raises(InputError, match="mode 'semantics'"):
        micro_model.segment(image, "circle", mode="semantics")
    with pytest.raises(InputError, match="needs a support"):
        micro_model.segment(image, "circle", mode="visual")
    with pytest.raises(InputError, match="class name is empty"):
        micro_model.segment(image, "  ")
    with pytest.raises(InputError, match="no support"):
        micro_model.encode_support([])


def test_a_description_has_the_weight_that_the_config_gives_it(micro_model, circle):
    def logits(description: str | None) -> torch.Tensor:
        return micro_model.predict(circle[0], "circle", description=description, modes=["semantic"])["semantic"].logits

    with torch.no_grad():
        micro_model.grounding.basis.normal_()
    named, described = logits(None), logits("red round shape")
    assert not torch.allclose(named, described)
    micro_model.config.description_weight = 0.0
    torch.testing.assert_close(logits("red round shape"), named)
    micro_model.config.description_weight = 0.5
    between = logits("red round shape")
    assert not torch.allclose(between, named)
    assert not torch.allclose(between, described)
    torch.testing.assert_close(logits(" "), named)


def test_a_description_that_is_no_text_is_named(micro_model, circle):
    with pytest.raises(InputError, match="give text"):
        micro_model.predict(circle[0], "circle", description=5, modes=["semantic"])


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_of_nothing_is_refused(micro_model, circle, batch_size):
    with pytest.raises(InputError, match="whole number, 1 or more"):
        micro_model.segment([circle[0]], "circle", mode="semantic", batch_size=batch_size)
