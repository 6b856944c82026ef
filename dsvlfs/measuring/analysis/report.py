"""An analysis's result as files that a person reads (`report.md` with its pictures) and a program (`report.json`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ...files import write_json, write_text

Cell = str | float | int | None


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        title: what its figures are, with their unit.
        columns: their names.
        rows: a cell a column; a float is shown with one decimal unless `decimals` says otherwise, None as a dash.
        decimals: of the floats.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    decimals: int = 1

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [f"**{self.title}**", "", _line(self.columns), _line(["---"] * len(self.columns))]
        return "\n".join(lines + [_line([self._shown(cell) for cell in row]) for row in self.rows])

    def _shown(self, cell: Cell) -> str:
        if cell is None:
            return "-"
        return f"{cell:.{self.decimals}f}" if isinstance(cell, float) else str(cell)


@dataclass(frozen=True)
class Report:
    """What an analysis found.

    Args:
        title: its name.
        how: what was measured on what, in a sentence or two.
        tables: of its figures.
        findings: sentences that follow from the figures.
        pictures: by file name without its suffix.
        data: for programs, JSON values by name.
    """

    title: str
    how: str
    tables: Sequence[Table]
    findings: Sequence[str] = ()
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)

    def markdown(self) -> str:
        """The whole report; it names its pictures as files beside it."""
        parts = [f"# {self.title}", self.how, *(table.markdown() for table in self.tables)]
        if self.findings:
            parts.append("\n".join(f"- {finding}" for finding in self.findings))
        parts += [f"![{name}]({name}.png)" for name in self.pictures]
        return "\n\n".join(parts) + "\n"

    def write(self, folder: Path) -> None:
        """Writes `report.md`, `report.json` and the pictures (PNG).

        Args:
            folder: made where it is missing.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in self.pictures.items():
            picture.save(folder / f"{name}.png")
        tables = [
            {"title": t.title, "columns": list(t.columns), "rows": [list(r) for r in t.rows]} for t in self.tables
        ]
        content = {"title": self.title, "how": self.how, "tables": tables, "findings": list(self.findings)}
        write_json(folder / "report.json", content | {"data": dict(self.data)})
        write_text(folder / "report.md", self.markdown())


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
