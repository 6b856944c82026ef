"""Descriptions that are no help: to measure what they do to a mask, and to train against them."""

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np

from ..errors import InputError
from ..inference.checks import MAX_DESCRIPTION

Spoiling = Literal["first third", "noise words", "right, then another's", "another's"]
SPOILINGS: tuple[Spoiling, ...] = ("first third", "noise words", "right, then another's", "another's")


class Spoiler:
    """Makes a class's description worse.

    Args:
        texts: descriptions by class name.
        further: texts whose words noise is drawn from as well.

    Raises:
        InputError: all descriptions are one and the same.
    """

    def __init__(self, texts: Mapping[str, str], further: Iterable[str] = ()) -> None:
        if len(set(texts.values())) < 2:
            raise InputError("Fewer than two classes have a description of their own; give more of them.")
        self._texts = dict(texts)
        self._names = sorted(self._texts)
        self._words = sorted({word for text in (*self._texts.values(), *further) for word in text.split()})

    def other(self, name: str, rng: np.random.Generator) -> str:
        """The name of another class, which another text describes; where there is none, of another class."""
        others = [other for other in self._names if other != name]
        differing = [other for other in others if self._texts[other] != self._texts.get(name)]
        names = differing or others
        return names[rng.integers(len(names))]

    def spoil(self, text: str, how: Spoiling, *, name: str, other: str, rng: np.random.Generator) -> str:
        """A description that is no help.

        Args:
            text: the right one.
            how: "first third" of its words; "noise words", as many drawn from all descriptions, none of them the
                name's; "right, then another's", which contradicts it; "another's" alone.
            name: of the class.
            other: name of the other class.
            rng: draws the noise.
        """
        words = text.split()
        if how == "first third":
            return " ".join(words[: max(1, len(words) // 3)])
        if how == "noise words":
            named = {_plain(word) for word in name.split()}
            others = [word for word in self._words if _plain(word) not in named]
            return " ".join(rng.choice(others or self._words, len(words)))
        another = self._texts[other]
        return another if how == "another's" else f"{text} {another}"[:MAX_DESCRIPTION]


def _plain(word: str) -> str:
    return word.casefold().strip(".,;:!?'\"()")
