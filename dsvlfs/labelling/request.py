"""What a data set is labelled with, and the labeller that knows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..inference.checks import Mode
from ..modeling import DSVLFSModel
from ..parts.aggregation import Aggregation
from .labeller import LabelClass, Labeller, Sample
from .project import ProjectClass


@dataclass(frozen=True)
class Request:
    """What to look for, and how.

    Args:
        classes: what to label.
        mode: which prompts the mask decoder is given; None takes both for a class with supports, else its name.
        threshold: probability from which on a pixel is foreground, or a shot votes for it.
        min_presence: where the presence is lower, the mask is left empty; None takes the model's.
        aggregation: how several examples become one mask; None takes the model's.
        model: the checkpoint's name.
        instances: tell the objects of a class apart.
        alike: the classes look alike and a photo seldom shows several (`Labeller`).
        keeps_supports: encode each example once for all runs; no label depends on it.
    """

    classes: Sequence[ProjectClass]
    mode: Mode | None = None
    threshold: float = 0.5
    min_presence: float | None = None
    aggregation: Aggregation | None = None
    model: str = "dsvlfs-tiny"
    instances: bool = False
    alike: bool = False
    keeps_supports: bool = False

    def settings(self) -> dict[str, Any]:
        """What two runs must share to write into one folder."""
        own = {name: value for name, value in vars(self).items() if name not in ("classes", "keeps_supports")}
        if not self.alike:  # folders of labels from before there was this setting go on
            del own["alike"]
        return {**own, "classes": {entry.name: entry.settings() for entry in self.classes}}


def fitted(request: Request, device: Any, further: Sequence[Sample] = (), model: DSVLFSModel | None = None) -> Labeller:
    """A labeller that knows the classes.

    Args:
        request: what to look for.
        device: where the model runs.
        further: supports beside those of the request.
        model: the request's, where it is loaded already.

    Raises:
        InputError: an example or a setting cannot be used.
    """
    if model is None:
        model = DSVLFSModel.from_pretrained(request.model)
        model.to(device)
    samples = [
        Sample(*support.load(model), entry.name)
        for entry in request.classes
        for support in (entry.supports if request.mode != "semantic" else ())
    ]
    classes = [
        LabelClass(entry.name, entry.description, entry.threshold, entry.min_presence) for entry in request.classes
    ]
    labeller = Labeller(
        model,
        mode=request.mode,
        threshold=request.threshold,
        min_presence=request.min_presence,
        aggregation=request.aggregation,
        instances=request.instances,
        alike=request.alike,
        keeps_supports=request.keeps_supports,
    )
    return labeller.fit([*samples, *further], classes)
