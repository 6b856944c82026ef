"""Text and JSON from files, each fault in one sentence; and which files are photos."""

import errno
import os
import stat
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, overload

from ..errors import InputError

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

Schema = TypeVar("Schema")

# Of `dsvlfs.inference.photos.FORMATS`.
PHOTO_SUFFIXES = {
    *(".apng", ".avif", ".avifs", ".bmp", ".dib", ".gif", ".heic", ".heics", ".heif", ".heifs", ".hif", ".j2c", ".j2k"),
    *(".jfif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".pbm", ".pcx", ".pfm", ".pgm", ".png"),
    *(".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
}

FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def open_regular(file: str | os.PathLike, kind: str = "file") -> BinaryIO:
    """Opens a file to read its bytes.

    Args:
        file: its path.
        kind: what to call it in an error.

    Raises:
        InputError: there is none, it may not be read, or it is no regular file; a pipe is not waited for.
    """
    try:
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(file, flags)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"There is no {kind} {file}; check the path.") from None
    except ValueError:  # a NUL, or half a surrogate pair
        raise InputError(f"The path {file} of a {kind} holds a character that no path can; check it.") from None
    except OSError as error:
        if os.path.isdir(file):  # Windows
            raise InputError(f"{file} is a folder; give a {kind} in it.") from None
        raise InputError(f"The {kind} {file} cannot be opened: {reading_fault(error)}.") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise InputError(f"{file} is a folder; give a {kind} in it.")
        raise InputError(f"{file} is a pipe or a device; save the {kind} to a file and give that.")
    return os.fdopen(descriptor, "rb")


def reading_fault(error: OSError) -> str:
    """What is wrong, and how to mend it."""
    if error.errno in FORBIDDEN:
        return "you may not read it; change its permissions"
    if error.errno == errno.ELOOP:
        return "it is a symbolic link that leads back to itself; give the file itself"
    if error.errno == errno.ENAMETOOLONG:
        return "its path or name is too long; rename it"
    return f"{error.strerror or error}; check the disk, or give another"


def read_text(file: Path) -> str:
    """A text file in UTF-8, with or without a byte order mark.

    Raises:
        InputError: as `open_regular`, or it is no text.
    """
    with open_regular(file) as stream:
        try:
            return stream.read().decode("utf-8-sig")
        except UnicodeDecodeError:
            raise InputError(f"{file} is not a text file in UTF-8; give another, or save it so.") from None
        except OSError as error:
            raise InputError(f"The file {file} cannot be read: {reading_fault(error)}.") from error


@overload
def read_json(file: Path) -> dict[str, Any]: ...


@overload
def read_json(file: Path, schema: type[Schema]) -> Schema: ...


def read_json(file: Path, schema: Any = dict[str, Any]) -> Any:
    """Reads a JSON file.

    Args:
        file: its path.
        schema: what it holds, of pydantic's kinds; any object, unless said.

    Raises:
        InputError: it is missing, no JSON, or not of the schema.
    """
    try:
        content = _parsed(read_text(file))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file} is not valid JSON ({error}); get the file again.") from None
    return checked(content, schema, str(file))


def read_json_lines(file: Path, schema: Any = dict[str, Any]) -> list[Any]:
    """Reads a file of one JSON value a line; blank lines count for nothing.

    Args:
        file: its path.
        schema: of a line, as for `read_json`.

    Raises:
        InputError: it is missing or holds nothing, or a line is no JSON or not of the schema.
    """
    entries = []
    for number, line in enumerate(read_text(file).split("\n"), 1):  # splitlines() also splits at U+2028
        if not line.strip():
            continue
        try:
            entry = _parsed(line)
        except ValueError:
            raise InputError(f"Line {number} of {file} is not valid JSON; mend or remove the line.") from None
        entries.append(checked(entry, schema, f"Line {number} of {file}"))
    if not entries:
        raise InputError(f"{file} is empty; give a file with one JSON object a line.")
    return entries


def _parsed(text: str) -> Any:
    """JSON's value; ValueError also for what is nested too deeply, or a number of thousands of digits."""
    from pydantic_core import from_json

    return from_json(text, allow_inf_nan=False)


def checked(value: object, schema: Any, where: str) -> Any:
    """A value as its schema reads it, without turning one type into another.

    Args:
        value: of JSON.
        schema: of pydantic's kinds, or its adapter.
        where: what the value is, in an error.

    Raises:
        InputError: it is not of the schema.
    """
    from pydantic import ValidationError

    try:
        return _adapter(schema).validate_python(value, strict=True)
    except ValidationError as error:
        raise InputError(f"{where} {_complaint(error)}") from None


def _adapter(schema: Any) -> "TypeAdapter":
    from pydantic import TypeAdapter

    return schema if isinstance(schema, TypeAdapter) else _new_adapter(schema)


@lru_cache
def _new_adapter(schema: Any) -> "TypeAdapter":
    from pydantic import TypeAdapter

    return TypeAdapter(schema)


def _complaint(error: "ValidationError") -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    places = [place for place in first["loc"] if isinstance(place, int) or place.isidentifier()]  # no names of types
    if not places:
        if first["type"] in ("dict_type", "model_type", "model_attributes_type"):
            return "is not a JSON object; give one ({...})."
        return f"is wrong ({first['msg']}); correct it."
    names = [str(place) for place in places if isinstance(place, str)]
    number = next((f" in entry {place + 1}" for place in places if isinstance(place, int)), "")
    number += f" of '{names[0]}'" if number and isinstance(places[0], str) else ""
    if first["type"] == "missing":
        return f"lacks the field '{places[-1]}'{number}; add it."
    what = f" '{names[-1]}'" if names and not (number and len(names) == 1) else " value"
    return f"has a wrong{what}{number} ({first['msg']}); correct it."


def place_of(path: Path) -> Path:
    """Where a path leads to, to compare it with others; itself where it leads nowhere."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError):
        return path
