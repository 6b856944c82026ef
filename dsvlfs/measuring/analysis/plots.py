"""Figures of matplotlib as pictures. Importing this module says in one sentence where matplotlib is missing."""

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from PIL import Image

from ...errors import InputError

try:
    from matplotlib import colormaps
    from matplotlib.figure import Figure
except ImportError as error:
    raise InputError("This analysis draws with matplotlib; install it with: pip install 'dsvlfs[analyze]'") from error

Colour = tuple[float, float, float, float]

MODE_COLOURS = {"both": "#33518f", "visual": "#d1823a", "semantic": "#5b9d62"}
"""Of the prompts that the decoder is given, the same in all pictures."""


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


class Bar(NamedTuple):
    """A value in percent with its interval (low, high), and which of the legend's groups it belongs to."""

    label: str
    group: str
    value: float
    interval: tuple[float, float]


def draw_bars(bars: Sequence[Bar], colour_of_group: Mapping[str, str], axis: str, legend: str) -> Image.Image:
    """Bars below each other, with their intervals; a dashed line at the first one's value."""
    figure = new_figure(8, 1.2 + 0.27 * len(bars))
    axes = figure.add_subplot()
    shown: set[str] = set()
    for place, bar in enumerate(bars):
        label = None if bar.group in shown else bar.group
        shown.add(bar.group)
        axes.barh(place, bar.value, color=colour_of_group[bar.group], label=label)
        axes.plot(bar.interval, [place, place], color="black", linewidth=1)
        axes.text(max(bar.interval[1], bar.value) + 0.8, place, f"{bar.value:.1f}", va="center", fontsize=8)
    axes.axvline(bars[0].value, color="gray", linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel(axis)
    axes.legend(title=legend, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(shown), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return as_picture(figure)
