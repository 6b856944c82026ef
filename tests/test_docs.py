"""The READMEs and `docs/` name nothing that is not there: files, headings, commands, options, methods, keywords."""

import argparse
import ast
import inspect
import re
import shlex
from pathlib import Path

import pytest
import yaml

from dsvlfs import DSVLFSConfig, DSVLFSModel
from dsvlfs.cli import build_parser

ROOT = Path(__file__).parents[1]
INTERFACE = ROOT / "docs" / "interface.md"  # made from the docstrings
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "model_card.md")),
    *sorted({*(ROOT / "docs").glob("*.md")} - {INTERFACE}),
    *sorted((ROOT / "examples").glob("*/README.md")),
]

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def code_of(page: Path, language: str) -> list[str]:
    """Blocks of a language; "" are the indented ones."""
    text = page.read_text(encoding="utf-8")
    if language:
        return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return re.findall(r"(?<=\n\n)(?: {4}.*\n|\n(?= {4}))+", text)


def commands_of(page: Path) -> list[list[str]]:
    """What the page has a shell run by dsvlfs, as the command line gets it."""
    found = []
    for block in code_of(page, ""):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "train/train.py" in words:
                found.append(["train", *words[words.index("train/train.py") + 1 :]])
            elif words[:1] == ["dsvlfs"]:
                found.append(words[1:])
            elif "-m" in words and words[words.index("-m") + 1] == "dsvlfs":
                found.append(words[words.index("-m") + 2 :])
    return found


def headings_of(page: Path) -> set[str]:
    """Anchors of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [*PAGES, INTERFACE], ids=lambda page: page.name)
def test_links_and_files_are_there(page):
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", text):
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor in headings_of(file), f"{target}#{anchor}"
    for name in re.findall(r"`((?:dsvlfs|train|tests|benchmarks|examples|docs)/[\w./-]+)`", text):
        # Some are said of the room that the sentence is about.
        assert (ROOT / name).exists() or (ROOT / "dsvlfs" / name).exists(), name


@pages
def test_commands_are_understood(page):
    for words in commands_of(page):
        if "NAME" in words[:2]:  # of any analysis
            continue
        if "..." in words:
            with pytest.raises(SystemExit) as left:
                build_parser().parse_args([words[0], "--help"])
            assert left.value.code == 0
            continue
        build_parser().parse_args(words)


def test_every_command_is_described():
    told = {words[0] for page in PAGES for words in commands_of(page)}
    (commands,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert told == set(commands.choices)


@pages
def test_methods_and_keywords_of_the_examples_are_there(page):
    owners = {"model": DSVLFSModel, "DSVLFSModel": DSVLFSModel, "DSVLFSConfig": DSVLFSConfig}
    for block in code_of(page, "python"):
        for call in (node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)):
            match call.func:
                case ast.Attribute(value=ast.Name(id=name), attr=method) if name in owners:
                    parameters = inspect.signature(getattr(owners[name], method)).parameters
                    is_open = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
                    for keyword in call.keywords:
                        assert is_open or keyword.arg in parameters, f"{method}({keyword.arg}=)"


def test_keywords_in_the_text_are_those_of_segment():
    text = (ROOT / "docs" / "segment.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"`(\w+)=[^`\n]*`", text))
    assert {"description", "mode", "min_presence", "aggregation"} <= shown
    assert shown <= inspect.signature(DSVLFSModel.segment).parameters.keys()


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_hooks_check_what_make_test_checks():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    checks = re.search(r"^test: (.*?) *##", makefile, re.MULTILINE)[1].split()
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repository["repo"] for repository in config["repos"]] == ["local"]
    assert {hook["entry"] for hook in config["repos"][0]["hooks"]} == {f"make {check}" for check in checks}
