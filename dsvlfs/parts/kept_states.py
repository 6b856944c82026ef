"""States of classes that were asked for before, so that a language model reads a class once."""

from collections.abc import Callable, Hashable
from threading import Lock

from cachetools import LRUCache
from torch import Tensor

STATES_KEPT = 64

_LOCK = Lock()
"""Of all that is kept, for a step: a lock of an object's own could be neither copied nor sent to another process."""


class KeptStates:
    """The last states, by what was asked; dropped when a weight has changed. A copy, and what is sent to another
    process, starts with none."""

    def __init__(self) -> None:
        self._states: LRUCache[Hashable, Tensor] = LRUCache(STATES_KEPT)
        self._weights: Hashable = None

    def get(self, asked: Hashable, weights: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """The state of a question.

        Args:
            asked: the question.
            weights: what tells one set of weights from another.
            make: computes it where it is not kept.
        """
        with _LOCK:
            if weights != self._weights:
                self._states.clear()
                self._weights = weights
            state = self._states.get(asked)
        if state is None:
            state = make()
            with _LOCK:
                self._states[asked] = state
        return state

    def clear(self) -> None:
        """Drops all."""
        with _LOCK:
            self._states.clear()

    def __len__(self) -> int:
        return len(self._states)

    def __reduce__(self) -> tuple[type["KeptStates"], tuple[()]]:
        return KeptStates, ()
