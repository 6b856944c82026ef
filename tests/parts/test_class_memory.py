"""A class that is remembered: what sets it off in many photos, solved once."""

import pytest
import torch

from dsvlfs.parts.class_memory import ClassMemory, class_direction
from dsvlfs.parts.request_fit import fit_request, unit_positions


@pytest.fixture
def views():
    """Three photos of a grid of 4 x 4: positions, share of the class, and what counts of each."""
    generator = torch.Generator().manual_seed(0)
    layers = [torch.randn(3, channels, 4, 4, generator=generator) for channels in (6, 5)]
    share = torch.rand(3, 16, generator=generator)
    counted = (torch.rand(3, 16, generator=generator) > 0.2).float()
    return layers, share, counted


def test_a_direction_is_the_ridge_regression_of_all_photos(views):
    layers, share, counted = views
    found = class_direction(zip(unit_positions(layers, 4), share, counted))
    positions, y, w = unit_positions(layers, 4).flatten(0, 1).double(), share.flatten(), counted.flatten()
    area = (y * w).sum() / w.sum()
    weight = (w * (y / (2 * area) + (1 - y) / (2 * (1 - area))) / w.sum()).double()
    gram = (positions.T * weight) @ positions + 0.002 * torch.eye(11)
    wanted = torch.linalg.solve(gram, positions.T @ (weight * (2 * y.double() - 1)))
    torch.testing.assert_close(found, wanted.float(), rtol=1e-3, atol=1e-4)


def test_what_does_not_count_changes_nothing(views):
    layers, share, counted = views
    other = torch.where(counted > 0, share, 1 - share)
    first, second = (class_direction(zip(unit_positions(layers, 4), own, counted)) for own in (share, other))
    assert torch.equal(first, second)


def test_its_map_tells_the_class_from_the_rest(views):
    layers, _, counted = views
    share = (layers[0][:, 0] > 0).float().flatten(1)
    memory = ClassMemory(classes=2, channels=11)
    memory.directions[1] = class_direction(zip(unit_positions(layers, 4), share, torch.ones_like(counted)))
    score = memory.score(1, layers, 4)
    assert score.shape == (3, 4, 4)
    assert ((score > 0) == (share.unflatten(1, (4, 4)) > 0.5)).float().mean() > 0.9
    assert not memory.score(0, layers, 4).any()


def test_one_photo_is_remembered_as_a_support_of_it_is_fitted(views):
    layers, share, counted = views
    memory = ClassMemory(classes=1, channels=11)
    memory.directions[0] = class_direction([(unit_positions(layers, 4)[0], share[0], torch.ones_like(counted[0]))])
    support = [layer[:1, None] for layer in layers]
    wanted = fit_request(layers, support, share[:1].unflatten(1, (1, 4, 4)), ridge=0.002 * 16, size=4)
    torch.testing.assert_close(memory.score(0, layers, 4)[0], wanted[0], rtol=1e-3, atol=1e-3)
