"""Starts the semantic prompt in a space that names and photos share, in closed form.

The language model's states at `<SEM_prompt>` differ little between classes. Standardised, a ridge regression from them
to the features of the classes' photos generalises to names that no photo was shown for; gradient descent on a few
hundred classes overfits instead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from statistics import mode

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from ..configuration import DSVLFSConfig
from ..descriptions.made_up import made_up_names
from ..errors import InputError
from ..hub.checkpoint_files import write_tensors
from ..hub.imagenet_classes import ImagenetClasses
from ..modeling import DSVLFSModel
from ..parts.grounding import normalise
from .class_texts import describe_classes
from .classifier_looks import ClassifierLooks
from .feature_cache import FeatureCache

Text = tuple[str, str | None]

WIDEST_CLASS = 80
"""A class of more supports than these is too wide to look like one thing."""

# Strength of the fit of looks to states, which are standardised.
_RIDGE = 1000.0

# How much a class's look that is told by the classifier counts, against one photo's.
_TOLD_WEIGHT = 1.0
_FOLDS = 10

# Other words than episodes are asked for, so that what is measured with those was not fitted to them.
_MEANINGLESS = [(word, None) for word in made_up_names(seed=12)]


class TextStates:
    """The language model's states at `<SEM_prompt>` for texts read with photo tokens that say nothing yet, each
    computed once and kept in a file.

    Args:
        model: whose language model is not adapted yet.
        file: of the states computed before; made where it is missing.

    Raises:
        InputError: the file is damaged.
    """

    def __init__(self, model: DSVLFSModel, file: Path) -> None:
        self.model = model
        self.file = file
        try:
            self._states = load_file(file) if file.exists() else {}
        except (OSError, SafetensorError) as error:
            raise InputError(f"The texts' states {file} are damaged ({error}); delete the file.") from error

    @torch.no_grad()
    def __call__(self, texts: list[Text]) -> Tensor:
        """States (len(texts), width)."""
        new = [text for text in dict.fromkeys(texts) if _key(text) not in self._states]
        new.sort(key=lambda text: len(text[0]) * 2 + len(text[1] or ""))  # little padding
        encoder = self.model.semantic_encoder
        training = encoder.training
        encoder.eval()  # no dropout: a state is kept for good
        for start in tqdm(range(0, len(new), 16), desc="texts", disable=len(new) < 16):
            part = new[start : start + 16]
            question = self.model.processor.question(part).to(self.model.device)
            tokens = encoder.silent_tokens(len(part))
            states = encoder.class_state(tokens, question)
            self._states |= {_key(text): state.cpu() for text, state in zip(part, states)}
        encoder.train(training)
        if new:
            write_tensors(self.file, self._states)
        return torch.stack([self._states[_key(text)] for text in texts])


def _key(text: Text) -> str:
    return f"{text[0]}\n{text[1] or ''}"


@dataclass(frozen=True)
class Objects:
    """The cache's supports: features (objects, features) of unit length, their entries in it, and the mean that was
    taken off the features."""

    features: Tensor
    entries: list[dict]
    centre: Tensor

    def rows_of_name(self) -> dict[str, list[int]]:
        """The objects of each name."""
        rows = defaultdict(list)
        for index, entry in enumerate(self.entries):
            for name in entry["names"]:
                rows[name].append(index)
        return dict(rows)


class SemanticAlignment:
    """Fits the model's semantic prompt to the supports of a feature cache: the standardisation of the state, which
    words the language model does not know, the projection to the prompt, and the space of `SemanticGrounding`.

    A model gets the fit to all classes (`apply`). For training there is a second fit, `held_out_prompts`: there no
    family of classes was used to predict its own members, so the decoder learns to trust a name as far as a new one
    deserves.

    Args:
        model: the tiny size; it is left as it is. Where it has a grounding space already, that stays the space, for its
            decoder has learned to read it.
        cache: finished.
        states: of the same model.
        description_noise: share of no help among the descriptions that are fitted to as well (`describe_classes`): the
            prompt then says what the class's name says, whatever comes with it. 0 fits to names and definitions alone.
        unseen: further names that `held_out_prompts` is asked for; nothing is fitted to them.
        classes: of the vision tower's classifier, whose names are fitted to as well (`ClassifierLooks`); None leaves
            them out.
    """

    def __init__(
        self,
        model: DSVLFSModel,
        cache: FeatureCache,
        states: TextStates,
        *,
        description_noise: float = 0.0,
        unseen: Collection[str] = (),
        classes: ImagenetClasses | None = None,
    ) -> None:
        grounding = model.grounding
        has_space = bool(grounding.basis.any())
        objects = read_objects(model.config, cache, grounding.centre.cpu() if has_space else None)
        self._centre = objects.centre
        rows_of_name = objects.rows_of_name()
        shown = [item for query in cache.names("queries").values() for item in query["objects"]]
        definitions = {(e["names"][0], e["definition"]) for e in (*objects.entries, *shown) if e["definition"]}
        names = sorted(rows_of_name.keys() | {name for item in shown for name in item["names"]})
        self._texts = [*((name, None) for name in names), *sorted(definitions)]
        plain = len(self._texts)
        if description_noise:
            described = describe_classes(cache, description_noise)
            further = [(name, text) for name, texts in described.items() for text in texts]
            self._texts += [text for text in dict.fromkeys(further) if text not in definitions]
        own_names = {entry["names"][0] for entry in objects.entries}
        rows = [
            own if len(own := rows_of_name.get(name, [])) <= WIDEST_CLASS or name in own_names else []
            for name, _ in self._texts
        ]
        told = ClassifierLooks(classes or ImagenetClasses([], torch.zeros(0, 1)), objects.entries)
        self._texts += [(name, None) for name in told.names]
        state = states(self._texts)
        self._mean, self._scale = state.mean(dim=0), 1 / state.std(dim=0, correction=0).clamp(min=1e-3)
        standard = ((state - self._mean) * self._scale).double()
        self._meaningless: Tensor | None = None
        if model.config.unknown_word is not None:
            self._meaningless = (states(_MEANINGLESS) - self._mean) * self._scale
        self._basis = grounding.basis.cpu().clone()
        if not has_space:
            directions = torch.linalg.svd(objects.features, full_matrices=False).Vh[: len(self._basis)]
            self._basis[: len(directions)] = directions  # fewer objects than dimensions leave some empty
        looks = (objects.features @ self._basis.T).double()
        folds = torch.tensor(_folds(objects.entries, rows_of_name))

        def fit(fold: int | None) -> Tensor:
            """Weights (width, prompt_dim) from states to looks, without the objects of a fold and the classes that are
            told to be like them."""
            used = torch.ones(len(folds), dtype=torch.bool) if fold is None else folds != fold
            wanted, weight = wanted_looks(looks, [[i for i in own if used[i]] for own in rows])
            wanted = torch.cat([wanted, told.predict(looks, used)])
            weight = torch.cat([weight, _TOLD_WEIGHT * used[told.nearest].double()])
            return _ridge(standard, wanted, weight)

        weights = fit(None)
        # Prompts have the scale of the decoder's own tokens.
        factor = model.config.prompt_dim**0.5 / (standard[:plain] @ weights).norm(dim=1).mean().clamp(min=1e-6)
        self._weights = (weights * factor).float()
        self._held_out = (standard @ weights * factor).float()
        fold_of_text = torch.tensor(
            [*(mode(folds[own].tolist()) if own else -1 for own in rows), *folds[told.nearest].tolist()]
        )
        for fold in range(_FOLDS):
            chosen = fold_of_text == fold
            self._held_out[chosen] = (standard[chosen] @ fit(fold) * factor).float()
        self._index = {text: index for index, text in enumerate(self._texts)}
        if further := [(name, None) for name in unseen if (name, None) not in self._index]:
            standard = ((states(further) - self._mean) * self._scale).double()
            self._index |= {text: len(self._texts) + index for index, text in enumerate(further)}
            self._held_out = torch.cat([self._held_out, (standard @ weights * factor).float()])
        self.accuracy = _tile_accuracy(self._held_out[:plain], looks.float(), rows[:plain])

    @torch.no_grad()
    def apply(self, model: DSVLFSModel) -> None:
        """Sets the model's standardisation, what it knows of unknown words, its projection and grounding space; other
        weights keep theirs."""
        encoder, grounding = model.semantic_encoder, model.grounding
        encoder.state_mean.copy_(self._mean)
        encoder.state_scale.copy_(self._scale)
        if self._meaningless is not None:
            encoder.unknown_words.fit(self._meaningless)
        set_linear(encoder.to_prompt, self._weights)
        grounding.centre.copy_(self._centre)
        grounding.basis.copy_(self._basis)

    def held_out_prompts(self, texts: list[Text]) -> Tensor:
        """Semantic prompts (len(texts), prompt_dim) of texts of the cache, each from a fit without its family."""
        return self._held_out[[self._index[text] for text in texts]]


def read_objects(config: DSVLFSConfig, cache: FeatureCache, centre: Tensor | None = None) -> Objects:
    """The cache's supports; without `centre`, their own mean is taken off.

    Raises:
        InputError: the cache keeps pixels in place of a layer of the grounding.
    """
    numbers = [config.correlation_layers.index(name) for name in config.grounding_layers]
    names = cache.names("supports")
    loaded = [cache.load("supports", stem) for stem in names]
    for name, number in zip(config.grounding_layers, numbers):
        if any(f"layer.{number}" not in tensors for tensors in loaded):
            raise InputError(
                f"The feature cache {cache.folder} keeps pixels in place of {name}, which names are fitted to; give "
                "one of features, or leave that layer out of grounding_layers."
            )
    mask = torch.stack([tensors["mask"] for tensors in loaded]).float() / 255
    kept = mask.sum(dim=(1, 2)) > 0
    layers = [torch.stack([tensors[f"layer.{n}"] for tensors in loaded])[kept].float() for n in numbers]
    weight = (mask / mask.sum(dim=(1, 2), keepdim=True))[kept, None]
    centres = [(layer * weight).sum(dim=(2, 3)).mean(dim=0) for layer in layers]
    if centre is not None:
        centres = list(centre.split([len(own) for own in centres]))
    positions = normalise(layers, centres, mask.shape[-1])
    features = F.normalize((positions * weight).sum(dim=(2, 3)), dim=1)
    entries = [entry for entry, keep in zip(names.values(), kept) if keep]
    return Objects(features, entries, torch.cat(centres))


def wanted_looks(looks: Tensor, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """The mean look (texts, prompt_dim) of each text's objects, of unit length, and how much it counts (texts,); texts
    without an object count nothing."""
    mean = [looks[own].mean(dim=0) if own else looks.new_zeros(looks.shape[1]) for own in rows]
    weight = torch.tensor([min(len(own), 5) ** 0.5 for own in rows], dtype=looks.dtype)
    return F.normalize(torch.stack(mean), dim=1), weight


def _ridge(states: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Weights (width, prompt_dim) from texts' states (texts, width) to their wanted looks."""
    weighted = states * weight[:, None]
    ridge = _RIDGE * torch.eye(states.shape[1], dtype=states.dtype)
    return torch.linalg.solve(states.T @ weighted + ridge, weighted.T @ wanted)


