"""What can be said of many trainings: which of them rely on their cue, which scores tell, and when the alarm speaks.

Pure: from the lines that `runs.py` keeps to numbers. A score alone gets what the alarm has: it speaks where
accuracy is clearly above chance, on two looks in a row.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from benchmarks.common.cues import ON_THE_OBJECT
from lightning_gcam.shortcuts import Evidence, Reliance, Thresholds, judge
from lightning_gcam.shortcuts.detector import share_left
from lightning_gcam.shortcuts.removal import DEFAULT_REMOVAL

RELIES, RELIES_NOT = 0.2, 0.05  # of the accuracy, what shuffling the cue takes: at least, and less than
LOOKS_IN_A_ROW = 2
SILENT = -math.inf
Truth = Literal["relies", "in part", "does not"]


@dataclass(frozen=True)
class Trained:
    """One training: what was planted, and all its looks."""

    line: Mapping[str, Any]

    @property
    def cue(self) -> str:
        return str(self.line["cue"])

    @property
    def strength(self) -> float:
        return float(self.line["strength"])

    @property
    def seed(self) -> int:
        return int(self.line["seed"])

    @property
    def looks(self) -> list[Mapping[str, Any]]:
        return list(self.line["looks"])

    @property
    def drop(self) -> float:
        """What shuffling the cue takes of the validation accuracy, over the last two looks."""
        last = self.looks[-LOOKS_IN_A_ROW:]
        return sum(look["validation"] - look["honest"] for look in last) / len(last)

    @property
    def truth(self) -> Truth:
        """What the one who planted the cue can know."""
        if self.drop >= RELIES:
            return "relies"
        return "does not" if self.drop < RELIES_NOT else "in part"

    @cached_property
    def _evidence(self) -> dict[str, list[Evidence]]:
        return {
            removal: [
                Evidence(
                    look["step"],
                    look["epoch"],
                    Reliance.from_plain(look["removals"][removal]["reliance"]),
                    look["scores"],
                )
                for look in self.looks
            ]
            for removal in self.looks[0]["removals"]
        }

    def evidence(self, removal: str = str(DEFAULT_REMOVAL), *, suspect: bool = True) -> list[Evidence]:
        """What each look measured; without the suspect region, as where nobody names one."""
        found = self._evidence[removal]
        return found if suspect else [without_suspect(each) for each in found]


def without_suspect(evidence: Evidence) -> Evidence:
    measurements = {
        name: each for name, each in evidence.reliance.measurements.items() if name != "suspect_swap_accuracy"
    }
    scores = {name: value for name, value in evidence.scores.items() if not name.endswith("suspect_lift")}
    return Evidence(evidence.step, evidence.epoch, Reliance(measurements, evidence.reliance.chance), scores)


# ------------------------------------------------------------------------------------------- the signals

Signal = Callable[[Sequence[Evidence]], list[float]]
"""From the looks of one training to one number each, higher for more doubt; SILENT where there is none."""


def alarming(evidence: Sequence[Evidence]) -> list[float]:
    """What the alarm compares with its thresholds: of the accuracy above chance, the share that survives or dies."""
    return [max(pair) for pair in zip(surviving(evidence), dying(evidence), strict=True)]


def surviving(evidence: Sequence[Evidence]) -> list[float]:
    return [left_by("background_only_accuracy", each.reliance) for each in evidence]


def dying(evidence: Sequence[Evidence]) -> list[float]:
    left = [left_by("suspect_swap_accuracy", each.reliance) for each in evidence]
    return [1 - share if share != SILENT else SILENT for share in left]


def left_by(check: str, reliance: Reliance) -> float:
    """The alarm's own share, at looks whose accuracy is clearly above chance."""
    if check not in reliance.measurements or not is_above_chance(reliance):
        return SILENT
    share = share_left(check, reliance)
    return share if math.isfinite(share) else SILENT


def is_above_chance(reliance: Reliance) -> bool:
    interval = reliance.measurements["accuracy"].interval
    return interval is not None and interval[0] > reliance.chance


def score(name: str, sign: int) -> Signal:
    """A score of the saliency; `sign` is -1 where a low one is in doubt."""
    return lambda evidence: gated(evidence, [sign * each.scores.get(name, math.nan) for each in evidence])


def check(name: str, sign: int) -> Signal:
    """A causal check; `sign` is -1 where a low one is in doubt."""

    def values(evidence: Sequence[Evidence]) -> list[float]:
        measured = [each.reliance.measurements.get(name) for each in evidence]
        return gated(evidence, [sign * each.value if each else math.nan for each in measured])

    return values


def falling_energy(evidence: Sequence[Evidence]) -> list[float]:
    """By how much the energy on the object is below its highest so far."""
    energies = [each.scores.get("energy", math.nan) for each in evidence]
    highest = [
        max([e for e in energies[: look + 1] if e == e], default=math.nan) for look in range(len(energies))
    ]
    return gated(evidence, [high - now for high, now in zip(highest, energies, strict=True)])


