"""The collector of cyclic garbage, kept waiting while modules and weights are loaded: hundreds of thousands of objects
come to stay, and it would look through all of them again and again, for a quarter of the time."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Nothing is collected meanwhile; afterwards it is as it was. For the whole process, so only where it is short."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