def set_linear(projection: torch.nn.Sequential, weights: Tensor) -> None:
    """Makes Linear-ReLU-Linear compute `x @ weights` exactly: x = relu(x) - relu(-x); spare units keep their input
    weights and start unread."""
    first, _, last = projection
    size = weights.shape[1]
    first.weight[: 2 * size] = torch.cat([weights, -weights], dim=1).T
    first.bias[: 2 * size] = 0
    last.weight.zero_()
    last.weight[:, : 2 * size] = torch.cat([torch.eye(size), -torch.eye(size)], dim=1)
    last.bias.zero_()


def _folds(entries: list[dict], rows_of_name: dict[str, list[int]]) -> list[int]:
    """A fold an object, the same for all of a family: its nearest name that at least eight objects share."""
    families = [
        next((name for name in entry["names"] if 8 <= len(rows_of_name[name]) <= WIDEST_CLASS), entry["names"][0])
        for entry in entries
    ]
    number = {family: index for index, family in enumerate(sorted(set(families)))}
    return [number[family] % _FOLDS for family in families]


def _tile_accuracy(prompts: Tensor, looks: Tensor, rows: list[list[int]], distractors: int = 3) -> float:
    """How often a text's prompt is nearer to an object of its class than to others drawn from all; chance is 1 in 4."""
    generator = torch.Generator().manual_seed(0)
    right = []
    for prompt, own in zip(prompts, rows):
        if own:
            others = torch.randint(len(looks), (distractors,), generator=generator)
            candidates = looks[[own[0], *others.tolist()]]
            right.append(F.cosine_similarity(prompt[None], candidates).argmax().item() == 0)
    return sum(right) / len(right)
