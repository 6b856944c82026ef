"""Figures of matplotlib as pictures. Importing this module says in one sentence where matplotlib is missing."""

import io

from PIL import Image

from ..errors import InputError

try:
    from matplotlib import colormaps
    from matplotlib.figure import Figure
except ImportError as error:
    raise InputError("This analysis draws with matplotlib; install it with: pip install 'dsvlfs[analyze]'") from error

Colour = tuple[float, float, float, float]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches; pyplot and its global state are not used."""
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def as_picture(figure: Figure) -> Image.Image:
    """The figure drawn."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def colours(count: int) -> list[Colour]:
    """So many colours that tell classes apart, as far as that goes: beyond 20 neighbours look alike."""
    if count <= 10:
        return [colormaps["tab10"](i) for i in range(count)]
    if count <= 20:
        return [colormaps["tab20"](i) for i in range(count)]
    return [colormaps["hsv"](i / count) for i in range(count)]
