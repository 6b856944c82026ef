"""Photos, masks and questions in; masks out."""

import numpy as np
import pytest
import torch
from PIL import Image

from dsvlfs import InputError
from dsvlfs.inference.photos import load_mask, load_photo
from dsvlfs.inference.results import Prediction


def test_photos_of_every_kind_become_upright_rgb(tmp_path):
    image = Image.new("RGB", (6, 4), (200, 10, 10))
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert load_photo(tmp_path / "turned.jpg").size == (4, 6)
    assert load_photo(Image.new("LA", (5, 3), (9, 255))).mode == "RGB"
    assert load_photo(np.zeros((3, 5), np.uint8)).size == (5, 3)
    assert load_photo(np.ones((3, 5, 4), np.float32)).getpixel((0, 0)) == (255, 255, 255)


def test_unreadable_photos_are_named(tmp_path):
    Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:600])
    (tmp_path / "text.jpg").write_text("not an image")
    for name in ("cut.jpg", "text.jpg"):
        with pytest.raises(InputError, match=name):
            load_photo(tmp_path / name)
    with pytest.raises(InputError, match=r"no photo .*absent\.jpg"):
        load_photo(tmp_path / "absent.jpg")
    with pytest.raises(InputError, match="shape"):
        load_photo(np.zeros((4, 4, 7)))


def test_photo_values_are_scaled_or_refused(tmp_path):
    gray = np.full((3, 5), 128 * 257, np.uint16)
    Image.fromarray(gray).save(tmp_path / "deep.png")
    for source in (tmp_path / "deep.png", Image.fromarray(gray.astype(np.int32))):
        assert load_photo(source).getpixel((0, 0)) == (128, 128, 128)
    assert load_photo(np.ones((3, 5), bool)).getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(InputError, match="float64 from 0 to 2;"):
        load_photo(np.array([[0.0, 2.0]]))
    with pytest.raises(InputError, match="uint16 from 32896 to 32896;"):
        load_photo(gray)
    for load in (load_photo, lambda source: load_mask(source, (5, 3))):
        with pytest.raises(InputError, match="NoneType"):
            load(None)


def test_a_decoder_may_fail_in_any_way(tmp_path, monkeypatch):
    def fail(_, formats):
        raise RuntimeError("Failed to decode")

    monkeypatch.setattr(Image, "open", fail)
    (tmp_path / "a.avif").write_text("not empty")
    with pytest.raises(InputError, match=r"a\.avif cannot be read"):
        load_photo(tmp_path / "a.avif")


def test_masks_are_what_is_not_zero(tmp_path):
    values = np.zeros((4, 6), np.uint8)
    values[1:3, 2:5] = 1
    expected = values > 0
    Image.fromarray(values).save(tmp_path / "index.png")
    transparent = np.zeros((4, 6, 4), np.uint8)
    transparent[..., 3] = values * 255
    opaque = np.stack([values * 255] * 3 + [np.full_like(values, 255)], axis=-1)
    palette = Image.fromarray(1 - values, "P")  # index 0 is the object's
    palette.putpalette([0, 0, 1, 0, 0, 0])
    for source in (
        palette,
        transparent,
        opaque,
        opaque[..., 2:],
        opaque / 255,
        Image.fromarray(np.stack([0 * values, 0 * values, values], axis=-1)),  # too dark a blue for convert("L")
        Image.fromarray(values.astype(np.uint16)),
        tmp_path / "index.png",
        values,
        Image.fromarray(expected),
        transparent[..., 3],
        Image.fromarray(transparent),
        Image.fromarray(opaque),
        np.stack([values] * 3, axis=-1),
    ):
        np.testing.assert_array_equal(load_mask(source, (6, 4)), expected)


def test_unfit_masks_are_named():
    with pytest.raises(InputError, match="5 x 4 pixels but its photo is 6 x 4"):
        load_mask(np.ones((4, 5)), (6, 4))
    with pytest.raises(InputError, match="empty"):
        load_mask(np.zeros((4, 6)), (6, 4))
    with pytest.raises(InputError, match=r"shape \(1, 1, 4, 6\)"):
        load_mask(np.ones((1, 1, 4, 6)), (6, 4))


def test_the_support_view_is_the_photo_around_its_mask(micro_model):
    image = Image.new("RGB", (100, 100), "black")
    image.paste("white", (40, 40, 60, 60))
    mask = np.zeros((100, 100), bool)
    mask[40:60, 40:60] = True
    micro_model.config.support_context = 2.0
    view, square = micro_model.processor.support_view(image, mask)
    assert view.size == (40, 40)
    assert view.image_pixels.shape == (1, 3, 42, 42)
    assert square.mean().item() == pytest.approx(0.25, abs=0.02)
    micro_model.config.support_context = None
    view, square = micro_model.processor.support_view(image, mask)
    assert view.size == (100, 100)
    assert square.mean().item() == pytest.approx(0.04, abs=0.005)


def test_a_vision_tower_may_see_the_middle_of_the_photo(micro_model):
    photo = Image.new("RGB", (90, 30), "red")
    photo.paste("blue", (30, 0, 60, 30))
    for crop in (True, False):
        micro_model.config.vlm_crop = crop
        pixels = micro_model.processor.query_view(photo).vlm_pixels
        assert (pixels[0, 0, :, 2:-2].std() < 1e-3) == crop  # the resampling reaches over the edges


