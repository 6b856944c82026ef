"""Dense matching: query and support features to the visual prompt (arXiv 2503.04006, section 3.3).

The center-pivot convolutions of the 4D correlation follow HSNet (Min et al., ICCV 2021): a 4D kernel whose weights off
the two planes through its centre are zero is the sum of two 2D convolutions, one over the query's plane and one over
the support's. 4D maps are laid out (batch, query height, query width, support height, support width, channels): with
the channels last neither convolution has to reorder its input.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .correlation import Correlation, divide, reduce_support
from .group_norm import norm_relu


class CenterPivotConv4d(nn.Module):
    """4D convolution with a kernel of 3, on the two planes through the kernel's centre.

    Args:
        inputs, outputs: channels.
        support_stride: stride over the support's plane; the query's plane keeps its size.
    """

    def __init__(self, inputs: int, outputs: int, *, support_stride: int = 2) -> None:
        super().__init__()
        self.support_stride = support_stride
        self.query_conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.support_conv = nn.Conv2d(inputs, outputs, 3, stride=support_stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, qh, qw, sh, sw, inputs) to (batch, qh, qw, ceil(sh / stride), ceil(sw / stride), outputs)."""
        result = self._over_support(x, self._bias)
        pivots = self._pivots(x)
        parts = divide(pivots.shape[3], max(pivots[0].numel(), result[0].numel()), x.device)
        if len(parts) == 1:
            return result + self._over_query(pivots)
        for rows in parts:
            result[:, :, :, rows] += self._over_query(pivots[:, :, :, rows])
        return result

    def stream(self, correlation: Correlation, *, reduce: bool = False) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """`forward` of a correlation that is made a part at a time, and made again for the backward pass.

        Args:
            correlation: what to convolve.
            reduce: also reduce it over the support.

        Returns:
            As `forward`; and each channel's sum and maximum over the support (batch, qh, qw, inputs), or None.
        """
        stride = self.support_stride
        size = [-(-side // stride) for side in correlation.support_size]
        result = self._bias.expand(correlation.batch, *correlation.query_size, *size, -1).contiguous()
        rows, columns = (
            slice(window.start // stride, -(-window.stop // stride))
            for window in (correlation.support_rows, correlation.support_columns)
        )
        box = result[:, :, :, rows, columns]

        def convolve(rows: slice) -> tuple[Tensor, ...]:
            x = correlation[rows].to(self.query_conv.weight.dtype)
            # With a row more at either end: what these rows add to the results beside them.
            over_query = self._over_query(self._pivots(x), row_padding=2)
            return self._over_support(x), over_query, *(reduce_support(x) if reduce else ())

        reduced = []
        for rows in correlation.parts:
            over_support, over_query, *maps = _remade(convolve, rows) if torch.is_grad_enabled() else convolve(rows)
            box[:, rows] += over_support
            reached = slice(max(rows.start - 1, 0), min(rows.stop + 1, len(result[0])))
            box[:, reached] += over_query[:, reached.start - rows.start + 1 : reached.stop - rows.start + 1]
            reduced.append(maps)
        sums, maxima = (torch.cat(maps, dim=1) for maps in zip(*reduced)) if reduce else (None, None)
        return result, sums, maxima

    @property
    def _bias(self) -> Tensor:
        return self.query_conv.bias + self.support_conv.bias

    def _pivots(self, x: Tensor) -> Tensor:
        """The support positions that a window is centred on."""
        return x[:, :, :, :: self.support_stride, :: self.support_stride]

    def _over_support(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        planes = x.flatten(0, 2).permute(0, 3, 1, 2)
        result = F.conv2d(planes, self.support_conv.weight, bias, self.support_stride, padding=1)
        return result.permute(0, 2, 3, 1).unflatten(0, x.shape[:3])

    def _over_query(self, pivots: Tensor, row_padding: int = 1) -> Tensor:
        batch, _, _, height, width, _ = pivots.shape
        planes = pivots.permute(0, 3, 4, 1, 2, 5).flatten(0, 2).permute(0, 3, 1, 2)
        result = F.conv2d(planes, self.query_conv.weight, padding=(row_padding, 1))
        return result.permute(0, 2, 3, 1).unflatten(0, (batch, height, width)).permute(0, 3, 4, 1, 2, 5)


_remade = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
"""Calls a function whose intermediate results are not kept for the backward pass, but made again in it."""


class _Block4d(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = CenterPivotConv4d(inputs, outputs)
        self.norm = nn.GroupNorm(4, outputs)

    def activate(self, x: Tensor) -> Tensor:
        """The convolution's result, normalised and rectified."""
        return norm_relu(x, self.norm)


@dataclass(frozen=True)
class Match:
    """A query's match with each support, reduced over the support's positions.

    Args:
        squeezed: (batch, channels, height, width), the mean of the convolved correlation.
        sums, maxima: (batch, height, width, correlation's channels), of the correlation; None without priors.
        areas: (batch, correlation's channels), number of positions that each channel's sum is over; None likewise.
    """

    squeezed: Tensor
    sums: Tensor | None = None
    maxima: Tensor | None = None
    areas: Tensor | None = None

    def __getitem__(self, supports: list[int]) -> "Match":
        """Of some of the supports."""
        return Match(*(value if value is None else value[supports] for value in vars(self).values()))

    def joint(self) -> "Match":
        """The batch, of one query's supports, as one support: what is reduced over a support's positions is reduced
        over all of theirs. Each support's plane was convolved and normalised by itself."""
        squeezed = self.squeezed.mean(dim=0, keepdim=True)
        if self.sums is None:
            return Match(squeezed)
        return Match(
            squeezed,
            self.sums.sum(dim=0, keepdim=True),
            self.maxima.amax(dim=0, keepdim=True),
            self.areas.sum(dim=0, keepdim=True),
        )


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
        self.blocks = nn.ModuleList(_Block4d(a, b) for a, b in itertools.pairwise(sizes))
        squeezed = sizes[-1] + (2 * inputs if priors else 0)
        self.to_prompt = nn.Sequential(
            nn.Conv2d(squeezed, prompt_dim, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(prompt_dim, prompt_dim, 3, padding=1),
            nn.ReLU(),
        )

    def forward(self, query: Sequence[Tensor], support: Sequence[Tensor], mask: Tensor, size: int) -> Tensor:
        """Matches; the arguments are those of `match`.

        Returns:
            The visual prompt (batch, prompt_dim, size, size).
        """
        return self.prompt(self.match(query, support, mask, size))

    def match(self, query: Sequence[Tensor], support: Sequence[Tensor], mask: Tensor, size: int) -> Match:
        """Correlates and convolves.

        Args:
            query: a tensor (batch, channels, height, width) a layer; layers may differ in size. A batch of one is
                matched with every support.
            support: likewise, with the same channels, and one size for all layers.
            mask: (batch, support height, support width), the support's foreground in [0, 1].
            size: side of the visual prompt, in positions; query layers of other sizes are resampled to it.
        """
        precision = reduce(torch.promote_types, (layer.dtype for layer in query))  # of two bases, they may differ
        query = [_resample(layer, size).to(precision) for layer in query]
        support = [layer.to(precision) for layer in support]
        first = self.blocks[0]
        stride = first.conv.support_stride
        correlation = Correlation(query, support, mask, background=self.background, stride=stride)
        sums = maxima = areas = None
        if correlation.is_small:
            whole = correlation[:].to(first.conv.query_conv.weight.dtype)
            x = first.conv(whole)
            if self.priors:
                sums, maxima = reduce_support(whole)
        else:
            x, sums, maxima = first.conv.stream(correlation, reduce=self.priors)
        remake = torch.is_grad_enabled() and not correlation.is_small
        del correlation  # and with it the room for its parts
        for before, block in itertools.pairwise(self.blocks):
            if remake:
                x = _remade(lambda x, a=before, b=block: b.conv(a.activate(x)), x)
            else:
                x = before.activate(x)  # a statement each, so that a map is let go when it has been read
                x = block.conv(x)
        x = self.blocks[-1].activate(x)
        if self.priors:
            areas = mask.flatten(1).sum(1, keepdim=True).expand(-1, len(query))
            if self.background:
                areas = torch.cat([areas, mask[0].numel() - areas], dim=1)
        return Match(x.mean(dim=(3, 4)).permute(0, 3, 1, 2), sums, maxima, areas)

    def prompt(self, match: Match) -> Tensor:
        """The visual prompt (batch, prompt_dim, size, size) of a match."""
        squeezed = match.squeezed
        if self.priors:
            means = match.sums / match.areas.clamp(min=1)[:, None, None]
            # Cosines of one encoder lie close together: what counts is where in the photo they are highest.
            priors = F.instance_norm(torch.cat([means, match.maxima], dim=-1).permute(0, 3, 1, 2))
            squeezed = torch.cat([squeezed, priors.to(squeezed.dtype)], dim=1)
        return self.to_prompt(squeezed)


def _resample(features: Tensor, size: int) -> Tensor:
    if features.shape[-1] == size:
        return features
    return F.interpolate(features, (size, size), mode="bilinear", align_corners=False)
