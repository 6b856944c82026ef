"""The 4D correlation of query and support features (arXiv 2503.04006, section 3.3), made a part at a time.

At the paper's size all layers' correlation takes 2 GiB in float32, so nobody holds it: it is made for some rows of the
query, and only for the box of support positions that the mask leaves.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 2**26
"""How many numbers a part of a 4D map may hold (256 MiB in float32, and the layers' products as much again). Half of it
makes the matrix products a tenth slower. Where gradients are asked for it is a 32nd, for their backward pass holds some
parts at once; on a GPU a quarter, which takes half the time there and, in all, as much memory."""

_APART = 16
"""Numbers between two layers' products. With a power of two from one layer to the next, all of them fall into the same
few lines of the processor's cache, and reading them side by side takes twice as long."""


class Correlation:
    """The clamped cosine of each query position with each support position, times the support's mask.

    The paper multiplies the support's features by the mask before the cosine, which gives a cell on the mask's edge
    full weight; here it counts by the share of it that is foreground. On a mask of nought and one both are the same.

    Args:
        query: a tensor (batch, channels, query height, query width) a layer, all of one height and width; a batch of
            one is compared with every support.
        support: a tensor (batch, channels, support height, support width) a layer.
        mask: (batch, support height, support width), in [0, 1].
        background: also under one less the mask, as further channels.
        stride: of the convolution over the support's plane that will read it.

    Attributes:
        batch: number of supports.
        query_size, support_size: (height, width) of the planes.
        is_small: whether it is one part and made for the whole support.
        support_rows, support_columns: the box of the support for which it is made; elsewhere it is nought.
    """

    def __init__(
        self,
        query: Sequence[Tensor],
        support: Sequence[Tensor],
        mask: Tensor,
        *,
        background: bool = False,
        stride: int = 2,
    ) -> None:
        self.batch, *self.support_size = mask.shape
        self.query_size = query[0].shape[-2:]
        self.query = query
        self.background = background
        channels = len(query) * (2 if background else 1)
        self.is_small = channels * self.query_size.numel() * mask[0].numel() <= _chunk(mask.device)
        self.support_rows, self.support_columns = (slice(0, side) for side in self.support_size)
        if not (self.is_small or background or mask.is_meta):
            found = mask.amax(dim=0) > 0
            self.support_rows, self.support_columns = (_window(found.any(dim=axis), stride) for axis in (1, 0))
        box = (..., self.support_rows, self.support_columns)
        self.mask = mask[box].to(query[0].dtype)
        self._numbers = channels * self.query_size.numel() * self.mask.numel()
        self.support = [layer[box] for layer in support]  # views: of all layers at once, copies take much memory
        self.query_scales = [_inverse_length(layer) for layer in query]
        self.scales = [_inverse_length(layer).flatten(2) for layer in self.support]
        if not background:
            self.scales = [scale * self.mask.flatten(1)[:, None] for scale in self.scales]
        self._memory: Tensor | None = None

    @property
    def parts(self) -> list[slice]:
        """Rows of the query, of which each part is made."""
        return divide(self.query_size[0], self._numbers, self.mask.device)

    def __getitem__(self, rows: slice) -> Tensor:
        """Some rows of the query against the box of the support.

        Returns:
            (batch, rows, query width, box height, box width, layers), not negative; with the background, twice the
            layers. Where no gradient is asked for, the next part overwrites it.
        """
        parts = [
            (query[:, :, rows] * scale[:, :, rows]).flatten(2).transpose(1, 2)
            for query, scale in zip(self.query, self.query_scales, strict=True)
        ]
        if torch.is_grad_enabled() or torch.compiler.is_exporting():
            cosines = [
                part @ support.flatten(2) * scale for part, support, scale in zip(parts, self.support, self.scales)
            ]
            result = torch.stack(cosines, dim=-1)
        else:
            products, result = self._reused(parts[0])
            for part, support, product in zip(parts, self.support, products):
                torch.matmul(part, support.flatten(2), out=product)
            torch.mul(products.permute(1, 2, 3, 0), torch.stack(self.scales, dim=-1), out=result)
        result = result.relu_().unflatten(2, self.mask.shape[1:]).unflatten(1, (-1, self.query_size[1]))
        if self.background:
            mask = self.mask[:, None, None, :, :, None]
            result = torch.cat([result * mask, result * (1 - mask)], dim=-1)
        return result

    def _reused(self, part: Tensor) -> tuple[Tensor, Tensor]:
        """Room for (layers, batch, query positions, support positions) and for the same with the layers last, which is
        the same for every part: what the system gives anew it clears page by page, as slow as a convolution."""
        shape = (self.batch, part.shape[1], self.mask[0].numel())
        layers, one = len(self.query), math.prod(shape)
        apart = one + _APART
        if self._memory is None or len(self._memory) < layers * (apart + one):
            self._memory = part.new_empty(layers * (apart + one))
        products, result = self._memory[: layers * (apart + one)].split([layers * apart, layers * one])
        return products.view(layers, apart)[:, :one].unflatten(1, shape), result.view(*shape, layers)


def unit(features: Tensor) -> Tensor:
    """Of unit length along dimension 1, or nought; `F.normalize`, whose epsilon is nought in float16."""
    wide = features.float() if features.dtype == torch.float16 else features
    return F.normalize(wide, dim=1).to(features.dtype)


def _inverse_length(features: Tensor) -> Tensor:
    """(batch, channels, ...) to (batch, 1, ...)."""
    wide = features.to(torch.promote_types(features.dtype, torch.float32))  # squares leave the range of 16 bits
    squares = torch.linalg.vecdot(wide, wide, dim=1)  # ten times as fast as a norm over this dimension
    least = 1e-8 if features.dtype == torch.float16 else 1e-24  # whose inverse root is a number
    return squares.clamp(min=least).rsqrt().to(features.dtype).unsqueeze(1)


def reduce_support(correlation: Tensor) -> tuple[Tensor, Tensor]:
    """Sum and maximum over the support: (batch, rows, query width, box height, box width, layers) to (batch, rows,
    query width, layers)."""
    return correlation.sum(dim=(3, 4)), correlation.amax(dim=(3, 4))


def divide(length: int, numbers: int, device: torch.device) -> list[slice]:
    """Divides a length, which holds so many numbers in all, into parts that hold `CHUNK` at most, or its share where
    gradients are asked for."""
    step = max(1, length * _chunk(device) // numbers)
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def _chunk(device: torch.device) -> int:
    if not torch.is_grad_enabled():
        return CHUNK
    return CHUNK // (4 if device.type == "cuda" else 32)


def _window(found: Tensor, stride: int) -> slice:
    """From the first to the last pivot whose window, three wide, sees something of `found`: where the rest is nought,
    convolving this much of the plane is convolving it all."""
    inside = found.nonzero().flatten().tolist() or [0]
    first, last = inside[0] // stride, -(-inside[-1] // stride)
    return slice(first * stride, min(last * stride + 1, len(found)))
