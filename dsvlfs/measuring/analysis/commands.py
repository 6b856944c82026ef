"""`dsvlfs analyze NAME`: the analyses' arguments. Their modules are imported when they run: `--help` needs no torch.

The module of an analysis has `run(model, episodes, arguments) -> Report`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...modeling import DSVLFSModel

ANALYSES: dict[str, str] = {
    "ablation": "what each part of the model contributes to the mask",
    "descriptions": "what right, wrong and useless descriptions do to the mask",
    "embeddings": "whether the semantic prompts and the looks of different classes stay apart",
    "matching": "whether the correlation is healthy, and whose pixels the mask covers besides the class's",
    "shots": "how several supports are best made one mask, and what a bad one among them does",
    "uncertainty": "whether the probability can be believed, and whether an absent class is noticed",
}
"""Name of each analysis, which is that of its module, and what it answers."""


def _of_ablation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--descriptions",
        type=Path,
        metavar="FILE.json",
        help="{class name: text} (default: the classes' definitions, where the photos' metadata has them)",
    )


def _of_descriptions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--descriptions", type=Path, metavar="FILE.json", help="{class name: text} (default: the package's bank)"
    )


def _of_embeddings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--photos",
        type=Path,
        metavar="DIR",
        help="folder with a metadata.jsonl, whose photos of the episodes' classes are taken (default: the episodes' "
        "supports)",
    )


def _of_shots(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mode", choices=("both", "visual"), default="both", help="prompts given to the decoder (default: both)"
    )
    parser.add_argument(
        "--others",
        type=Path,
        metavar="FILE.jsonl",
        help="episodes of the same photos, whose supports too are shown as supports of another class",
    )


_MORE_ARGUMENTS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "ablation": _of_ablation,
    "descriptions": _of_descriptions,
    "embeddings": _of_embeddings,
    "shots": _of_shots,
}


def add_analyses(
    commands: argparse._SubParsersAction,
    add_model: Callable[[argparse.ArgumentParser], None],
    load_model: Callable[[str], DSVLFSModel],
) -> None:
    """Adds `analyze` with a command for each analysis.

    Args:
        commands: of the whole program.
        add_model: adds the argument that names the checkpoint.
        load_model: loads the checkpoint of a name, on the GPU where there is one.
    """
    analyze = commands.add_parser(
        "analyze", help="answer a question about the method", description="Measures, and writes tables and pictures."
    )
    names = analyze.add_subparsers(title="analyses", required=True, metavar="NAME")
    for name, answers in ANALYSES.items():
        parser = names.add_parser(name, help=answers, description=f"Answers {answers}.")
        parser.set_defaults(run=partial(_run, load_model=load_model), analysis=name)
        parser.add_argument(
            "--root", required=True, type=Path, metavar="DIR", help="folder that the episodes' photos are looked for in"
        )
        parser.add_argument("--episodes", required=True, type=Path, metavar="FILE.jsonl", help="one episode a line")
        parser.add_argument(
            "--limit", type=count, metavar="N", help="take only N episodes, evenly from the whole file (default: all)"
        )
        parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the report")
        add_model(parser)
        if more := _MORE_ARGUMENTS.get(name):
            more(parser)


def count(text: str) -> int:
    """An argument that is a whole number from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _run(arguments: argparse.Namespace, load_model: Callable[[str], DSVLFSModel]) -> int:
    from ...data.episodes import load_episodes, take_evenly

    episodes = load_episodes(arguments.root, arguments.episodes)
    if arguments.limit:
        episodes = take_evenly(episodes, arguments.limit)
    arguments.out.mkdir(parents=True, exist_ok=True)
    module = {"descriptions": "description_effects", "matching": "match_quality"}.get(arguments.analysis)
    analysis = import_module(f".{module or arguments.analysis}", __package__)
    report = analysis.run(load_model(arguments.model), episodes, arguments)
    report.write(arguments.out)
    print(report.markdown())
    return 0
