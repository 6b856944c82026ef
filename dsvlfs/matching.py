"""Dense matching: query and support features to the visual prompt (arXiv 2503.04006, section 3.3).

The 4D correlation and its center-pivot convolutions follow HSNet (Min et al., ICCV 2021): a 4D kernel whose weights
off the two planes through its centre are zero is the sum of two 2D convolutions, one over the query's plane and one
over the support's.
"""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def correlate(query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
    """Clamped cosine of each query position with each support position under a mask.

    The paper multiplies the support's features by the mask before the cosine, which gives a cell on the mask's edge
    full weight; here it counts by the share of it that is foreground. On a mask of nought and one both are the same.

    Args:
        query: (batch, channels, query height, query width).
        support: (batch, channels, support height, support width).
        mask: (batch, support height, support width), in [0, 1].

    Returns:
        (batch, query height, query width, support height, support width), not negative.
    """
    query = F.normalize(query, dim=1)
    support = F.normalize(support, dim=1) * mask.unsqueeze(1)
    return torch.einsum("bcij,bckl->bijkl", query, support).clamp(min=0)


class CenterPivotConv4d(nn.Module):
    """4D convolution on the two planes through the kernel's centre.

    Args:
        inputs, outputs: channels.
        kernel_size: of both planes.
        support_stride: stride over the support's plane; the query's plane keeps its size.
    """

    def __init__(self, inputs: int, outputs: int, *, kernel_size: int = 3, support_stride: int = 2) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.support_stride = support_stride
        self.query_conv = nn.Conv2d(inputs, outputs, kernel_size, padding=padding)
        self.support_conv = nn.Conv2d(inputs, outputs, kernel_size, stride=support_stride, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, qh, qw, sh, sw) to (batch, outputs, qh, qw, ceil(sh / stride), ceil(sw / stride))."""
        batch, _, qh, qw, sh, sw = x.shape
        pivot = x[..., :: self.support_stride, :: self.support_stride]
        ph, pw = pivot.shape[-2:]
        over_query = self.query_conv(pivot.permute(0, 4, 5, 1, 2, 3).reshape(batch * ph * pw, -1, qh, qw))
        over_support = self.support_conv(x.permute(0, 2, 3, 1, 4, 5).reshape(batch * qh * qw, -1, sh, sw))
        over_query = over_query.unflatten(0, (batch, ph, pw)).permute(0, 3, 4, 5, 1, 2)
        over_support = over_support.unflatten(0, (batch, qh, qw)).permute(0, 3, 1, 2, 4, 5)
        return over_query + over_support


class _Block4d(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = CenterPivotConv4d(inputs, outputs)
        self.norm = nn.GroupNorm(4, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class DenseMatcher(nn.Module):
    """Query and support features to the visual prompt.

    Args:
        layers: number of feature layers, each a channel of the correlation.
        channels: outputs of the 4D convolutions.
        prompt_dim: channels of the visual prompt.
        background: correlate with the support's background too, as `layers` further channels.
        priors: append each channel's mean and maximum over the support, standardised over the query, to the squeezed
            correlation.
    """

    def __init__(
        self,
        *,
        layers: int,
        channels: Sequence[int] = (16, 128, 256),
        prompt_dim: int = 256,
        background: bool = False,
        priors: bool = False,
    ) -> None:
        super().__init__()
        self.background = background
        self.priors = priors
        inputs = layers * (2 if background else 1)
        sizes = [inputs, *channels]
        self.blocks = nn.Sequential(*(_Block4d(a, b) for a, b in itertools.pairwise(sizes)))
        squeezed = sizes[-1] + (2 * inputs if priors else 0)
        self.to_prompt = nn.Sequential(
            nn.Conv2d(squeezed, prompt_dim, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(prompt_dim, prompt_dim, 3, padding=1),
            nn.ReLU(),
        )

    def forward(self, query: Sequence[Tensor], support: Sequence[Tensor], mask: Tensor, size: int) -> Tensor:
        """Matches.

        Args:
            query: a tensor (batch, channels, height, width) a layer; layers may differ in size.
            support: likewise, with the same channels, and one size for all layers.
            mask: (batch, support height, support width), the support's foreground in [0, 1].
            size: side of the visual prompt, in positions; query layers of other sizes are resampled to it.

        Returns:
            (batch, prompt_dim, size, size).
        """
        query = [_resample(layer, size) for layer in query]
        pairs = list(zip(query, support, strict=True))
        channels = [correlate(q, s, mask) for q, s in pairs]
        if self.background:
            channels += [correlate(q, s, 1 - mask) for q, s in pairs]
        correlation = torch.stack(channels, dim=1)
        squeezed = self.blocks(correlation).mean(dim=(-2, -1))
        if self.priors:
            weight = mask.flatten(1).sum(1)
            areas = [weight] * len(pairs)
            if self.background:
                areas += [mask[0].numel() - weight] * len(pairs)
            area = torch.stack(areas, dim=1).clamp(min=1)[:, :, None, None]
            mean = correlation.sum(dim=(-2, -1)) / area
            priors = torch.cat([mean, correlation.amax(dim=(-2, -1))], dim=1)
            # Cosines of one encoder lie close together: what counts is where in the photo they are highest.
            squeezed = torch.cat([squeezed, F.instance_norm(priors)], dim=1)
        return self.to_prompt(squeezed)


def _resample(features: Tensor, size: int) -> Tensor:
    if features.shape[-1] == size:
        return features
    return F.interpolate(features, (size, size), mode="bilinear", align_corners=False)
