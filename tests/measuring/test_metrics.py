import numpy as np
import pytest
from scipy.ndimage import binary_erosion
from sklearn.metrics import jaccard_score, recall_score

from dsvlfs.measuring.metrics import SegmentationMetrics, boundary_region, count_episode, predicted_tile


def mask(*rows: str) -> np.ndarray:
    """A mask drawn in text, '#' for foreground."""
    return np.array([[character == "#" for character in row] for row in rows])


@pytest.fixture
def metrics() -> SegmentationMetrics:
    metrics = SegmentationMetrics()
    metrics.update("fox", mask("##..", "...."), mask("###.", "...."))  # foreground 2 / 3, background 5 / 6
    metrics.update("fox", mask("####", "...."), mask("#...", "...."))  # foreground 1 / 4, background 4 / 7
    metrics.update("cup", mask("....", "...."), mask("....", "...#"))  # foreground 0 / 1, background 7 / 8
    return metrics


def test_iou_sums_a_class_over_its_episodes(metrics):
    assert metrics.iou_by_class() == {"cup": 0.0, "fox": pytest.approx(3 / 7)}


def test_miou_is_the_mean_over_classes(metrics):
    assert metrics.miou() == pytest.approx((3 / 7 + 0) / 2)


def test_fb_iou_is_the_mean_of_both_regions_over_all_episodes(metrics):
    assert metrics.fb_iou() == pytest.approx((3 / 8 + 16 / 21) / 2)


def test_a_perfect_prediction_scores_one():
    metrics = SegmentationMetrics()
    metrics.update("fox", mask("#.", ".."), mask("#.", ".."))
    assert metrics.miou() == metrics.fb_iou() == 1
    assert metrics.bootstrap_interval() == (1, 1)


def test_ignored_pixels_do_not_count():
    metrics = SegmentationMetrics()
    metrics.update("fox", mask("##.", "..."), mask("#.#", "..."), ignore=mask(".#.", "###"))
    assert metrics.iou_by_class() == {"fox": 1 / 2}
    assert metrics.fb_iou() == pytest.approx((1 / 2 + 0) / 2)


def test_a_class_without_a_union_is_left_out_of_the_mean():
    metrics = SegmentationMetrics()
    metrics.update("fox", mask("#."), mask("#."))
    metrics.update("cup", mask(".."), mask(".."))
    assert np.isnan(metrics.iou_by_class()["cup"])
    assert metrics.miou() == 1


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="must agree"):
        SegmentationMetrics().update("fox", mask("#."), mask("#", "."))


