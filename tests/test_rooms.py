"""The package's rooms: imports run down from the doors to the parts, and no file grows large."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dsvlfs

PACKAGE = Path(dsvlfs.__file__).parent
DOOR = 10
FLOORS = {
    "cli": DOOR,
    "page": 9,
    "training": 9,
    "labelling": 8,
    "measuring": 8,
    "data": 7,
    "descriptions": 7,
    "convert": 7,
    "export": 7,
    "modeling": 6,
    "processing": 5.5,
    "inference": 5,
    "hub": 4,
    "configuration": 3,
    "parts": 2,
    "files": 1.5,
    "processes": 1.5,
    "errors": 1,
    "collecting": 1,
    "registration": 1,
}
"""A room imports those below it, and none beside it."""

PARTS_STAND_ON = {"accelerate", "cachetools", "numpy", "peft", "torch", "transformers"}


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(file: Path, source: str) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, wherever in it, by its full name, and the line. Names that the package itself
    gives out count as the module they come from."""
    package = ["dsvlfs", *file.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            if module != "dsvlfs":
                yield module, node.lineno
                continue
            for alias in node.names:
                yield f"dsvlfs.{dsvlfs._HOMES.get(alias.name, alias.name)}", node.lineno


def climbs(file: Path, source: str) -> list[str]:
    """What a file imports that is not below its room."""
    own = room(file)
    floor = DOOR + 1 if file.name == "__main__.py" else FLOORS[own]
    found = []
    for module, line in imported(file, source):
        top, _, rest = module.partition(".")
        if top != "dsvlfs" or rest == "__version__":
            continue
        other = rest.partition(".")[0] or "modeling"  # the whole package, whose topmost public name is the model
        if other != own and FLOORS[other] >= floor:
            found.append(f"{file.relative_to(PACKAGE)}, line {line}: {own} imports {other}")
    return found


def test_every_room_has_a_floor():
    assert {room(file) for file in files()} - {"__init__", "__main__"} == FLOORS.keys()


def test_imports_run_down():
    inside = [file for file in files() if file.parent != PACKAGE or not file.name.startswith("__")]
    assert len(inside) > 80
    assert [line for file in inside for line in climbs(file, file.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("parts/new.py", "from ..hub.bases import load_base"),
        ("hub/new.py", "def late():\n    from .. import DSVLFSModel"),
        ("hub/new.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..processing import View"),
        ("inference/new.py", "from ..processing import DSVLFSProcessor"),
        ("measuring/analysis/new.py", "import dsvlfs.training.run"),
        ("data/new.py", "from dsvlfs import descriptions"),
        ("hub/new.py", "import dsvlfs"),
        ("labelling/new.py", "from ..measuring import metrics"),
        ("files.py", "from . import processes"),
        ("training/new.py", "from ..cli import main"),
    ],
)
def test_an_import_that_climbs_is_seen(place, source):
    (line,) = climbs(PACKAGE / place, source)
    assert place in line


def test_parts_stand_on_the_libraries_and_on_errors_alone():
    for file in (PACKAGE / "parts").glob("*.py"):
        for module, line in imported(file, file.read_text(encoding="utf-8")):
            top = module.partition(".")[0]
            allowed = top in PARTS_STAND_ON or top in sys.stdlib_module_names
            assert allowed or module == "dsvlfs.errors" or module.startswith("dsvlfs.parts"), (file.name, line, module)


def test_few_files_stand_beside_the_rooms():
    assert len([file for file in PACKAGE.iterdir() if file.is_file()]) <= 10


def test_no_file_is_large():
    lines = {file.relative_to(PACKAGE): len(file.read_text(encoding="utf-8").splitlines()) for file in files()}
    assert {file: count for file, count in lines.items() if count >= 400} == {}
