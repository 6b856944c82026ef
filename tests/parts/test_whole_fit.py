"""A fit to the supports' whole photos."""

import pytest
import torch
import torch.nn.functional as F

from dsvlfs.parts.request_fit import fit_request, unit_positions
from dsvlfs.parts.whole_fit import GRID, fit_whole, pooled_whole


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_photo_is_pooled_and_a_coarse_layer_kept():
    fine, coarse, mask = drawn(1, 4, 64, 64), drawn(1, 3, 7, 7), (drawn(1, 128, 128, seed=1) > 0).float()
    (pooled, kept), share = pooled_whole([fine, coarse], mask)
    torch.testing.assert_close(pooled, F.avg_pool2d(fine, 2))
    assert torch.equal(kept, coarse)
    torch.testing.assert_close(share, F.avg_pool2d(mask[:, None], 4)[:, 0])
    assert share.shape == (1, GRID, GRID)


@pytest.mark.parametrize("shots", [1, 5])
def test_its_map_is_that_of_the_fit_to_the_request_from_whole_photos(shots):
    """Of features that have as much in common as the encoders' have."""
    side, common = 16, [2 * drawn(1, 60, 1, 1, seed=4), 2 * drawn(1, 50, 1, 1, seed=5)]
    support = [drawn(shots, 60, side, side) + common[0], drawn(shots, 50, side, side, seed=1) + common[1]]
    query = [drawn(1, 60, 8, 8, seed=2) + common[0], drawn(1, 50, 4, 4, seed=3) + common[1]]
    mask = (drawn(shots, side, side, seed=6) > 1).float()
    score = fit_whole(support, mask).score(unit_positions(query, 8)).unflatten(1, (8, 8))
    ridge = 0.01 * shots * side**2
    wanted = fit_request(query, [layer[None] for layer in support], mask[None], ridge=ridge, size=8)
    assert wanted.std() > 0.05
    torch.testing.assert_close(score, wanted, rtol=1e-4, atol=1e-4)


def test_a_query_is_as_like_its_supports_as_its_positions_are():
    photo, other = drawn(1, 6, GRID, GRID), drawn(1, 6, GRID, GRID, seed=1)
    photo, other = (F.interpolate(F.avg_pool2d(own, 2), scale_factor=2.0) for own in (photo, other))
    told = fit_whole([photo], torch.rand(1, GRID, GRID))
    assert abs(told.likeness(unit_positions([photo], GRID)) - 1) < 1e-5
    assert told.likeness(unit_positions([other], GRID)) < 0.99
    assert told.likeness(unit_positions([-photo], GRID)) < 0.99


def test_of_many_supports_the_first_are_read():
    support, mask = [drawn(7, 6, 16, 16)], torch.rand(7, 16, 16)
    places = unit_positions([drawn(1, 6, 8, 8, seed=2)], 8)
    every, first = fit_whole(support, mask), fit_whole([layer[:5] for layer in support], mask[:5])
    assert torch.equal(every.score(places), first.score(places))
    assert torch.equal(every.likeness(places), first.likeness(places))
