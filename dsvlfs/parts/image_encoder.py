"""The image encoder: a photo to the features of its blocks and, for SAM, its image embedding."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from transformers import Dinov2Config, PreTrainedConfig, PreTrainedModel, SamVisionConfig

from ..errors import InputError
from .image_adapter import ImageAdapter
from .token_merging import merged_features


class ImageEncoder(nn.Module):
    """DINOv2 or SAM's ViT, whose own weights are frozen; LoRA on a DINOv2's may learn. Of DINOv2, the blocks after the
    last that is asked for are dropped.

    Args:
        backbone: transformers' `Dinov2Model` or `SamVisionModel`.
        blocks: numbers of the blocks whose output is returned, from 1.
        lora_rank, lora_alpha, lora_layers: of the `ImageAdapter` of a DINOv2; a rank of 0 gives it none.

    Attributes:
        adapter: what training adds to the weights; None where there is none. It comes before the backbone, so that its
            matrices have its names.
        halves_products: whether a DINOv2 in float32 on a CPU multiplies in bfloat16, as it does where the CPU is
            quicker at it: two thirds of the time, features with a cosine of 0.9999 to those in float32.

    Raises:
        InputError: an adapter is asked for of another encoder than a DINOv2, or cannot be as asked for.
    """

    def __init__(
        self,
        *,
        backbone: PreTrainedModel,
        blocks: Sequence[int],
        lora_rank: int = 0,
        lora_alpha: float = 16,
        lora_layers: Sequence[str] = (),
    ) -> None:
        super().__init__()
        backbone.requires_grad_(False).eval()
        is_dinov2 = isinstance(backbone.config, Dinov2Config)
        if is_dinov2:
            backbone.encoder.layer = backbone.encoder.layer[: max(blocks)]
        self.adapter = None
        if lora_rank:
            if not is_dinov2 or backbone.config.use_swiglu_ffn:
                raise InputError("image_lora_rank is for a DINOv2 without SwiGLU; set it to 0.")
            layers = backbone.encoder.layer
            self.adapter = ImageAdapter(layers, rank=lora_rank, alpha=lora_alpha, roles=lora_layers)
        self.backbone = backbone
        self.blocks = tuple(blocks)
        self.halves_products = is_dinov2 and _is_quick_in_bfloat16(torch.cpu.get_capabilities())

    def train(self, mode: bool = True) -> "ImageEncoder":
        """Stays in evaluation mode: its base is frozen."""
        return super().train(False)

    def merge(self) -> None:
        """Adds what training added to the weights: from then on it costs no time, and does not learn."""
        if self.adapter is not None:
            self.adapter.requires_grad_(False).merge()

    def forward(self, pixel_values: Tensor, *, merge_tokens: bool = False) -> dict[str, Tensor]:
        """Runs the encoder.

        Args:
            pixel_values: (batch, 3, size, size), normalised.
            merge_tokens: as `dsvlfs.parts.token_merging` does; of DINOv2 alone.

        Returns:
            `image.N`: (batch, channels, height, width) for each block N asked for; with SAM also `image.embedding`:
            (batch, 256, height, width).
        """
        halves = self.halves_products and not torch.compiler.is_exporting()
        halved = halves and pixel_values.device.type == "cpu" and pixel_values.dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16) if halved else nullcontext():
            if merge_tokens and isinstance(self.backbone.config, Dinov2Config):
                photos = [merged_features(self.backbone, photo[None], self.blocks) for photo in pixel_values]
                states = {n: torch.cat([photo[n] for photo in photos]) for n in self.blocks}
            else:
                output = self.backbone(pixel_values=pixel_values, output_hidden_states=True)
                states = {n: output.hidden_states[n] for n in self.blocks}
        features = {
            f"image.{n}": _to_map(state.to(pixel_values.dtype), self.backbone.config) for n, state in states.items()
        }
        if isinstance(self.backbone.config, SamVisionConfig):
            features["image.embedding"] = output.last_hidden_state
        return features


def _is_quick_in_bfloat16(cpu: Mapping[str, object]) -> bool:
    """Whether matrix products take less time in bfloat16 than in float32, by `torch.cpu.get_capabilities()`. Intel's
    AVX512-BF16 without AMX takes twice as long; AMD's takes half."""
    if cpu.get("amx_bf16"):
        return True
    return bool(cpu.get("avx512_bf16")) and "Intel" not in str(cpu.get("cpu_name"))


def _to_map(hidden: Tensor, config: PreTrainedConfig) -> Tensor:
    if isinstance(config, Dinov2Config):  # (batch, class token + positions, channels)
        positions = hidden[:, 1:]
        side = int(positions.shape[1] ** 0.5)
        return positions.transpose(1, 2).unflatten(2, (side, side))
    return hidden.permute(0, 3, 1, 2)
