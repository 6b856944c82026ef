"""The vision tower's shape and its padding."""

import torch
import torch.nn.functional as F

from dsvlfs.parts.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel, _SameConv2d


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


def test_made_ready_for_inference_it_is_the_same_network():
    torch.manual_seed(0)
    model = EfficientNetLiteModel(EfficientNetLiteConfig(width=0.2, depth=0.3, image_size=56, token_grid=2))
    with torch.no_grad():
        for _ in range(3):  # norms with statistics of their own
            model.train()(torch.randn(4, 3, 56, 56))
        photo = torch.randn(2, 3, 56, 56)
        expected = model.eval()(photo)
        output = model.for_inference()(photo)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    torch.testing.assert_close(output.last_hidden_state, expected.last_hidden_state, atol=1e-5, rtol=1e-4)
    for got, wanted in zip(output.feature_maps, expected.feature_maps, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


def test_padding_puts_the_odd_pixel_right_and_below():
    conv = _SameConv2d(1, 1, 3, stride=2, bias=False)
    torch.nn.init.ones_(conv.weight)
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    torch.testing.assert_close(conv(x), F.conv2d(F.pad(x, (0, 1, 0, 1)), conv.weight, stride=2))
    odd = torch.arange(25.0).reshape(1, 1, 5, 5)
    torch.testing.assert_close(conv(odd), F.conv2d(odd, conv.weight, stride=2, padding=1))
