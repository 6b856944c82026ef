"""Descriptions that a user gives, in a file."""

from pathlib import Path

from ..errors import InputError
from ..files import read_json


def read_descriptions(file: Path) -> dict[str, str]:
    """Reads descriptions by class name from a JSON file.

    Raises:
        InputError: it cannot be read, or a description is no text.
    """
    content = read_json(file)
    if wrong := [name for name, text in content.items() if not isinstance(text, str)]:
        raise InputError(f"The description of '{wrong[0]}' in {file} is no text; give {{class name: text}}.")
    return content
