"""The second look at what is small in a photo."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dsvlfs import InputError
from dsvlfs.inference import segmenting
from dsvlfs.inference.results import Prediction
from dsvlfs.inference.zoom import region_to_look_at, with_second_look

SIZE = (640, 480)


def _prediction(*blobs: tuple[int, int, int, float], shots: int = 1) -> Prediction:
    """Of (row, column, side, logit) squares on a grid of 64."""
    logits = torch.full((shots, 64, 64), -8.0)
    for row, column, side, value in blobs:
        logits[:, row : row + side, column : column + side] = value
    return Prediction(logits, SIZE, 0.5)


def test_what_is_small_is_looked_at_with_room_around_it():
    left, top, right, bottom = region_to_look_at(_prediction((40, 10, 4, 3.0)))
    assert left < 10 * 10
    assert right > 14 * 10
    assert top < 40 * 7.5
    assert bottom > 44 * 7.5
    assert right - left == bottom - top == 128  # a fifth of the photo at least


def test_what_is_unsure_is_looked_at_as_well():
    assert region_to_look_at(_prediction((40, 10, 4, -3.0))) == region_to_look_at(_prediction((40, 10, 4, 3.0)))


def test_the_part_of_most_weight_is_looked_at():
    box = region_to_look_at(_prediction((4, 4, 2, 3.0), (50, 50, 5, 3.0)))
    assert box[0] > 320
    assert box[1] > 240


def test_a_part_at_the_edge_is_looked_at_inside_the_photo():
    left, top, right, bottom = region_to_look_at(_prediction((60, 61, 3, 3.0)))
    assert (right, bottom) == SIZE
    assert (right - left, bottom - top) == (128, 128)


@pytest.mark.parametrize("prediction", [_prediction((10, 10, 30, 3.0)), _prediction()])
def test_what_is_large_or_everywhere_gets_one_look(prediction):
    assert region_to_look_at(prediction) is None


def test_the_second_look_takes_the_regions_place():
    first = _prediction((40, 10, 4, 3.0), (4, 50, 6, 5.0), shots=2)
    box = (64, 240, 224, 400)
    second = Prediction(torch.full((2, 64, 64), -8.0), (160, 160), 0.5, fits=(0.25,))
    second.logits[:, 16:48, 16:48] = 6.0
    joined = with_second_look(first, box, second)
    assert joined.size == SIZE
    assert joined.fits == (0.25,)
    assert len(joined.logits) == 2
    mask = joined.segmentation().mask
    assert mask[280:360, 104:184].mean() > 0.97
    inside = np.zeros_like(mask)
    inside[240:400, 64:224] = True
    assert (mask & inside).sum() == pytest.approx(80 * 80, rel=0.05)
    assert ((mask ^ first.segmentation().mask) & ~inside).sum() < 10  # corners, by another resampling


def test_what_shots_say_together_is_looked_at_again(micro_model):
    first, second = _prediction((40, 10, 4, 3.0), shots=2), _prediction((20, 20, 20, 5.0), shots=2)
    first, second = (replace(found, joined=found.logits[0]) for found in (first, second))
    joined = with_second_look(first, (0, 240, 160, 400), replace(second, size=(160, 160)))
    assert joined.joined.shape == joined.logits.shape[1:] == (256, 256)


def test_a_small_object_is_asked_for_twice_and_a_large_one_once(micro_model, circle, monkeypatch):
    photo, mask = circle
    support = micro_model.encode_support([circle])
    asked = []

    def predict(model, image, name, *, modes, **_):
        asked.append(getattr(image, "size", None))
        blob = (40, 10, 4, 3.0) if len(asked) == 1 else (16, 16, 32, 5.0)
        found = _prediction(blob)
        return {mode: replace(found, size=image.size) for mode in modes}

    monkeypatch.setattr(segmenting, "predict", predict)
    result = micro_model.segment(photo, "circle", support=support)
    assert len(asked) == 2
    assert asked[1] == (16, 16)
    assert result.mask.shape == mask.shape
    asked.clear()
    micro_model.segment(photo, "circle", support=support, zoom=False)
    assert len(asked) == 1


def test_a_closer_look_needs_the_photo(micro_model, circle):
    query = micro_model.encode_query(circle[0])
    micro_model.segment(query, "circle")
    with pytest.raises(InputError, match="needs the photo itself"):
        micro_model.segment(query, "circle", zoom=True)
    with pytest.raises(InputError, match="zoom is 'yes'"):
        micro_model.segment(circle[0], "circle", zoom="yes")
