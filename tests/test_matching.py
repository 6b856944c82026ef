"""The 4D correlation and its convolutions against their definitions, written out."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from dsvlfs.matching import CenterPivotConv4d, DenseMatcher, correlate


def test_correlation_is_the_clamped_cosine_under_the_mask():
    torch.manual_seed(0)
    query, support = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 2, 3)
    mask = torch.rand(2, 2, 3)
    result = correlate(query, support, mask)
    assert result.shape == (2, 3, 4, 2, 3)
    for b, i, j, k, m in itertools.product(range(2), range(3), range(4), range(2), range(3)):
        cosine = F.cosine_similarity(query[b, :, i, j], support[b, :, k, m], dim=0) * mask[b, k, m]
        assert result[b, i, j, k, m].item() == pytest.approx(max(cosine.item(), 0), abs=1e-6)


def test_center_pivot_convolution_is_a_4d_convolution_without_the_off_plane_weights():
    torch.manual_seed(0)
    conv = CenterPivotConv4d(2, 3, support_stride=2)
    x = torch.randn(1, 2, 4, 3, 5, 4)
    result = conv(x)
    assert result.shape == (1, 3, 4, 3, 3, 2)
    padded = F.pad(x, (1, 1) * 4)
    query_weight, support_weight = conv.query_conv.weight, conv.support_conv.weight
    bias = conv.query_conv.bias + conv.support_conv.bias
    for i, j, k, m in itertools.product(range(4), range(3), range(3), range(2)):
        window = padded[0, :, i : i + 3, j : j + 3, 2 * k : 2 * k + 3, 2 * m : 2 * m + 3]
        kernel = torch.zeros(3, 2, 3, 3, 3, 3)
        kernel[:, :, :, :, 1, 1] += query_weight
        kernel[:, :, 1, 1] += support_weight
        expected = (kernel * window).flatten(1).sum(1) + bias
        torch.testing.assert_close(result[0, :, i, j, k, m], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("priors", [False, True])
def test_the_visual_prompt_has_the_query_grid_whatever_the_layers_sizes(background, priors):
    torch.manual_seed(0)
    matcher = DenseMatcher(layers=2, channels=(4, 8), prompt_dim=6, background=background, priors=priors)
    query = [torch.randn(3, 7, 8, 8), torch.randn(3, 5, 4, 4)]
    support = [torch.randn(3, 7, 6, 6), torch.randn(3, 5, 6, 6)]
    assert matcher(query, support, torch.rand(3, 6, 6), 8).shape == (3, 6, 8, 8)


def test_without_background_the_support_outside_its_mask_does_not_matter():
    torch.manual_seed(0)
    matcher = DenseMatcher(layers=1, channels=(4, 8), prompt_dim=6).eval()
    query, support = torch.randn(1, 7, 4, 4), torch.randn(1, 7, 6, 6)
    mask = torch.zeros(1, 6, 6)
    mask[:, 1:4, 2:5] = 1
    changed = torch.where(mask[:, None].bool(), support, torch.randn_like(support))
    torch.testing.assert_close(matcher([query], [support], mask, 4), matcher([query], [changed], mask, 4))
    inside = torch.where(mask[:, None].bool(), torch.randn_like(support), support)
    assert not torch.allclose(matcher([query], [support], mask, 4), matcher([query], [inside], mask, 4))
