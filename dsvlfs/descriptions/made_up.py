"""Words that nobody knows, for a class whose name says nothing."""

import numpy as np

_SEED = 11


def made_up_names(count: int = 200, *, seed: int = _SEED) -> list[str]:
    """Words of two to four syllables that mean nothing; the same each time, and others for another seed."""
    rng = np.random.default_rng(seed)
    parts = [[*"bcdfgjklmnprstvz", "br", "dr", "gl", "kr", "pl", "st", "tr"], [*"aeiou", "ai", "ou"], ["", *"lmnrst"]]
    draw = lambda: "".join(choices[rng.integers(len(choices))] for choices in parts)  # noqa: E731
    return ["".join(draw() for _ in range(rng.integers(2, 5))) for _ in range(count)]
