"""Models of transformers that have been asked for hidden states, made fit to be pickled and copied.

transformers captures hidden states by forward hooks that it puts on a model when it is first asked, and by a list of
the classes that were made in this process. Such hooks cannot be pickled, and another process has another list.
"""

from torch import nn
from transformers import PreTrainedModel
from transformers.utils.output_capturing import _CAN_RECORD_REGISTRY

_INSTALLED = "_output_capturing_hooks_installed"


def remove_capture_hooks(model: nn.Module) -> None:
    """Takes the hooks off, as before the first question; the next one puts them on again. Not while another thread
    asks."""
    for module in model.modules():
        for key, hook in list(module._forward_hooks.items()):
            if getattr(hook, "__name__", "") == "output_capturing_hook":
                del module._forward_hooks[key]
        if hasattr(module, _INSTALLED):
            delattr(module, _INSTALLED)


def list_for_capture(model: nn.Module) -> None:
    """Lists the classes of transformers' models, as making them does."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            _CAN_RECORD_REGISTRY[module] = module._can_record_outputs
