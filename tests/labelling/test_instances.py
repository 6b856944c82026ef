import numpy as np
import pytest
from colour_model import ColourModel
from PIL import Image

from dsvlfs.labelling.closer import CloserPrediction, views_of
from dsvlfs.labelling.instances import objects_of


def field(height: int = 60, width: int = 80) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((height, width), dtype=bool), np.zeros((height, width), dtype=np.float32)


def test_parts_are_objects_and_specks_belong_to_those_beside_them():
    mask, probability = field(100, 200)
    mask[10:40, 10:40] = mask[50:90, 100:150] = True
    mask[20, 42] = True  # beside the first
    mask[95, 190] = True  # beside none
    probability[mask] = 0.9
    numbers = objects_of(mask, probability)
    assert numbers[[20, 20, 60, 95], [20, 42, 120, 190]].tolist() == [1, 1, 2, 0]
    assert numbers.max() == 2


def test_a_part_falls_apart_where_it_is_surer():
    mask, probability = field()
    mask[20:40, 10:70] = True
    probability[mask] = 0.55
    probability[22:38, 12:35] = 0.95
    probability[22:38, 45:68] = 0.85
    numbers = objects_of(mask, probability)
    assert numbers[30, [12, 39, 41, 68]].tolist() == [1, 1, 2, 2]
    probability[22:38, 45:68] = 0.55
    probability[25:28, 50:53] = 0.95  # small beside the other
    assert objects_of(mask, probability).max() == 1


def test_large_photos_are_told_apart_as_small_ones_are():
    mask, probability = field(3000, 4000)
    mask[500:1500, 500:1500] = mask[500:1500, 1600:2600] = True
    probability[mask] = 0.9
    numbers = objects_of(mask, probability)
    assert numbers.shape == mask.shape
    assert numbers[1000, [600, 1499, 1601, 2500]].tolist() == [1, 1, 2, 2]
    np.testing.assert_array_equal(numbers > 0, mask)


def test_an_empty_mask_has_none():
    assert objects_of(*field()).max() == 0


@pytest.mark.parametrize("size", [(100, 80), (7, 5), (1, 1), (3, 200)])
def test_views_cover_the_photo(size):
    seen = np.zeros(size[::-1], dtype=int)
    for left, top, right, bottom in views_of(*size):
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
        seen[top:bottom, left:right] += 1
    assert seen.min() >= 1


def test_closer_looks_are_the_mean_of_both():
    model = ColourModel()
    image = Image.new("RGB", (20, 10), "red")
    other = Image.new("RGB", (20, 10), (255, 60, 0))
    whole, seen = (model.predict(photo, "red", modes=["both"])["both"] for photo in (image, other))
    views = [(0, 0, 10, 10), (10, 0, 20, 10)]
    closer = [model.predict(other.crop(view), "red", modes=["both"])["both"] for view in views]
    found = CloserPrediction(whole, views, closer).segmentation(0.5, min_presence=0)
    means = [entry.segmentation(0.5).probability[0, 0] for entry in (whole, seen)]
    np.testing.assert_allclose(found.probability, sum(means) / 2, rtol=1e-5)
    assert found.presence == whole.segmentation(0.5, min_presence=0).presence
