"""Training episodes over a feature cache: which query, which class, which support, which prompts."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import Tensor
from torch.utils.data import Dataset

from ..descriptions.made_up import made_up_names
from ..errors import InputError
from ..parts.request_fit import FitSupports
from .class_texts import describe_classes
from .feature_cache import PIXELS, FeatureCache

# A class of more supports than these is too wide to be one thing ('artifact').
_WIDEST_CLASS = 40
_TRIES = 1000


@dataclass(frozen=True)
class TrainingEpisode:
    """One query, its class and its prompts.

    Args:
        features: of the query, a tensor a layer.
        target: (side, side) in [0, 1].
        support_layers: as `EpisodeDataset.load_support` gives them; zeros where `use_visual` is false.
        support_mask: (grid, grid) in [0, 1].
        class_name, description: of the question.
        use_semantic, use_visual: which prompts the decoder is given.
        counted: (side, side) in [0, 1], the share of each cell that the losses count.
        further: supports beside the first, each as `EpisodeDataset.load_support` gives it; the fit to the request reads
            them too.
        wanted_name: of the class that the target shows, whatever is asked for.
    """

    features: dict[str, Tensor]
    target: Tensor
    support_layers: list[Tensor]
    support_mask: Tensor
    class_name: str
    description: str | None
    use_semantic: bool
    use_visual: bool
    counted: Tensor
    further: list[tuple[list[Tensor], Tensor]]
    wanted_name: str


@dataclass(frozen=True)
class TrainingBatch:
    """`TrainingEpisode`s, stacked.

    Args:
        counted: (batch, side, side), the share of each cell that the losses count; None where all do.
        shots: number of supports of each episode, whose layers and masks then follow each other; None where it is one.
        fit: the supports of `use_visual`'s episodes that the fit to the request reads; None where there is none.
        class_names: of each episode's target.
    """

    features: dict[str, Tensor]
    target: Tensor
    support_layers: list[Tensor]
    support_mask: Tensor
    names: list[tuple[str, str | None]]
    use_semantic: Tensor
    use_visual: Tensor
    counted: Tensor | None = None
    shots: list[int] | None = None
    fit: FitSupports | None = None
    class_names: list[str] = field(default_factory=list)

    def to(self, device: torch.device) -> "TrainingBatch":
        """The same on another device."""
        return TrainingBatch(**send_to_device(vars(self), device))


@dataclass(frozen=True)
class Draw:
    """What an episode is of: the query's stem, the object asked for, its class, a support of it (a stem; None where
    none is shown), and the prompts."""

    query: str
    chosen: dict
    class_name: str
    support: str | None
    use_semantic: bool
    use_visual: bool


class EpisodeDataset(Dataset):
    """Episode i depends on the seed and i alone, whoever asks for it and when.

    Args:
        cache: finished, or as far as it is; InputError where it is empty.
        length: number of episodes.
        seed: of the episodes.
        kind_weights: how often a query is of each kind.
        visual_only, semantic_only: share of episodes with one prompt.
        description_share: share of questions with the class's definition, where there is one.
        description_noise: share of these with a description of no help in its place (`describe_classes`).
        misnamed: share of the episodes with both prompts that are given another class's name: a name is often wrong or
            unknown to the language model, and then the support must decide.
        made_up: share of the episodes with both prompts that are given a word that means nothing.
        absent: share of the episodes that ask for a class which the query does not show; all do of blank ones.
        fit_shots: supports of an episode, at most, that the fit to the request reads; half of the episodes have one.
        layers: of the queries that are read; None reads all.
        in_turns: whether the objects' own classes take turns, for a measure that weighs them alike.
    """

    def __init__(
        self,
        cache: FeatureCache,
        *,
        length: int,
        seed: int,
        kind_weights: dict[str, float],
        visual_only: float,
        semantic_only: float,
        description_share: float,
        misnamed: float,
        description_noise: float = 0.0,
        made_up: float = 0.0,
        absent: float = 0.0,
        fit_shots: int = 1,
        layers: Collection[str] | None = None,
        in_turns: bool = False,
    ) -> None:
        self.cache = cache
        self.fit_shots = fit_shots
        self._read = None if layers is None else {*layers, PIXELS, "tokens", "masks", "ignore"}
        self.length = length
        self.seed = seed
        self.visual_only, self.semantic_only = visual_only, semantic_only
        self.description_share, self.description_noise = description_share, description_noise
        self._noisy = describe_classes(cache, description_noise) if description_noise else {}
        self.misnamed = misnamed
        self.absent = absent
        self.made_up, self._made_up_names = made_up, made_up_names()
        self._queries = {
            stem: entry
            for stem, entry in cache.names("queries").items()
            if entry["objects"] or entry["kind"] == "blank"
        }
        self._queries_of_kind: dict[str, list[str]] = defaultdict(list)
        for stem, entry in self._queries.items():
            self._queries_of_kind[entry["kind"]].append(stem)
        self._kinds = [kind for kind in kind_weights if self._queries_of_kind[kind]]
        if not self._kinds:
            raise InputError(f"The feature cache {cache.folder} holds no queries; build it first.")
        weights = np.array([kind_weights[kind] for kind in self._kinds])
        self._kind_probabilities = weights / weights.sum()
        # Supports are small and come back often: all stay in memory.
        self._supports = {s: e for s, e in cache.names("supports").items() if e["area"] >= 0.005}
        self._support_tensors = {stem: cache.load("supports", stem) for stem in self._supports}
        self._supports_of_name: dict[str, list[str]] = defaultdict(list)
        for stem, entry in self._supports.items():
            for name in entry["names"]:
                self._supports_of_name[name].append(stem)
        self.class_names = sorted(self._supports_of_name)
        shown = {
            item["names"][0]
            for kind in self._kinds
            for stem in self._queries_of_kind[kind]
            for item in self._queries[stem]["objects"]
        }
        self._classes = sorted(shown & {entry["names"][0] for entry in self._supports.values()})
        self._in_turns = in_turns
        self._all_supports = sorted(self._supports)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> TrainingEpisode:
        rng = np.random.default_rng((self.seed, index))
        turn = self._classes[index % len(self._classes)] if self._in_turns else None
        return self.load(self.draw(rng, turn), rng)

    def draw(self, rng: np.random.Generator, turn: str | None = None) -> Draw:
        """Draws a query, a class (`turn`, where it is given), a support and the prompts."""
        for _ in range(_TRIES):
            kind = self._kinds[rng.choice(len(self._kinds), p=self._kind_probabilities)]
            stem = self._queries_of_kind[kind][rng.integers(len(self._queries_of_kind[kind]))]
            objects = self._queries[stem]["objects"]
            # No number is drawn where the setting is off.
            if not objects or (self.absent and rng.random() < self.absent):
                chosen = self._not_shown(rng, objects)
            else:
                chosen = objects[rng.integers(len(objects))]
            if turn is not None and chosen["names"][0] != turn:
                continue
            draw = rng.random()
            use_visual = draw >= self.semantic_only
            use_semantic = not self.semantic_only <= draw < self.semantic_only + self.visual_only
            class_name, support = self._class_and_support(rng, chosen, {o["photo_id"] for o in objects}, use_visual)
            if class_name is not None:
                return Draw(stem, chosen, class_name, support, use_semantic, use_visual)
        raise InputError(
            f"No episode was found among {_TRIES} tries: no photo shares a class with a support of another photo; "
            "add photos of the same classes."
        )

    def load(self, drawn: Draw, rng: np.random.Generator) -> TrainingEpisode:
        """The episode of a draw; whether it is misnamed and described is drawn here."""
        chosen, class_name = drawn.chosen, drawn.class_name
        asked_name = class_name
        if drawn.use_semantic and drawn.use_visual and rng.random() < self.misnamed:
            asked_name = self.class_names[rng.integers(len(self.class_names))]
        if self.made_up and drawn.use_semantic and drawn.use_visual and rng.random() < self.made_up:
            asked_name = self._made_up_names[rng.integers(len(self._made_up_names))]
        described = (
            asked_name == class_name
            and chosen["definition"]
            and class_name == chosen["names"][0]
            and rng.random() < self.description_share
        )
        description = chosen["definition"] if described else None
        # No number is drawn where the setting is off.
        if description and class_name in self._noisy and rng.random() < self.description_noise:
            _, *noisy = self._noisy[class_name]
            description = noisy[rng.integers(len(noisy))]
        further = []
        if drawn.support and self.fit_shots > 1 and rng.random() < 0.5:  # no number is drawn where there is one shot
            further = self._further(rng, class_name, drawn)
        loaded = self.cache.load("queries", drawn.query, self._read)
        masks, ignore = loaded.pop("masks"), loaded.pop("ignore", None)
        shown = [item["place"] for item in self._queries[drawn.query]["objects"] if class_name in item["names"]]
        target = (masks[shown].amax(dim=0) if shown else masks.new_zeros(masks.shape[1:])).float() / 255
        counted = torch.ones_like(target) if ignore is None else 1 - ignore.float() / 255
        layers, support_mask = self.load_support(drawn.support or next(iter(self._support_tensors)))
        return TrainingEpisode(
            features={name: _wide(name, tensor) for name, tensor in loaded.items()},
            target=(target / counted.clamp(min=1 / 255)).clamp(max=1),
            support_layers=layers if drawn.use_visual else [torch.zeros_like(layer) for layer in layers],
            support_mask=support_mask,
            class_name=asked_name,
            description=description,
            use_semantic=drawn.use_semantic,
            use_visual=drawn.use_visual,
            counted=counted,
            further=[self.load_support(stem) for stem in further],
            wanted_name=chosen["names"][0],
        )

    def load_support(self, stem: str) -> tuple[list[Tensor], Tensor]:
        """Correlation layers (channels, grid, grid) and mask (grid, grid) in [0, 1] of a support; where the image
        encoder learns, its pixels (3, size, size) come last, in place of its layers."""
        tensors = self._support_tensors[stem]
        layers = (name for name in tensors if name.startswith("layer."))
        names = sorted(layers, key=lambda name: int(name.removeprefix("layer.")))
        kept = [*names, PIXELS] if PIXELS in tensors else names
        return [_wide(name, tensors[name]) for name in kept], tensors["mask"].float() / 255

    def _not_shown(self, rng: np.random.Generator, objects: list[dict]) -> dict:
        """An object of a support, with those of its names that the query does not show; it may have none."""
        shown = {name for item in objects for name in item["names"]}
        entry = self._supports[self._all_supports[rng.integers(len(self._all_supports))]]
        names = [name for name in entry["names"] if name not in shown]
        # The definition is the first name's.
        return entry | {"names": names, "definition": entry["definition"] if names[:1] == entry["names"][:1] else ""}

    def _further(self, rng: np.random.Generator, class_name: str, drawn: Draw) -> list[str]:
        """Supports beside the first, as many as come to at most `fit_shots` with it."""
        photos = {item["photo_id"] for item in self._queries[drawn.query]["objects"]}
        photos.add(self._supports[drawn.support]["photo_id"])
        others = self._supports_without(class_name, photos)
        count = min(len(others), int(rng.integers(1, self.fit_shots)))
        return [others[i] for i in rng.choice(len(others), count, replace=False)] if count else []

    def _class_and_support(
        self, rng: np.random.Generator, target: dict, photos: set[str], needs_support: bool
    ) -> tuple[str | None, str | None]:
        """A name of the target and, if asked for, a support of it from another photo; (None, None) if there is none."""
        own = target["names"][:1]  # however many there are of its own kind, it is one
        names = [n for n in target["names"] if n in own or len(self._supports_of_name.get(n, ())) <= _WIDEST_CLASS]
        rng.shuffle(names)
        for name in names:
            if not needs_support:
                return name, None
            supports = self._supports_without(name, photos)
            if supports:
                return name, supports[rng.integers(len(supports))]
        return None, None

    def _supports_without(self, name: str, photos: set[str]) -> list[str]:
        """The supports of a name that are of other photos."""
        return [s for s in self._supports_of_name.get(name, ()) if self._supports[s]["photo_id"] not in photos]


def _wide(name: str, tensor: Tensor) -> Tensor:
    """In full precision, but for pixels, which are many."""
    return tensor if name == PIXELS else tensor.float()


def collate(episodes: list[TrainingEpisode]) -> TrainingBatch:
    """Stacks episodes."""
    return TrainingBatch(
        features={name: torch.stack([e.features[name] for e in episodes]) for name in episodes[0].features},
        target=torch.stack([e.target for e in episodes]),
        support_layers=[torch.stack(layer) for layer in zip(*(e.support_layers for e in episodes))],
        support_mask=torch.stack([e.support_mask for e in episodes]),
        names=[(e.class_name, e.description) for e in episodes if e.use_semantic],
        use_semantic=torch.tensor([e.use_semantic for e in episodes]),
        use_visual=torch.tensor([e.use_visual for e in episodes]),
        counted=torch.stack([e.counted for e in episodes]),
        fit=_fit_supports([e for e in episodes if e.use_visual]),
        class_names=[e.wanted_name for e in episodes],
    )


def _fit_supports(episodes: list[TrainingEpisode]) -> FitSupports | None:
    """What the fit to the request reads of several episodes; None where none has more supports than the matcher's."""
    if not any(episode.further for episode in episodes):
        return None
    supports = [[(e.support_layers, e.support_mask), *e.further] for e in episodes]
    shots = [len(own) for own in supports]
    padded = [own + own[:1] * (max(shots) - len(own)) for own in supports]
    layers = [
        torch.stack([torch.stack([support[0][i] for support in own]) for own in padded])
        for i in range(len(padded[0][0][0]))
    ]
    masks = torch.stack([torch.stack([support[1] for support in own]) for own in padded])
    return FitSupports(layers, masks, torch.tensor(shots))
