"""What is kept of photos on their way through the model."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import InputError
from ..hub.checkpoint_files import read_tensor_file, write_tensors
from ..parts.matching import Match
from ..parts.whole_fit import WholeFit, fit_whole

_ENCODER = "encoder"  # in the metadata of a support's file: the digest of what encoded it


class Encoder(Protocol):
    """What is asked of a `DSVLFSModel` about supports that were encoded before."""

    @property
    def device(self) -> torch.device: ...

    def encoder_digest(self) -> str: ...


@dataclass(frozen=True)
class View:
    """What the encoders see of a photo, batch of one.

    Args:
        image_pixels: (1, 3, image size, image size).
        vlm_pixels: (1, 3, VLM image size, VLM image size).
        valid: (width, height) of the photo inside the square of `image_pixels`, in pixels; the rest is padding.
        size: (width, height) of the photo.
    """

    image_pixels: Tensor
    vlm_pixels: Tensor
    valid: tuple[int, int]
    size: tuple[int, int]


def on_square(mask: np.ndarray, view: View) -> Tensor:
    """A photo's mask, bool (height, width), on the square of its view: (1, size, size), 255 where a pixel is all
    foreground, and nought in the padding."""
    width, height = view.valid
    shown = Image.fromarray(mask.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BOX)
    square = torch.zeros(1, *view.image_pixels.shape[-2:], dtype=torch.float32)
    square[0, :height, :width] = torch.from_numpy(np.array(shown)).float()
    return square


@dataclass(frozen=True)
class Support:
    """K encoded support photos.

    Args:
        layers: (K, channels, height, width) of each correlation layer, on the support grid.
        masks: (K, height, width), foreground in [0, 1].
        whole: the layers of the whole photos, from `dsvlfs.parts.whole_fit.pooled_whole`; none where they are not read.
        whole_masks: (K, height, width) on their grid.
    """

    layers: tuple[Tensor, ...]
    masks: Tensor
    whole: tuple[Tensor, ...] = ()
    whole_masks: Tensor | None = None

    @cached_property
    def whole_fit(self) -> WholeFit | None:
        """Of the whole photos, solved once; None where they are not read."""
        return None if self.whole_masks is None else fit_whole(self.whole, self.whole_masks)

    @classmethod
    def join(cls, supports: Sequence["Support"]) -> "Support":
        """One support of the photos of several, at least one.

        Raises:
            InputError: some hold their whole photos, and some do not.
        """
        if len({len(support.whole) for support in supports}) > 1:
            raise InputError("The supports were encoded by several models; encode all of them with one.")
        layers = zip(*(support.layers for support in supports), strict=True)
        whole = zip(*(support.whole for support in supports), strict=True)
        masks = [support.whole_masks for support in supports if support.whole_masks is not None]
        return cls(
            tuple(torch.cat(layer) for layer in layers),
            torch.cat([support.masks for support in supports]),
            tuple(torch.cat(layer) for layer in whole),
            torch.cat(masks) if masks else None,
        )

    def __getitem__(self, places: list[int]) -> "Support":
        """Of some of the photos."""
        whole_masks = None if self.whole_masks is None else self.whole_masks[places]
        whole = tuple(layer[places] for layer in self.whole)
        return Support(tuple(layer[places] for layer in self.layers), self.masks[places], whole, whole_masks)

    def save(self, path: str | os.PathLike, model: Encoder) -> None:
        """Writes a safetensors file that `load` reads: all of it or nothing.

        Args:
            path: of the file.
            model: that encoded it.

        Raises:
            InputError: the model's encoders are not in memory, so that they have no digest.
            WriteError: the file cannot be written.
        """
        tensors = {"masks": self.masks, **{f"layers.{i}": layer for i, layer in enumerate(self.layers)}}
        if self.whole_masks is not None:
            tensors |= {"whole_masks": self.whole_masks, **{f"whole.{i}": layer for i, layer in enumerate(self.whole)}}
        tensors = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
        write_tensors(Path(path), tensors, **{_ENCODER: model.encoder_digest()})

    @classmethod
    def load(cls, path: str | os.PathLike, model: Encoder) -> "Support":
        """What `save` wrote.

        Args:
            path: of the file.
            model: that it is for: the one that encoded it, or one whose encoders have the same weights and see
                supports alike, as a fine-tuned checkpoint's.

        Returns:
            The support, where the model is.

        Raises:
            InputError: the file is missing, damaged, no support's, or another model's.
        """
        file, mend = Path(path), "encode the support again, and save it"
        tensors, known = read_tensor_file(file, "support", mend)
        layers, whole = (_numbered(tensors, name) for name in ("layers", "whole"))
        named = len(layers) + len(whole) + sum(name in tensors for name in ("masks", "whole_masks"))
        if _ENCODER not in known or "masks" not in tensors or not layers or named != len(tensors):
            raise InputError(f"{file} holds no encoded support; give a file that Support.save wrote.")
        if known[_ENCODER] != model.encoder_digest():
            raise InputError(f"The support {file} was encoded by another model; {mend}.")
        moved = {name: tensor.to(model.device) for name, tensor in tensors.items()}
        layers, whole = (tuple(_numbered(moved, name)) for name in ("layers", "whole"))
        return cls(layers, moved["masks"], whole, moved.get("whole_masks"))


def _numbered(tensors: dict[str, Tensor], name: str) -> list[Tensor]:
    """`name.0`, `name.1` and so on, as far as they are there."""
    found = []
    while f"{name}.{len(found)}" in tensors:
        found.append(tensors[f"{name}.{len(found)}"])
    return found


@dataclass(frozen=True)
class Query:
    """An encoded query photo; like a `Support`, it holds features of the encoders alone, and stays right while a model
    trains whose image encoder does not learn.

    Args:
        features: a tensor a name with a batch dimension of one, from `DSVLFSModel.frozen_features`.
        valid: (width, height) of the photo inside the encoder's square, in pixels.
        size: (width, height) of the photo.
        is_blank: whether the photo is of one colour: then nothing is in it, whatever is asked for.
    """

    features: dict[str, Tensor]
    valid: tuple[int, int]
    size: tuple[int, int]
    is_blank: bool = False


@dataclass(frozen=True)
class Shots:
    """A query's supports, each compared with it.

    Args:
        support: the K of them.
        match: of the query with each.
        prompts: (K, prompt_dim, size, size), the visual prompt of each alone.
    """

    support: Support
    match: Match
    prompts: Tensor

    def __getitem__(self, places: list[int]) -> "Shots":
        """Some of them."""
        return Shots(self.support[places], self.match[places], self.prompts[places])


@dataclass(frozen=True)
class Asked:
    """What a query is decoded with beside its shots.

    Args:
        features: of the query, as `Query` holds them.
        embedding: (1, prompt_dim, height, width) of the query.
        semantic: (1, prompt_dim) of the class; None where the name is left out.
        grounded: (1, prompt_dim, height, width), what that adds to the dense prompt; comes with `semantic`.
        remembered: (1, height, width), the map of a class that the model remembers; comes with `semantic`.
        is_doubted: whether the name fits badly what the supports show (`name_doubt`), heard or not.
    """

    features: dict[str, Tensor]
    embedding: Tensor
    semantic: Tensor | None = None
    grounded: Tensor | None = None
    remembered: Tensor | None = None
    is_doubted: bool = False
