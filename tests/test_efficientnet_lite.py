"""The vision tower's shape and its padding."""

import torch
import torch.nn.functional as F

from dsvlfs.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel, _SameConv2d


def test_lite2_has_the_published_channels_and_size():
    config = EfficientNetLiteConfig(token_grid=4)
    assert config.stage_channels == [16, 24, 48, 88, 120, 208, 352]
    with torch.device("meta"):
        model = EfficientNetLiteModel(config).eval()
        output = model(torch.empty(2, 3, 260, 260))
    assert [tuple(x.shape) for x in output.feature_maps][-3:] == [(2, 120, 17, 17), (2, 208, 9, 9), (2, 352, 9, 9)]
    assert output.last_hidden_state.shape == (2, 16, 352)
    # Lite2 has 6.09 M parameters, of which 1.73 M are the head and the classifier that are left out.
    assert sum(p.numel() for p in model.parameters()) == 6_092_072 - (352 * 1280 + 2 * 1280) - (1280 * 1000 + 1000)


def test_padding_puts_the_odd_pixel_right_and_below():
    conv = _SameConv2d(1, 1, 3, stride=2, bias=False)
    torch.nn.init.ones_(conv.weight)
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    torch.testing.assert_close(conv(x), F.conv2d(F.pad(x, (0, 1, 0, 1)), conv.weight, stride=2))
    odd = torch.arange(25.0).reshape(1, 1, 5, 5)
    torch.testing.assert_close(conv(odd), F.conv2d(odd, conv.weight, stride=2, padding=1))
