"""The command that made the labels, run again in a process of its own."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ...labelling.record import WORK


class Relabelling:
    """A command that labels what has no label, or one without a person's word and with other supports.

    It goes on where the page ends before it does, and one that is stopped goes on where it was.

    Args:
        command: its words.
        out: folder of the labels; what the command says goes into a file there.
    """

    def __init__(self, command: Sequence[str], out: Path) -> None:
        self._command = list(command)
        self._said = out / WORK / "again.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, unless it runs already."""
        if self.is_running:
            return
        self._said.parent.mkdir(parents=True, exist_ok=True)
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
            )

    @property
    def is_running(self) -> bool:
        """Whether it is at work."""
        return self._process is not None and self._process.poll() is None

    @property
    def last_words(self) -> str:
        """Its last line, without the bar; '' before it has said anything."""
        if self._process is None or not self._said.is_file():
            return ""
        lines = self._said.read_bytes()[-4000:].replace(b"\r", b"\n").split(b"\n")
        last = next((line.decode(errors="replace").strip() for line in reversed(lines) if line.strip()), "")
        return re.sub(r"\|[^|]*\|", "", last)

    @property
    def has_failed(self) -> bool:
        """Whether it has ended without its work done."""
        return self._process is not None and self._process.poll() not in (None, 0, 1)
