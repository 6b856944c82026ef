"""Frozen features on disk: the bases run once a view, the trained parts learn from what they gave. Where the image
encoder learns too, its pixels are kept in place of its features.

A cache folder holds `queries/KIND-N.safetensors` (features in half precision and object masks of the N-th scene of a
kind), `supports/POOL-N.safetensors`, beside each a `.json` with names, and `settings.json`. A view is written whole or
not at all, so a build that was stopped goes on where it was.
"""

import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ConfigDict, with_config
from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm
from typing_extensions import TypedDict

from ..configuration import DSVLFSConfig
from ..data.targets import on_decoder_grid, target_side
from ..errors import InputError
from ..files import read_json, write_text
from ..hub.checkpoint_files import write_tensors
from ..inference.encoded import View
from ..inference.encoding import on_grid, support_grid
from ..modeling import DSVLFSModel
from ..processes import failing_together, join_processes
from .scenes import Scene, SceneComposer

# What the frozen features depend on; other settings of the model may change.
_OF_THE_FEATURES = (
    *("image_base", "image_config", "image_size", "image_mean", "image_std", "pad_to_square"),
    *("vlm_base", "vision_base", "vlm_config", "vlm_image_size", "vlm_mean", "vlm_std"),
    *("correlation_layers", "support_size", "support_context", "support_grid"),
)

PIXELS = "image.pixels"
"""Name of what the image encoder sees, where that is kept in place of its features."""


@with_config(ConfigDict(extra="allow"))
class _Settings(TypedDict):
    model: dict[str, Any]


