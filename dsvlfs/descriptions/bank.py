"""The texts that come with the package (`bank.json`), written for it: a sentence or two of visual features a class."""

import json
from functools import cache
from importlib.resources import files
from typing import Any


def bank_description(class_name: str) -> str | None:
    """What a class looks like.

    Args:
        class_name: or a synonym; case, hyphens, underscores and spaces do not count.

    Returns:
        The bank's text; None where the bank lacks the class.
    """
    return _texts_by_key().get(_key(class_name))


def bank_names() -> list[str]:
    """The classes described, synonyms left out."""
    return list(_bank()["descriptions"])


@cache
def _bank() -> dict[str, Any]:
    return json.loads(files(__package__).joinpath("bank.json").read_text(encoding="utf-8"))


@cache
def _texts_by_key() -> dict[str, str]:
    bank = _bank()
    synonyms = {_key(synonym): bank["descriptions"][name] for synonym, name in bank["synonyms"].items()}
    return synonyms | {_key(name): text for name, text in bank["descriptions"].items()}


def _key(name: str) -> str:
    return "".join(name.casefold().replace("-", "").replace("_", "").split())
