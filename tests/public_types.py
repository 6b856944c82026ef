"""What a type checker knows of the public names; `mypy` reads this file, nobody runs it."""

from pathlib import Path
from typing import assert_type

import numpy as np
from PIL import Image

from dsvlfs import (
    BaseNotAvailableError,
    DSVLFSConfig,
    DSVLFSModel,
    InputError,
    LabelClass,
    Labeller,
    PhotoLabels,
    Prediction,
    Query,
    Sample,
    Segmentation,
    Support,
)


def every_name(photo: Image.Image, array: np.ndarray, path: Path) -> None:
    """Each use of the README, of docs/segment.md and of docs/label.md."""
    model = DSVLFSModel.from_pretrained("dsvlfs-tiny")
    assert_type(model, DSVLFSModel)
    assert_type(model.config, DSVLFSConfig)
    support = model.encode_support([(photo, array), ("fox.jpg", path)])
    assert_type(support, Support)
    assert_type(Support.join([support, support]), Support)
    assert_type(model.encode_query(photo), Query)
    assert_type(model.encode_query([photo, array]), list[Query])
    result = model.segment(photo, "red fox", support=support, description="red", mode="both", min_presence=0.3)
    assert_type(result, Segmentation)
    assert_type(model.segment(path, "red fox"), Segmentation)
    assert_type(model.segment([path, model.encode_query(path)], "red fox", batch_size=2), list[Segmentation])
    assert_type(result.mask, np.ndarray)
    assert_type(result.presence, float | None)
    found = model.predict(path, "red fox", support=support, modes=["both", "semantic"], aggregation="votes")
    assert_type(found["both"], Prediction)
    assert_type(found["both"].segmentation(0.4), Segmentation)
    labeller = Labeller(model).fit([Sample(photo, array, "red fox")], [LabelClass("wolf")])
    assert_type([labels.mask("red fox") for labels in labeller.predict([path, photo])], list[np.ndarray])
    assert_type(labeller.label(path), PhotoLabels)
    assert_type(DSVLFSConfig.paper(), DSVLFSConfig)
    model.segment(path, "red fox", mode="all")  # type: ignore[call-overload]  # no such mode
    model.segment(path, "red fox", suport=support)  # type: ignore[call-overload]  # no such keyword
    model.segment(path)  # type: ignore[call-overload]  # no class


def errors() -> tuple[type[ValueError], type[OSError]]:
    """What may be caught."""
    return InputError, BaseNotAvailableError
