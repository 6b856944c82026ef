"""Few-shot segmentation's measures: mIoU over classes, FB-IoU, boundary IoU, and false positives on base classes."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

# Share of the image's diagonal, as in Cheng et al. 2021.
BOUNDARY_RATIO = 0.02


@dataclass(frozen=True)
class EpisodeCounts:
    """What an episode adds to the measures, in pixels that are not ignored.

    Args:
        class_name: of the episode's class.
        foreground, background: (intersection, union) of the prediction and the target.
        boundary: (intersection, union) of their boundary regions, which are those of the whole masks, ignored or not.
        base: (covered, all) of the base classes' objects; (0, 0) where they are unknown.
    """

    class_name: str
    foreground: tuple[int, int]
    background: tuple[int, int]
    boundary: tuple[int, int]
    base: tuple[int, int]


def count_episode(
    class_name: str,
    prediction: np.ndarray,
    target: np.ndarray,
    ignore: np.ndarray | None = None,
    base: np.ndarray | None = None,
) -> EpisodeCounts:
    """Counts one episode.

    Args:
        class_name: of the episode's class.
        prediction, target: bool (height, width).
        ignore: bool (height, width), pixels that do not count.
        base: bool (height, width), objects of classes that were trained on; what is also target is left out.

    Raises:
        ValueError: the shapes differ.
    """
    counted = np.ones(target.shape, dtype=bool) if ignore is None else ~ignore
    others = np.zeros(target.shape, dtype=bool) if base is None else base & ~target
    if not prediction.shape == target.shape == counted.shape == others.shape:
        raise ValueError(
            f"prediction is {prediction.shape}, target {target.shape}, ignore {counted.shape} and base {others.shape}; "
            "they must agree."
        )
    boundaries = [boundary_region(mask)[counted] for mask in (prediction, target)]
    prediction, target, others = prediction[counted], target[counted], others[counted]
    return EpisodeCounts(
        class_name,
        foreground=_intersection_and_union(prediction, target),
        background=_intersection_and_union(~prediction, ~target),
        boundary=_intersection_and_union(*boundaries),
        base=(int(np.count_nonzero(prediction & others)), int(np.count_nonzero(others))),
    )


class SegmentationMetrics:
    """Gathers counts, episode by episode.

    A class's IoU is the sum of its episodes' intersections over the sum of their unions; mIoU is the mean of the
    classes' IoU; FB-IoU is the mean of the foreground's and the background's IoU, each over all episodes. Boundary IoU
    (Cheng et al. 2021) is mIoU of the masks' boundary regions. The base-class false-positive rate is the share of the
    pixels of base classes' objects in the queries that the predictions cover, over all episodes. All are fractions in
    [0, 1]. A quotient whose divisor is nought is NaN and left out of a mean. At least one episode must be counted
    before anything is asked.

    Args:
        counts: of episodes counted before.
    """

    def __init__(self, counts: Iterable[EpisodeCounts] = ()) -> None:
        self._counts = list(counts)

    def update(
        self,
        class_name: str,
        prediction: np.ndarray,
        target: np.ndarray,
        ignore: np.ndarray | None = None,
        base: np.ndarray | None = None,
    ) -> None:
        """Counts one episode; the arguments are `count_episode`'s."""
        self._counts.append(count_episode(class_name, prediction, target, ignore, base))

    def iou_by_class(self) -> dict[str, float]:
        """IoU of every class, by name in alphabetical order."""
        return self._quotient_by_class("foreground")

    def boundary_iou_by_class(self) -> dict[str, float]:
        """Boundary IoU of every class, by name in alphabetical order."""
        return self._quotient_by_class("boundary")

    def miou(self, class_names: Collection[str] | None = None) -> float:
        """Mean over the classes of their IoU; None takes all classes."""
        return known_mean(
            iou for name, iou in self.iou_by_class().items() if class_names is None or name in class_names
        )

    def boundary_iou(self) -> float:
        """Mean over the classes of their boundary IoU."""
        return known_mean(self.boundary_iou_by_class().values())

    def fb_iou(self) -> float:
        """Mean of the foreground's and the background's IoU, each over all episodes."""
        totals = np.sum([self._pairs("foreground"), self._pairs("background")], axis=1)
        return known_mean(_quotient(totals[:, 0], totals[:, 1]))

    def base_false_positive_rate(self) -> float:
        """Share of the base classes' pixels that the predictions cover; NaN where no query shows any."""
        covered, pixels = self._pairs("base").sum(axis=0)
        return float(_quotient(covered, pixels))

    def bootstrap_interval(self, confidence: float = 0.95, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
        """Percentile interval of the mIoU under resampling of the episodes, with replacement. A class that a resample
        misses is left out of that resample's mean.

        Returns:
            The lower and the upper end.
        """
        return _percentiles(self._resampled_mious(resamples, seed), confidence)

    def difference_interval(
        self, other: "SegmentationMetrics", confidence: float = 0.95, resamples: int = 1000, seed: int = 0
    ) -> tuple[float, float]:
        """Percentile interval of this mIoU less another's on the same episodes, counted in the same order. Both are
        taken of the same resamples, so what makes an episode hard for both cancels out.

        Returns:
            The lower and the upper end.

        Raises:
            ValueError: the episodes' classes differ.
        """
        if [counts.class_name for counts in self._counts] != [counts.class_name for counts in other._counts]:
            raise ValueError("The two have counted different episodes; count the same ones in the same order.")
        own, others = (metrics._resampled_mious(resamples, seed) for metrics in (self, other))
        return _percentiles(own - others, confidence)

    def _resampled_mious(self, resamples: int, seed: int) -> np.ndarray:
        """(resamples,)."""
        names, column = self._classes()
        pairs = self._pairs("foreground")
        episodes = len(pairs)
        # Each episode's intersection and union in its class's column: (episodes, classes).
        intersections, unions = pairs.T[:, :, None] * np.eye(len(names), dtype=np.int64)[column]
        # How often each resample takes each episode: (resamples, episodes).
        taken = np.random.default_rng(seed).multinomial(episodes, np.full(episodes, 1 / episodes), size=resamples)
        return np.nanmean(_quotient(taken @ intersections, taken @ unions), axis=1)

    def _pairs(self, measure: str) -> np.ndarray:
        """(episodes, 2)."""
        return np.array([getattr(counts, measure) for counts in self._counts], dtype=np.int64)

    def _classes(self) -> tuple[np.ndarray, np.ndarray]:
        """Class names (classes,), and each episode's index among them (episodes,)."""
        return np.unique([counts.class_name for counts in self._counts], return_inverse=True)

    def _quotient_by_class(self, measure: str) -> dict[str, float]:
        names, column = self._classes()
        totals = np.zeros((len(names), 2), dtype=np.int64)
        np.add.at(totals, column, self._pairs(measure))
        return dict(zip(names.tolist(), _quotient(totals[:, 0], totals[:, 1]).tolist(), strict=True))


def boundary_region(mask: np.ndarray, ratio: float = BOUNDARY_RATIO) -> np.ndarray:
    """The part of a mask that lies within a distance of its contour (Cheng et al. 2021, `G_d` intersected with `G`).
    The image's edge counts as contour, and the distance is the chessboard's.

    Args:
        mask: bool (height, width).
        ratio: the distance as a share of the image's diagonal; it is rounded to pixels, at least one.
    """
    distance = max(1, round(ratio * float(np.hypot(*mask.shape))))
    inner = mask
    for axis in (0, 1):
        # A pixel stays where the `distance` pixels on either side are all of the mask: a running sum tells.
        padding = [(0, 0), (0, 0)]
        padding[axis] = (distance + 1, distance)
        sums = np.pad(inner, padding).cumsum(axis=axis, dtype=np.int32)
        length, width = mask.shape[axis], 2 * distance + 1
        after = np.take(sums, range(width, width + length), axis=axis)
        before = np.take(sums, range(length), axis=axis)
        inner = after - before == width
    return mask & ~inner


def predicted_tile(prediction: np.ndarray, layout: tuple[int, int]) -> int | None:
    """The tile of a mosaic that holds most of a prediction.

    Args:
        prediction: bool (height, width), divisible by the layout.
        layout: (rows, columns) of the mosaic.

    Returns:
        Its index, row by row; None where the prediction is empty.
    """
    rows, columns = layout
    height, width = prediction.shape
    pixels = prediction.reshape(rows, height // rows, columns, width // columns).sum(axis=(1, 3))
    return int(pixels.argmax()) if pixels.any() else None


def _intersection_and_union(prediction: np.ndarray, target: np.ndarray) -> tuple[int, int]:
    return int(np.count_nonzero(prediction & target)), int(np.count_nonzero(prediction | target))


def _quotient(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def _percentiles(values: np.ndarray, confidence: float) -> tuple[float, float]:
    low, high = np.nanquantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def known_mean(values: Iterable[float]) -> float:
    """Mean of the values that are not NaN; NaN where there are none."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
