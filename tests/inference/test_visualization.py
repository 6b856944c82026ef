import numpy as np
import pytest
from PIL import Image

from dsvlfs.errors import InputError
from dsvlfs.inference import pictures
from dsvlfs.inference.pictures import CONTOUR, TINT, contact_sheet, for_viewing, heat_map, overlay

GREY = (100, 100, 100)


@pytest.fixture
def photo() -> Image.Image:
    return Image.new("RGB", (60, 40), GREY)


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:30, 20:40] = True
    return mask


def test_tints_inside_leaves_outside_and_draws_the_line(photo, mask):
    drawn = overlay(photo, mask)
    assert (drawn.mode, drawn.size) == ("RGB", (60, 40))
    assert drawn.getpixel((5, 5)) == GREY
    assert drawn.getpixel((30, 20)) == pytest.approx(tuple(np.add(GREY, TINT) / 2), abs=1)
    column = np.asarray(drawn, dtype=int)[:, 30]
    assert np.abs(column - CONTOUR).sum(axis=1).argmin() == pytest.approx(10, abs=1)


def test_leaves_the_photo_itself_alone(photo, mask):
    overlay(photo, mask)
    assert photo.getcolors() == [(60 * 40, GREY)]


def test_opacity_and_probability_set_the_tint(photo, mask):
    assert overlay(photo, mask, opacity=1.0).getpixel((30, 20)) == TINT
    assert overlay(photo, mask, opacity=0.0).getpixel((30, 20)) == GREY
    probability = np.where(mask, 0.8, 0.2).astype(np.float32)
    for point, share in (((30, 20), 0.4), ((5, 5), 0.1)):
        expected = tuple(np.add(np.multiply(GREY, 1 - share), np.multiply(TINT, share)))
        assert overlay(photo, probability).getpixel(point) == pytest.approx(expected, abs=2)


@pytest.mark.parametrize("full", [False, True])
def test_without_an_edge_there_is_no_line(photo, full):
    drawn = overlay(photo, np.full((40, 60), full))
    assert len(drawn.getcolors()) == 1


def test_any_mode_of_photo_will_do(mask):
    assert overlay(Image.new("L", (60, 40), 100), mask).mode == "RGB"


def test_a_mask_of_another_size_is_refused(photo, mask):
    with pytest.raises(InputError, match="60 x 40"):
        overlay(photo, mask.T)


def test_a_heat_map_grows_lighter_with_its_values(photo):
    values = np.tile(np.linspace(0, 1, 60, dtype=np.float32), (40, 1))
    drawn = heat_map(photo, values, opacity=1.0)
    assert (drawn.mode, drawn.size) == ("RGB", (60, 40))
    row = np.asarray(drawn.convert("L"), dtype=int)[20]
    assert (np.diff(row) >= 0).all()
    assert row[0] < 30
    assert row[-1] > 220
    assert heat_map(photo, values, opacity=0.0).getcolors() == [(60 * 40, GREY)]
    with pytest.raises(InputError, match="60 x 40"):
        heat_map(photo, values.T)


def test_a_contact_sheet_shows_every_picture_and_its_text(photo):
    pictures = [(Image.new("RGB", (30, 20), colour), "a name far too long for the tile" * 3) for colour in ("red",) * 4]
    sheet = np.asarray(contact_sheet(pictures, columns=3, tile=60, gap=4), dtype=int)
    assert sheet.shape == (4 + 2 * (60 + 18 + 4), 4 + 3 * (60 + 4), 3)
    red = (sheet == (255, 0, 0)).all(axis=2)
    assert red.sum() == 4 * 60 * 40
    assert red[34, [34, 98, 162]].all()
    assert red[116, 34]
    assert not red[116, 98]
    assert (sheet[66:82, 4:64] < 128).any()  # the text
    assert (sheet[66:82, 64:68] == 255).all()  # does not reach the next tile


def test_a_picture_of_a_large_photo_is_smaller(monkeypatch):
    photo, mask = Image.new("RGB", (31, 20)), np.zeros((20, 31), bool)
    assert for_viewing(photo, mask) == (photo, mask)
    monkeypatch.setattr(pictures, "_VIEWED", 200)
    small, of_it = for_viewing(photo, mask)
    assert small.size == of_it.shape[::-1] == (16, 10)
    assert overlay(small, of_it).size == (16, 10)
