"""Reading ahead: the items, and what was wrong with one, are the same however many processes read."""

import pytest
import torch
from torch.utils.data import Dataset, default_collate

from dsvlfs.data.loading import load_ahead
from dsvlfs.errors import InputError


class Numbers(Dataset):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> int:
        if index == 5:
            raise InputError("Number 5 cannot be read.")
        return index


@pytest.mark.parametrize("workers", [0, 1])
def test_items_and_errors_come_as_they_are(workers):
    state = torch.get_rng_state()
    batches = load_ahead(Numbers(), workers=workers, collate=default_collate, batch_size=2)
    assert [next(batches).tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(InputError, match=r"^Number 5 cannot be read\.$"):
        next(batches)
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's numbers are drawn
    singly = load_ahead(Numbers(), workers=workers, batch_size=None)
    assert [next(singly) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match=r"^Number 5 cannot be read\.$"):
        next(singly)
