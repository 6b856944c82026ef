"""What `pip install` brings: every room, and what they read."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import dsvlfs
from dsvlfs.cli import main

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with what the wheel holds; the wheel is made of a copy, beside which no earlier build lies."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT / "dsvlfs", source / "dsvlfs", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*command, "--wheel-dir", folder, source], check=True)
    (wheel,) = folder.glob("dsvlfs-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_the_wheel_carries_the_whole_package_and_nothing_else(installed):
    assert contents(installed / "dsvlfs") == contents(ROOT / "dsvlfs")
    others = {folder.name for folder in installed.iterdir()} - {"dsvlfs"}
    assert others == {f"dsvlfs-{dsvlfs.__version__}.dist-info"}


def test_training_and_the_page_need_no_checkout(installed, tmp_path):
    code = (
        "import dsvlfs.training.run, dsvlfs.page.layout as page\n"
        "from dsvlfs.cli import main\n"
        "print(dsvlfs.__file__, *(example.draft().mask.any() for example in page.EXAMPLES), sep='\\n')\n"
        "main(['--help'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed), "GRADIO_ANALYTICS_ENABLED": "False"},
        capture_output=True,
        text=True,
        check=True,
    )
    file, *found = done.stdout.splitlines()
    assert Path(file).is_relative_to(installed)
    assert found[:3] == ["True"] * 3
    assert " demo " in done.stdout


def test_the_command_is_the_doors():
    (command,) = entry_points(group="console_scripts", name="dsvlfs")
    assert command.value == "dsvlfs.cli:main"


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--version"])
    assert capsys.readouterr().out == f"dsvlfs {dsvlfs.__version__}\n"
