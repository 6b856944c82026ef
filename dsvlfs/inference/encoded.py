"""What is kept of photos on their way through the model."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ..errors import InputError
from ..hub.checkpoint_files import read_tensor_file, write_tensors
from ..parts.matching import Match

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


@dataclass(frozen=True)
class Support:
    """K encoded support photos.

    Args:
        layers: (K, channels, height, width) of each correlation layer, on the support grid.
        masks: (K, height, width), foreground in [0, 1].
    """

    layers: tuple[Tensor, ...]
    masks: Tensor

    @classmethod
    def join(cls, supports: Sequence["Support"]) -> "Support":
        """One support of the photos of several, at least one."""
        layers = zip(*(support.layers for support in supports), strict=True)
        return cls(tuple(torch.cat(layer) for layer in layers), torch.cat([support.masks for support in supports]))

    def __getitem__(self, places: list[int]) -> "Support":
        """Of some of the photos."""
        return Support(tuple(layer[places] for layer in self.layers), self.masks[places])

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
        layers = [tensors.get(f"layers.{i}") for i in range(len(tensors) - 1)]
        if _ENCODER not in known or "masks" not in tensors or not layers or any(layer is None for layer in layers):
            raise InputError(f"{file} holds no encoded support; give a file that Support.save wrote.")
        if known[_ENCODER] != model.encoder_digest():
            raise InputError(f"The support {file} was encoded by another model; {mend}.")
        return cls(tuple(layer.to(model.device) for layer in layers), tensors["masks"].to(model.device))


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
    """

    features: dict[str, Tensor]
    embedding: Tensor
    semantic: Tensor | None = None
    grounded: Tensor | None = None
    remembered: Tensor | None = None