class FeatureCache:
    """A cache folder.

    Args:
        folder: made where it is missing.
        without: names of classes that are passed over: their supports and objects are not there, and where a query
            shows one, it is background.
        only: names of the classes that are there, and no others; None leaves none out but `without`.
    """

    def __init__(self, folder: Path, *, without: Collection[str] = (), only: Collection[str] | None = None) -> None:
        self.folder = folder
        self._without, self._only = frozenset(without), only and frozenset(only)
        for part in ("queries", "supports"):
            (folder / part).mkdir(parents=True, exist_ok=True)

    def build(
        self,
        model: DSVLFSModel,
        composer: SceneComposer,
        *,
        scenes: dict[str, int],
        class_supports: int,
        seed: int,
        pixels: bool = False,
    ) -> None:
        """Computes what is missing, divided between Accelerate's processes.

        Args:
            model: whose encoders run.
            composer: of the scenes; its photos are the supports.
            scenes: number of scenes of each kind.
            class_supports: supports of a class, at most, from the composer's photos of several objects.
            seed: of scenes and support views.
            pixels: keep the image encoder's pixels, and no features of it.

        Raises:
            InputError: the folder holds features that were computed with other settings.
        """
        state = join_processes()
        settings = {"scenes": scenes, "class_supports": class_supports, "seed": seed, "model": model.config.to_dict()}
        if pixels:
            settings["pixels"] = True
        elif encoder := _trained_encoder(model):
            settings["encoder"] = encoder
        with failing_together():
            if state.is_main_process:
                self._claim(settings)
        jobs = [
            *self._support_jobs(model, composer, class_supports, seed, pixels),
            *self._query_jobs(model, composer, scenes, seed, pixels),
        ]
        # Every kind early: a build that is still going on can already be trained from.
        np.random.default_rng(seed).shuffle(jobs)
        missing = [(stem, make) for stem, make in jobs if not stem.with_suffix(".json").exists()]
        with state.split_between_processes(missing) as own:
            bar = tqdm(own, disable=not state.is_main_process, desc="frozen features", unit="view")
            for stem, make in bar:
                _write(stem, *make())
        state.wait_for_everyone()

    def check(self, model: DSVLFSModel, layers: Collection[str] | None = None) -> None:
        """Checks that the cache holds the features of such a model.

        Args:
            model: that will read them; LoRA on its image encoder is what it was when they were computed.
            layers: names of those that will be read; None reads all.

        Raises:
            InputError: it is missing, of other layers or views, or of another image encoder, or keeps pixels in place
                of what is read.
        """
        file = self.folder / "settings.json"
        if not file.exists():
            raise InputError(f"There is no feature cache in {self.folder}; build it first.")
        own: dict[str, Any] = {**read_json(file, _Settings)}
        if not _has_features(own["model"], model.config.to_dict()):
            raise InputError(f"The feature cache {self.folder} is of a model with other layers or views; give its own.")
        if layers is not None and not any(name.startswith("image.") for name in layers):
            return
        if own.get("pixels"):
            raise InputError(
                f"The feature cache {self.folder} keeps pixels, for a run whose image encoder learns; give one of "
                "features."
            )
        if own.get("encoder") != _trained_encoder(model):
            raise InputError(
                f"The feature cache {self.folder} is of an image encoder that was trained otherwise, or not at all; "
                "give one that was computed with the checkpoint's own."
            )

    def _claim(self, settings: dict) -> None:
        """Writes what the cache is of, or checks it."""
        file = self.folder / "settings.json"
        if not file.exists():
            write_text(file, json.dumps(settings, indent=2, sort_keys=True) + "\n")
            return
        own: dict[str, Any] = {**read_json(file, _Settings)}
        names = settings.keys() - {"model"} | {"pixels", "encoder"}
        same = all(_same(own.get(name), settings.get(name)) for name in names)
        if not same or not _has_features(own["model"], settings["model"]):
            raise InputError(f"The feature cache {self.folder} was built with other settings; give another folder.")

    def _query_jobs(
        self, model: DSVLFSModel, composer: SceneComposer, scenes: dict[str, int], seed: int, pixels: bool
    ) -> Iterator[tuple[Path, Callable]]:
        for kind, count in scenes.items():
            for number in range(count):
                stem = self.folder / "queries" / f"{kind}-{number:05d}"
                entropy = (seed, SceneComposer.kinds.index(kind), number)
                yield stem, lambda kind=kind, entropy=entropy: _query(model, composer.compose(kind, entropy), pixels)

    def _support_jobs(
        self, model: DSVLFSModel, composer: SceneComposer, class_supports: int, seed: int, pixels: bool
    ) -> Iterator[tuple[Path, Callable]]:
        pools = {
            "single": (composer.singles, range(len(composer.singles))),
            "photo": (composer.scenes, _in_equal_shares(composer, class_supports, seed)),
            "cutout": (composer.cutouts, range(len(composer.cutouts))),
        }
        for pool, (rows, indices) in pools.items():
            for index in indices:
                stem = self.folder / "supports" / f"{pool}-{index:05d}"
                rng = np.random.default_rng((seed, index))
                yield stem, lambda rows=rows, i=index, r=rng: _support(model, composer, rows[i], r, pixels)

    def names(self, part: str) -> dict[str, dict]:
        """Names of the finished views of `part` ("queries" or "supports"), by stem; each object of a query has its
        `place` among the query's masks."""
        views = {file.stem: json.loads(file.read_bytes()) for file in sorted((self.folder / part).glob("*.json"))}
        if part == "supports":
            return {stem: entry for stem, entry in views.items() if self._has(entry["names"])}
        for entry in views.values():
            objects = [item | {"place": place} for place, item in enumerate(entry["objects"])]
            entry["objects"] = [item for item in objects if self._has(item["names"])]
        return views

    def _has(self, names: list[str]) -> bool:
        return self._without.isdisjoint(names) and (self._only is None or not self._only.isdisjoint(names))

    def load(self, part: str, stem: str, names: Collection[str] | None = None) -> dict[str, Tensor]:
        """Tensors of a view, as they lie on disk (half precision; masks uint8), without a batch dimension; those of
        `names` that there are, or all."""
        with safe_open(self.folder / part / f"{stem}.safetensors", "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if names is None or name in names}  # noqa: SIM118 (no dict)


def _in_equal_shares(composer: SceneComposer, most: int, seed: int) -> list[int]:
    """Rows of the composer's scenes that become supports: at most so many of each class, drawn."""
    rng = np.random.default_rng(seed)
    names = composer.scenes["class_name"][:]
    chosen: list[int] = []
    for name in sorted({names[row] for row in composer.prominent}):
        own = [row for row in composer.prominent if names[row] == name]
        chosen += sorted(own[i] for i in rng.permutation(len(own))[:most])
    return chosen


def _trained_encoder(model: DSVLFSModel) -> str | None:
    """What an image encoder that training may have changed is known by; None of a base as it is."""
    return model.encoder_digest() if model.config.image_lora_rank else None


def _same(value: object, other: object) -> bool:
    """Whether both are the same once they are written as JSON."""
    return json.dumps(value, sort_keys=True) == json.dumps(other, sort_keys=True)


def _has_features(own: dict, wanted: dict) -> bool:
    """Whether a cache of the config `own` serves the config `wanted`: it may hold more layers than are read."""
    layers, read = (set(DSVLFSConfig.from_dict(dict(config)).frozen_layers) for config in (own, wanted))
    return read <= layers and all(_same(own.get(name), wanted.get(name)) for name in _OF_THE_FEATURES)


@torch.no_grad()
def _beside_image(model: DSVLFSModel, view: View) -> dict[str, Tensor]:
    """A view's pixels, and what the vision tower makes of it."""
    tower = model.semantic_encoder.vision_tower
    vlm_pixels = view.vlm_pixels.to(tower.device, tower.dtype)
    return {PIXELS: view.image_pixels} | model.semantic_encoder.encode_photo(vlm_pixels)


def _query(model: DSVLFSModel, scene: Scene, pixels: bool) -> tuple[dict[str, Tensor], dict]:
    view = model.processor.query_view(scene.image)
    features = _beside_image(model, view) if pixels else model.frozen_features(view)
    config = model.config
    wanted = config.frozen_layers if config.embedding_layers else [*config.frozen_layers, "image.embedding"]
    tensors = {name: features[name][0].half().cpu() for name in [*wanted, "tokens", PIXELS] if name in features}
    side = target_side(config)
    kept = [item for item in scene.objects if item.mask.mean() >= 0.002]
    masks = [on_decoder_grid(item.mask, view, side) for item in kept]
    tensors["masks"] = torch.stack(masks) if masks else torch.zeros(0, side, side, dtype=torch.uint8)
    if scene.ignore is not None:
        tensors["ignore"] = on_decoder_grid(scene.ignore, view, side)
    names = [{"photo_id": o.photo_id, "names": o.names, "definition": o.definition} for o in kept]
    return tensors, {"kind": scene.kind, "objects": names}


def _support(
    model: DSVLFSModel, composer: SceneComposer, row: dict, rng: np.random.Generator, pixels: bool
) -> tuple[dict[str, Tensor], dict]:
    image, mask = row["image"], np.array(row["mask"]) > 0
    if image.mode == "RGBA":
        ground = composer.background(rng).resize((image.width * 2, image.height * 2))
        corner = (image.width // 2, image.height // 2)
        ground.paste(image, corner, image)
        mask = np.pad(mask, [(corner[1], image.height - corner[1]), (corner[0], image.width - corner[0])])
        image = ground
    image = image.convert("RGB")
    view, square = model.processor.support_view(image, mask)
    features = _beside_image(model, view) if pixels else model.frozen_features(view)
    grid = support_grid(model.config, features, view.image_pixels)
    layers = enumerate(model.config.correlation_layers)
    tensors = {f"layer.{i}": on_grid(features[n], grid)[0].half().cpu() for i, n in layers if n in features}
    if pixels:
        tensors[PIXELS] = features[PIXELS][0].half()
    grid_mask = on_grid(square[:, None], grid)[0]
    tensors["mask"] = (grid_mask[0] * 255).round().to("cpu", torch.uint8)
    names = {"photo_id": row["photo_id"], "names": row["class_names"], "definition": row["definition"]}
    return tensors, names | {"area": float(mask.mean())}


def _write(stem: Path, tensors: dict[str, Tensor], names: dict) -> None:
    write_tensors(stem.with_suffix(".safetensors"), tensors)
    write_text(stem.with_suffix(".json"), json.dumps(names))  # last: what has names is finished
