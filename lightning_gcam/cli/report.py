"""The commands `lightning-gcam report` and `strip`, which read the files of a run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_gcam.report import Run


_REPORT = """\
Build one HTML page of a run, or of several to be compared; it needs no server and no network.

A PATH is the directory of a run: one that ReportLogger wrote (or its report.html), one of files (overlay-step=*.png,
scores.csv, metrics.csv, alerts.csv, as they are written beside a CSVLogger or without a logger), or one with
TensorBoard's events. Of files and events each look is one whole picture, and its samples cannot be sorted.
"""


def add_report(commands: Any) -> None:
    """Add the command `report` to the parser."""
    report = commands.add_parser(
        "report",
        help="one HTML page of a run, or of several",
        description=_REPORT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="the directory of a run")
    report.add_argument(
        "-o",
        "--output",
        type=Path,
        help="the page; otherwise report.html in the directory of a single run, comparison.html here for several",
    )
    report.add_argument("-f", "--force", action="store_true", help="write over a page that is there")
    report.set_defaults(run=run_report)


def add_strip(commands: Any) -> None:
    """Add the command `strip` to the parser."""
    strip = commands.add_parser(
        "strip",
        help="each sample's maps over the looks: a row of pictures, and an animation",
        description="Write each sample's maps over the looks: sample-<n>.png, side by side, and sample-<n>.gif, one "
        "after the other.",
    )
    strip.add_argument("path", type=Path, metavar="PATH", help="the directory of a ReportLogger, or its page")
    strip.add_argument("-o", "--output", type=Path, help="a directory; otherwise strips, beside the page")
    strip.add_argument("--most", type=whole, default=12, help="looks in a row (12); the animation has all")
    strip.set_defaults(run=run_strip)


def whole(text: str) -> int:
    """A number of one or more, from the command line.

    Raises:
        ValueError: what is no whole number.
        ArgumentTypeError: what is less than 1.

    Example:
        >>> whole("12")
        12
    """
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, but it is {number}")
    return number


def run_strip(chosen: argparse.Namespace) -> Path:
    """Write the pictures, and return their directory."""
    from lightning_gcam.report import read_run
    from lightning_gcam.report.page import write_strips

    run = read_run(chosen.path)
    _print_left_out(chosen.command, [run])
    target: Path = chosen.output or _default_path([chosen.path]).with_name("strips")
    write_strips(run, target, chosen.most)
    return target


def run_report(chosen: argparse.Namespace) -> Path:
    """Write the page; its path. What is broken is left out and named.

    Raises:
        InputError: where there is a page already, or nothing is left to be shown.
    """
    from lightning_gcam.report import build_page, read_run
    from lightning_gcam.utils.errors import InputError
    from lightning_gcam.utils.files import printable

    target = chosen.output or _default_path(chosen.paths)
    if target.exists() and not target.is_file():
        raise InputError(f'"{printable(target)}" is no file. Give another --output.')
    if target.exists() and not chosen.force:
        raise InputError(
            f'"{printable(target)}" is there already. Give --force to write over it, or another --output.'
        )
    runs = [read_run(path) for path in chosen.paths]
    names = [run.name for run in runs]
    for run, path in zip(runs, chosen.paths, strict=True):
        if names.count(run.name) > 1:
            run.name = str(path)
    _print_left_out(chosen.command, runs)
    shown = [run for run in runs if run.shows_something]
    if not shown:
        raise InputError("nothing that can be read is left, so there is no page.")
    _print_missing(shown)
    return build_page(shown, target)


def _default_path(paths: Sequence[Path]) -> Path:
    if len(paths) > 1:
        return Path("comparison.html")
    directory = paths[0].parent if paths[0].is_file() else paths[0]
    return (directory.parent if directory.name == "report_data" else directory) / "report.html"


def _print_left_out(command: str, runs: Sequence[Run]) -> None:
    for run in runs:
        for line in run.left_out:
            print(f"lightning-gcam {command}: left out {line}", file=sys.stderr)
        if len(runs) > 1 and not run.shows_something:
            print(
                f"lightning-gcam {command}: left out {_name(run)}: nothing of it can be read", file=sys.stderr
            )


def _print_missing(runs: Sequence[Run]) -> None:
    for run in runs:
        if not run.num_looks:
            why = "no look that can be read" if run.left_out else "no look yet"
            has = "curves" if run.curves else "alerts"
            print(f"lightning-gcam report: {_name(run)} has {has}, but {why}.", file=sys.stderr)


def _name(run: Run) -> str:
    from lightning_gcam.utils.files import printable

    return printable(run.name)
