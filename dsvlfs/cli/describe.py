"""`dsvlfs describe`: what classes look like, in words."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..files import write_json
from . import running
from .arguments import add_model_argument

if TYPE_CHECKING:
    from ..descriptions.writers import Writer


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "describe",
        help="say what classes look like",
        description="Prints a description of each class, for --description: from the bank that comes with the package, "
        "else by a language model. What a language model writes is remembered.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("names", nargs="+", metavar="NAME", help="a class, such as 'red fox'")
    parser.add_argument(
        "--source",
        choices=("bank", "checkpoint", "transformers", "endpoint"),
        default="bank",
        help="the bank, and the checkpoint's own language model for what it lacks (default); that language model; any "
        "of transformers; or one behind a server with OpenAI's interface, whose key is taken from $DSVLFS_API_KEY",
    )
    parser.add_argument(
        "--language-model", metavar="NAME", help="of transformers: id on the hub or folder; of a server: its name there"
    )
    parser.add_argument("--base-url", metavar="URL", help="of the server, such as http://localhost:8000/v1")
    parser.add_argument(
        "--long", action="store_true", help="the bank's paragraph where it has one (PASCAL's and COCO's classes)"
    )
    parser.add_argument("--anew", action="store_true", help="ask again what the language model has answered before")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="also write them, by name, to a file")
    add_model_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns its exit status."""
    from ..descriptions.bank import bank_description

    writer = None
    texts = {}
    for name in arguments.names:
        texts[name] = bank_description(name, long=arguments.long) if arguments.source == "bank" else None
        if texts[name] is None:
            from ..descriptions.memory import write_once

            writer = writer or _description_writer(arguments)
            texts[name] = write_once(writer, name, anew=arguments.anew)
        print(f"{name}: {texts[name]}", flush=True)
    if arguments.out:
        running.make_folder(arguments.out.parent)
        write_json(arguments.out, texts)
    return 0


def _description_writer(arguments: argparse.Namespace) -> Writer:
    from ..descriptions.writers import CheckpointWriter, EndpointWriter, TransformersWriter

    if arguments.source in ("transformers", "endpoint") and not arguments.language_model:
        raise InputError(f"Source {arguments.source} needs the language model's name; give --language-model NAME.")
    if arguments.source == "transformers":
        running.quieten()
        return TransformersWriter(arguments.language_model)
    if arguments.source == "endpoint":
        if not arguments.base_url:
            raise InputError("Source endpoint needs the server's address; give --base-url URL.")
        key = os.environ.get("DSVLFS_API_KEY")
        return EndpointWriter(arguments.base_url, arguments.language_model, api_key=key)
    return CheckpointWriter(running.load_model(arguments.model))
