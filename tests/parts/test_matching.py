"""Dense matching against its definition, written out, and against the reference's arithmetic; whole and in parts."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from reference_matching import ReferenceMatcher, load_into_ours
from torch import Tensor

from dsvlfs.parts import correlation
from dsvlfs.parts.correlation import Correlation
from dsvlfs.parts.group_norm import norm_relu
from dsvlfs.parts.matching import CenterPivotConv4d, DenseMatcher


def plain_correlation(query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
    """One layer's, all at once: (batch, qh, qw, sh, sw)."""
    query, support = F.normalize(query, dim=1), F.normalize(support, dim=1) * mask.unsqueeze(1)
    return torch.einsum("bcij,bckl->bijkl", query, support).clamp(min=0)


def plain_matching(matcher: DenseMatcher, query: list[Tensor], support: list[Tensor], mask: Tensor, size: int):
    """`DenseMatcher.forward` step by step, with every map held."""
    query = [F.interpolate(q, (size, size), mode="bilinear", align_corners=False) for q in query]
    masks = [mask, 1 - mask] if matcher.background else [mask]
    x = torch.stack([plain_correlation(q, s, m) for m in masks for q, s in zip(query, support)], dim=1)
    area = torch.stack([m.flatten(1).sum(1).clamp(min=1) for m in masks for _ in query], dim=1)
    priors = torch.cat([x.sum(dim=(-2, -1)) / area[..., None, None], x.amax(dim=(-2, -1))], dim=1)
    for block in matcher.blocks:
        q, s = block.conv.query_conv, block.conv.support_conv
        pivots = x[..., ::2, ::2]
        over_query = [[q(pivots[..., k, m]) for m in range(pivots.shape[-1])] for k in range(pivots.shape[-2])]
        over_query = torch.stack([torch.stack(row, dim=-1) for row in over_query], dim=-2)
        over_support = [[s(x[:, :, i, j]) for j in range(size)] for i in range(size)]
        over_support = torch.stack([torch.stack(row, dim=2) for row in over_support], dim=2)
        x = over_query + over_support
        x = F.relu(F.group_norm(x, 4, block.norm.weight, block.norm.bias))
    squeezed = x.mean(dim=(-2, -1))
    return matcher.to_prompt(torch.cat([squeezed, F.instance_norm(priors)], dim=1) if matcher.priors else squeezed)


def inputs(side: int = 9) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Two samples with masks of different places: layers of 7 and 5 channels, the second's query grid a smaller one."""
    torch.manual_seed(1)
    query = [torch.randn(2, c, n, n, dtype=torch.float64, requires_grad=True) for c, n in ((7, 8), (5, 4))]
    support = [torch.randn(2, c, side, side, dtype=torch.float64, requires_grad=True) for c in (7, 5)]
    mask = torch.zeros(2, side, side, dtype=torch.float64)
    mask[0, 2:5, 3:7] = torch.rand(3, 4, dtype=torch.float64)
    mask[1, 3:6, 2:4] = 1
    return query, support, mask


def test_correlation_is_the_clamped_cosine_under_the_mask():
    torch.manual_seed(0)
    query, support = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 2, 3)
    mask = torch.rand(2, 2, 3)
    result = Correlation([query], [support], mask)[:]
    assert result.shape == (2, 3, 4, 2, 3, 1)
    for b, i, j, k, m in itertools.product(range(2), range(3), range(4), range(2), range(3)):
        cosine = F.cosine_similarity(query[b, :, i, j], support[b, :, k, m], dim=0) * mask[b, k, m]
        assert result[b, i, j, k, m].item() == pytest.approx(max(cosine.item(), 0), abs=1e-6)


