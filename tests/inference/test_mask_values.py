"""Which values of a mask are foreground, and which masks are refused."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from dsvlfs import InputError
from dsvlfs.inference.photos import load_mask

SIZE = (120, 90)


@pytest.fixture
def shape() -> Image.Image:
    """A drawn mask (8 bits a pixel)."""
    mask = Image.new("L", SIZE)
    ImageDraw.Draw(mask).ellipse((30, 20, 90, 70), fill=255)
    ImageDraw.Draw(mask).rectangle((5, 5, 15, 12), fill=255)
    return mask


def coloured(mask: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    image = Image.new("RGB", mask.size, "black")
    image.paste(colour, mask=mask)
    return image


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


def test_two_values_are_a_mask_whatever_they_are(shape):
    expected = np.asarray(shape) > 0
    for value in (1, 7, 100, 255, 256, 4095, 65535):
        np.testing.assert_array_equal(load_mask((expected * value).astype(np.uint16), SIZE), expected)
    np.testing.assert_array_equal(load_mask(expected * 10**9, SIZE), expected)
    np.testing.assert_array_equal(load_mask(expected * 3.0, SIZE), expected)
    for colour in ((0, 0, 1), (1, 2, 3), (128, 0, 0), (255, 255, 255)):
        np.testing.assert_array_equal(load_mask(coloured(shape, colour), SIZE), expected)
        np.testing.assert_array_equal(load_mask(coloured(shape, colour).quantize(2), SIZE), expected)


@pytest.mark.parametrize("quality", [10, 30, 75, 95])
def test_noise_of_a_jpeg_is_no_foreground(shape, quality):
    expected = np.asarray(shape) > 0
    for image in (as_jpeg(shape, quality), as_jpeg(shape.convert("RGB"), quality)):
        assert (np.asarray(image) > 0).mean() > expected.mean()  # what any value above zero would give
        assert iou(load_mask(image, SIZE), expected) > 0.95


def test_soft_edges_are_cut_in_the_middle(shape):
    expected = np.asarray(shape) > 0
    for image in (
        shape.filter(ImageFilter.GaussianBlur(1.5)),
        shape.resize((60, 45), Image.Resampling.BILINEAR).resize(SIZE, Image.Resampling.BILINEAR),
        as_jpeg(coloured(shape, (230, 40, 20)), 75),
    ):
        assert iou(load_mask(image, SIZE), expected) > 0.93


def test_a_photo_in_its_place_is_refused(circle):
    rng = np.random.default_rng(0)
    noise = rng.normal(128, 50, (*SIZE[::-1], 3)).clip(0, 255).astype(np.uint8)
    photo = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2))
    for image in (photo, photo.convert("L"), Image.fromarray(noise), as_jpeg(photo, 75), np.asarray(photo) / 255):
        with pytest.raises(InputError, match=r"not of two values .*a photo in its place"):
            load_mask(image, SIZE)
    with pytest.raises(InputError, match="not of two values"):  # a drawing: two colours, none of them black
        load_mask(circle[0], circle[0].size)


def test_several_classes_are_refused(shape):
    labels = np.zeros(SIZE[::-1], np.uint8)
    labels[:30], labels[30:50], labels[50:52] = 1, 15, 255
    for source in (labels, Image.fromarray(labels), labels.astype(np.uint16) * 200, labels.astype(float)):
        with pytest.raises(InputError, match="several classes"):
            load_mask(source, SIZE)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((90, 120), -1), "values from -1 to -1"),
        (np.array([[70_000, 1], [2, 0]]), "values up to 70000"),
        (np.full((90, 120), np.nan), "no finite numbers"),
        (np.linspace(-1, 1, 10_800).reshape(90, 120), "values from -1 to 1; give a probability"),
        (np.full((90, 120), "a"), "give numbers"),
        (np.zeros((1, 1, 90, 120)), "give numbers"),
        (np.zeros((90, 0)), "give numbers"),
    ],
)
def test_what_is_no_mask_gets_a_sentence(values, message):
    size = values.shape[1::-1] if values.ndim == 2 else SIZE
    with pytest.raises(InputError, match=message):
        load_mask(values, size)


def test_an_alpha_channel_is_the_mask_where_it_is_not_opaque(shape):
    expected = np.asarray(shape) > 0
    photo = Image.effect_noise(SIZE, 60).convert("RGB")
    cut = photo.copy()
    cut.putalpha(shape)
    np.testing.assert_array_equal(load_mask(cut, SIZE), expected)
    np.testing.assert_array_equal(load_mask(np.asarray(cut), SIZE), expected)
    photo.putalpha(255)
    with pytest.raises(InputError, match="not of two values"):
        load_mask(photo, SIZE)
