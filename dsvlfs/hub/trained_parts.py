"""The parts that a size may or may not have, as its config describes them; None where it has none."""

from ..configuration import DSVLFSConfig
from ..errors import InputError
from ..parts.class_memory import ClassMemory
from ..parts.grounding import SemanticGrounding
from ..parts.mask_decoder import EmbeddingNeck
from ..parts.request_fit import RequestFit
from .assembly import layer_channels


def new_neck(config: DSVLFSConfig) -> EmbeddingNeck | None:
    """What fuses layers to the decoder's image embedding."""
    if not config.embedding_layers:
        return None
    inputs = sum(layer_channels(config, name) for name in config.embedding_layers)
    return EmbeddingNeck(inputs=inputs, outputs=config.prompt_dim)


def new_grounding(config: DSVLFSConfig) -> SemanticGrounding | None:
    """The map of the semantic prompt.

    Raises:
        InputError: `name_trust`, `name_doubt` or `stranger_margin` needs it, or supports that it can read.
    """
    for name in ("name_trust", "name_doubt", "stranger_margin"):
        is_asked = getattr(config, name) is not None
        if is_asked and not {*(config.grounding_layers or [""])} <= {*config.correlation_layers}:
            raise InputError(f"{name} needs grounding_layers, all of them among correlation_layers; leave it out.")
    if not config.grounding_layers:
        return None
    channels = [layer_channels(config, name) for name in config.grounding_layers]
    return SemanticGrounding(channels=channels, prompt_dim=config.prompt_dim)


def new_request_fit(config: DSVLFSConfig) -> RequestFit | None:
    """The fit to the request.

    Raises:
        InputError: there is none, but what needs it is asked for.
    """
    if config.fit_ridge is None:
        for name in ("fit_loss_weight", "whole_weight"):
            if getattr(config, name):
                raise InputError(f"{name} needs the fit to the request; give fit_ridge, or leave it out.")
        return None
    return RequestFit(
        prompt_dim=config.prompt_dim, ridge=config.fit_ridge, share=config.fit_weight, doubt=config.fit_doubt
    )


def new_class_memory(config: DSVLFSConfig) -> ClassMemory | None:
    """The memory of the classes that the config names, which knows nothing of them yet.

    Raises:
        InputError: there is no fit to the request, in whose place it stands.
    """
    if not config.remembered_classes:
        return None
    if config.fit_ridge is None:
        raise InputError("remembered_classes need the fit to the request; give fit_ridge, or leave them out.")
    channels = sum(layer_channels(config, name) for name in config.correlation_layers)
    return ClassMemory(classes=len(config.remembered_classes), channels=channels)
