"""Reading ahead, in processes of their own."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, default_convert

from ..errors import InputError


def load_ahead(
    dataset: Dataset, *, workers: int, collate: Callable[[Any], Any] = default_convert, **options: Any
) -> Iterator[Any]:
    """What a `DataLoader` gives.

    Args:
        dataset: its items.
        workers: processes that read ahead; 0 reads in between.
        collate: stacks the items of a batch; with `batch_size=None`, changes an item.
        options: others of `DataLoader`.

    Raises:
        InputError: an item's, as it is; a worker's raising would wrap it in a traceback.
    """
    loader = DataLoader(
        _Caught(dataset),
        num_workers=workers,
        collate_fn=partial(_collate, collate),
        generator=torch.Generator(),  # of its own: a loader draws a number when it starts
        **options,
    )
    for batch in loader:
        if isinstance(batch, InputError):
            raise batch
        yield batch


class _Caught(Dataset):
    """A dataset whose InputErrors are items."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)  # type: ignore[arg-type]  # those that are loaded have one

    def __getitem__(self, index: int) -> Any:
        try:
            return self._dataset[index]
        except InputError as error:
            return error


def _collate(collate: Callable[[Any], Any], items: Any) -> Any:
    for item in items if isinstance(items, list) else [items]:
        if isinstance(item, InputError):
            return item
    return collate(items)
