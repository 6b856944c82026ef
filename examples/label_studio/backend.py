"""What Label Studio asks of a model: predictions for tasks, and to learn from annotations."""

import hashlib
import json
import logging
import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from accepted import Accepted
from label_studio_sdk import LabelStudio
from label_studio_sdk._extensions.label_studio_tools.core.utils.io import get_local_path
from label_studio_sdk.converter.brush import decode_rle
from label_studio_sdk.label_interface import LabelInterface

from dsvlfs import DSVLFSModel, InputError, Labeller, __version__
from dsvlfs.labelling.formats.label_studio import brush_regions
from dsvlfs.labelling.labelled import LabelledPhoto
from dsvlfs.labelling.project import ProjectClass
from dsvlfs.labelling.request import Request, fitted

log = logging.getLogger(__name__)

Json = dict[str, Any]


class Interface:
    """The part of a project's labelling interface that is drawn on.

    Args:
        config: its XML.

    Raises:
        InputError: it has no brush with labels over an image.
    """

    def __init__(self, config: str) -> None:
        read = LabelInterface(config)
        try:
            self.control, self.image, self.value = read.get_first_tag_occurence("BrushLabels", "Image")
        except ValueError:
            raise InputError("The labelling interface has no BrushLabels over an Image; add them.") from None
        self.class_names: list[str] = list(read.get_control(self.control).labels)

    def masks(self, result: Iterable[Json]) -> dict[str, np.ndarray]:
        """What a person drew, bool (height, width) of the photo, by class.

        Args:
            result: of an annotation.
        """
        masks: dict[str, np.ndarray] = {}
        for region in result:
            value = region.get("value", {})
            if region.get("from_name") != self.control or "rle" not in value:
                continue
            pixels = decode_rle(value["rle"]).reshape(region["original_height"], region["original_width"], 4)
            for name in value.get("brushlabels", ()):
                masks[name] = masks.get(name, False) | (pixels[:, :, 3] > 0)
        return masks


class Backend:
    """Predicts brush masks, with what people accepted as further supports.

    Args:
        model: that segments.
        folder: where the supports are kept, a folder a project.
        classes: what is known of classes beforehand, by the names of their labels.
        instances: a brush mask an object, not a class.
    """

    def __init__(
        self, model: DSVLFSModel, folder: Path, classes: Sequence[ProjectClass] = (), *, instances: bool = False
    ) -> None:
        self._model = model
        self._folder = folder
        self._given = {entry.name: entry for entry in classes}
        self._instances = instances
        self._fitted: dict[str, tuple[str, Labeller]] = {}
        self._one_at_a_time = threading.Lock()

    def version(self, project: str, config: str) -> str:
        """Another text for other supports: Label Studio keeps a task's predictions as long as it is the same.

        Args:
            project: number.
            config: the labelling interface.
        """
        with self._one_at_a_time:
            return _version(self._request(project, Interface(config)))

    def predict(self, project: str, config: str, tasks: Sequence[Json]) -> list[list[Json]]:
        """Predictions, a list a task: one, or none where the photo cannot be had.

        Args:
            project: number.
            config: the labelling interface.
            tasks: as Label Studio sends them.

        Raises:
            InputError: the labelling interface or a support cannot be used.
        """
        interface = Interface(config)
        with self._one_at_a_time:
            request = self._request(project, interface)
            version = _version(request)
            if self._fitted.get(project, ("",))[0] != version:
                self._fitted[project] = version, fitted(request, None, model=self._model)
            labeller = self._fitted[project][1]
            return [_predicted(task, interface, labeller, version) for task in tasks]

    def fit(self, event: str, data: Json) -> None:
        """Takes an annotation as supports, or takes its supports away; all of a project's at `START_TRAINING`.

        Annotations that are made of predictions in bulk (`ANNOTATIONS_CREATED`) no one has looked at: they are none.

        Args:
            event: name of Label Studio's webhook.
            data: what it sends.

        Raises:
            InputError: the labelling interface cannot be used, or the photo cannot be had.
        """
        project = data["project"]
        accepted = Accepted(self._folder / str(int(project["id"])))
        with self._one_at_a_time:
            match event:
                case "ANNOTATION_CREATED" | "ANNOTATION_UPDATED":
                    _learn(accepted, Interface(project["label_config"]), data["task"], [data["annotation"]])
                case "ANNOTATIONS_DELETED":
                    accepted.forget({entry["id"] for entry in data["annotations"]})
                case "START_TRAINING":
                    for task in _client().tasks.list(project=project["id"], fields="all"):
                        known = task.model_dump()
                        _learn(accepted, Interface(project["label_config"]), known, known["annotations"])

    def _request(self, project: str, interface: Interface) -> Request:
        """What to look for: the classes of the labelling interface, with the supports that there are by now."""
        accepted = Accepted(self._folder / str(int(project))).classes()
        classes = []
        for name in interface.class_names:
            known = self._given.get(name, ProjectClass(name))
            further = accepted[name].supports if name in accepted else ()
            classes.append(replace(known, supports=[*known.supports, *further]))
        return Request(classes, instances=self._instances)


def _version(request: Request) -> str:
    settings = json.dumps(request.settings(), sort_keys=True, default=str)
    return f"dsvlfs {__version__} {hashlib.sha256(settings.encode()).hexdigest()[:8]}"


def _predicted(task: Json, interface: Interface, labeller: Labeller, version: str) -> list[Json]:
    try:
        labels = labeller.label(_photo(task, interface))
    except InputError as error:  # the other tasks' photos are not to wait for this one's
        log.warning("Task %s: %s", task["id"], error)
        return []
    result = brush_regions(
        LabelledPhoto.of(str(task["id"]), labels), labels.class_names, interface.control, interface.image
    )
    score = min((entry["score"] for entry in result), default=0.0)
    return [{"model_version": version, "score": score, "result": result}]


def _learn(accepted: Accepted, interface: Interface, task: Json, annotations: Iterable[Json]) -> None:
    for annotation in annotations:
        masks = {} if annotation.get("was_cancelled") else interface.masks(annotation["result"])
        known = {name: mask for name, mask in masks.items() if name in interface.class_names}
        accepted.keep(annotation["id"], _photo(task, interface), known)


def _client() -> LabelStudio:
    try:
        return LabelStudio(base_url=os.environ["LABEL_STUDIO_URL"], api_key=os.environ["LABEL_STUDIO_API_KEY"])
    except KeyError as error:
        raise InputError(f"All annotations are asked of Label Studio; set {error.args[0]}.") from None


def _photo(task: Json, interface: Interface) -> Path:
    """A task's photo, fetched where it is not on this machine. Raises InputError where it cannot be had."""
    address = task["data"].get(interface.value)
    try:
        return Path(get_local_path(address, task_id=task["id"]))
    except Exception as error:  # of the network, of the disk, of an address that is none
        raise InputError(f"The photo {address} cannot be had ({error}); set LABEL_STUDIO_URL and _API_KEY.") from error
