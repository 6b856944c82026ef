import numpy as np

from dsvlfs.labelling.labels import Figures, ObjectFigures
from dsvlfs.labelling.redrawing import redrawn_figures, redrawn_objects


def blank() -> np.ndarray:
    return np.zeros((8, 10), np.uint8)


def test_the_class_that_was_drawn_is_certain_and_the_other_is_as_it_was():
    before = blank()
    before[:2], before[6:] = 1, 2
    after = before.copy()
    after[2:4] = 1
    known = Figures(25.0, 0.4, 0.3, 0.8, True)
    first, second = redrawn_figures([known, known], before, after)
    assert first == Figures(50.0, 1.0, None, 0.8, False)
    assert second is known


def test_a_class_that_was_erased_has_no_score():
    before = blank()
    before[:2] = 1
    (figures,) = redrawn_figures([Figures(25.0, 0.4, 0.3, 0.8)], before, blank())
    assert (figures.area_percent, figures.score) == (0.0, 0.0)


def two_objects() -> tuple[list[ObjectFigures], np.ndarray]:
    object_map = np.zeros((8, 10), np.uint16)
    object_map[1:3, 1:3], object_map[1:3, 6:8] = 1, 2
    return [ObjectFigures(1, (1, 1, 2, 2), 4, 0.5, 0.4), ObjectFigures(1, (6, 1, 2, 2), 4, 0.6, 0.7)], object_map


def test_objects_that_nobody_touched_stay():
    objects, object_map = two_objects()
    found, numbers = redrawn_objects(objects, object_map, (object_map > 0).astype(np.uint8))
    assert list(found) == objects
    np.testing.assert_array_equal(numbers, object_map)


def test_what_is_drawn_beside_an_object_is_of_it_and_what_stands_alone_is_another():
    objects, object_map = two_objects()
    class_map = (object_map > 0).astype(np.uint8)
    class_map[3, 1:3] = 1  # below the first
    class_map[6:8, 6:9] = 1  # alone
    found, numbers = redrawn_objects(objects, object_map, class_map)
    assert [(entry.box, entry.area, entry.score) for entry in found] == [
        ((1, 1, 2, 3), 6, 1.0), ((6, 1, 2, 2), 4, 0.6), ((6, 6, 3, 2), 6, 1.0),
    ]  # fmt: skip
    assert numbers[3, 1] == 1
    assert numbers[7, 8] == 3


def test_an_object_that_was_erased_goes_and_one_of_another_class_is_new():
    objects, object_map = two_objects()
    class_map = np.zeros((8, 10), np.uint8)
    class_map[1:3, 6:8] = 2
    found, numbers = redrawn_objects(objects, object_map, class_map)
    assert [(entry.class_number, entry.box) for entry in found] == [(2, (6, 1, 2, 2))]
    assert set(np.unique(numbers)) == {0, 1}
