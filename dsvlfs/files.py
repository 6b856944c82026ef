"""Which files are photos, and how a result is written."""

import json
import os
from pathlib import Path
from typing import Any

PHOTO_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def write_text(file: Path, text: str) -> None:
    """Writes all of the file or nothing."""
    partial = file.with_name(f"{file.name}.part")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, file)


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Writes all of the file or nothing."""
    write_text(file, json.dumps(content, indent=2) + "\n")
