"""Whose a pixel is, where several classes claim it."""

import numpy as np
import pytest
import torch

from dsvlfs.inference.calibration import Calibration
from dsvlfs.inference.results import Prediction
from dsvlfs.labelling.settling import Cut, settle

CUT: Cut = {"threshold": 0.5, "min_presence": 0}


def predicted(logits: np.ndarray, fits: tuple[float, ...] = ()) -> Prediction:
    height, width = logits.shape
    maps = torch.from_numpy(logits.astype(np.float32))[None]
    return Prediction(maps, (width, height), 0.5, calibration=Calibration(), fits=fits)


def settled(*maps: np.ndarray) -> tuple[np.ndarray, list[float]]:
    class_map = np.zeros(maps[0].shape, np.uint8)
    figures = settle([(predicted(logits), CUT) for logits in maps], class_map)
    return class_map, [entry.area_percent for entry in figures]


def test_classes_that_are_equally_sure_make_no_chequers():
    rows, columns = np.indices((192, 192)) // 2
    chequers = np.where((rows + columns) % 2, 0.4, -0.4)
    left_sure = np.where(columns < 48, 1.0, 0.0)
    maps = [2 + left_sure + chequers, 2.5 - chequers, np.full((192, 192), 0.5)]
    class_map, areas = settled(*maps)
    assert (class_map[:, :90] == 1).all()
    assert (class_map[:, 102:] == 2).all()
    assert areas == [pytest.approx(50, abs=3), pytest.approx(50, abs=3), 0]


def test_a_pixel_goes_to_the_class_that_is_in_the_photo():
    same = np.full((64, 64), 2.0)
    asked = [(predicted(same + 0.1, fits=(-0.5,)), CUT), (predicted(same, fits=(0.9,)), CUT)]
    there = [prediction.segmentation(**cut).presence for prediction, cut in asked]
    assert there[0] < there[1]
    class_map = np.zeros((64, 64), np.uint8)
    settle(asked, class_map)
    assert (class_map == 2).all()


@pytest.mark.parametrize(("second", "is_left"), [(0.5, False), (0.88, True)])
def test_of_classes_that_look_alike_a_photo_is_the_surest_ones(second, is_left):
    left, right = np.full((64, 64), -6.0), np.full((64, 64), -6.0)
    left[:, :40], right[:, 30:] = 4.0, 4.0
    asked = [(predicted(left, fits=(0.9,)), CUT), (predicted(right, fits=(second,)), CUT)]
    class_map = np.zeros((64, 64), np.uint8)
    figures = settle(asked, class_map, alike=True)
    assert (class_map == 1).any()
    assert (class_map == 2).any() == (figures[1].area_percent > 0) == is_left
    assert figures[1].presence > 0.5
    class_map[:] = 0
    settle(asked, class_map)
    assert (class_map == 2).any()


def test_of_classes_that_look_alike_one_that_claims_nothing_counts_for_none():
    asked = [
        (predicted(np.full((64, 64), 4.0), fits=(0.9,)), {"threshold": 0.5, "min_presence": 1.1}),
        (predicted(np.full((64, 64), 4.0), fits=(0.1,)), CUT),
    ]
    class_map = np.zeros((64, 64), np.uint8)
    settle(asked, class_map, alike=True)
    assert (class_map == 2).all()


def test_a_pixel_goes_to_none_that_does_not_claim_it():
    narrow = np.full((192, 192), -3.0)
    narrow[:, 90:92] = 1.0
    beside = np.full((192, 192), -1.0)
    beside[:, :90] = 2.0
    class_map, _ = settled(narrow, beside)
    assert (class_map[:, :90] == 2).all()
    assert (class_map[:, 90:92] == 1).all()
    assert not class_map[:, 92:].any()


def test_what_next_to_nothing_is_left_of_goes_to_the_others():
    whole, sure = np.full((128, 128), 1.0), np.full((128, 128), 3.0)
    sure[:, :4] = -3.0  # 3 % of what the other claims
    class_map, areas = settled(whole, sure)
    assert not (class_map == 1).any()
    assert areas[0] == 0
    sure[:, :24] = -3.0  # and 19 %
    class_map, areas = settled(whole, sure)
    assert (class_map[:, :20] == 1).all()
    assert areas == [pytest.approx(18.75, abs=2), pytest.approx(81.25, abs=2)]