def blob(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A few boxes, some of them cut by the edge."""
    mask = np.zeros((height, width), dtype=bool)
    for _ in range(3):
        top, left = generator.integers(-10, height), generator.integers(-10, width)
        mask[max(0, top) : top + generator.integers(12, 60), max(0, left) : left + generator.integers(12, 60)] = True
    return mask


def scipy_boundary(mask: np.ndarray) -> np.ndarray:
    """Cheng et al.'s boundary region, the way they make it: by as many erosions as it is pixels wide."""
    distance = max(1, round(0.02 * (mask.shape[0] ** 2 + mask.shape[1] ** 2) ** 0.5))
    return mask & ~binary_erosion(mask, np.ones((3, 3)), iterations=distance)


def test_measures_agree_with_scikit_learn():
    generator = np.random.default_rng(0)
    metrics = SegmentationMetrics()
    kept: dict[str, list[np.ndarray]] = {name: [] for name in "abc"}  # prediction, target, boundaries, base, each 1-D
    for _ in range(20):
        name, height, width = generator.choice(list("abc")), *generator.integers(40, 200, 2)
        prediction, target, ignore, base = (blob(generator, height, width) for _ in range(4))
        metrics.update(name, prediction, target, ignore, base)
        parts = (prediction, target, scipy_boundary(prediction), scipy_boundary(target), base & ~target)
        kept[name].append(np.stack([part[~ignore] for part in parts]))
    by_class = {name: np.concatenate(parts, axis=1) for name, parts in kept.items()}
    ious = {name: jaccard_score(parts[1], parts[0]) for name, parts in by_class.items()}
    boundary_ious = {name: jaccard_score(parts[3], parts[2]) for name, parts in by_class.items()}
    everything = np.concatenate(list(by_class.values()), axis=1)
    assert metrics.iou_by_class() == pytest.approx(ious)
    assert metrics.miou() == pytest.approx(np.mean(list(ious.values())))
    assert metrics.miou({"a", "c"}) == pytest.approx((ious["a"] + ious["c"]) / 2)
    assert metrics.fb_iou() == pytest.approx(jaccard_score(everything[1], everything[0], average="macro"))
    assert metrics.boundary_iou_by_class() == pytest.approx(boundary_ious)
    assert metrics.boundary_iou() == pytest.approx(np.mean(list(boundary_ious.values())))
    assert metrics.base_false_positive_rate() == pytest.approx(recall_score(everything[4], everything[0]))


def test_a_boundary_region_is_the_rim_inside_the_mask():
    square = np.zeros((30, 40), dtype=bool)  # a diagonal of 50: one pixel
    square[5:15, 5:15] = True
    expected = square.copy()
    expected[6:14, 6:14] = False
    assert np.array_equal(boundary_region(square), expected)
    expected[6:14, 6:14] = True
    expected[8:12, 8:12] = False
    assert np.array_equal(boundary_region(square, ratio=0.06), expected)  # three pixels
    # The image's edge is a contour, and a mask thinner than the rim is all rim.
    full = np.ones((30, 40), dtype=bool)
    assert np.count_nonzero(~boundary_region(full)) == 28 * 38
    assert np.array_equal(boundary_region(square, ratio=0.5), square)
    assert not boundary_region(np.zeros((30, 40), dtype=bool)).any()


def test_boundary_iou_by_hand():
    target, prediction = np.zeros((2, 30, 40), dtype=bool)
    target[5:15, 5:15] = True
    prediction[5:15, 6:16] = True
    metrics = SegmentationMetrics()
    metrics.update("fox", prediction, target)
    # Two rims of 36 pixels, a column apart: the upper and the lower rows share 9 each, the sides nothing.
    assert metrics.boundary_iou() == pytest.approx(18 / (36 + 36 - 18))
    assert metrics.iou_by_class() == {"fox": pytest.approx(90 / 110)}


def test_base_false_positives_by_hand():
    metrics = SegmentationMetrics()
    metrics.update("fox", mask("###.", "#..."), mask("#...", "#..."), base=mask("###.", "..##"))  # 2 of 4
    metrics.update(
        "cup", mask("####", "...."), mask("#...", "...."), mask("..##", "...."), mask(".###", "....")
    )  # 1 / 1
    metrics.update("cup", mask("####", "...."), mask("#...", "...."))  # unknown
    assert metrics.base_false_positive_rate() == pytest.approx((2 + 1) / (4 + 1))
    without = SegmentationMetrics()
    without.update("cup", mask("#."), mask("#."))
    assert np.isnan(without.base_false_positive_rate())


def test_bootstrap_interval_agrees_with_resampling_one_by_one():
    generator = np.random.default_rng(1)
    episodes = [("ab"[i % 2], generator.random((8, 8)) < 0.6, generator.random((8, 8)) < 0.5) for i in range(12)]
    counts = [count_episode(*episode) for episode in episodes]
    mious = []
    for _ in range(2000):
        resample = [counts[index] for index in generator.integers(len(counts), size=len(counts))]
        mious.append(SegmentationMetrics(resample).miou())
    metrics = SegmentationMetrics(counts)
    assert metrics.bootstrap_interval(resamples=20000) == pytest.approx(np.quantile(mious, [0.025, 0.975]), abs=0.01)


def test_bootstrap_interval_is_repeatable_and_holds_the_miou(metrics):
    low, high = metrics.bootstrap_interval()
    assert metrics.bootstrap_interval() == (low, high)
    assert 0 <= low <= metrics.miou() <= high <= 1


@pytest.mark.parametrize(("position", "row", "column"), [(0, 0, 0), (1, 0, 3), (2, 1, 0), (3, 1, 3)])
def test_predicted_tile_counts_row_by_row(position, row, column):
    prediction = np.zeros((2, 4), dtype=bool)
    prediction[row, column] = True
    assert predicted_tile(prediction, (2, 2)) == position


def test_an_empty_prediction_is_in_no_tile():
    assert predicted_tile(np.zeros((4, 4), dtype=bool), (2, 2)) is None
