"""Which sessions' photos and results are kept: a bounded number, and nobody's for what another asks."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from gradio.state_holder import StateHolder

from .turns import Visitor


class Sessions:
    """Keeps few enough of gradio's sessions.

    A session that holds nothing, as that of a program, goes when it is answered. Of those that hold something the
    least recently used goes, of the address that has the most.

    Args:
        most: that are kept.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._addresses: OrderedDict[str, str] = OrderedDict()  # the last used at the end
        self._under_way: Counter[str] = Counter()

    @contextmanager
    def using(self, holder: StateHolder, visitor: Visitor) -> Iterator[None]:
        """A request of a session."""
        session = visitor.session
        self._under_way[session] += 1
        try:
            yield
        finally:
            self._under_way[session] -= 1
            self._under_way += Counter()
            self._tidy(holder, visitor)

    def _tidy(self, holder: StateHolder, visitor: Visitor) -> None:
        kept = holder.session_data
        if visitor.session in kept:
            self._addresses[visitor.session] = visitor.address
            self._addresses.move_to_end(visitor.session)
            if not kept[visitor.session].state_data:
                self._drop(holder, visitor.session)
        for session in self._addresses.keys() - kept.keys():
            del self._addresses[session]
        for session in kept.keys() - self._addresses.keys():  # of no request
            self._drop(holder, session)
        while len(self._addresses) > self.most:
            ((largest, _),) = Counter(self._addresses.values()).most_common(1)
            idle = [s for s, address in self._addresses.items() if address == largest and not self._under_way[s]]
            if not idle:
                break
            self._drop(holder, idle[0])

    def _drop(self, holder: StateHolder, session: str) -> None:
        """Forgets a session, unless a request uses it."""
        if self._under_way[session]:
            return
        holder.session_data.pop(session, None)
        holder.time_last_used.pop(session, None)
        self._addresses.pop(session, None)
