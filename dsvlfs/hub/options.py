"""The keyword arguments of `from_pretrained`: which concern the hub, which the frozen bases, which the config."""

from collections.abc import Mapping
from typing import Any

from ..configuration import DSVLFSConfig
from ..errors import InputError
from .bases import HUB_OPTIONS

_OF_BASES = (
    "dtype",
    "device_map",
    "quantization_config",
    "attn_implementation",
    "max_memory",
    "offload_folder",
    "offload_buffers",
)
_OF_AUTO_CLASSES = ("trust_remote_code", "adapter_kwargs", "use_safetensors", "_from_auto", "_from_pipeline")


def sort_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Sorts what a user gave; what is None says nothing, and what transformers' Auto classes add means nothing here.

    Returns:
        Options of the hub, of the bases, and changes of the config.

    Raises:
        InputError: a `device_map` names the parts of one base.
    """
    options = {name: value for name, value in options.items() if name not in _OF_AUTO_CLASSES}
    if "torch_dtype" in options:  # as it was called
        options.setdefault("dtype", options.pop("torch_dtype"))
    hub, bases = (
        {name: value for name in names if (value := options.pop(name, None)) is not None}
        for names in (HUB_OPTIONS, _OF_BASES)
    )
    if isinstance(bases.get("device_map"), Mapping) and set(bases["device_map"]) != {""}:
        raise InputError(
            "A device_map of parts is that of one base; give it in image_options or in vlm_options, or name one device "
            "for all."
        )
    return hub, bases, options


def override(config: DSVLFSConfig, changes: Mapping[str, Any]) -> None:
    """Changes a config in place.

    Raises:
        TypeError: it has no such setting.
    """
    for name, value in changes.items():
        if not hasattr(config, name):
            raise TypeError(f"from_pretrained() got an unexpected keyword argument '{name}', nor is it a setting.")
        setattr(config, name, value)
