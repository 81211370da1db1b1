"""`Run`: what the page knows of one run, wherever it was read from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_gcam._files import printable
from lightning_gcam.report.reading import BrokenFile, finite_number

Curves = dict[str, dict[int, float]]
"""For each metric its value by step."""


@dataclass
class Monitor:
    """The looks of one `SaliencyMonitor`.

    Args:
        prefix: its `log_prefix`.
        samples: JSON, as `plain_samples` gives it: what does not change from look to look; "[]" where only whole
            pictures are known.
        looks: JSON by step, as `plain_look` gives it, or `{"step", "picture"}` with a data URI.
    """

    prefix: str
    samples: str = "[]"
    looks: dict[int, str] = field(default_factory=dict)


@dataclass
class Run:
    """One run: its looks, its curves, and what the alarm said.

    Args:
        name: as the page calls it.
        monitors: by prefix.
        curves: every logged number.
        alerts: `step`, `message` and `log_prefix` of each.
        hyperparameters: names and values, as strings.
        left_out: what could not be read, a line each: the file, and why.
    """

    name: str
    monitors: dict[str, Monitor] = field(default_factory=dict)
    curves: Curves = field(default_factory=dict)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    hyperparameters: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def num_looks(self) -> int:
        """Of all monitors together."""
        return sum(len(monitor.looks) for monitor in self.monitors.values())

    @property
    def shows_something(self) -> bool:
        """Whether a page of it has more than a title."""
        return bool(self.num_looks or self.curves or self.alerts)

    @contextmanager
    def leaving_out(self, path: Path) -> Iterator[None]:
        """Read a file; where it turns out to be broken, that is noted and the block ends."""
        try:
            yield
        except (BrokenFile, OSError) as error:
            self.left_out.append(f"{printable(path)}: {error}")

    @contextmanager
    def leaving_out_lines(self, path: Path) -> Iterator[list[BrokenFile]]:
        """As `leaving_out`, for a file whose broken lines are put into the list that is given."""
        broken: list[BrokenFile] = []
        with self.leaving_out(path):
            yield broken
        if broken:
            others = f", and {len(broken) - 1} more like it" if len(broken) > 1 else ""
            self.left_out.append(f"{printable(path)}: {broken[0]}{others}")

    def add_points(self, row: dict[str, Any], step: int) -> None:
        """Add the numbers of a step to the curves; words and what is not finite are no points."""
        for metric, value in row.items():
            number = finite_number(value)
            if number is not None:
                self.curves.setdefault(metric, {})[step] = number

    def monitor(self, prefix: str) -> Monitor:
        """The monitor of that prefix, made where there is none yet."""
        return self.monitors.setdefault(prefix, Monitor(prefix))


def thinned(points: dict[int, float], most: int = 400) -> tuple[list[int], list[float]]:
    """A curve of at most `most` points: of each stretch its lowest and its highest, so that no spike is lost.

    Args:
        points: the value by step.
        most: how many points are kept, at the most.

    Returns:
        Steps in order, and their values.

    Example:
        >>> thinned({3: 0.5, 1: 0.25})
        ([1, 3], [0.25, 0.5])
        >>> steps, values = thinned({step: float(step == 777) for step in range(10_000)}, most=100)
        >>> len(steps) <= 100, max(values)
        (True, 1.0)
    """
    steps = sorted(points)
    if len(steps) > most:
        stretch = -(-len(steps) * 2 // max(most - 2, 2))
        kept = {steps[0], steps[-1]}
        for start in range(0, len(steps), stretch):
            part = steps[start : start + stretch]
            kept |= {min(part, key=points.__getitem__), max(part, key=points.__getitem__)}
        steps = sorted(kept)
    return steps, [points[step] for step in steps]
