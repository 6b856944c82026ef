"""Which class a pixel belongs to, where several claim it; and what that makes of their masks."""

from collections.abc import Container, Sequence
from typing import TypedDict

import numpy as np
from PIL import Image
from scipy import ndimage

from ..inference.calibration import expected_iou
from ..inference.results import Prediction, Segmentation
from .closer import CloserPrediction
from .instances import objects_of
from .labels import Figures, ObjectFigures

MOST_OBJECTS = 2**16 - 1  # of a map's 16 bits

GRAIN = 64
"""Cells of the longer side: what is finer does not decide whose a pixel is."""
THERE = 0.5
"""Power of a class's presence in what its claim weighs: classes that look alike need it, classes of one photo do not
(`docs/experiments.md`)."""
NEARLY = 0.9
"""Share of the largest presence in a photo, under which a class that looks like others is not taken to be there."""
REMNANT = 0.05
"""Share of what a class claims, under which what others leave of it is none of it."""

SMALL_IS_WORSE = 0.1
"""Power of an object's share of the photo in its score: small ones are wrong more often than their probability says
(`docs/experiments.md`)."""

AnyPrediction = Prediction | CloserPrediction


class Cut(TypedDict):
    """How a mask is made of a prediction, as `Prediction.segmentation` takes it."""

    threshold: float
    min_presence: float | None


Asked = tuple[AnyPrediction, Cut]
"""What the model says of a class, and how its mask is made of that."""


def settle(predictions: Sequence[Asked], class_map: np.ndarray, *, alike: bool = False) -> tuple[Figures, ...]:
    """Gives each pixel to the class that is surest of its surroundings (`GRAIN`) and of being in the photo at all: the
    calibrated probability times a power of the presence (`THERE`). A class that others leave next to nothing
    (`REMNANT`) gets none.

    Args:
        predictions: of each class, and the threshold and least presence of its mask.
        class_map: (height, width) of nought, to be filled.
        alike: the classes look alike, and a photo seldom shows several: only those get pixels whose presence is within
            `NEARLY` of the largest.

    Returns:
        The figures of each class's mask, as it is in the map.
    """
    claimed, figures = _share_out(predictions, class_map, set())
    less = _less_present(claimed, figures) if alike else set()
    if less:
        class_map[:] = 0
        _share_out(predictions, class_map, less)
    kept = np.bincount(class_map.ravel(), minlength=len(predictions) + 1)[1:]
    if remnants := {place for place, count in enumerate(kept) if 0 < count < REMNANT * claimed[place]}:
        class_map[:] = 0
        _share_out(predictions, class_map, less | remnants)
        kept = np.bincount(class_map.ravel(), minlength=len(predictions) + 1)[1:]
    for place, (prediction, cut) in enumerate(predictions):
        if kept[place] != claimed[place]:
            found, mask = prediction.segmentation(**cut), class_map == place + 1
            expected = None if prediction.calibration is None else expected_iou(mask, _certain(prediction, found))
            figures[place] = figures_of(found, mask, expected)
    return tuple(figures)


def _share_out(
    predictions: Sequence[Asked], class_map: np.ndarray, left_out: Container[int]
) -> tuple[list[int], list[Figures]]:
    """Fills the map, and gives each class's pixels and figures before others took theirs; those at some places of the
    list are left out, and get no figures."""
    surest = np.zeros(class_map.shape, dtype=np.float32)
    claimed, figures = [], []
    for place, (prediction, cut) in enumerate(predictions):  # one by one: a large photo's maps take much memory
        if place in left_out:
            continue
        found = prediction.segmentation(**cut)
        claimed.append(np.count_nonzero(found.mask))
        figures.append(figures_of(found, found.mask))
        if not claimed[-1]:
            continue
        certain = _around(_certain(prediction, found)) * _there(found)
        wins = found.mask & (certain > surest)
        class_map[wins] = place + 1
        surest[wins] = certain[wins]
    return claimed, figures


def _less_present(claimed: Sequence[int], figures: Sequence[Figures]) -> set[int]:
    """The places of classes that claim pixels and are clearly less present than another that does; none where the model
    does not say."""
    presences = {place: figures[place].presence for place, count in enumerate(claimed) if count}
    known = {place: presence for place, presence in presences.items() if presence is not None}
    most = max(known.values(), default=0.0)
    return {place for place, presence in known.items() if presence < NEARLY * most}


def _there(found: Segmentation) -> float:
    """What the class's being in the photo counts; 1 where the model does not say."""
    presence = getattr(found, "presence", None)  # a model that has no calibration need not have it
    return 1.0 if presence is None else float(presence) ** THERE


def _around(certain: np.ndarray) -> np.ndarray:
    """A map (height, width) without what is finer than `GRAIN`."""
    height, width = certain.shape
    scale = GRAIN / max(height, width)
    if scale >= 1:
        return certain
    size = max(1, round(width * scale)), max(1, round(height * scale))
    coarse = Image.fromarray(certain).resize(size, Image.Resampling.BOX)
    return np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR))


def objects_in(
    predictions: Sequence[Asked],
    figures: Sequence[Figures],
    class_map: np.ndarray,
) -> tuple[tuple[ObjectFigures, ...], np.ndarray]:
    """The objects of all classes, and the map of their numbers, uint16 (height, width)."""
    object_map, objects = np.zeros(class_map.shape, np.uint16), []
    for number, ((prediction, cut), known) in enumerate(zip(predictions, figures), 1):
        mask = class_map == number
        if not mask.any():
            continue
        found = prediction.segmentation(**cut)
        certain = _certain(prediction, found)
        numbers = objects_of(mask, found.probability)
        # What of the class is outside its mask is shared out: no object is known to have lost more than another.
        loss = None if known.expected_iou is None else known.expected_iou / max(float(certain[mask].mean()), 1e-6)
        for object_number, place in enumerate(ndimage.find_objects(numbers)[: MOST_OBJECTS - len(objects)], 1):
            if place is None:  # too thin for the photo's pixels
                continue
            inside = numbers[place] == object_number
            area = int(np.count_nonzero(inside))
            objects.append(
                ObjectFigures(
                    class_number=number,
                    box=(
                        place[1].start,
                        place[0].start,
                        place[1].stop - place[1].start,
                        place[0].stop - place[0].start,
                    ),
                    area=area,
                    score=float(found.probability[place][inside].mean()) * (area / mask.size) ** SMALL_IS_WORSE,
                    expected_iou=None if loss is None else min(1.0, loss * float(certain[place][inside].mean())),
                )
            )
            object_map[place][inside] = len(objects)
    return tuple(objects), object_map


def _certain(prediction: AnyPrediction, found: Segmentation) -> np.ndarray:
    """The calibrated probability, or the model's own where it has no calibration."""
    return found.probability if prediction.calibration is None else prediction.calibrated()


def figures_of(found: Segmentation, mask: np.ndarray, expected: float | None = None) -> Figures:
    """Of a mask that is the result's, or what other classes left of it; then with its own expected IoU."""
    # A model that has no calibration need not have these.
    own = {name: getattr(found, name, None) for name in ("expected_iou", "presence", "is_emptied")}
    return Figures(
        area_percent=100 * float(mask.mean()),
        score=float(found.probability[mask].mean()) if mask.any() else 0.0,
        expected_iou=own["expected_iou"] if expected is None else expected,
        presence=own["presence"],
        is_emptied=bool(own["is_emptied"]),
    )
