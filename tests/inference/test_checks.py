"""What inference is asked: each wrong call gets one sentence, before a photo is read."""

import math
from dataclasses import replace

import numpy as np
import pytest

from dsvlfs import InputError, Query
from dsvlfs.inference.checks import class_name_of, description_of
from dsvlfs.inference.selection import mask_at_points, mask_in_box


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        (lambda photo, mask: (photo, mask), r"no photo with its mask; .*\[\(photo, mask\)\]"),
        (lambda photo, mask: [photo, mask], "no photo with its mask"),
        (lambda photo, mask: [(photo, mask, "ball")], "has 3 parts"),
        (lambda photo, mask: [(photo,)], "has 1 parts"),
        (lambda photo, mask: iter([]), "There is no support"),
        (lambda photo, mask: {"photo": photo}, "of type dict"),
        (lambda photo, mask: "photo.png", "of type str"),
        (lambda photo, mask: photo, "of type Image"),
        (lambda photo, mask: None, "of type NoneType"),
        (lambda photo, mask: np.asarray(photo), "of type ndarray"),
        (lambda photo, mask: [(mask, photo)], "not of two values"),
    ],
)
def test_wrong_supports_are_told_how_to_give_them(micro_model, circle, examples, message):
    with pytest.raises(InputError, match=message):
        micro_model.encode_support(examples(*circle))


def test_supports_may_come_one_by_one(micro_model, circle):
    assert len(micro_model.encode_support(iter([circle, list(circle)])).masks) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 50}, "threshold is 50; give a number from 0 to 1, such as 0.5 for 50 %"),
        ({"threshold": -1}, "threshold is -1"),
        ({"threshold": math.nan}, "threshold is nan"),
        ({"threshold": "0.5"}, "threshold is '0.5'"),
        ({"threshold": None}, "threshold is None"),
        ({"threshold": True}, "threshold is True"),
        ({"threshold": np.array([0.5, 0.5])}, "threshold is array"),
        ({"min_presence": 30}, "min_presence is 30"),
        ({"batch_size": 2.5}, "batch size is 2.5"),
        ({"batch_size": 0}, "batch size is 0"),
        ({"batch_size": "2"}, "batch size is '2'"),
        ({"mode": "all"}, "no mode 'all'"),
        ({"mode": None}, "no mode None"),
        ({"mode": ["both"]}, "no mode"),
        ({"mode": "visual", "support": None}, "needs a support"),
        ({"aggregation": "mean"}, "no aggregation 'mean'"),
        ({"aggregation": 0}, "no aggregation 0"),
        ({"support": [("photo", "mask")]}, r"give what model.encode_support\(\[\(photo, mask\)\]\) made"),
        ({"class_name": ""}, "class name is empty"),
        ({"class_name": " \u200b\n"}, "class name is empty"),
        ({"class_name": "\ud800"}, "no character of a text"),
        ({"class_name": "a\0b"}, "no character of a text"),
        ({"class_name": None}, "class name is of type NoneType"),
        ({"class_name": ["fox"]}, "class name is of type list"),
        ({"description": 5}, "description is of type int"),
    ],
)
def test_wrong_options_are_told_before_a_photo_is_read(micro_model, options, message):
    options = {"class_name": "circle"} | options
    with pytest.raises(InputError, match=message):
        micro_model.segment("absent.png", **options)


def test_numbers_of_numpy_are_numbers(micro_model, circle):
    result = micro_model.segment([circle[0]], "circle", threshold=np.float32(0.5), batch_size=np.int64(1))
    assert result[0].mask.shape == (60, 80)


def test_wrong_modes_and_strangers_encodings_are_told(micro_model, circle):
    with pytest.raises(InputError, match="give a list of both"):
        micro_model.predict(circle[0], "circle", modes="both")
    support, query = micro_model.encode_support([circle]), micro_model.encode_query(circle[0])
    with pytest.raises(InputError, match="support was encoded by another model"):
        micro_model.segment(circle[0], "circle", support=replace(support, layers=support.layers[:1]))
    with pytest.raises(InputError, match="query was encoded by another model"):
        micro_model.segment(Query({"tokens": query.features["tokens"]}, query.valid, query.size), "circle")


@pytest.mark.parametrize(
    "box", [(0, 0, 50), (math.nan, 0, 50, 50), (0, 0, math.inf, 9), "0 0 9 9", None, (0, 0, "9", 9)]
)
def test_a_box_that_is_none_is_told(micro_model, circle, box):
    with pytest.raises(InputError, match=r"The box is .*numbers"):
        mask_in_box(micro_model, circle[0], box)


@pytest.mark.parametrize("points", [[(1, 2, 3)], [(math.nan, 1)], [5], 5, "ab"])
def test_points_that_are_none_are_told(micro_model, circle, points):
    with pytest.raises(InputError, match="point"):
        mask_at_points(micro_model, circle[0], points)


def test_names_are_on_one_line():
    assert class_name_of(" red\n  fox\t") == "red fox"
    assert class_name_of("Füchse 狐 🦊") == "Füchse 狐 🦊"
    assert description_of(None) == ""
    assert description_of("a\r\nb") == "a b"
