"""Adds names to a checkpoint's fit of names, in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from ..modeling import DSVLFSModel
from .alignment import (
    WIDEST_CLASS,
    SemanticAlignment,
    Text,
    TextStates,
    read_objects,
    set_linear,
    wanted_looks,
)
from .feature_cache import FeatureCache

# Weaker than in the fit of all names: a new name shall say what its own objects look like.
_RIDGE = 100.0


class NamesExtension:
    """The least change of a model's projection to the semantic prompt by which the names of a feature cache tell what
    its supports look like; other names keep their prompts as far as their states differ. It stands where a
    `SemanticAlignment` does.

    Args:
        model: of the tiny size, with a fit of names that no descent has changed.
        cache: finished.
        states: of the same model.

    Raises:
        InputError: the model's projection is no fit in closed form.
    """

    accuracy = None
    """Nothing is held out."""

    def __init__(self, model: DSVLFSModel, cache: FeatureCache, states: TextStates) -> None:
        self._model, self._states = model, states
        grounding = model.grounding
        objects = read_objects(model.config, cache, grounding.centre.cpu())
        own_names = {entry["names"][0] for entry in objects.entries}
        rows = {
            name: own for name, own in objects.rows_of_name().items() if len(own) <= WIDEST_CLASS or name in own_names
        }
        looks = (objects.features @ grounding.basis.cpu().T).double()
        self._wanted, self._weight = wanted_looks(looks, list(rows.values()))
        self._standard = self._standardised([(name, None) for name in rows])
        there, back = model.semantic_encoder.to_prompt(torch.stack([self._standard[0], -self._standard[0]])).detach()
        if not torch.allclose(there, -back, atol=1e-2 * float(there.norm())):
            raise InputError("The checkpoint's names were trained, not fitted; extend_names cannot add to them.")

    @torch.no_grad()
    def apply(self, model: DSVLFSModel) -> None:
        """Extends the projection of the model's prompt; other weights keep theirs."""
        projection = model.semantic_encoder.to_prompt
        standard = self._standard.cpu().double()
        weights = projection(torch.eye(standard.shape[1], device=self._standard.device)).cpu().double()
        missing = self._wanted * model.config.prompt_dim**0.5 - standard @ weights
        kernel = standard @ standard.T
        kernel.diagonal().add_(_RIDGE / self._weight)
        set_linear(projection, (weights + standard.T @ torch.linalg.solve(kernel, missing)).float())

    @torch.no_grad()
    def held_out_prompts(self, texts: list[Text]) -> Tensor:
        """Semantic prompts (len(texts), prompt_dim) as the model has them."""
        return self._model.semantic_encoder.to_prompt(self._standardised(texts))

    def _standardised(self, texts: list[Text]) -> Tensor:
        encoder = self._model.semantic_encoder
        return (self._states(texts).to(encoder.state_mean) - encoder.state_mean) * encoder.state_scale


NamesFit = SemanticAlignment | NamesExtension
"""What gives a run its semantic prompts in the steps without the photo."""
