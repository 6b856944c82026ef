"""The lines of a file of episodes: what they must hold, and which photos they name."""

from pathlib import Path
from typing import Any

from ..errors import InputError

MOSAIC_LAYOUT = (2, 2)
"""Rows and columns of a mosaic's tiles."""


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


def _is_id(value: object) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool)


def _are_ids(values: object) -> bool:
    return isinstance(values, list) and all(map(_is_id, values))


def check_entries(entries: list[dict[str, Any]], file: Path) -> None:
    """Every line has the first one's kind and all of its fields, of the right types."""
    fields = {"class_name", "query", "support"}
    for kind in ({"category_id"}, {"position", "distractors"}, {"data_set", "fold", "seed"}):
        fields |= kind if kind & entries[0].keys() else set()
    tiles = MOSAIC_LAYOUT[0] * MOSAIC_LAYOUT[1]
    for number, entry in enumerate(entries, 1):
        if not fields <= entry.keys():
            raise InputError(f"Line {number} of {file} is no episode: it needs {', '.join(sorted(fields))}.")
        if not isinstance(entry["class_name"], str) or not all(
            _is_id(entry[field]) for field in fields & {"query", "category_id"}
        ):
            raise InputError(
                f"Line {number} of {file} is no episode: class_name must be text, and an id text or a whole number."
            )
        if not entry["support"] or not _are_ids(entry["support"]):
            raise InputError(f"Line {number} of {file} is no episode: support must be a list of one or more photo ids.")
        if "data_set" in fields:
            if not isinstance(entry["data_set"], str) or type(entry["seed"]) is not int:
                raise InputError(
                    f"Line {number} of {file} is no episode: data_set must be text, and seed a whole number."
                )
            if (entry["data_set"], entry["fold"]) != (entries[0]["data_set"], entries[0]["fold"]):
                raise InputError(
                    f"Line {number} of {file} is of another set or fold than the first; give each fold a file of its "
                    "own."
                )
        if "position" in fields and (
            not _are_ids(entry["distractors"])
            or len(entry["distractors"]) != tiles - 1
            or type(entry["position"]) is not int
            or entry["position"] not in range(tiles)
        ):
            raise InputError(
                f"Line {number} of {file} is no mosaic: it needs {tiles - 1} distractors and a position from 0 to "
                f"{tiles - 1}."
            )
