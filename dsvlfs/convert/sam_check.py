"""A converted SAM beside the original: segment-anything's own modules, with the weights of the same file."""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import torch
from torch import nn
from transformers import SamModel

from ..errors import InputError
from ..hub.bases import load_base
from .sam import read_pickle

TOLERANCE = 1e-3
"""Of the largest value: float32 leaves 1e-5 after the 32 blocks of ViT-H."""

_PACKAGE = "_dsvlfs_segment_anything"
_SIZES = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}


def check_sam(file: Path, folder: Path) -> float:
    """Compares a conversion with its source, on a photo of noise in the published size (for ViT-H some minutes of a
    CPU).

    Args:
        file: a checkpoint as segment-anything publishes it.
        folder: what `import_sam` made of it.

    Returns:
        The largest difference of image embeddings and mask logits, as a share of the largest value.

    Raises:
        InputError: segment-anything is not installed, it has no such size, or the two differ.
    """
    state = read_pickle(file)
    official = published_sam(state["image_encoder.pos_embed"].shape[-1])
    official.load_state_dict(state, assign=True)
    found = difference(official, load_base(SamModel, str(folder)))
    if found > TOLERANCE:
        raise InputError(
            f"{folder} gives other features or masks than {file} does in segment-anything (they differ by {found:.1e} "
            "of the largest value); do not use it."
        )
    return found


def difference(official: nn.Module, ours: SamModel) -> float:
    """The largest difference of image embeddings, and of mask logits from one sparse and one dense prompt, between
    segment-anything's `Sam` and transformers' `SamModel`, as a share of the largest value."""
    side = ours.config.vision_config.image_size
    channels, grid = ours.config.vision_config.output_channels, side // ours.config.vision_config.patch_size
    noise = torch.Generator().manual_seed(0)
    photo = torch.randn(1, 3, side, side, generator=noise)
    sparse = torch.randn(1, 1, channels, generator=noise)
    dense = torch.randn(1, channels, grid, grid, generator=noise)
    with torch.inference_mode():
        wanted = official.image_encoder(photo)
        masks, _ = official.mask_decoder(wanted, official.prompt_encoder.get_dense_pe(), sparse, dense, False)
        embedding = ours.vision_encoder(photo).last_hidden_state
        logits, _ = ours.mask_decoder(
            image_embeddings=embedding,
            image_positional_embeddings=ours.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=sparse[:, None],
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
    pairs = ((embedding, wanted), (logits[:, 0], masks))
    return max(((own - other).abs().max() / other.abs().max()).item() for own, other in pairs)


def published_sam(width: int) -> nn.Module:
    """segment-anything's `Sam` of the size whose image encoder has `width` channels; without storage for its weights.

    Raises:
        InputError: segment-anything is not installed, or has no such size.
    """
    if width not in _SIZES:
        raise InputError(f"segment-anything has no SAM of width {width}; it has {', '.join(map(str, _SIZES))}.")
    registry = segment_anything("build_sam").sam_model_registry
    with torch.device("meta"):
        return registry[_SIZES[width]]().eval()


def segment_anything(module: str) -> ModuleType:
    """A module of segment-anything; its root would import torchvision, which the model itself does not need.

    Raises:
        InputError: it is not installed.
    """
    found = importlib.util.find_spec("segment_anything")
    if found is None:
        raise InputError("To compare with segment-anything, install it: pip install 'dsvlfs[sam]'.")
    if _PACKAGE not in sys.modules:
        root = ModuleSpec(_PACKAGE, None, is_package=True)
        root.submodule_search_locations = list(found.submodule_search_locations or ())
        sys.modules[_PACKAGE] = importlib.util.module_from_spec(root)
    return importlib.import_module(f"{_PACKAGE}.{module}")
