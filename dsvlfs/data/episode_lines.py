"""The lines of a file of episodes: what they must hold, and which photos they name."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from ..errors import InputError
from ..files import checked
from .schemas import Name, PhotoId

MOSAIC_LAYOUT = (2, 2)
"""Rows and columns of a mosaic's tiles."""
_TILES = MOSAIC_LAYOUT[0] * MOSAIC_LAYOUT[1]


def support_ids_of(entry: dict[str, Any]) -> tuple[str, ...]:
    """`Episode.support_ids` of a line."""
    return tuple(f"{photo_id}:{entry['class_name']}" for photo_id in entry["support"])


def query_photos_of(entry: dict[str, Any]) -> tuple[str, ...]:
    """`Episode.query_photos` of a line."""
    return tuple(str(photo_id) for photo_id in (entry["query"], *entry.get("distractors", ())))


def query_id_of(entry: dict[str, Any]) -> str:
    """What tells an episode's query from others."""
    return "/".join((*query_photos_of(entry), str(entry.get("position"))))


def photo_ids_of(entry: dict[str, Any]) -> list:
    """Every photo that a line names."""
    return [entry["query"], *entry["support"], *entry.get("distractors", ())]


class _Line(TypedDict):
    class_name: Name
    query: PhotoId
    support: Annotated[list[PhotoId], Field(min_length=1)]


class _OfCoco(TypedDict):
    category_id: PhotoId


class _Mosaic(TypedDict):
    position: Annotated[int, Field(ge=0, lt=_TILES)]
    distractors: Annotated[list[PhotoId], Field(min_length=_TILES - 1, max_length=_TILES - 1)]


class _OfSet(TypedDict):
    data_set: Name
    fold: int | None
    seed: int


def check_entries(entries: list[dict[str, Any]], file: Path) -> list[dict[str, Any]]:
    """The lines with their fields alone: every one has the first one's kind and all of its fields, of the right types.

    Raises:
        InputError: one has not.
    """
    kinds = [_Line, *(kind for kind in (_OfCoco, _Mosaic, _OfSet) if kind.__annotations__.keys() & entries[0].keys())]
    lines: list[dict[str, Any]] = []
    for number, entry in enumerate(entries, 1):
        where = f"Line {number} of {file}"
        line = {name: value for kind in kinds for name, value in checked(entry, kind, where).items()}
        if _OfSet in kinds and lines and (line["data_set"], line["fold"]) != (lines[0]["data_set"], lines[0]["fold"]):
            raise InputError(f"{where} is of another set or fold than the first; give each fold a file of its own.")
        lines.append(line)
    return lines