def test_a_photo_is_resampled_as_the_encoder_knows_it(micro_model):
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 70, 3), dtype=np.uint8))
    seen = {}
    for resample in ("bilinear", "bicubic"):
        micro_model.config.image_resample = resample
        seen[resample] = micro_model.processor.query_view(photo).image_pixels
    assert not torch.equal(seen["bilinear"], seen["bicubic"])
    assert seen["bilinear"].std() < seen["bicubic"].std()  # bicubic keeps more of what is fine


def test_padding_is_taken_off_again(micro_model):
    processor = micro_model.processor
    processor.config.pad_to_square = True
    view = processor.query_view(Image.new("RGB", (80, 40), "white"))
    assert view.valid == (56, 28)
    assert view.image_pixels[0, :, 28:].abs().sum() == 0
    logits = torch.full((1, 14, 14), -9.0)
    logits[:, :7] = 9.0  # the upper half of the square is the photo
    probability = processor.prediction(logits, view.valid, view.size).segmentation().probability
    assert probability.shape == (40, 80)
    assert (probability[:36] > 0.9).all()


def test_the_answer_is_what_the_language_model_is_taught(micro_model):
    processor = micro_model.processor
    question = processor.question([("red circle", "round  shape"), ("square", None)])
    assert question.input_ids.shape == question.labels.shape
    for row in range(2):
        taught = question.labels[row][question.labels[row] != -100]
        assert processor.tokenizer.decode(taught).split() == ["It", "is", "<SEM_prompt>", "."]
        assert question.input_ids[row, question.semantic_index[row]] == processor.semantic_token_id
        assert (question.input_ids[row] == processor.image_token_id).sum() == 4
    assert "round shape" in processor.tokenizer.decode(question.input_ids[0])
    assert question.attention_mask[1].sum() < question.attention_mask[0].sum()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (("the <image>", None), "class name holds '<image>'"),
        (("square", "It is <SEM_prompt>."), "description holds '<SEM_prompt>'"),
        ((None, None), "class name is of type NoneType"),
        (("x" * 201, None), "class name has 201 characters; give at most 200"),
        (("square", "x" * 2001), "description has 2,001 characters; give at most 2,000"),
    ],
)
def test_what_cannot_stand_in_a_question_is_named(micro_model, name, message):
    with pytest.raises(InputError, match=message):
        micro_model.processor.question([name])


def test_a_question_can_be_one_of_several_and_its_answer_end(micro_model):
    processor = micro_model.processor
    plain = processor.question([("fox", None)])
    processor.config.further_templates = [["{image} fox: {class_name}", "<SEM_prompt> is there."]]
    processor.tokenizer.add_special_tokens({"eos_token": "<end>"})
    processor.config.answer_ends = True
    assert len(processor.templates) == 2
    both = processor.question([("fox", None), ("fox", None)], variants=[0, 1])
    for row in range(2):
        assert both.input_ids[row, both.semantic_index[row]] == processor.semantic_token_id
        taught = both.labels[row][both.labels[row] >= 0]
        assert taught[-1] == processor.tokenizer.eos_token_id
    length = plain.input_ids.shape[1]
    torch.testing.assert_close(both.input_ids[0, :length], plain.input_ids[0])
    assert both.semantic_index[0] == plain.semantic_index[0]
    assert not torch.equal(both.input_ids[0], both.input_ids[1])


def test_padding_of_a_batch_does_not_change_an_answer(micro_model, circle):
    processor = micro_model.processor
    tokens = micro_model.frozen_features(processor.query_view(circle[0]))["tokens"]
    names = [("red circle", "round shape"), ("square", None)]
    together, _ = micro_model.semantic_encoder(tokens.expand(2, -1, -1), processor.question(names))
    for row, name in enumerate(names):
        alone, _ = micro_model.semantic_encoder(tokens, processor.question([name]))
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=1e-4)


def _prediction(*probabilities: list[float], vote_threshold: float) -> Prediction:
    """One shot a list, of a photo one pixel high."""
    maps = torch.tensor(probabilities)[:, None]
    return Prediction(torch.logit(maps), (maps.shape[-1], 1), vote_threshold)


def test_shots_vote():
    shots = [0.9, 0.9, 0.1], [0.9, 0.1, 0.1], [0.9, 0.1, 0.6]
    result = _prediction(*shots, vote_threshold=0.5).segmentation(0.5)
    assert result.votes.tolist() == [[3, 1, 1]]
    assert result.mask.tolist() == [[True, False, False]]  # 3, 1 and 1 of at most 3 votes
    np.testing.assert_allclose(result.probability, [[0.9, 1.1 / 3, 0.8 / 3]], rtol=1e-6)
    assert _prediction(*shots, vote_threshold=0.3).segmentation(0.5).mask.tolist() == [[True, True, True]]
    assert not _prediction([0.1, 0.1], [0.1, 0.1], vote_threshold=0.5).segmentation(0.5).mask.any()


def test_a_prediction_gives_masks_at_any_threshold_and_size():
    prediction = _prediction([0.2, 0.4, 0.6, 0.8], vote_threshold=0.5)
    assert [prediction.segmentation(threshold).mask.sum() for threshold in (0.1, 0.5, 0.7, 0.9)] == [4, 2, 1, 0]
    larger = prediction.segmentation(0.5, size=(8, 6))
    assert larger.mask.shape == larger.probability.shape == larger.votes.shape == (6, 8)
