"""Large JSON files, read entry by entry: a gigabyte of polygons is several times that as Python objects."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from ..errors import InputError
from ..files import checked, open_regular, reading_fault

_CHUNK = 2**23  # characters read at a time
_DECODER = json.JSONDecoder()
_DELIMITER = re.compile(r"\s*[,:\]}]")


def read_entries(file: Path, part: str, schema: Any) -> Iterator[Any]:
    """Entries of the list `part` of a JSON file, one in memory at a time.

    Args:
        file: its path.
        part: name of the list.
        schema: of an entry, of pydantic's kinds.

    Raises:
        InputError: the file is no JSON object, is cut short, or has no such list; or an entry is not of the schema.
    """
    found = False
    with io.TextIOWrapper(open_regular(file), encoding="utf-8-sig") as stream:
        for key, number, entry in _JsonStream(stream, file).elements():
            if key != part:
                if found:
                    break
                continue
            found = True
            if number:
                yield checked(entry, schema, f"Entry {number} of '{part}' in {file}")
    if not found:
        raise InputError(f"{file} lacks the field '{part}'; add it.")


class _JsonStream:
    """Decodes a JSON object piece by piece: the elements of its lists, and its other values."""

    def __init__(self, stream: TextIO, file: Path) -> None:
        self._stream, self._file = stream, file
        self._text, self._position = "", 0

    def elements(self) -> Iterator[tuple[str, int, Any]]:
        """Triples of a key, the element's number from 1, and the element. Each list also gives one with the number 0
        and None when it begins; a value that is no list gives nothing."""
        self._expect("{")
        while True:
            key = self._value()
            self._expect(":")
            if self._next() == "[":
                yield key, 0, None
                self._expect("[")
                number = 0
                while number or self._next() != "]":
                    number += 1
                    yield key, number, self._value()
                    if self._next() == "]":
                        break
                    self._expect(",")
                self._expect("]")
            else:
                self._value()
            if self._next() == "}":
                return
            self._expect(",")

    def _value(self) -> Any:
        self._next()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._position)
            except json.JSONDecodeError:
                if not self._read():
                    raise self._damaged() from None
                continue
            except (RecursionError, ValueError):  # nested without end, or a number of thousands of digits
                raise self._damaged() from None
            if not _DELIMITER.match(self._text, end):  # a number may go on
                end -= self._position
                if self._read():
                    continue
            self._position = end
            return value

    def _next(self) -> str:
        """The next character that is no white space."""
        while True:
            while self._position < len(self._text):
                character = self._text[self._position]
                if not character.isspace():
                    return character
                self._position += 1
            if not self._read():
                raise self._damaged()

    def _expect(self, character: str) -> None:
        if self._next() != character:
            raise self._damaged()
        self._position += 1

    def _read(self) -> bool:
        """Reads on; False at the file's end."""
        try:
            chunk = self._stream.read(_CHUNK)
        except UnicodeDecodeError:
            raise self._damaged() from None
        except OSError as error:
            raise InputError(f"The file {self._file} cannot be read: {reading_fault(error)}.") from error
        self._text, self._position = self._text[self._position :] + chunk, 0
        return bool(chunk)

    def _damaged(self) -> InputError:
        return InputError(f"{self._file} is damaged, cut short or no JSON object; get the file again.")
