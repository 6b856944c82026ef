"""`dsvlfs analyze NAME`: a question about the method, answered with tables and pictures."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from . import running
from .arguments import add_model_argument, count


class Analysis(NamedTuple):
    """An analysis of `measuring/analysis/`."""

    module: str
    """Its file, which has `run(model, episodes, arguments) -> Report`."""
    answers: str
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None
    """Adds the arguments that it alone has."""


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command, with a command for each analysis."""
    analyze = commands.add_parser(
        "analyze", help="answer a question about the method", description="Measures, and writes tables and pictures."
    )
    names = analyze.add_subparsers(title="analyses", required=True, metavar="NAME")
    for name, analysis in ANALYSES.items():
        parser = names.add_parser(name, help=analysis.answers, description=f"Answers {analysis.answers}.")
        parser.set_defaults(run=run, analysis=name)
        parser.add_argument(
            "--root", required=True, type=Path, metavar="DIR", help="folder that the episodes' photos are looked for in"
        )
        parser.add_argument("--episodes", required=True, type=Path, metavar="FILE.jsonl", help="one episode a line")
        parser.add_argument(
            "--limit", type=count, metavar="N", help="take only N episodes, evenly from the whole file (default: all)"
        )
        parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the report")
        add_model_argument(parser)
        if analysis.add_arguments:
            analysis.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns its exit status."""
    from ..data.episodes import load_episodes, take_evenly

    episodes = load_episodes(arguments.root, arguments.episodes)
    if arguments.limit:
        episodes = take_evenly(episodes, arguments.limit)
    arguments.out.mkdir(parents=True, exist_ok=True)
    analysis = import_module(f"..measuring.analysis.{ANALYSES[arguments.analysis].module}", __package__)
    report = analysis.run(running.load_model(arguments.model), episodes, arguments)
    report.write(arguments.out)
    print(report.markdown())
    return 0


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


ANALYSES = {
    "ablation": Analysis("ablation", "what each part of the model contributes to the mask", _of_ablation),
    "descriptions": Analysis(
        "description_effects", "what right, wrong and useless descriptions do to the mask", _of_descriptions
    ),
    "embeddings": Analysis(
        "embeddings", "whether the semantic prompts and the looks of different classes stay apart", _of_embeddings
    ),
    "matching": Analysis(
        "match_quality", "whether the correlation is healthy, and whose pixels the mask covers besides the class's"
    ),
    "shots": Analysis(
        "shots", "how several supports are best made one mask, and what a bad one among them does", _of_shots
    ),
    "uncertainty": Analysis(
        "uncertainty", "whether the probability can be believed, and whether an absent class is noticed"
    ),
}
"""By the name that the command line gives them."""
