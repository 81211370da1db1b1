"""When there is something to say: the rule of the alarm, over the looks so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lightning_gcam._errors import InputError
from lightning_gcam.metrics import Measurement
from lightning_gcam.reliance.measured import BEFORE, Reliance

Kind = Literal["survives without the object", "dies with the suspect region"]
Saliency = Literal["agrees", "is blind", "is not there"]

KINDS: tuple[Kind, ...] = ("survives without the object", "dies with the suspect region")


@dataclass(frozen=True)
class Thresholds:
    """From where on a look counts. All are shares, but `suspect_lift`. The defaults are those of docs/shortcuts.md.

    Args:
        survives: of the accuracy above chance, the share that is left without the object, at least.
        dies: of the accuracy above chance, the share that is gone with the suspect region exchanged, at least.
        energy: of the saliency, the share on the object, below which it agrees.
        suspect_lift: the saliency's share in the suspect region over its area's, from which on it agrees.

    Raises:
        InputError: a share outside of (0, 1], or a lift that is not positive.

    Example:
        >>> Thresholds(survives=0.8)
        Thresholds(survives=0.8, dies=0.25, energy=0.5, suspect_lift=2.0)
    """

    survives: float = 0.25
    dies: float = 0.25
    energy: float = 0.5
    suspect_lift: float = 2.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            most = float("inf") if name == "suspect_lift" else 1
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or not 0 < value <= most:
                wanted = "a share in (0, 1]" if most == 1 else "a number above 0"
                raise InputError(f"`{name}` of `thresholds` must be {wanted}; got {value!r}.")


DEFAULT_THRESHOLDS = Thresholds()

_ON_IT = 3.0
"""Saliency that is this many times as much on the object as chance does not agree, however little it is."""


@dataclass(frozen=True)
class Evidence:
    """What one look measured.

    Args:
        step: of the look.
        epoch: of the look.
        reliance: the causal checks.
        scores: the look's scores of the first method by name, of which `energy`, `energy_chance`, `suspect_lift` and
            `blank_rate` are read, where they are.
    """

    step: int
    epoch: int
    reliance: Reliance
    scores: Mapping[str, float]

    def to_plain(self) -> dict[str, Any]:
        """Numbers, strings, lists and dicts only."""
        return {
            "step": self.step,
            "epoch": self.epoch,
            "reliance": self.reliance.to_plain(),
            "scores": dict(self.scores),
        }

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> Evidence:
        """What `to_plain` gave, back again."""
        reliance = Reliance.from_plain(plain["reliance"])
        return Evidence(int(plain["step"]), int(plain["epoch"]), reliance, dict(plain["scores"]))


@dataclass(frozen=True)
class Finding:
    """What the last looks say together.

    Args:
        kinds: which of the causal checks hold, at every one of them.
        saliency: whether the maps of the last look agree, or are blind to it: on the object all the same, or blank.
        evidence: of the last look.
        looks: how many looks in a row.
    """

    kinds: tuple[Kind, ...]
    saliency: Saliency
    evidence: Evidence
    looks: int


def judge(
    history: Sequence[Evidence],
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
    looks_in_a_row: int = 2,
) -> Finding | None:
    """Say what the last looks show together; None where they do not.

    A look counts where accuracy is above chance (the lower end of its interval is), and where

    - without the object, accuracy is still above chance (the lower end of its interval is), and at least
      `thresholds.survives` of what it has above chance is left; or
    - with the suspect region exchanged, at least `thresholds.dies` of what it has above chance is gone, and the two
      intervals do not meet.

    The saliency does not decide: it can be on the object while the model reads something else (Adebayo et al., "Post
    hoc explanations may be ineffective for detecting unknown spurious correlation", 2022, arXiv 2212.04629). Whether it
    agrees stands beside.

    Args:
        history: one `Evidence` a look, in order.
        thresholds: from where on a look counts.
        looks_in_a_row: how many looks have to show the same.

    Example:
        >>> def measured(share):
        ...     return Measurement(share, 100, 0, 0, 0, (share - 0.05, share + 0.05))
        >>> reliance = Reliance({"accuracy": measured(0.9), "background_only_accuracy": measured(0.8)}, chance=0.1)
        >>> looks = [Evidence(step, step, reliance, {"energy": 0.2}) for step in (1, 2)]
        >>> judge(looks[:1]), judge(looks).kinds, judge(looks).saliency
        (None, ('survives without the object',), 'agrees')
    """
    recent = history[-looks_in_a_row:]
    if len(recent) < looks_in_a_row:
        return None
    shown = [kinds_of(each.reliance, thresholds) for each in recent]
    kinds = tuple(kind for kind in KINDS if all(kind in each for each in shown))
    if not kinds:
        return None
    return Finding(kinds, _saliency(kinds, recent[-1].scores, thresholds), recent[-1], looks_in_a_row)


def kinds_of(reliance: Reliance, thresholds: Thresholds = DEFAULT_THRESHOLDS) -> tuple[Kind, ...]:
    """Which causal checks hold at one look."""
    accuracy = reliance.measurements.get("accuracy")
    if accuracy is None or not _is_above(accuracy, reliance.chance):
        return ()
    without, exchanged = (
        reliance.measurements.get(name) for name in ("background_only_accuracy", "suspect_swap_accuracy")
    )
    survives = (
        without is not None
        and _is_above(without, reliance.chance)
        and share_left("background_only_accuracy", reliance) >= thresholds.survives
    )
    dies = (
        exchanged is not None
        and _do_not_meet(exchanged, before("suspect_swap_accuracy", reliance))
        and 1 - share_left("suspect_swap_accuracy", reliance) >= thresholds.dies
    )
    return tuple(kind for kind, holds in zip(KINDS, (survives, dies), strict=True) if holds)


def share_left(name: str, reliance: Reliance) -> float:
    """Of the accuracy above chance, the share that a check leaves; below 0 and above 1 are possible.

    NaN where the samples that it speaks of have no accuracy above chance.
    """
    above = before(name, reliance).value - reliance.chance
    return (reliance.measurements[name].value - reliance.chance) / above if above > 0 else math.nan


def before(name: str, reliance: Reliance) -> Measurement:
    """The accuracy, as they are, of the samples that a check speaks of."""
    return reliance.measurements.get(f"{name}{BEFORE}", reliance.measurements["accuracy"])


def _is_above(measurement: Measurement, chance: float) -> bool:
    return measurement.interval is not None and measurement.interval[0] > chance


def _do_not_meet(lower: Measurement, upper: Measurement) -> bool:
    both = lower.interval is not None and upper.interval is not None
    return both and lower.interval[1] < upper.interval[0]  # type: ignore[index]


def _saliency(kinds: Sequence[Kind], scores: Mapping[str, float], thresholds: Thresholds) -> Saliency:
    """Whether the maps show what the checks say: little on the object, or much on the suspect region."""
    energy, lift = scores.get("energy"), scores.get("suspect_lift")
    signs = []
    if energy is not None:
        chance = scores.get("energy_chance")
        signs.append(energy < thresholds.energy and (chance is None or energy < _ON_IT * chance))
    if lift is not None and KINDS[1] in kinds:
        signs.append(lift >= thresholds.suspect_lift)
    if signs:
        return "agrees" if any(signs) else "is blind"
    return "is blind" if scores.get("blank_rate") == 1 else "is not there"
