"""Few-shot segmentation's measures: mIoU over classes, and FB-IoU."""

import numpy as np


class SegmentationMetrics:
    """Gathers intersections and unions, episode by episode.

    A class's IoU is the sum of its episodes' intersections over the sum of their unions; mIoU is the mean of the
    classes' IoU; FB-IoU is the mean of the foreground's and the background's IoU, each over all episodes. All are
    fractions in [0, 1]. An IoU whose union is empty is NaN and left out of a mean. At least one episode must be
    counted before anything is asked.
    """

    def __init__(self) -> None:
        self._class_names: list[str] = []
        # (intersection, union) in pixels, an episode each.
        self._foreground: list[tuple[int, int]] = []
        self._background: list[tuple[int, int]] = []

    def update(
        self, class_name: str, prediction: np.ndarray, target: np.ndarray, ignore: np.ndarray | None = None
    ) -> None:
        """Counts one episode.

        Args:
            class_name: of the episode's class.
            prediction, target: bool (height, width).
            ignore: bool (height, width), pixels that do not count.

        Raises:
            ValueError: the shapes differ.
        """
        counted = np.ones(target.shape, dtype=bool) if ignore is None else ~ignore
        if not prediction.shape == target.shape == counted.shape:
            raise ValueError(
                f"prediction is {prediction.shape}, target {target.shape} and ignore {counted.shape}; they must agree."
            )
        prediction, target = prediction[counted], target[counted]
        self._class_names.append(class_name)
        self._foreground.append(_intersection_and_union(prediction, target))
        self._background.append(_intersection_and_union(~prediction, ~target))

    def iou_by_class(self) -> dict[str, float]:
        """IoU of every class, by name in alphabetical order."""
        names, intersections, unions = self._counts_by_class()
        iou = _quotient(intersections.sum(axis=0), unions.sum(axis=0))
        return dict(zip(names.tolist(), iou.tolist(), strict=True))

    def miou(self) -> float:
        """Mean over the classes of their IoU."""
        return float(np.nanmean(list(self.iou_by_class().values())))

    def fb_iou(self) -> float:
        """Mean of the foreground's and the background's IoU, each over all episodes."""
        totals = np.sum([self._foreground, self._background], axis=1)
        return float(np.nanmean(_quotient(totals[:, 0], totals[:, 1])))

    def bootstrap_interval(self, confidence: float = 0.95, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
        """Percentile interval of the mIoU under resampling of the episodes, with replacement. A class that a resample
        misses is left out of that resample's mean.

        Returns:
            The lower and the upper end.
        """
        _, intersections, unions = self._counts_by_class()
        episodes = len(unions)
        # How often each resample takes each episode: (resamples, episodes).
        taken = np.random.default_rng(seed).multinomial(episodes, np.full(episodes, 1 / episodes), size=resamples)
        mious = np.nanmean(_quotient(taken @ intersections, taken @ unions), axis=1)
        low, high = np.nanquantile(mious, [(1 - confidence) / 2, (1 + confidence) / 2])
        return float(low), float(high)

    def _counts_by_class(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Class names (classes,), and the foreground's intersections and unions (episodes, classes), each episode's in
        its class's column."""
        names, column = np.unique(self._class_names, return_inverse=True)
        membership = np.eye(len(names), dtype=np.int64)[column]
        intersections, unions = np.array(self._foreground).T[:, :, None] * membership
        return names, intersections, unions


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
    return np.count_nonzero(prediction & target), np.count_nonzero(prediction | target)


def _quotient(intersection: np.ndarray, union: np.ndarray) -> np.ndarray:
    return np.divide(intersection, union, out=np.full(union.shape, np.nan), where=union > 0)
