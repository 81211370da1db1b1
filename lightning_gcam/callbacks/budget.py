"""How often the causal checks are made, so that looks cost no more than a share of the training's own forwards."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
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
    """What two looks that follow each other cost, and the training between them: counted, in forwards of one sample.

    A sample that is trained on counts three (the backward is worth two), one that is validated counts one.

    Args:
        training: by the training, from the first of the two looks to the second.
        maps: by a look's maps and scores.
        checks: by its causal checks.
        step: of the second look.
        steps: from the first to the second.
    """

    training: int
    maps: int
    checks: int
    step: int
    steps: int

    def looks_per_check(self, max_overhead: float, total_steps: float = math.inf) -> int:
        """At one look in how many the checks are made.

        Looks then cost no more than the bound on average. Where the maps alone are dearer than that, the checks add at
        most as much again. In a run of known length at least two looks behind the first have checks, as far as there
        are two.

        Args:
            max_overhead: the share of the training's forwards that looks may cost.
            total_steps: of the run, where they are known.

        Example:
            >>> interval = Interval(training=1600, maps=16, checks=240, step=20, steps=10)
            >>> interval.looks_per_check(0.05), interval.looks_per_check(0.5), interval.looks_per_check(0.05, 60)
            (4, 1, 2)
        """
        bound = max_overhead * self.training
        spare = bound - self.maps if bound > self.maps else self.maps
        wanted = max(math.ceil(self.checks / max(spare, 1)), 1)
        if not math.isfinite(total_steps) or self.steps < 1:
            return wanted
        looks_left = max(int(total_steps - self.step) // self.steps, 0)
        return min(wanted, max((looks_left + 1) // 2, 1))


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
        self._training = self._since_checks = 0
        self._checked: LookCost | None = None
        self._checked_at = 0
        self._interval: Interval | None = None
        self._is_announced = False

    def count_trained(self, batch: Any) -> None:
        """Count a batch that the model was trained on."""
        self._training += 3 * num_samples_in(batch)

    def count_validated(self, batch: Any) -> None:
        """Count a batch that the model was validated on."""
        self._training += num_samples_in(batch)

    def allows_checks(self, step: int, total_steps: float = math.inf) -> bool:
        """Whether the look at `step` makes the causal checks; the reason is logged once where it is not every look.

        Args:
            step: of the look, on the loggers' axis.
            total_steps: of the run, on the same axis, where they are known.
        """
        if self.max_overhead is None or self._checked is None:
            return True
        if self._interval is None:
            steps = step - self._checked_at
            self._interval = Interval(self._training, self._checked.maps, self._checked.checks, step, steps)
        every = self._interval.looks_per_check(self.max_overhead, total_steps)
        if every > 1 and not self._is_announced:
            self._is_announced = True
            rank_zero_info(_explained(self._interval, every, self.max_overhead))
        return self._since_checks + 1 >= every

    def add_look(self, record: SaliencyRecord) -> None:
        """Add a look that was taken."""
        self._training = 0
        self._since_checks = 0 if record.cost.checks else self._since_checks + 1
        if record.cost.checks and self._checked is None:
            self._checked, self._checked_at = record.cost, record.step

    def state_dict(self) -> dict[str, Any]:
        """Plain Python only; empty before the first look with checks."""
        if self._checked is None:
            return {}
        return {
            "training": self._training,
            "since_checks": self._since_checks,
            "checked": [self._checked_at, *self._checked],
            "interval": asdict(self._interval) if self._interval is not None else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the looks of a checkpoint.

        Raises:
            InputError: where it is no state of this class.
        """
        if not state:
            return
        try:
            counts = [state["training"], state["since_checks"], *state["checked"]]
            found = state["interval"]
            interval = Interval(**found) if found is not None else None
            training, since_checks, step, maps, checks = counts
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"`budget` cannot be read ({type(error).__name__}: {error}).") from error
        if not all(is_whole_number(each, 0) for each in [*counts, *(found or {}).values()]):
            raise InputError(f"`budget` should hold whole numbers; got {dict(state)}.")
        self._training, self._since_checks = training, since_checks
        self._checked, self._checked_at, self._interval = LookCost(maps, checks), step, interval


def _explained(interval: Interval, every: int, max_overhead: float) -> str:
    """The reason why the checks are not made at every look, and how they would be."""
    bound = int(max_overhead * interval.training)
    short = every < interval.looks_per_check(max_overhead)
    return (
        f"SaliencyMonitor makes the causal checks at one look in {every}; maps and scores stay at every look. The "
        f"checks run the model on {interval.checks:,} images, the maps on {interval.maps:,}; and of the "
        f"{interval.training:,} forwards that the training does between two looks (a sample that is trained on counts "
        f"three) looks may cost {bound:,}: `max_overhead={max_overhead:g}`."
        f"{' In so short a run that is exceeded: two looks have checks behind the first.' if short else ''} "
        "`max_overhead=None` makes them at every look; fewer `num_samples`, or `checks=[...]` with the names of a few, "
        "makes them cheaper."
    )
