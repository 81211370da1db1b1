"""How often the causal checks are made, so that looks cost no more than a share of the training's own forwards."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from lightning_gcam.callbacks.positions import num_samples_in
from lightning_gcam.pipeline.record import LookCost, SaliencyRecord
from lightning_gcam.utils.errors import InputError, is_whole_number
from lightning_gcam.utils.lightning_compat import rank_zero_info


def check_max_overhead(max_overhead: Any) -> None:
    """Refuse a bound that is no share.

    Raises:
        InputError: naming what came, and what to give.

    Example:
        >>> check_max_overhead(5)
        >>> check_max_overhead("5%")
        Traceback (most recent call last):
        ...
        lightning_gcam.utils.errors.InputError: `max_overhead` must be a share of the training's forwards, such as 0.05
        for 5%, or None for no bound; got '5%'.
    """
    is_number = isinstance(max_overhead, (int, float)) and not isinstance(max_overhead, bool)
    if max_overhead is not None and not (is_number and 0 < max_overhead < math.inf):
        raise InputError(
            "`max_overhead` must be a share of the training's forwards, such as 0.05 for 5%, or None for no bound; got "
            f"{max_overhead!r}."
        )


@dataclass(frozen=True)
class Interval:
    """What a look costs, and the training between two of them: counted, in forwards of one sample.

    A sample that is trained on counts three (the backward is worth two), one that is validated counts one.

    Args:
        training: by the training between two looks, on average.
        maps: by a look's maps and scores.
        checks: by its causal checks.
        step: of this look.
        steps: between two looks, on average.
        looks: how many there were, this one included.
    """

    training: float
    maps: int
    checks: int
    step: int
    steps: float
    looks: int = 2

    def looks_per_check(self, max_overhead: float, total_steps: float = math.inf) -> int:
        """At one look in how many the checks are made, so that looks cost no more than the bound on average.

        In a run of known length at least two looks behind the first have checks, as far as there are two.

        Args:
            max_overhead: the share of the training's forwards that looks may cost.
            total_steps: of the run, where they are known.

        Example:
            >>> interval = Interval(training=1600, maps=16, checks=240, step=20, steps=10)
            >>> interval.looks_per_check(0.05), interval.looks_per_check(0.5), interval.looks_per_check(0.05, 60)
            (4, 1, 2)
        """
        spare = max(max_overhead * self.training - self.maps, 1)
        wanted = max(math.ceil(self.checks / spare), 1)
        if not math.isfinite(total_steps) or self.steps <= 0:
            return wanted
        looks = self.looks + max(int((total_steps - self.step) / self.steps), 0)
        return min(wanted, max((looks - 1) // 2, 1))


class CheckBudget:
    """Decides at which looks of a run the causal checks are made.

    They are made at the first look. From the second one on, what the training does between two looks is known, and
    they are made at one look in so many as `max_overhead` allows. Forwards are counted and never clocked, so that a run
    takes the same looks on every machine.

    Args:
        max_overhead: looks may cost at most this share of the forwards that the training itself does between two of
            them; None for no bound.

    Raises:
        InputError: naming what came.
    """

    def __init__(self, max_overhead: float | None) -> None:
        check_max_overhead(max_overhead)
        self.max_overhead = max_overhead
        self.forget()

    def forget(self) -> None:
        """Forget the looks of another run."""
        self._training = self._looks = self._since_checks = 0  # all of them since the first look with checks
        self._checked: LookCost | None = None
        self._checked_at = 0
        self._announced: set[str] = set()

    def count_trained(self, batch: Any) -> None:
        """Count a batch that the model was trained on."""
        self._training += 3 * num_samples_in(batch)

    def count_validated(self, batch: Any) -> None:
        """Count a batch that the model was validated on."""
        self._training += num_samples_in(batch)

    def interval(self, step: int) -> Interval | None:
        """The interval of the looks up to the one at `step`; None at the first, and before a look with checks."""
        if self._checked is None:
            return None
        gaps = self._looks + 1
        steps = (step - self._checked_at) / gaps
        return Interval(self._training / gaps, *self._checked, step, steps, gaps + 1)

    def allows_checks(
        self, step: int, total_steps: float = math.inf, monitored: Collection[str] = ()
    ) -> bool:
        """Whether the look at `step` makes the causal checks; the reason is logged once where it is not every look.

        Args:
            step: of the look, on the loggers' axis.
            total_steps: of the run, on the same axis, where they are known.
            monitored: those of the checks' scores that a callback or a scheduler monitors: where there are any, the
                checks are made at every look, for these would take an old value for a new one.
        """
        interval = self.interval(step)
        if self.max_overhead is None or interval is None:
            return True
        every = interval.looks_per_check(self.max_overhead, total_steps)
        if every > 1:
            self._announce(interval, every, self.max_overhead, monitored)
        return bool(monitored) or self._since_checks + 1 >= every

    def _announce(
        self, interval: Interval, every: int, max_overhead: float, monitored: Collection[str]
    ) -> None:
        kind = "monitored" if monitored else "rarely"
        if kind not in self._announced:
            self._announced.add(kind)
            explain = (
                _explained_monitored(monitored) if monitored else _explained(interval, every, max_overhead)
            )
            rank_zero_info(explain)

    def add_look(self, record: SaliencyRecord) -> None:
        """Add a look that was taken."""
        self._since_checks = 0 if record.cost.checks else self._since_checks + 1
        if self._checked is not None:
            self._looks += 1
        elif record.cost.checks:
            self._checked, self._checked_at = record.cost, record.step
            self._training = 0

    def state_dict(self) -> dict[str, Any]:
        """Plain Python only; empty before the first look with checks."""
        if self._checked is None:
            return {}
        counts = {"training": self._training, "looks": self._looks, "since_checks": self._since_checks}
        return {**counts, "checked": [self._checked_at, *self._checked]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the looks of a checkpoint.

        Raises:
            InputError: where it is no state of this class.
        """
        if not state:
            return
        try:
            training, looks, since_checks = (state[each] for each in ("training", "looks", "since_checks"))
            step, maps, checks = state["checked"]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"`budget` cannot be read ({type(error).__name__}: {error}).") from error
        if not all(is_whole_number(each, 0) for each in (training, looks, since_checks, step, maps, checks)):
            raise InputError(f"`budget` should hold whole numbers; got {dict(state)}.")
        self._training, self._looks, self._since_checks = training, looks, since_checks
        self._checked, self._checked_at = LookCost(maps, checks), step


def _explained(interval: Interval, every: int, max_overhead: float) -> str:
    """The reason why the checks are not made at every look, and how they would be."""
    bound = int(max_overhead * interval.training)
    kept = "" if bound >= interval.maps else ", which the maps alone exceed"
    short = every < interval.looks_per_check(max_overhead)
    at_least = "; so short a run has two looks with checks behind the first" if short else ""
    return (
        f"SaliencyMonitor makes the causal checks at one look in {every}, at {interval.checks:,} forwards: "
        f"`max_overhead={max_overhead:g}` allows {bound:,} a look{kept}{at_least}. `max_overhead=None` makes them at "
        "every look."
    )


def _explained_monitored(monitored: Collection[str]) -> str:
    """The reason why the checks are made at every look all the same."""
    return (
        "SaliencyMonitor makes the causal checks at every look, beyond `max_overhead`: a callback or a scheduler "
        f"monitors {', '.join(sorted(monitored))}, and would take an old value for a new one."
    )
