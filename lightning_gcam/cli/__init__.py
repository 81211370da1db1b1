"""The command line: reports on written runs, and the evaluation of a model on published data."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from lightning_gcam.cli.evaluate import add_evaluate
from lightning_gcam.cli.report import add_report, add_strip
from lightning_gcam.utils.errors import InputError
from lightning_gcam.utils.files import printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: of the command line; those of the process where it is left out.

    Returns:
        0 where all went well, 1 where a path cannot be read or written, or a model does not do what it should. (Wrong
        arguments end the process with 2.)

    Example:
        >>> main(["report", "no/such/run"])
        1
    """
    chosen = _parser().parse_args(arguments)
    try:
        path = chosen.run(chosen)
    except (InputError, OSError) as error:
        print(f"lightning-gcam {chosen.command}: {error}", file=sys.stderr)
        return 1
    if path is not None:
        print(printable(path))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lightning-gcam",
        description="See where a network looks: while it trains, and once it is trained.",
    )
    parser.add_argument("--version", action="version", version=metadata.version("lightning-gcam"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_report(commands)
    add_strip(commands)
    add_evaluate(commands, _evaluate)
    return parser


def _evaluate(chosen: argparse.Namespace) -> Path | None:
    """Evaluate. Only this command loads torch, so that the others, and `--help`, are quick."""
    from lightning_gcam.cli.evaluation_run import evaluate

    return evaluate(chosen)
