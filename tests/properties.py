"""Properties that hold for whatever a person may give: a result, or one sentence that says what is wrong."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsvlfs import BaseNotAvailableError, InputError
from dsvlfs.errors import LONGEST

QUICK, THOROUGH = 25, 1500


def result_or_sentence(call: Callable[[], Any]) -> Any:
    """What a call gives; None where it says in one sentence what is wrong."""
    try:
        return call()
    except (InputError, BaseNotAvailableError) as error:
        message = str(error)
    assert message.isprintable()
    assert 10 < len(message) <= LONGEST
    return None


def property_test(*strategies: st.SearchStrategy, quick: int = QUICK, thorough: int = THOROUGH) -> Callable:
    """Turns a check of generated values, and of pytest's fixtures as keywords, into a test: some examples each time,
    the same ones; many by `pytest -m thorough`."""

    def decorate(check: Callable) -> Callable:
        @pytest.mark.parametrize("examples", [quick, pytest.param(thorough, marks=pytest.mark.thorough)])
        def test(examples: int, odd: dict[str, Any]) -> None:
            @settings(
                max_examples=examples,
                derandomize=True,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(st.tuples(*strategies))
            def run(values: tuple) -> None:
                check(*values, **odd)

            run()

        test.__doc__ = check.__doc__
        return test

    return decorate


# Values as JSON has them, of any type: also those that no field wants.
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.sampled_from([0, 1, -1, 2**31, 2**63, 10**30, 10**400]),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["", " ", "\u2028", "\ufeff", "a\0b", "../" * 50, "x" * 5000, "\ud800", "1", "NaN"]),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


def changed(good: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with up to three of its fields changed, left out or added."""
    names = st.sampled_from([*good, "more"])

    def change(changes: dict[str, Any], left_out: set[str]) -> dict[str, Any]:
        return {name: value for name, value in (good | changes).items() if name not in left_out}

    return st.builds(change, st.dictionaries(names, ANYTHING, max_size=2), st.sets(names, max_size=1))


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """A file cut short, with bytes overwritten, or with a part twice."""
    places = st.integers(0, max(0, len(content) - 1))

    def damage(cut: int | None, writes: list[tuple[int, int]], twice: tuple[int, int] | None) -> bytes:
        changed = bytearray(content)
        for place, byte in writes:
            changed[place] = byte
        if twice is not None:
            start, stop = sorted(twice)
            changed[stop:stop] = changed[start:stop]
        return bytes(changed if cut is None else changed[:cut])

    return st.builds(
        damage,
        st.none() | places,
        st.lists(st.tuples(places, st.integers(0, 255)), max_size=4),
        st.none() | st.tuples(places, places),
    )