def gated(evidence: Sequence[Evidence], values: Sequence[float]) -> list[float]:
    """The values of the looks whose accuracy is clearly above chance."""
    return [
        value if value == value and is_above_chance(each.reliance) else SILENT
        for each, value in zip(evidence, values, strict=True)
    ]


SIGNALS: dict[str, Signal] = {
    "background_only_accuracy": check("background_only_accuracy", 1),
    "object_only_accuracy": check("object_only_accuracy", -1),
    "background_swap_accuracy": check("background_swap_accuracy", -1),
    "suspect_swap_accuracy": check("suspect_swap_accuracy", -1),
    "salient_flips": check("salient_flips", 1),
    "energy": score("energy", -1),
    "energy falling": falling_energy,
    "object_lift": score("object_lift", -1),
    "pointing_game": score("pointing_game", -1),
    "rank_accuracy": score("rank_accuracy", -1),
    "iou": score("iou", -1),
    "best_iou": score("best_iou", -1),
    "pixel_average_precision": score("pixel_average_precision", -1),
    "suspect_lift": score("suspect_lift", 1),
    "positional_concentration": score("positional_concentration", 1),
    "gini": score("gini", 1),
    "entropy": score("entropy", 1),
    "accuracy": check("accuracy", 1),
}
"""Each score used alone, with the end of it that is in doubt."""


# ------------------------------------------------------------------------------- from looks to a training


def in_a_row(values: Sequence[float]) -> list[float]:
    """What each look and the one before it both reach; the first look has none before it."""
    return [SILENT, *(min(pair) for pair in pairwise(values))]


def at_the_end(values: Sequence[float]) -> float:
    return in_a_row(values)[-1]


def ever(values: Sequence[float]) -> float:
    return max(in_a_row(values))


def first_look(values: Sequence[float], threshold: float) -> int | None:
    """The first look, counted from 1, at which a signal speaks; None where it never does."""
    return next((look for look, value in enumerate(in_a_row(values), 1) if value >= threshold), None)


def alarm_speaks(evidence: Sequence[Evidence], thresholds: Thresholds) -> int | None:
    """The first look, counted from 1, at which the alarm speaks; None where it never does."""
    looks = range(1, len(evidence) + 1)
    return next((look for look in looks if judge(evidence[:look], thresholds) is not None), None)


# ---------------------------------------------------------------------------------- over many trainings


def roc_area(positive: Sequence[float], negative: Sequence[float]) -> float:
    """How often a training that relies on its cue has the higher value of a pair; a tie counts half (Mann-Whitney)."""
    if not positive or not negative:
        return math.nan
    won = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    return won / (len(positive) * len(negative))


def roc_interval(
    positive: Sequence[float], negative: Sequence[float], resamples: int = 500
) -> tuple[float, float]:
    """The bootstrap interval of 95% of the area, over trainings; of a fixed seed."""
    draw = random.Random(0)
    areas = sorted(
        roc_area(draw.choices(positive, k=len(positive)), draw.choices(negative, k=len(negative)))
        for _ in range(resamples)
    )
    return areas[int(0.025 * resamples)], areas[int(0.975 * resamples) - 1]


def choose_threshold(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Half way between the highest value without reliance and the next higher one with it: no false alarm on these."""
    highest = max(negative)
    above = [value for value in positive if value > highest]
    if not above:
        return math.inf
    return (highest + min(above)) / 2 if highest != SILENT else min(above)


class Verdict(NamedTuple):
    """How a signal does on trainings: when it spoke where there is reliance, and where there is none."""

    positive: list[int | None]
    negative: list[int | None]
    looks: int

    @property
    def spoken(self) -> int:
        return sum(look is not None for look in self.positive)

    @property
    def false_alarms(self) -> int:
        return sum(look is not None for look in self.negative)

    @property
    def early(self) -> int:
        """Of those with reliance, how many it spoke of within the first third of the training."""
        return sum(look is not None and look <= self.looks / 3 for look in self.positive)

    @property
    def looks_left(self) -> float:
        """The median over those it spoke of: how much of the training was still to come, as a share."""
        spoken = sorted(1 - look / self.looks for look in self.positive if look is not None)
        return spoken[len(spoken) // 2] if spoken else math.nan


def split(runs: Sequence[Trained]) -> tuple[list[Trained], list[Trained]]:
    """Those that rely on their cue, and those that do not; in neither: in part, and on the object itself."""
    judged = [run for run in runs if run.cue != ON_THE_OBJECT]
    return [run for run in judged if run.truth == "relies"], [
        run for run in judged if run.truth == "does not"
    ]