def test_center_pivot_convolution_is_a_4d_convolution_without_the_off_plane_weights():
    torch.manual_seed(0)
    conv = CenterPivotConv4d(2, 3, support_stride=2)
    x = torch.randn(1, 4, 3, 5, 4, 2)
    result = conv(x)
    assert result.shape == (1, 4, 3, 3, 2, 3)
    padded = F.pad(x.movedim(-1, 1), (1, 1) * 4)
    query_weight, support_weight = conv.query_conv.weight, conv.support_conv.weight
    bias = conv.query_conv.bias + conv.support_conv.bias
    for i, j, k, m in itertools.product(range(4), range(3), range(3), range(2)):
        window = padded[0, :, i : i + 3, j : j + 3, 2 * k : 2 * k + 3, 2 * m : 2 * m + 3]
        kernel = torch.zeros(3, 2, 3, 3, 3, 3)
        kernel[:, :, :, :, 1, 1] += query_weight
        kernel[:, :, 1, 1] += support_weight
        expected = (kernel * window).flatten(1).sum(1) + bias
        torch.testing.assert_close(result[0, i, j, k, m], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("chunk", [2**24, 2000, 1])
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("priors", [False, True])
@pytest.mark.parametrize("side", [8, 9])
def test_output_and_gradients_are_those_of_the_definition(monkeypatch, chunk, background, priors, side):
    monkeypatch.setattr(correlation, "CHUNK", chunk)
    torch.manual_seed(0)
    matcher = DenseMatcher(layers=2, channels=(4, 8), prompt_dim=6, background=background, priors=priors).double()
    query, support, mask = inputs(side)
    result, expected = matcher(query, support, mask, 8), plain_matching(matcher, query, support, mask, 8)
    assert result.shape == (2, 6, 8, 8)
    torch.testing.assert_close(result, expected, atol=1e-10, rtol=1e-10)
    with torch.inference_mode():
        torch.testing.assert_close(matcher(query, support, mask, 8), expected, atol=1e-10, rtol=1e-10)
    weight = torch.randn_like(expected)
    wanted = [*matcher.parameters(), *query, *support]
    found, truth = (torch.autograd.grad((output * weight).sum(), wanted) for output in (result, expected))
    for a, b in zip(found, truth):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("chunk", [2**24, 500])
def test_it_is_the_references_arithmetic(monkeypatch, chunk):
    monkeypatch.setattr(correlation, "CHUNK", chunk)
    torch.manual_seed(0)
    reference = ReferenceMatcher(layers=2, channels=(4, 8, 12), prompt_dim=6).double()
    ours = DenseMatcher(layers=2, channels=(4, 8, 12), prompt_dim=6).double()
    load_into_ours(reference, ours)
    query, support, mask = inputs(8)
    query = [100 * F.interpolate(q, (8, 8)) for q in query]  # the reference adds 1e-5 to each length
    support = [100 * s for s in support]
    expected = reference(query, support, mask.ceil())
    torch.testing.assert_close(ours(query, support, mask.ceil(), 8), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("chunk", [2**24, 1])
def test_one_query_is_matched_with_several_supports(monkeypatch, chunk):
    monkeypatch.setattr(correlation, "CHUNK", chunk)
    torch.manual_seed(0)
    matcher = DenseMatcher(layers=2, channels=(4, 8), prompt_dim=6, priors=True).double()
    query, support, mask = inputs()
    query = [q[:1] for q in query]
    together = matcher(query, support, mask, 8)
    for i in range(2):
        alone = matcher(query, [s[i : i + 1] for s in support], mask[i : i + 1], 8)
        torch.testing.assert_close(together[i : i + 1], alone)


@pytest.mark.parametrize("found", list(itertools.product([0, 1], repeat=7)))
def test_what_is_left_out_of_the_support_is_seen_by_no_window(found):
    found = torch.tensor(found, dtype=torch.float32)
    window = correlation._window(found > 0, 2)
    whole = F.conv1d(found[None, None], torch.tensor([[[1.0, 2.0, 4.0]]]), stride=2, padding=1)[0, 0]
    part = F.conv1d(found[None, None, window], torch.tensor([[[1.0, 2.0, 4.0]]]), stride=2, padding=1)[0, 0]
    first = window.start // 2
    assert torch.equal(whole[first : first + len(part)], part)
    assert whole[:first].sum() == whole[first + len(part) :].sum() == 0


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


def test_normalisation_is_exact_far_from_zero():
    torch.manual_seed(0)
    norm = torch.nn.GroupNorm(4, 8)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(1, 300, 300, 8) + 30
    expected = F.relu(F.group_norm(x.double().movedim(-1, 1), 4, norm.weight.double(), norm.bias.double()))
    result = norm_relu(x.clone(), norm)
    torch.testing.assert_close(result.double(), expected.movedim(1, -1), atol=2e-5, rtol=0)
    with torch.inference_mode():
        torch.testing.assert_close(norm_relu(x.clone(), norm), result)
