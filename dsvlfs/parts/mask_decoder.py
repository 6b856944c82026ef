"""SAM's mask decoder with the semantic prompt as its sparse and the visual prompt as its dense prompt."""

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
    """

    def __init__(self, *, dim: int = 256, multimask_outputs: int = 3) -> None:
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

    def forward(self, embedding: Tensor, semantic_prompt: Tensor | None, visual_prompt: Tensor | None) -> Tensor:
        """Decodes.

        Args:
            embedding: (batch, dim, height, width), of the image.
            semantic_prompt: (batch, dim), or None where there is none.
            visual_prompt: (batch, dim, height, width), or None where there is none.

        Returns:
            Mask logits (batch, 4 height, 4 width).
        """
        batch, _, height, width = embedding.shape
        if semantic_prompt is None:
            semantic_prompt = self.no_semantic_prompt.expand(batch, -1)
        if visual_prompt is None:
            visual_prompt = self.no_visual_prompt[None, :, None, None].expand_as(embedding)
        masks, _ = self.decoder(
            image_embeddings=embedding,
            image_positional_embeddings=self._positions(height, width).expand(batch, -1, -1, -1),
            sparse_prompt_embeddings=semantic_prompt[:, None, None],
            dense_prompt_embeddings=visual_prompt,
            multimask_output=False,
        )
        return masks[:, 0, 0]

    def _positions(self, height: int, width: int) -> Tensor:
        """Positional encoding of the grid's cell centres, (1, dim, height, width)."""
        device = self.no_semantic_prompt.device
        y = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) / height
        x = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) / width
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        return self.position(grid).permute(2, 0, 1)[None]


def _normalise_positions(x: Tensor) -> Tensor:
    return nn.functional.layer_norm(x.movedim(1, -1), x.shape[1:2]).movedim(-1, 1)
