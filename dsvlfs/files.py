"""Which files are photos, how JSON is read, and how a result is written."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import InputError

PHOTO_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def write_text(file: Path, text: str) -> None:
    """Writes all of the file or nothing."""
    partial = file.with_name(f"{file.name}.part")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, file)


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Writes all of the file or nothing."""
    write_text(file, json.dumps(content, indent=2) + "\n")


def read_json(file: Path, fields: Sequence[str] = ()) -> dict:
    """Reads a JSON file that holds an object with these fields, or says in one sentence what is wrong (InputError)."""
    try:
        content = json.loads(_read_text(file))
    except json.JSONDecodeError as error:
        raise InputError(f"{file} is not valid JSON ({error}); get the file again.") from None
    check_fields(content, fields, str(file))
    return content


def read_json_lines(file: Path, fields: Sequence[str] = ()) -> list[dict]:
    """Reads a file of one JSON object a line, each with these fields, or says what is wrong (InputError)."""
    entries = []
    for number, line in enumerate(_read_text(file).splitlines(), 1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            raise InputError(f"Line {number} of {file} is not valid JSON; mend or remove the line.") from None
        check_fields(entry, fields, f"Line {number} of {file}")
        entries.append(entry)
    return entries


def check_fields(entry: object, fields: Sequence[str], where: str) -> None:
    """Raises InputError where `entry`, which is found at `where`, is no JSON object or lacks a field."""
    if not isinstance(entry, dict):
        raise InputError(f"{where} is not a JSON object; give one ({{...}}).")
    for field in fields:
        if field not in entry:
            raise InputError(f"{where} lacks the field '{field}'; add it.")


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"There is no {file.name} in {file.parent}; give the folder that holds it.") from None
    except IsADirectoryError:
        raise InputError(f"{file} is a folder; give the file in it.") from None
    except UnicodeDecodeError:
        raise InputError(f"{file} is not a text file; give a JSON file.") from None
