"""The dense matching of DSV-LFS as the paper and its code compute it, written down from the equations: every layer's 4D
correlation is held at once. Slow and large on purpose: the measure of ours, and the tests' oracle."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SETTINGS = {"kernel_size": 3, "support_stride": 2, "groups": 4, "epsilon": 1e-5}


class CenterPivotConv(nn.Module):
    """HSNet's center-pivot 4D convolution: over the query's plane at the support positions that the stride leaves,
    plus over the support's plane."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        kernel = SETTINGS["kernel_size"]
        self.stride = SETTINGS["support_stride"]
        self.conv1 = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.conv2 = nn.Conv2d(inputs, outputs, kernel, stride=self.stride, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, qh, qw, sh, sw) to (batch, outputs, qh, qw, sh', sw')."""
        batch, channels, qh, qw, sh, sw = x.shape
        kept = x[..., :: self.stride, :: self.stride].contiguous()
        ph, pw = kept.shape[-2:]
        queries = kept.permute(0, 4, 5, 1, 2, 3).contiguous().view(-1, channels, qh, qw)
        first = self.conv1(queries).view(batch, ph, pw, -1, qh, qw).permute(0, 3, 4, 5, 1, 2).contiguous()
        supports = x.permute(0, 2, 3, 1, 4, 5).contiguous().view(-1, channels, sh, sw)
        second = self.conv2(supports).view(batch, qh, qw, -1, ph, pw).permute(0, 3, 1, 2, 4, 5).contiguous()
        return first + second


class ReferenceMatcher(nn.Module):
    """Correlation, squeezing blocks and decoder; the parameters have the names of the published code.

    Args:
        layers: of features.
        channels: outputs of the 4D convolutions.
        prompt_dim: channels of the visual prompt.
    """

    def __init__(self, layers: int = 32, channels: Sequence[int] = (16, 128, 256), prompt_dim: int = 256) -> None:
        super().__init__()
        blocks, inputs = [], layers
        for outputs in channels:
            blocks += [CenterPivotConv(inputs, outputs), nn.GroupNorm(SETTINGS["groups"], outputs), nn.ReLU(True)]
            inputs = outputs
        self.encoder_layerFewshot = nn.Sequential(*blocks)
        self.decoderFewshot = nn.Sequential(
            nn.Conv2d(inputs, prompt_dim, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(prompt_dim, prompt_dim, 3, padding=1),
            nn.ReLU(),
        )

    def forward(self, query: Sequence[Tensor], support: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Features (batch, channels, height, width) a layer and the support's mask (batch, height, width) to the visual
        prompt (batch, prompt_dim, height, width)."""
        correlations = []
        for q, s in zip(query, support, strict=True):
            size = F.interpolate(mask[:, None], s.shape[-2:], mode="bilinear", align_corners=True)
            s = s * size
            correlations.append(_cosine(q, s).clamp(min=0))
        x = self.encoder_layerFewshot(torch.stack(correlations).transpose(0, 1).contiguous())
        return self.decoderFewshot(x.flatten(4).mean(dim=-1))


def _cosine(query: Tensor, support: Tensor) -> Tensor:
    batch, _, *query_size = query.shape
    support_size = support.shape[-2:]
    query, support = (
        x / (x.norm(dim=1, keepdim=True) + SETTINGS["epsilon"]) for x in (query.flatten(2), support.flatten(2))
    )
    return torch.bmm(query.transpose(1, 2), support).view(batch, *query_size, *support_size)


def load_into_ours(reference: ReferenceMatcher, ours: nn.Module) -> None:
    """Gives `dsvlfs.parts.matching.DenseMatcher` the same parameters."""
    ours.load_state_dict(dict(zip(ours.state_dict(), reference.state_dict().values(), strict=True)))
