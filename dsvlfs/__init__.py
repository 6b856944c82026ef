"""Few-shot segmentation by a semantic and a visual prompt (DSV-LFS, arXiv 2503.04006)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .collecting import uncollected
from .registration import introduce

if TYPE_CHECKING:
    from .configuration import DSVLFSConfig
    from .errors import BaseNotAvailableError, InputError
    from .inference.encoded import Query, Support
    from .inference.results import Prediction, Segmentation
    from .labelling.labeller import LabelClass, Labeller, Sample
    from .labelling.labels import PhotoLabels
    from .modeling import DSVLFSModel
    from .processing import DSVLFSProcessor

__all__ = [
    "BaseNotAvailableError",
    "DSVLFSConfig",
    "DSVLFSModel",
    "DSVLFSProcessor",
    "InputError",
    "LabelClass",
    "Labeller",
    "PhotoLabels",
    "Prediction",
    "Query",
    "Sample",
    "Segmentation",
    "Support",
]
__version__ = "0.1.0"

_HOMES = {
    "BaseNotAvailableError": "errors",
    "DSVLFSConfig": "configuration",
    "DSVLFSModel": "modeling",
    "DSVLFSProcessor": "processing",
    "InputError": "errors",
    "LabelClass": "labelling.labeller",
    "Labeller": "labelling.labeller",
    "PhotoLabels": "labelling.labels",
    "Prediction": "inference.results",
    "Query": "inference.encoded",
    "Sample": "labelling.labeller",
    "Segmentation": "inference.results",
    "Support": "inference.encoded",
}


def __getattr__(name: str) -> Any:
    """Imports on first use: `dsvlfs --help` needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dsvlfs' has no attribute '{name}'")
    with uncollected():
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)


introduce()
