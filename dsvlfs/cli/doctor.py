"""`dsvlfs doctor`: what is installed and whole, and what to do about the rest."""

from __future__ import annotations

import argparse


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "doctor",
        help="say what is amiss",
        description="Says what is installed, where the cache is, which bases and checkpoints are whole, every file of "
        "them read, and what to do about what is not. Exit status 1 where something is to be done.",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns its exit status."""
    from ..hub.doctor import examine

    amiss = 0
    for finding in examine():
        print(f"{'ok' if finding.mend is None else '!!'}  {finding.what}: {finding.state}", flush=True)
        if finding.mend is not None:
            amiss += 1
            print(f"    {finding.mend}", flush=True)
    print(f"{amiss} to mend." if amiss else "Nothing to mend.")
    return 1 if amiss else 0
