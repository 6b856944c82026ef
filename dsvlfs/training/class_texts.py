"""What the classes of a feature cache look like, in words that are right and in words that are no help."""

import numpy as np

from ..descriptions.bank import bank_description, bank_names
from ..descriptions.spoiled import SPOILINGS, Spoiler
from .feature_cache import FeatureCache

_SEED = 11


def describe_classes(cache: FeatureCache, noise: float) -> dict[str, list[str]]:
    """Descriptions of every support's class, by its name; the same each time.

    Args:
        cache: of the supports.
        noise: share of the descriptions that are no help, above 0 and at most 1; every class has as many of them as
            come nearest to that share: one at least, and at most one of a kind.

    Returns:
        The right description first, which is the bank's or else the photo's definition; a class that has neither is
        left out.
    """
    texts = {}
    for entry in cache.names("supports").values():
        name = entry["names"][0]
        if text := bank_description(name) or entry["definition"]:
            texts.setdefault(name, text)
    count = len(SPOILINGS) if noise == 1 else min(len(SPOILINGS), max(1, round(noise / (1 - noise))))
    spoiler = Spoiler(texts, map(bank_description, bank_names()))
    described = {}
    for number, (name, text) in enumerate(sorted(texts.items())):
        rng = np.random.default_rng((_SEED, number))
        other = spoiler.other(name, rng)
        chosen = [SPOILINGS[place] for place in rng.permutation(len(SPOILINGS))[:count]]
        described[name] = [text, *(spoiler.spoil(text, how, name=name, other=other, rng=rng) for how in chosen)]
    return described
