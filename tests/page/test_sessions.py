"""Whose photos and results are kept."""

from datetime import datetime
from types import SimpleNamespace

import pytest

from dsvlfs.page.sessions import Sessions
from dsvlfs.page.turns import Visitor


class Holder:
    """Gradio's, as far as it is used."""

    def __init__(self) -> None:
        self.session_data: dict[str, SimpleNamespace] = {}
        self.time_last_used: dict[str, datetime] = {}

    def open(self, session: str, **state: object) -> None:
        self.session_data[session] = SimpleNamespace(state_data=state)
        self.time_last_used[session] = datetime.now()


@pytest.fixture
def holder() -> Holder:
    return Holder()


def use(sessions: Sessions, holder: Holder, address: str, session: str, **state: object) -> None:
    holder.open(session, **state)
    with sessions.using(holder, Visitor(address, session)):
        pass


def test_a_session_that_holds_nothing_goes_when_it_is_answered(holder):
    sessions = Sessions(2)
    for number in range(5):
        use(sessions, holder, "there", f"program {number}")
    use(sessions, holder, "here", "page", drafts=[1])
    assert list(holder.session_data) == list(holder.time_last_used) == ["page"]
    holder.open("of no request")
    use(sessions, holder, "here", "page", drafts=[1])
    assert list(holder.session_data) == ["page"]


def test_a_session_in_use_stays_though_it_holds_nothing_yet(holder):
    sessions = Sessions(2)
    holder.open("page")
    with sessions.using(holder, Visitor("here", "page")):
        with sessions.using(holder, Visitor("here", "page")):
            pass
        holder.session_data["page"].state_data["drafts"] = [1]
    assert list(holder.session_data) == ["page"]


def test_the_address_that_has_most_loses_its_oldest(holder):
    sessions = Sessions(3)
    use(sessions, holder, "here", "honest", drafts=[1])
    for number in range(10):
        use(sessions, holder, "there", f"hostile {number}", drafts=[1])
    assert list(holder.session_data) == ["honest", "hostile 8", "hostile 9"]
    with sessions.using(holder, Visitor("there", "hostile 8")), sessions.using(holder, Visitor("there", "hostile 9")):
        use(sessions, holder, "there", "another", drafts=[1])
    assert len(holder.session_data) == 3
    assert "honest" in holder.session_data
