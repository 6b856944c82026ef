"""`dsvlfs demo`: the web page."""

from __future__ import annotations

import argparse

from ..errors import InputError
from . import running


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "demo",
        help="open the web page",
        description="Serves the web page, with an example already segmented, until it is stopped by Ctrl+C. Gradio's "
        "environment variables hold too.",
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--host", metavar="ADDRESS", help="to be reached at; 0.0.0.0 from other machines too (default: 127.0.0.1)"
    )
    parser.add_argument("--port", type=port_number, metavar="N", help="(default: 7860, or the next that is free)")
    parser.add_argument(
        "--share", action="store_true", help="also give it an address on the internet, through Gradio's servers"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns its exit status."""
    running.quieten()
    from ..page.layout import serve

    # None leaves a choice to Gradio's environment variables.
    try:
        serve(server_name=arguments.host, server_port=arguments.port, share=arguments.share or None)
    except OSError as error:
        if "empty port" not in str(error):
            raise
        raise InputError("Another program listens at that port; give another --port.") from error
    return 0


def port_number(text: str) -> int:
    """A port, of an argument."""
    value = int(text)
    if not 1 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 65535")
    return value
