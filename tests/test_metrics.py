import numpy as np
import pytest

from dsvlfs.metrics import SegmentationMetrics, predicted_tile


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


def test_measures_agree_with_a_confusion_matrix():
    generator = np.random.default_rng(0)
    metrics, confusion = SegmentationMetrics(), {name: np.zeros((2, 2)) for name in "abc"}
    for _ in range(20):
        name, (prediction, target) = generator.choice(list("abc")), generator.random((2, 9, 7)) < 0.4
        metrics.update(name, prediction, target)
        np.add.at(confusion[name], (target.astype(int), prediction.astype(int)), 1)
    ious = {name: c[1, 1] / (c.sum() - c[0, 0]) for name, c in confusion.items()}
    total = sum(confusion.values())
    region_ious = np.diag(total) / (total.sum(axis=0) + total.sum(axis=1) - np.diag(total))
    assert metrics.iou_by_class() == pytest.approx(ious)
    assert metrics.miou() == pytest.approx(np.mean(list(ious.values())))
    assert metrics.fb_iou() == pytest.approx(region_ious.mean())


def test_bootstrap_interval_agrees_with_resampling_one_by_one():
    generator = np.random.default_rng(1)
    episodes = [("ab"[i % 2], generator.random((8, 8)) < 0.6, generator.random((8, 8)) < 0.5) for i in range(12)]
    metrics = SegmentationMetrics()
    for episode in episodes:
        metrics.update(*episode)
    mious = []
    for _ in range(2000):
        resample = SegmentationMetrics()
        for index in generator.integers(len(episodes), size=len(episodes)):
            resample.update(*episodes[index])
        mious.append(resample.miou())
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
