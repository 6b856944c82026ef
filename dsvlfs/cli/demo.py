"""`dsvlfs demo`: the web page."""

from __future__ import annotations

import argparse

from . import running
from .arguments import add_address_arguments


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "demo",
        help="open the web page",
        description="Serves the web page, with an example already segmented, until it is stopped by Ctrl+C. Gradio's "
        "environment variables hold too.",
    )
    parser.set_defaults(run=run)
    add_address_arguments(parser)
    parser.add_argument(
        "--share", action="store_true", help="also give it an address on the internet, through Gradio's servers"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns its exit status."""
    running.quieten()
    from ..page.layout import serve

    # None leaves a choice to Gradio's environment variables.
    with running.at_a_free_port():
        serve(server_name=arguments.host, server_port=arguments.port, share=arguments.share or None)
    return 0
