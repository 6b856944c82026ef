"""EfficientNet-Lite, the vision tower of the `tiny` size (transformers has no Lite variant).

The network is EfficientNet (arXiv 1905.11946) without squeeze-and-excitation, with ReLU6 for swish and a stem and head
of fixed width. The released weights come from TensorFlow, hence the asymmetric "same" padding and epsilon 1e-3.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

# EfficientNet-B0's stages (kernel, stride, expansion, channels, repeats), from table 1 of the paper.
_B0_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_STEM_CHANNELS = 32


def _scaled_channels(channels: int, width: float) -> int:
    """Channels times `width`, to the nearest multiple of 8 but never more than 10 % down."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


class EfficientNetLiteConfig(PreTrainedConfig):
    """Defaults are Lite2's.

    Args:
        width: multiplier of every stage's channels.
        depth: multiplier of every stage's repeats, the first and last stage excepted.
        image_size: side of the square input in pixels.
        token_grid: side of the grid to which the last stage is pooled for a language model, in tokens.
    """

    model_type = "efficientnet_lite"

    def __init__(
        self, width: float = 1.1, depth: float = 1.2, image_size: int = 448, token_grid: int = 7, **kwargs: Any
    ) -> None:
        self.width = width
        self.depth = depth
        self.image_size = image_size
        self.token_grid = token_grid
        super().__init__(**kwargs)

    @property
    def stage_channels(self) -> list[int]:
        """Channels of each stage's output, shallow to deep."""
        return [_scaled_channels(channels, self.width) for *_, channels, _ in _B0_STAGES]

    @property
    def hidden_size(self) -> int:
        """Channels of a token, the name that LLaVA's projector asks for."""
        return self.stage_channels[-1]


class _SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's padding: the odd pixel goes to the right and below."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads = []
        for size in (x.shape[-1], x.shape[-2]):
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(x, pads) if any(pads) else x)


class _ConvNorm(nn.Sequential):
    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, activate: bool = True
    ) -> None:
        super().__init__()
        self.conv = _SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3)
        if activate:
            self.act = nn.ReLU6(inplace=True)


class _InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = _ConvNorm(inputs, inner, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _ConvNorm(inner, inner, kernel, stride, groups=inner)
        self.project = _ConvNorm(inner, outputs, 1, activate=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


@dataclass
class EfficientNetLiteOutput(ModelOutput):
    """`last_hidden_state`: (batch, token_grid^2, hidden_size), the tokens that LLaVA reads; `hidden_states`: the same,
    in a tuple, as LLaVA looks for it; `feature_maps`: (batch, channels, height, width) of each stage."""

    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    feature_maps: tuple[Tensor, ...] | None = None


class EfficientNetLiteModel(PreTrainedModel):
    """The convolutional stages, without the classifier. Input: (batch, 3, height, width), RGB, (x - 127) / 128."""

    config_class = EfficientNetLiteConfig
    main_input_name = "pixel_values"

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__(config)
        self.stem = _ConvNorm(3, _STEM_CHANNELS, 3, stride=2)
        self.stages = nn.ModuleList()
        inputs = _STEM_CHANNELS
        last = len(_B0_STAGES) - 1
        for index, (kernel, stride, expansion, _, repeats) in enumerate(_B0_STAGES):
            outputs = config.stage_channels[index]
            if 0 < index < last:
                repeats = math.ceil(config.depth * repeats)
            stage = nn.Sequential()
            for repeat in range(repeats):
                stage.append(_InvertedResidual(inputs, outputs, kernel, stride if repeat == 0 else 1, expansion))
                inputs = outputs
            self.stages.append(stage)
        self.post_init()

    def for_inference(self) -> "EfficientNetLiteModel":
        """Puts the batch norms' numbers into the convolutions before them, and the channels last: the same network to
        rounding, in half the time on a CPU. It cannot be trained, nor saved as a base, any more."""
        for module in self.modules():
            if isinstance(module, _ConvNorm):
                module.conv = fuse_conv_bn_eval(module.conv.eval(), module.norm.eval())
                module.norm = nn.Identity()
        return self.to(memory_format=torch.channels_last)

    def forward(self, pixel_values: Tensor, **_: object) -> EfficientNetLiteOutput:
        """Runs every stage.

        Args:
            pixel_values: (batch, 3, height, width).

        Returns:
            Tokens and the feature map of each stage.
        """
        x = self.stem(pixel_values)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        tokens = F.adaptive_avg_pool2d(x, self.config.token_grid).flatten(2).transpose(1, 2)
        return EfficientNetLiteOutput(last_hidden_state=tokens, hidden_states=(tokens,), feature_maps=tuple(maps))


AutoConfig.register(EfficientNetLiteConfig.model_type, EfficientNetLiteConfig)
AutoModel.register(EfficientNetLiteConfig, EfficientNetLiteModel)
