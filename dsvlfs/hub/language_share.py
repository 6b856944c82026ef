"""The language model's share of a checkpoint. Where it learned nothing it may be left out: the bases give it back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError

LANGUAGE_MODEL = "semantic_encoder.vlm."
"""Where a model's tensors have their adapted LLaVA's."""
LEFT_OUT = {"language_model": "as begun"}
"""Metadata of tensors without it."""

# They are drawn by chance, and matter by what is multiplied with them.
_DRAWN = ("lora_A", "multi_modal_projector.linear_1")
_NOUGHT = ("lora_B", "multi_modal_projector.linear_2.weight")

_OF_LATE = {"semantic_encoder.unknown_words.direction"}
"""Tensors that files of before have not: what they tell is then not known."""


def copy_beginning(share: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `is_as_begun` compares with, of a model that is new: not the embeddings where they are trained whole, which
    are large, and never left out."""
    passed = (*_DRAWN, *_NOUGHT, "modules_to_save")
    return {name: tensor.detach().clone() for name, tensor in share.items() if not any(part in name for part in passed)}


def is_as_begun(share: Mapping[str, Tensor], begun: Mapping[str, Tensor]) -> bool:
    """Whether a new model of the same bases does the same without these tensors.

    Args:
        share: tensors under their names in the model; others are passed over.
        begun: from `copy_beginning`.
    """
    for name, tensor in share.items():
        if not name.startswith(LANGUAGE_MODEL) or any(part in name for part in _DRAWN):
            continue
        if any(part in name for part in _NOUGHT):
            if tensor.is_meta or tensor.any():
                return False
        elif name not in begun or begun[name].is_meta or not torch.equal(tensor.to(begun[name]), begun[name]):
            return False
    return True


def check_fit(
    own: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    file: Path,
    *,
    said: Mapping[str, Any],
    begun: Mapping[str, Tensor],
    silently: bool,
) -> None:
    """Checks that a checkpoint's tensors are a model's, all of them, but for a share that was left out.

    Args:
        own: the model's.
        state: the checkpoint's.
        file: of the latter.
        said: its metadata.
        begun: of the model.
        silently: whether the share may be missing without `LEFT_OUT`, as in files of before.

    Raises:
        InputError: some are missing, too many or of another shape, or the share was left out and the model's own has
            learned something.
    """
    may_lack = silently or LEFT_OUT.items() <= said.items()
    lacks = may_lack and not any(name.startswith(LANGUAGE_MODEL) for name in state)
    named = {name for name in own if not (lacks and name.startswith(LANGUAGE_MODEL))} - (_OF_LATE - state.keys())
    wrong = sorted(named ^ state.keys()) or sorted(n for n in named if own[n].shape != state[n].shape)
    if wrong:
        raise InputError(
            f"The checkpoint {file} does not fit its config.json ({len(wrong)} tensors, first {wrong[0]}); get "
            "both from the same place."
        )
    if lacks and not is_as_begun(own, begun):
        raise InputError(
            f"The checkpoint {file} leaves the language model as its base is, and this model's has learned something; "
            "load the checkpoint with from_pretrained."
        )
