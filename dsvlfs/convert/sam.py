"""Official SAM checkpoints (segment-anything's `sam_vit_*.pth`) to a folder of transformers' `SamModel`."""

import pickle
import re
from pathlib import Path

import torch
from torch import Tensor
from transformers import SamConfig, SamModel, SamVisionConfig

from ..errors import InputError
from ..files import write_text
from ..hub.checkpoint_files import write_tensors
from ..hub.digests import write_record

# Names of segment-anything's modules, and what transformers calls them; the first that matches is taken.
_NAMES = [
    (r"image_encoder\.patch_embed\.proj\.", "vision_encoder.patch_embed.projection."),
    (r"image_encoder\.blocks\.(\d+)\.norm([12])\.", r"vision_encoder.layers.\1.layer_norm\2."),
    (r"image_encoder\.blocks\.", "vision_encoder.layers."),
    (r"image_encoder\.neck\.0\.", "vision_encoder.neck.conv1."),
    (r"image_encoder\.neck\.1\.", "vision_encoder.neck.layer_norm1."),
    (r"image_encoder\.neck\.2\.", "vision_encoder.neck.conv2."),
    (r"image_encoder\.neck\.3\.", "vision_encoder.neck.layer_norm2."),
    (r"image_encoder\.", "vision_encoder."),
    (
        r"prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix",
        "shared_image_embedding.positional_embedding",
    ),
    (r"prompt_encoder\.point_embeddings\.", "prompt_encoder.point_embed."),
    (r"prompt_encoder\.mask_downscaling\.0\.", "prompt_encoder.mask_embed.conv1."),
    (r"prompt_encoder\.mask_downscaling\.1\.", "prompt_encoder.mask_embed.layer_norm1."),
    (r"prompt_encoder\.mask_downscaling\.3\.", "prompt_encoder.mask_embed.conv2."),
    (r"prompt_encoder\.mask_downscaling\.4\.", "prompt_encoder.mask_embed.layer_norm2."),
    (r"prompt_encoder\.mask_downscaling\.6\.", "prompt_encoder.mask_embed.conv3."),
    (r"mask_decoder\.transformer\.layers\.(\d+)\.norm(\d)\.", r"mask_decoder.transformer.layers.\1.layer_norm\2."),
    (r"mask_decoder\.transformer\.norm_final_attn\.", "mask_decoder.transformer.layer_norm_final_attn."),
    (r"mask_decoder\.output_upscaling\.0\.", "mask_decoder.upscale_conv1."),
    (r"mask_decoder\.output_upscaling\.1\.", "mask_decoder.upscale_layer_norm."),
    (r"mask_decoder\.output_upscaling\.3\.", "mask_decoder.upscale_conv2."),
    (r"mask_decoder\.(output_hypernetworks_mlps\.\d+|iou_prediction_head)\.layers\.0\.", r"mask_decoder.\1.proj_in."),
    (r"mask_decoder\.(output_hypernetworks_mlps\.\d+|iou_prediction_head)\.layers\.1\.", r"mask_decoder.\1.layers.0."),
    (r"mask_decoder\.(output_hypernetworks_mlps\.\d+|iou_prediction_head)\.layers\.2\.", r"mask_decoder.\1.proj_out."),
]


def import_sam(file: Path, folder: Path) -> SamConfig:
    """Converts a checkpoint; `folder` can then be a config's `image_base`.

    Args:
        file: ViT-B, -L or -H, as segment-anything publishes them.
        folder: for `config.json` and `model.safetensors`, made where it is missing.

    Raises:
        InputError: the file cannot be read, or is no checkpoint of SAM.
    """
    source = read_pickle(file)
    state = rename(source)
    try:
        config = _config(source)
        with torch.device("meta"):
            wanted = {name: tensor.shape for name, tensor in SamModel(config).state_dict().items()}
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise InputError(f"{file} is no checkpoint of SAM ({error} is missing); give a sam_vit_*.pth.") from error
    shared = "shared_image_embedding.positional_embedding"
    if shared in state:  # transformers keeps it twice
        state["prompt_encoder.shared_embedding.positional_embedding"] = state[shared].clone()
    wrong = sorted(state.keys() ^ wanted.keys()) or sorted(n for n in wanted if state[n].shape != wanted[n])
    if wrong:
        raise InputError(
            f"{file} is no checkpoint of SAM ({len(wrong)} tensors do not fit, first {wrong[0]}); give a sam_vit_*.pth."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "model.safetensors", state)
    write_text(folder / "config.json", config.to_json_string())
    write_record(folder)
    return config


def read_pickle(file: Path) -> dict[str, Tensor]:
    """The tensors of a `.pth` or `.bin`, read as data only.

    Raises:
        InputError: it cannot be read so, or holds no tensors by name.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise InputError(f"The checkpoint {file} cannot be read ({reason}); get it again.") from error
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{file} holds no tensors by name; give the state dict alone.")
    return state


def rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under segment-anything's names to tensors under those of transformers' `SamModel`."""
    return {_transformers_name(name): tensor for name, tensor in state.items()}


def _transformers_name(name: str) -> str:
    for pattern, replacement in _NAMES:
        renamed, found = re.subn(f"^{pattern}", replacement, name)
        if found:
            return renamed
    return name


def _config(state: dict[str, Tensor]) -> SamConfig:
    """The architecture, from the tensors' shapes."""
    side, width = state["image_encoder.pos_embed"].shape[2:]
    patch = state["image_encoder.patch_embed.proj.weight"].shape[-1]
    reach = {}
    for name, tensor in state.items():
        if found := re.fullmatch(r"image_encoder\.blocks\.(\d+)\.attn\.rel_pos_h", name):
            reach[int(found[1])] = (tensor.shape[0] + 1) // 2, tensor.shape[1]
    windows = [size for size, _ in reach.values() if size != side]
    vision = SamVisionConfig(
        hidden_size=width,
        num_hidden_layers=len(reach),
        num_attention_heads=width // next(iter(reach.values()), (0, 0))[1],
        image_size=side * patch,
        patch_size=patch,
        window_size=windows[0] if windows else side,
        global_attn_indexes=[number for number, (size, _) in sorted(reach.items()) if size == side],
        mlp_dim=state["image_encoder.blocks.0.mlp.lin1.weight"].shape[0],
        output_channels=state["image_encoder.neck.0.weight"].shape[0],
        num_pos_feats=state["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"].shape[1],
    )
    prompts = {
        "hidden_size": vision.output_channels,
        "image_size": vision.image_size,
        "patch_size": patch,
        "mask_input_channels": state["prompt_encoder.mask_downscaling.3.weight"].shape[0],
    }
    decoder = {
        "hidden_size": vision.output_channels,
        "mlp_dim": state["mask_decoder.transformer.layers.0.mlp.lin1.weight"].shape[0],
        "num_multimask_outputs": state["mask_decoder.mask_tokens.weight"].shape[0] - 1,
        "layer_norm_eps": 1e-5,
    }
    return SamConfig(vision_config=vision.to_dict(), prompt_encoder_config=prompts, mask_decoder_config=decoder)
