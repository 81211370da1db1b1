"""`Run`: what the page knows of one run, wherever it was read from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

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
    """

    name: str
    monitors: dict[str, Monitor] = field(default_factory=dict)
    curves: Curves = field(default_factory=dict)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    hyperparameters: dict[str, str] = field(default_factory=dict)

    @property
    def num_looks(self) -> int:
        """Of all monitors together."""
        return sum(len(monitor.looks) for monitor in self.monitors.values())

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


def finite_number(value: Any) -> float | None:
    """`value` as a float; None for words, and for what is not finite.

    Example:
        >>> finite_number("0.5"), finite_number("no"), finite_number(float("nan"))
        (0.5, None, None)
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
