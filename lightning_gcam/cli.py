"""`lightning-gcam`: what is done with a run once it is written, from the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from lightning_gcam._errors import InputError
from lightning_gcam.report import Run, build_page, read_run
from lightning_gcam.report.strip import write_strips

_REPORT = """\
Build one HTML page of a run, or of several to be compared; it needs no server and no network.

A PATH is the directory of a run: one that ReportLogger wrote (or its report.html), one of files (overlay-step=*.png,
scores.csv, metrics.csv, alerts.csv, as they are written beside a CSVLogger or without a logger), or one with
TensorBoard's events. Of files and events each look is one whole picture, and its samples cannot be sorted.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: of the command line; those of the process where it is left out.

    Returns:
        0 where all went well, 1 where a path cannot be read or written. (Wrong arguments end the process with 2.)

    Example:
        >>> main(["report", "no/such/run"])
        1
    """
    chosen = _parser().parse_args(arguments)
    try:
        if chosen.command == "report":
            path = _report(chosen.paths, chosen.output, chosen.force)
        else:
            path = _strip(chosen.path, chosen.output, chosen.most)
    except (InputError, OSError) as error:
        print(f"lightning-gcam {chosen.command}: {error}", file=sys.stderr)
        return 1
    print(path)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lightning-gcam", description="See where a network looked while it trained."
    )
    parser.add_argument("--version", action="version", version=metadata.version("lightning-gcam"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
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
    strip = commands.add_parser(
        "strip",
        help="each sample's maps over the looks: a row of pictures, and an animation",
        description="Write each sample's maps over the looks: sample-<n>.png, side by side, and sample-<n>.gif, one "
        "after the other.",
    )
    strip.add_argument("path", type=Path, metavar="PATH", help="the directory of a ReportLogger, or its page")
    strip.add_argument("-o", "--output", type=Path, help="a directory; otherwise strips, beside the page")
    strip.add_argument(
        "--most", type=_at_least_one, default=12, help="looks in a row (12); the animation has all"
    )
    return parser


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, but it is {number}")
    return number


def _strip(path: Path, output: Path | None, most: int) -> Path:
    run = read_run(path)
    target = output or _usual_place([path]).with_name("strips")
    write_strips(run, target, most)
    return target


def _report(paths: Sequence[Path], output: Path | None, force: bool) -> Path:
    runs = [read_run(path) for path in paths]
    names = [run.name for run in runs]
    for run, path in zip(runs, paths, strict=True):
        if names.count(run.name) > 1:
            run.name = str(path)
    target = output or _usual_place(paths)
    if target.exists() and not force:
        raise InputError(f'"{target}" is there already. Give --force to write over it, or another --output.')
    _say_what_is_missing(runs)
    return build_page(runs, target)


def _usual_place(paths: Sequence[Path]) -> Path:
    if len(paths) > 1:
        return Path("comparison.html")
    directory = paths[0].parent if paths[0].is_file() else paths[0]
    return (directory.parent if directory.name == "report_data" else directory) / "report.html"


def _say_what_is_missing(runs: Sequence[Run]) -> None:
    for run in runs:
        if not run.num_looks:
            print(f"lightning-gcam report: {run.name} has curves, but no look yet.", file=sys.stderr)
