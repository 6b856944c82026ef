"""Who gets the model's time: nobody waits for what another asks too much."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsvlfs.page import turns
from dsvlfs.page.turns import VISITOR, BusyError, Turns, Visit, Visitor


class Clock:
    """Time goes on only where a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(turns, "time", clock)
    return clock


def make(**bounds: Any) -> Turns:
    return Turns(**{"per_session": 100, "per_address": 100, "in_all": 100, "time_limit": 60, **bounds})


@contextmanager
def visiting(place: Turns, visitor: Visitor) -> Iterator[Visit]:
    token = VISITOR.set(visitor)
    with place.visit() as visit:
        VISITOR.reset(token)
        yield visit


def served(place: Turns, clock: Clock, asked: list[tuple[Visitor, list[float]]]) -> list[tuple[Visitor, float]]:
    """Sends all requests while the place is taken, then lets it go; who was served, and with which piece, in order.

    Args:
        asked: of each request, whose it is and how long its pieces take.
    """
    order = []

    def ask(visitor: Visitor, pieces: list[float]) -> None:
        with visiting(place, visitor) as visit:
            for seconds in pieces:
                with visit.turn():
                    order.append((visitor, seconds))
                    wait_until(lambda: len(place._waiting) == sum(t.is_alive() for t in threads) - 1)  # all others
                    clock.now += seconds

    threads = [threading.Thread(target=ask, args=request) for request in asked]
    with visiting(place, Visitor("door")) as visit, visit.turn():
        for thread in threads:  # in this order
            before = len(place._waiting)
            thread.start()
            wait_until(lambda before=before: len(place._waiting) == before + 1)
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return order


def wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if holds():
            return
        time.sleep(0.001)
    raise AssertionError("it never held")


def test_who_asks_for_much_waits_longer_and_nobody_else_does(clock):
    hostile, honest = Visitor("here", "hostile"), [Visitor("here", f"honest {i}") for i in range(3)]
    order = served(make(time_limit=1000), clock, [(hostile, [5.0])] * 10 + [(visitor, [1.0] * 2) for visitor in honest])
    assert order[0][0] == hostile  # it was first
    assert {visitor for visitor, _ in order[1:7]} == set(honest)  # all that they asked for costs less than its first
    assert [visitor for visitor, _ in order[7:]] == [hostile] * 9


def test_many_sessions_of_one_address_share_its_time(clock):
    many = [(Visitor("there", f"session {i}"), [1.0]) for i in range(10)]
    order = served(make(), clock, [*many, (Visitor("here", "honest"), [1.0] * 3)])
    places = [i for i, (visitor, _) in enumerate(order) if visitor.address == "here"]
    assert places == [1, 3, 5]  # every other turn, not every eleventh


def test_the_requests_of_one_visitor_are_served_in_order(clock):
    visitor = Visitor("here", "one")
    assert [piece for _, piece in served(make(), clock, [(visitor, [float(i)]) for i in range(1, 6)])] == [
        1,
        2,
        3,
        4,
        5,
    ]


def test_time_away_is_neither_saved_up_nor_held_against_anyone(clock):
    place = make()
    steady, rare = Visitor("here", "steady"), Visitor("here", "rare")
    with visiting(place, Visitor("there", "idle")):  # with nobody under way all would be forgotten
        for _ in range(50):
            with visiting(place, steady) as visit, visit.turn():
                clock.now += 1
        order = served(place, clock, [(steady, [1.0] * 4), (rare, [1.0] * 4)])
    assert [visitor for visitor, _ in order[:4]].count(rare) == 2


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2), st.lists(st.floats(0.1, 9), min_size=1, max_size=4)),
        min_size=1,
        max_size=8,
    )
)
def test_all_are_served_once_and_addresses_get_like_shares(asked):
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "time", clock)
        requests = [(Visitor(str(address), str(session)), pieces) for address, session, pieces in asked]
        order = served(make(time_limit=10_000), clock, requests)
    assert sorted(order, key=repr) == sorted(((v, piece) for v, pieces in requests for piece in pieces), key=repr)
    left = {v.address: sum(sum(p) for w, p in requests if w.address == v.address) for v, _ in requests}
    used, longest = dict.fromkeys(left, 0.0), max(piece for _, piece in order)
    for visitor, piece in order:
        waiting = [address for address in left if used[address] < left[address] - 1e-9]
        assert used[visitor.address] <= min(used[address] for address in waiting) + longest + 1e-9
        used[visitor.address] += piece


@pytest.mark.parametrize(
    ("bound", "others", "sentence"),
    [
        ({"per_session": 2}, [Visitor("here", "me")] * 2, "You have 2 requests under way"),
        ({"per_address": 2}, [Visitor("here", "a"), Visitor("here", "b")], "Too many requests"),
        ({"in_all": 2}, [Visitor("there", "a"), Visitor("elsewhere", "b")], "Too many requests"),
    ],
)
def test_requests_under_way_are_bounded(bound, others, sentence):
    place, me = make(**bound), Visitor("here", "me")
    with ExitStack() as stack:
        for visitor in others:
            stack.enter_context(visiting(place, visitor))
        with pytest.raises(BusyError, match=sentence), visiting(place, me):
            pass
    with visiting(place, me) as visit, visit.turn():  # there is room again
        pass
    assert place._used == {}


def test_a_request_whose_time_is_over_is_told_so_and_holds_up_nobody(clock):
    place = make(time_limit=5)
    with visiting(place, Visitor("here", "slow")) as visit:
        with visit.turn():
            clock.now += 6
        with pytest.raises(BusyError, match="longer than 5 seconds"), visit.turn():
            pass
    told = []

    def wait() -> None:
        with visiting(place, Visitor("here", "late")) as visit:
            try:
                with visit.turn(told.append):
                    told.append("served")
            except BusyError as error:
                told.append(str(error))

    with visiting(place, Visitor("here", "long")) as visit, visit.turn():
        thread = threading.Thread(target=wait)
        thread.start()
        wait_until(lambda: place._waiting)
        clock.now += 6
    thread.join(30)
    assert told[0] == 1  # before it
    assert told[1].startswith("This took longer than 5 seconds")
    with visiting(place, Visitor("here", "next")) as visit, visit.turn():
        pass


def test_a_failure_gives_the_place_back():
    place = make()
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), place.visit() as visit, visit.turn():
            raise error
    with place.visit() as visit, visit.turn():
        assert place._under_way.total() == 1
    assert place._under_way.total() == 0


def test_a_broken_report_of_the_waiting_holds_up_nobody():
    place = make()

    def broken(ahead: int) -> None:
        raise RuntimeError

    with (
        place.visit() as first,
        first.turn(),
        pytest.raises(RuntimeError),
        place.visit() as second,
        second.turn(broken),
    ):
        pass
    with place.visit() as visit, visit.turn():
        pass
    assert place._waiting == []


def test_nothing_is_done_for_who_has_left():
    place, left = make(), []
    token = turns.HAS_LEFT.set(lambda: bool(left))
    with place.visit() as visit:
        turns.HAS_LEFT.reset(token)
        with visit.turn():
            left.append(True)
        with pytest.raises(BusyError, match="Nobody waits"), visit.turn():
            raise AssertionError("done in vain")
    with place.visit() as visit, visit.turn():  # the place is free
        pass
