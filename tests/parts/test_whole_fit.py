"""A fit to the supports' whole photos."""

import torch
import torch.nn.functional as F

from dsvlfs.parts.request_fit import fit_request
from dsvlfs.parts.whole_fit import GRID, likeness, pooled_whole, whole_fit


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_photo_is_pooled_and_a_coarse_layer_kept():
    fine, coarse, mask = drawn(1, 4, 32, 32), drawn(1, 3, 7, 7), (drawn(1, 64, 64, seed=1) > 0).float()
    (pooled, kept), share = pooled_whole([fine, coarse], mask)
    torch.testing.assert_close(pooled, F.avg_pool2d(fine, 2))
    assert torch.equal(kept, coarse)
    torch.testing.assert_close(share, F.avg_pool2d(mask[:, None], 4)[:, 0])
    assert share.shape == (1, GRID, GRID)


def test_its_map_is_that_of_the_fit_to_the_request_from_whole_photos():
    support, mask = [drawn(2, 6, GRID, GRID), drawn(2, 5, GRID, GRID, seed=1)], torch.rand(2, GRID, GRID)
    query = [drawn(1, 6, 8, 8, seed=2), drawn(1, 5, 4, 4, seed=3)]
    score = whole_fit(query, support, mask, size=8)
    wanted = fit_request(query, [layer[None] for layer in support], mask[None], ridge=0.01 * 2 * GRID**2, size=8)
    torch.testing.assert_close(score, wanted, rtol=1e-4, atol=1e-4)


def test_a_query_is_as_like_its_supports_as_its_positions_are():
    photo, other = drawn(1, 6, GRID, GRID), drawn(1, 6, GRID, GRID, seed=1)
    mask = torch.rand(1, GRID, GRID)
    assert abs(likeness([photo], [photo], mask, size=GRID) - 1) < 1e-5
    assert likeness([other], [photo], mask, size=GRID) < 0.99
    assert likeness([-photo], [photo], mask, size=GRID) < 0.99


def test_of_many_supports_the_first_are_read():
    support, mask = [drawn(7, 6, GRID, GRID)], torch.rand(7, GRID, GRID)
    query = [drawn(1, 6, 8, 8, seed=2)]
    first = [layer[:5] for layer in support], mask[:5]
    assert torch.equal(whole_fit(query, support, mask, size=8), whole_fit(query, *first, size=8))
    assert torch.equal(likeness(query, support, mask, size=8), likeness(query, *first, size=8))
