"""SAM's mask decoder with the semantic prompt as its sparse and the visual prompt as its dense prompt."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import SamMaskDecoderConfig, SamVisionConfig
from transformers.models.sam.modeling_sam import SamLayerNorm, SamMaskDecoder, SamPositionalEmbedding


class EmbeddingNeck(nn.Module):
    """Fuses frozen layers to the decoder's image embedding, in the form of SAM's own neck; for encoders without one.

    Args:
        inputs: channels of all layers together.
        outputs: channels of the embedding.
    """

    def __init__(self, *, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, bias=False),
            SamLayerNorm(outputs, data_format="channels_first"),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            SamLayerNorm(outputs, data_format="channels_first"),
        )

    def forward(self, layers: list[Tensor]) -> Tensor:
        """Layers (batch, C_i, h_i, w_i) to (batch, outputs, h_0, w_0), at the first layer's size."""
        size = layers[0].shape[-2:]
        resampled = [
            x if x.shape[-2:] == size else nn.functional.interpolate(x, size, mode="bilinear", align_corners=False)
            for x in layers
        ]
        # Layers differ in scale by orders of magnitude: each position of each layer is normalised.
        return self.layers(torch.cat([_normalise_positions(x) for x in resampled], dim=1))


class MaskDecoder(nn.Module):
    """SAM's two-way transformer decoder, one mask a prompt.

    Args:
        dim: channels of embedding and prompts.
        multimask_outputs: spare mask tokens, present for SAM's weights to fit; never read.
        detail_channels: of two layers finer than the embedding that join it as it is upscaled, at twice and at four
            times its side (as in SAM 2, Ravi et al. 2024, section 4); none upscale it alone, as SAM does.
    """

    def __init__(self, *, dim: int = 256, multimask_outputs: int = 3, detail_channels: Sequence[int] = ()) -> None:
        super().__init__()
        self.decoder = SamMaskDecoder(
            SamMaskDecoderConfig(hidden_size=dim, num_multimask_outputs=multimask_outputs, attn_implementation="sdpa")
        )
        self.decoder.iou_prediction_head = nn.Identity()  # no loss reaches it, nobody reads it
        # transformers derives the scale of the random frequencies from the ViT's width; SAM's own is 1, as here.
        self.position = SamPositionalEmbedding(SamVisionConfig(num_pos_feats=dim // 2, hidden_size=2))
        self.position.requires_grad_(False)
        self.no_semantic_prompt = nn.Parameter(torch.zeros(dim))
        self.no_visual_prompt = nn.Parameter(torch.zeros(dim))
        self.details = None
        if detail_channels:
            self.details = nn.ModuleList(
                nn.Conv2d(inputs, dim // part, 1) for inputs, part in zip(detail_channels, (4, 8), strict=True)
            )
            for layer in self.details:  # starts as SAM's decoder
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(
        self,
        embedding: Tensor,
        semantic_prompt: Tensor | None,
        visual_prompt: Tensor | None,
        details: Sequence[Tensor] = (),
    ) -> Tensor:
        """Decodes.

        Args:
            embedding: (batch, dim, height, width), of the image.
            semantic_prompt: (batch, dim), or None where there is none.
            visual_prompt: (batch, dim, height, width), or None where there is none.
            details: two layers (batch, channels, h, w) of any size, where the decoder was made for them.

        Returns:
            Mask logits (batch, 4 height, 4 width).
        """
        batch, _, height, width = embedding.shape
        if semantic_prompt is None:
            semantic_prompt = self.no_semantic_prompt.expand(batch, -1)
        if visual_prompt is None:
            visual_prompt = self.no_visual_prompt[None, :, None, None].expand_as(embedding)
        decoder = self.decoder
        tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).expand(batch, 1, -1, -1)
        tokens = torch.cat([tokens, semantic_prompt[:, None, None].to(tokens.dtype)], dim=2)
        tokens, positions = decoder.transformer(
            point_embeddings=tokens,
            image_embeddings=embedding + visual_prompt,
            image_positional_embeddings=self._positions(height, width).expand(batch, -1, -1, -1),
            attention_similarity=None,
        )
        upscaled = self._upscale(positions.transpose(2, 3).reshape(embedding.shape), details)
        # The spare masks' tokens too: where training is divided among processes, every weight needs a gradient.
        masks = [mlp(tokens[:, 0, 1 + number]) for number, mlp in enumerate(decoder.output_hypernetworks_mlps)]
        return torch.einsum("bc,bchw->bhw", torch.stack(masks)[0], upscaled)

    def _upscale(self, embedding: Tensor, details: Sequence[Tensor]) -> Tensor:
        """(batch, dim, height, width) to (batch, dim / 8, 4 height, 4 width)."""
        decoder = self.decoder
        half = decoder.upscale_conv1(embedding)
        if self.details is not None:
            half = half + self._detail(0, details, half.shape[-2:])
        full = decoder.upscale_conv2(decoder.activation(decoder.upscale_layer_norm(half)))
        if self.details is not None:
            full = full + self._detail(1, details, full.shape[-2:])
        return decoder.activation(full)

    def _detail(self, number: int, details: Sequence[Tensor], size: torch.Size) -> Tensor:
        """A detail layer as it is added; projected at its own side, which is the cheaper of the two."""
        projected = self.details[number](_normalise_positions(details[number].to(self.no_visual_prompt.dtype)))
        return nn.functional.interpolate(projected, size, mode="bilinear", align_corners=False)

    def _positions(self, height: int, width: int) -> Tensor:
        """Positional encoding of the grid's cell centres, (1, dim, height, width)."""
        device = self.no_semantic_prompt.device
        y = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) / height
        x = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) / width
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        return self.position(grid).permute(2, 0, 1)[None]


def _normalise_positions(x: Tensor) -> Tensor:
    return nn.functional.layer_norm(x.movedim(1, -1), x.shape[1:2]).movedim(-1, 1)
