"""Whose turn it is: the time of what works on one thing at a time, shared fairly among those who ask for it."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


class BusyError(RuntimeError):
    """Too many ask, or a request has taken too long; the message is one sentence for who asked."""


@dataclass(frozen=True)
class Visitor:
    """Who asks.

    Args:
        address: of the network; those behind one proxy share it.
        session: of a page or of a program's client; a new one costs nothing.
    """

    address: str = ""
    session: str = ""

    @property
    def levels(self) -> tuple[tuple[str, ...], ...]:
        """What shares the time: addresses, and at each its sessions."""
        return (self.address,), (self.address, self.session)


NOBODY = Visitor()
VISITOR: ContextVar[Visitor] = ContextVar("visitor", default=NOBODY)
"""Of the request that is being answered."""

HAS_LEFT: ContextVar[Callable[[], bool]] = ContextVar("has_left", default=bool)
"""Whether that visitor waits for the answer no longer."""


class Turns:
    """One place to work at, for one request at a time.

    A request takes a turn for each piece of its work, and may lose the place between two. The next turn goes to the
    address that has used the least time; there, to the session that has used the least; of a session's requests, to
    the first. This is start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) on two levels: who asks for much
    waits longer, and nobody else does for it.

    Args:
        per_session, per_address, in_all: how many requests may be under way.
        time_limit: of a request, in seconds, its waiting included. A piece of work is not cut short: it is looked at
            between two.
    """

    def __init__(self, *, per_session: int, per_address: int, in_all: int, time_limit: float) -> None:
        self.per_session, self.per_address, self.in_all = per_session, per_address, in_all
        self.time_limit = time_limit
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._under_way: Counter[Visitor] = Counter()
        self._waiting: list[tuple[int, Visitor]] = []
        self._taken = False
        self._used: dict[tuple[str, ...], float] = {}  # seconds, from a common start
        self._now: dict[tuple[str, ...], float] = {}  # what those under an address, or all, have used at least

    @contextmanager
    def visit(self) -> Iterator[Visit]:
        """A request of `VISITOR`, from when it comes until it is answered.

        Raises:
            BusyError: too many are under way.
        """
        visitor = VISITOR.get()
        with self._changed:
            self._admit(visitor)
        visit = Visit(self, visitor, time.monotonic() + self.time_limit, HAS_LEFT.get())
        try:
            yield visit
        finally:
            with self._changed:
                self._give_back(visit)
                self._leave(visitor)

    def _admit(self, visitor: Visitor) -> None:
        own = self._under_way[visitor]
        near = sum(number for other, number in self._under_way.items() if other.address == visitor.address)
        if own >= self.per_session:
            raise BusyError(f"You have {own} requests under way already; wait until one of them is answered.")
        if near >= self.per_address or self._under_way.total() >= self.in_all:
            raise BusyError("Too many requests are under way just now; try again in a minute.")
        present = {level for other in self._under_way for level in other.levels}
        for level in visitor.levels:
            if level not in present:  # what was not asked for while away is not saved up
                self._used[level] = max(self._used.get(level, 0.0), self._now.get(level[:-1], 0.0))
        self._under_way[visitor] += 1

    def _leave(self, visitor: Visitor) -> None:
        self._under_way[visitor] -= 1
        self._under_way += Counter()  # drops those at nought
        present = {level for other in self._under_way for level in other.levels}
        if not present:
            self._used.clear()
        self._used = {
            level: used
            for level, used in self._used.items()
            if level in present or used > self._now.get(level[:-1], 0.0)
        }
        self._now = {level: now for level, now in self._now.items() if any(key[:-1] == level for key in self._used)}

    def _take(self, visit: Visit, waiting: Callable[[int], None] | None) -> None:
        ahead = len(self._waiting) + (self._taken and visit.since is None)
        if ahead and waiting is not None:
            waiting(ahead)
        with self._changed:
            place = next(self._numbers), visit.visitor
            self._waiting.append(place)
            self._give_back(visit)  # and perhaps gets it again at once
            try:
                free = self._changed.wait_for(
                    lambda: not self._taken and min(self._waiting, key=self._rank) == place,
                    visit.deadline - time.monotonic(),
                )
                if not free or time.monotonic() > visit.deadline:
                    raise BusyError(
                        f"This took longer than {self.time_limit:.0f} seconds, the waiting included, and was given "
                        "up; try again later, or ask for less at a time."
                    )
                if visit.has_left():
                    raise BusyError("Nobody waits for this answer any more.")
                self._taken, visit.since = True, time.monotonic()
            finally:
                self._waiting.remove(place)
                self._changed.notify_all()
            for level in visit.visitor.levels:
                self._now[level[:-1]] = max(self._now.get(level[:-1], 0.0), self._used[level])

    def _rank(self, place: tuple[int, Visitor]) -> tuple[float, ...]:
        number, visitor = place
        return (*(self._used[level] for level in visitor.levels), number)

    def _give_back(self, visit: Visit) -> None:
        if visit.since is None:
            return
        for level in visit.visitor.levels:
            self._used[level] += time.monotonic() - visit.since
        self._taken, visit.since = False, None
        self._changed.notify_all()


@dataclass
class Visit:
    """A request under way; `Turns.visit` makes it.

    Args:
        turns: where.
        visitor: whose.
        deadline: by `time.monotonic`.
        has_left: whether the visitor waits no longer; then no more is done.
        since: when it got the place that it has; None where it has none.
    """

    turns: Turns
    visitor: Visitor
    deadline: float
    has_left: Callable[[], bool] = bool
    since: float | None = None

    @contextmanager
    def turn(self, waiting: Callable[[int], None] | None = None) -> Iterator[None]:
        """The place, for one piece of work. It is kept until the request asks for its next turn or is answered: who
        left it in between would lose it to anyone who happens to wait.

        Args:
            waiting: told how many are there already, where it is not free at once.

        Raises:
            BusyError: the request's time is over, or its visitor has left.
        """
        self.turns._take(self, waiting)
        yield
