"""The texts that come with the package, written for it: a sentence or two of visual features a class (`bank.json`), and
of PASCAL's and COCO's classes a paragraph as well (`paragraphs.json`)."""

import json
from functools import cache
from importlib.resources import files
from typing import Any

from ..inference.checks import name_key


def bank_description(class_name: str, *, long: bool = False) -> str | None:
    """What a class looks like.

    Args:
        class_name: or a synonym; case, hyphens, underscores and spaces do not count.
        long: the paragraph (80 to 150 words) where the class has one.

    Returns:
        The bank's text; None where the bank lacks the class.
    """
    paragraph = _texts_by_key("paragraphs.json").get(name_key(class_name)) if long else None
    return paragraph or _texts_by_key("bank.json").get(name_key(class_name))


def bank_names(*, long: bool = False) -> list[str]:
    """The classes described, or with `long` those that have a paragraph; synonyms left out."""
    return list(_bank("paragraphs.json" if long else "bank.json")["descriptions"])


@cache
def _bank(name: str) -> dict[str, Any]:
    return json.loads(files(__package__).joinpath(name).read_text(encoding="utf-8"))


@cache
def _texts_by_key(name: str) -> dict[str, str]:
    texts, synonyms = _bank(name)["descriptions"], _bank("bank.json")["synonyms"]
    own = {name_key(synonym): texts[name] for synonym, name in synonyms.items() if name in texts}
    return own | {name_key(name): text for name, text in texts.items()}
