"""A CVAT auto-annotation function: finds the classes of a labelling project in the frames of a task.

The README beside this file has the commands; what CVAT asks of a function is said in `cvat_sdk.auto_annotation`.
"""

from collections.abc import Iterator
from pathlib import Path

import cvat_sdk.auto_annotation as cvataa
import numpy as np
import torch
from cvat_sdk import models
from cvat_sdk.masks import encode_mask
from PIL import Image

from dsvlfs import Labeller
from dsvlfs.labelling.labelled import LabelledPhoto
from dsvlfs.labelling.polygons import edge_polygons
from dsvlfs.labelling.project import read_project
from dsvlfs.labelling.request import Request, fitted


class Function:
    """A detection function.

    Args:
        labeller: that knows the classes.
    """

    def __init__(self, labeller: Labeller) -> None:
        self._labeller = labeller
        labels = [cvataa.label_spec(name, number, type="mask") for number, name in enumerate(labeller.class_names, 1)]
        self._spec = cvataa.DetectionFunctionSpec(labels=labels)

    @property
    def spec(self) -> cvataa.DetectionFunctionSpec:
        """A label of masks a class, by the class's name and number."""
        return self._spec

    def detect(self, context: cvataa.DetectionFunctionContext, image: Image.Image) -> list[models.LabeledShapeRequest]:
        """A mask a class, or a mask an object, or their polygons, as the context asks.

        Args:
            context: its `conf_threshold` is the least score, a mask's mean probability.
            image: a frame.
        """
        found = LabelledPhoto.of(context.frame_name, self._labeller.label(image))
        least = context.conf_threshold or 0.0
        return [
            shape
            for region in found.regions()
            if region.score >= least
            for shape in _shapes(region.class_number, region.mask, region.score, polygons=context.conv_mask_to_poly)
        ]


def create(
    project: str,
    *,
    model: str = "dsvlfs-tiny",
    instances: bool = False,
    threshold: float = 0.5,
    min_presence: float | None = None,
    device: str | None = None,
) -> Function:
    """Makes the function; `cvat-cli` passes what `-p` says.

    Args:
        project: as `dsvlfs label --project` takes it: a YAML file, a folder, or COCO's JSON.
        model: checkpoint.
        instances: a mask an object, not a class.
        threshold: probability from which on a pixel is foreground.
        min_presence: where the presence is lower, nothing is found; None takes the model's.
        device: where the model runs; None takes a GPU where there is one.

    Raises:
        InputError: the project cannot be used.
    """
    request = Request(
        read_project(Path(project)),
        model=model,
        instances=instances,
        threshold=threshold,
        min_presence=min_presence,
        keeps_supports=True,
    )
    return Function(fitted(request, device or ("cuda" if torch.cuda.is_available() else "cpu")))


def _shapes(label: int, mask: np.ndarray, score: float, *, polygons: bool) -> Iterator[models.LabeledShapeRequest]:
    if not polygons:
        yield cvataa.mask(label, encode_mask(mask), score=score)
        return
    for ring in edge_polygons(mask):
        yield cvataa.polygon(label, np.round(ring, 2).ravel().tolist(), score=score)
