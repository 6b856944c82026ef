"""The bounded cache."""

import copy

from dsvlfs.parts.recent import Recent


def test_what_is_kept_is_bounded_and_the_oldest_goes():
    recent, made = Recent(2), []
    for key in "abacab":
        assert recent.get(key, lambda key=key: made.append(key) or key.upper()) == key.upper()
    assert made == ["a", "b", "c", "b"]
    assert len(recent) == 2


def test_a_copy_starts_empty():
    recent = Recent(2)
    recent.get("a", str)
    assert len(copy.deepcopy(recent)) == 0
