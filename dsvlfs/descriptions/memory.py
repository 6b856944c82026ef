"""Texts that language models wrote, remembered on disk: the same question is put to the same model once."""

import json
from pathlib import Path

from filelock import FileLock

from ..errors import InputError
from ..files import write_json
from ..hub.bases import cache_folder
from .writers import QUESTION, Writer


def memory_file() -> Path:
    """`descriptions.json` in the folder of the converted bases."""
    return cache_folder() / "descriptions.json"


def write_once(writer: Writer, class_name: str, *, anew: bool = False, file: Path | None = None) -> str:
    """What the writer wrote of a class before, or writes now.

    Args:
        writer: of the text.
        class_name: to describe.
        anew: write in any case.
        file: of the texts, by source and question; None takes `memory_file()`.

    Raises:
        InputError: the file is damaged, or the writer raises it.
    """
    file = file or memory_file()
    name = " ".join(class_name.split())
    question = QUESTION.format(a_thing=name)
    if not anew and (known := _read(file).get(writer.source, {}).get(question)):
        return known
    text = writer.write(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):  # others may have written since
        texts = _read(file)
        texts.setdefault(writer.source, {})[question] = text
        write_json(file, texts)
    return text


def _read(file: Path) -> dict[str, dict[str, str]]:
    try:
        texts = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InputError(f"The remembered descriptions in {file} are damaged; delete the file.") from error
    if not isinstance(texts, dict) or not all(isinstance(kept, dict) for kept in texts.values()):
        raise InputError(f"The remembered descriptions in {file} are damaged; delete the file.")
    return texts
