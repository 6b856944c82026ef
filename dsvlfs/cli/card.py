"""`dsvlfs card`: results into a checkpoint's model card."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..files import read_json


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "card",
        help="put results into a model card",
        description="Puts results of `evaluate` into the metadata of a model card, in place of those that it has; its "
        "text stays.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("card", type=Path, metavar="CARD.md", help="the card")
    parser.add_argument(
        "results", nargs="+", type=_named_file, metavar="DATA=RESULT.json", help="the data's name, and the result on it"
    )
    parser.add_argument("--model-name", default="dsvlfs-tiny", metavar="NAME", help="(default: dsvlfs-tiny)")


def _named_file(text: str) -> tuple[str, Path]:
    name, found, file = text.rpartition("=")
    if not found:
        raise argparse.ArgumentTypeError(f"{text} is not DATA=RESULT.json")
    return name, Path(file)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns its exit status."""
    from ..hub.model_card import Figures, write_results

    results = {name: read_json(file, Figures) for name, file in arguments.results}
    write_results(arguments.card, arguments.model_name, results)
    return 0
