import pytest
import torch

from dsvlfs.parts.request_fit import RequestFit, fit_request, foretold


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def request_of_two():
    """Two layers of two queries, with three supports each and their masks."""
    query = [drawn(2, 6, 4, 4), drawn(2, 5, 2, 2, seed=1)]
    support = [drawn(2, 3, 6, 3, 3, seed=2), drawn(2, 3, 5, 3, 3, seed=3)]
    mask = torch.rand(2, 3, 3, 3, generator=torch.Generator().manual_seed(4))
    return query, support, mask


def test_the_fit_is_a_weighted_ridge_regression(request_of_two):
    query, support, mask = request_of_two
    found = fit_request(query, support, mask, ridge=0.7, size=4)
    unit = torch.nn.functional.normalize
    wide = [query[0], torch.nn.functional.interpolate(query[1], (4, 4), mode="bilinear", align_corners=False)]
    for sample in range(2):
        x = torch.cat([unit(layer[sample].permute(0, 2, 3, 1).reshape(27, -1), dim=1) for layer in support], dim=1)
        y = mask[sample].flatten()
        weight = y / (2 * y.mean()) + (1 - y) / (2 * (1 - y).mean())
        gram = (x.T * weight) @ x + 0.7 * torch.eye(11)
        direction = torch.linalg.solve(gram, x.T @ (weight * (2 * y - 1)))
        places = torch.cat([unit(layer[sample].permute(1, 2, 0).reshape(16, -1), dim=1) for layer in wide], dim=1)
        torch.testing.assert_close(found[sample].flatten(), places @ direction, rtol=1e-4, atol=1e-5)


def test_supports_beyond_the_number_of_shots_are_passed_over(request_of_two):
    query, support, mask = request_of_two
    found = fit_request(query, support, mask, ridge=1.0, size=4, shots=torch.tensor([1, 3]))
    first = fit_request(query, [layer[:, :1] for layer in support], mask[:, :1], ridge=1.0, size=4)
    torch.testing.assert_close(found[0], first[0])
    torch.testing.assert_close(found[1], fit_request(query, support, mask, ridge=1.0, size=4)[1])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_masks_of_nothing_and_of_all_leave_finite_scores(share):
    support, mask = [drawn(1, 2, 4, 3, 3)], torch.full((1, 2, 3, 3), share)
    assert fit_request([drawn(1, 4, 5, 5, seed=1)], support, mask, ridge=10.0, size=5).isfinite().all()


def test_the_map_tells_what_the_supports_show():
    red, blue = torch.tensor([1.0, 0.1]), torch.tensor([0.1, 1.0])
    support = torch.stack([red, blue], dim=1)[None, None, :, None].expand(1, 1, 2, 2, 2)  # red on the left
    mask = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    query = torch.stack([blue, red], dim=1)[None, :, None].expand(1, 2, 2, 2)  # red on the right
    score = fit_request([query], [support], mask, ridge=0.1, size=2)
    assert (score[0, :, 1] > 0.5).all()
    assert (score[0, :, 0] < -0.5).all()


def test_a_new_part_adds_nothing_and_learns(request_of_two):
    query, support, mask = request_of_two
    part = RequestFit(prompt_dim=8)
    added = part(query, support, mask, 4)
    assert added.shape == (2, 8, 4, 4)
    assert not added.any()
    added.sum().backward()
    assert part.to_prompt[-1].bias.grad.any()


def test_supports_foretell_one_another_by_the_fit_to_all_others(request_of_two):
    _, support, mask = request_of_two
    support, mask = [layer[0] for layer in support], mask[0]
    ious = []
    for number in range(3):
        others = [other for other in range(3) if other != number]
        query = [layer[number : number + 1] for layer in support]
        score = fit_request(query, [layer[None, others] for layer in support], mask[None, others], ridge=0.7, size=3)[0]
        found, there = score > 0, mask[number] > 0.5
        ious.append((found & there).sum() / (found | there).sum())
    torch.testing.assert_close(foretold(support, mask, ridge=0.7), torch.stack(ious).mean())
    assert 0 < torch.stack(ious).mean() < 1
