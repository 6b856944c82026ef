"""Group normalisation and ReLU of maps with the channels last, exact for millions of positions.

PyTorch's own kernel for this layout adds up squares in float32, one after the other: at the paper's size (4 million
positions a channel) its variance is wrong in the fourth digit.
"""

from typing import Any

import torch
from torch import Tensor, nn

PART = 2**18
"""How many numbers are worked on at once, so that they stay in the processor's cache from one step to the next."""


def norm_relu(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Normalises and rectifies.

    Args:
        x: (batch, ..., channels), contiguous; overwritten where no gradient is asked for.
        norm: its groups and parameters.

    Returns:
        Of the same shape.
    """
    full = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    weight, bias = norm.weight.to(full.dtype), norm.bias.to(full.dtype)
    flat = full.flatten(1, -2)
    if torch.is_grad_enabled():
        result = _NormReLU.apply(flat, weight, bias, norm.num_groups, norm.eps)
    else:
        _, _, scale, shift = _affine(flat, weight, bias, norm.num_groups, norm.eps)
        for part in _parts(flat):
            part.mul_(scale).add_(shift).relu_()
        result = flat
    return result.view(x.shape).to(norm.weight.dtype)


class _NormReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, epsilon: float) -> Tensor:
        mean, inverse, scale, shift = _affine(x, weight, bias, groups, epsilon)
        result = torch.addcmul(shift, x, scale).relu_()
        ctx.groups = groups
        ctx.save_for_backward(x, result, mean, inverse, scale)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, result, mean, inverse, scale = ctx.saved_tensors
        gradient = torch.ops.aten.threshold_backward(gradient, result, 0)
        for_bias = gradient.sum(dim=1, keepdim=True)
        for_weight = (x - mean).mul_(gradient).sum(dim=1, keepdim=True) * inverse
        # What the mean and the deviation of its group pass on to each number.
        through_mean = _by_group(for_bias * scale, ctx.groups) / x.shape[1]
        through_deviation = _by_group(for_weight * scale, ctx.groups) / x.shape[1] * inverse
        for_x = gradient.mul_(scale).addcmul_(x, -through_deviation).add_(mean * through_deviation - through_mean)
        return for_x, for_weight.sum(dim=(0, 1)), for_bias.sum(dim=(0, 1)), None, None


def _affine(x: Tensor, weight: Tensor, bias: Tensor, groups: int, epsilon: float) -> tuple[Tensor, ...]:
    """Mean and inverse deviation of each channel's group, and the scale and shift that normalise; (batch, 1, channels)
    each."""
    means = x.mean(dim=1, keepdim=True)
    squares = torch.zeros_like(means)
    for part in _parts(x):
        squares += (part - means).square_().sum(dim=1, keepdim=True)
    mean = _by_group(means, groups)
    variance = _by_group(squares / x.shape[1] + (means - mean).square(), groups)
    inverse = (variance + epsilon).rsqrt()
    scale = inverse * weight
    return mean, inverse, scale, bias - mean * scale


def _parts(x: Tensor) -> tuple[Tensor, ...]:
    return x.split(max(1, PART // x.shape[2]), dim=1)


def _by_group(x: Tensor, groups: int) -> Tensor:
    """Each channel's group mean, (.., channels) to (.., channels)."""
    size = x.shape[-1] // groups
    return x.unflatten(-1, (groups, size)).mean(dim=-1).repeat_interleave(size, dim=-1)
