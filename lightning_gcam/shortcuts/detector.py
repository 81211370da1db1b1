"""The rule of the alarm: the causal checks of several looks, judged by thresholds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from lightning_gcam.metrics import Measurement
from lightning_gcam.shortcuts.checks import BEFORE
from lightning_gcam.shortcuts.exchange import (
    CHANCE,
    KEPT,
    RATE,
    SAME_CLASS_RATE,
    default_properties,
    property_of,
)
from lightning_gcam.shortcuts.results import Reliance
from lightning_gcam.shortcuts.shares import Interval, bounds_of
from lightning_gcam.utils.errors import InputError

Saliency = Literal["agrees", "is blind", "is unclear", "is not there", "is not judged"]

KINDS = ("survives without the object", "dies with the suspect region")
"""The kinds of evidence of the checks with annotation; each exchanged property is one more, as "follows the color"."""

_CHECKS_OF_KINDS = ("background_only_accuracy", "suspect_swap_accuracy")
FOLLOWS = "follows the "
_NO_EVIDENCE = ("object",)  # a good model follows it: a pasted object is of the donor's class
_AT_LEAST = {"spectrum": 0.6}
"""By how much the rates of some properties exceed their controls at least, whatever the threshold: natural backgrounds
have a spectrum of their own, which honest networks follow as well; see docs/alarm_on_photographs.md."""

Fits = Callable[[float], bool]
_SHARE: tuple[str, Fits] = ("a share in (0, 1]", lambda value: 0 < value <= 1)
_RANGES: dict[str, tuple[str, Fits]] = {
    "suspect_lift": ("a number above 0", lambda value: value > 0),
    "trusted_share": ("a share in [0, 1)", lambda value: 0 <= value < 1),
}
_BEYOND = 0.05
"""How often the looks so far may show by chance what a check compares; see `judge`."""


@dataclass(frozen=True)
class Thresholds:
    """The values from which on a look counts, derived in docs/shortcuts.md. All are shares, but `suspect_lift`.

    Args:
        survives: of the accuracy above chance, the share that is left without the object, at least.
        dies: of the accuracy above chance, the share that is gone with the suspect region exchanged, at least.
        energy: how far the share of the saliency on the object is from its chance (0) to all of it (1), from which on
            the saliency is blind to what lies outside of the object.
        suspect_lift: the saliency's share in the suspect region over its area's, from which on it agrees.
        follows: by how much the follow rate of an exchanged property exceeds the larger of its controls, at least; that
            of "spectrum" by 0.6 in any case, since honest networks follow the spectrum of natural backgrounds.
        trusted_share: of the accuracy above chance, the share that a network you trust keeps without the object, by the
            background that may tell the class; what is left has to be clearly above it. 0 where you know of none.

    Raises:
        InputError: a share outside of (0, 1], or a lift that is not positive; a `trusted_share` outside of [0, 1).

    Example:
        >>> Thresholds(survives=0.8)
        Thresholds(survives=0.8, dies=0.25, energy=0.25, suspect_lift=2.0, follows=0.3, trusted_share=0.0)
    """

    survives: float = 0.6
    dies: float = 0.25
    energy: float = 0.25
    suspect_lift: float = 2.0
    follows: float = 0.3
    trusted_share: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            wanted, fits = _RANGES.get(name, _SHARE)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or not fits(value):
                raise InputError(f"`{name}` of `thresholds` must be {wanted}; got {value!r}.")


DEFAULT_THRESHOLDS = Thresholds()


@dataclass(frozen=True)
class Evidence:
    """The checks and scores of one look.

    Args:
        step: of the look.
        epoch: of the look.
        reliance: the causal checks.
        scores: the look's scores of the first method by name, of which `energy`, `energy_chance`, `suspect_lift` and
            `blank_rate` are read, where they are.
        intervals: those of 95% of the scores that have one; `energy` is compared by it.
    """

    step: int
    epoch: int
    reliance: Reliance
    scores: Mapping[str, float]
    intervals: Mapping[str, Interval] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """Numbers, strings, lists and dicts only."""
        return {
            "step": self.step,
            "epoch": self.epoch,
            "reliance": self.reliance.to_plain(),
            "scores": dict(self.scores),
            "intervals": {name: list(each) for name, each in self.intervals.items()},
        }

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> Evidence:
        """Read what `to_plain` wrote, of earlier versions too: without intervals, a score is compared as it is."""
        reliance = Reliance.from_plain(plain["reliance"])
        intervals = {name: (low, high) for name, (low, high) in plain.get("intervals", {}).items()}
        return Evidence(int(plain["step"]), int(plain["epoch"]), reliance, dict(plain["scores"]), intervals)


@dataclass(frozen=True)
class Finding:
    """The kinds of evidence that the last looks have in common.

    Args:
        kinds: which of `KINDS` hold at every one of them; then each property that is followed, as "follows the color",
            the one that exceeds its controls the most at the last look first.
        saliency: whether the maps of the last look agree, or are blind to it: on the object all the same, or blank.
            Unclear where the interval of their energy allows both. Not judged where properties are followed and nothing
            else: a colour can be read anywhere.
        evidence: of the last look.
        looks: how many looks in a row.
        unchecked: what no check of the last look could show, as `unchecked_of` names it.
    """

    kinds: tuple[str, ...]
    saliency: Saliency
    evidence: Evidence
    looks: int
    unchecked: tuple[str, ...] = ()

    @property
    def properties(self) -> tuple[str, ...]:
        """The names of the properties that are followed, in the order of the kinds."""
        return tuple(kind.removeprefix(FOLLOWS) for kind in self.kinds if kind.startswith(FOLLOWS))


def judge(
    history: Sequence[Evidence],
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
    looks_in_a_row: int = 2,
    looks_so_far: int | None = None,
) -> Finding | None:
    """Judge the last looks: the kinds of evidence that all of them show, or None.

    A look counts where accuracy is above chance (the lower end of its interval is), and where

    - without the object, accuracy is still above chance (its lower bound is), and at least `thresholds.survives` of
      what it has above chance is left, all of it of the samples with an object: where these are of one class a guess
      is always right, and nothing is said. With a `trusted_share` the bound is above what that leaves; or
    - with the suspect region exchanged, at least `thresholds.dies` of what it has above chance is gone, and the lower
      bound of the difference is above 0; or
    - with a property of another class (all but "object", which is followed where a model is right), predictions follow
      it: `<property>_follow_rate` exceeds both its controls, the lower bound of the difference is above 0, and it is at
      least `thresholds.follows` more than the larger (of "spectrum" 0.6). With a `trusted_share`, the background
      counts only where the class survives without the object as well. The controls are `<property>_follow_chance`, of
      the untouched images, and `<property>_same_class_follow_rate`, of the same edit within a class (where no two
      samples are of one, two classes, and samples of several, are not judged). The rate's bound is above chance as
      well, or above 1/2 where chance is more: an edit that takes away what tells the class leaves a guess, which may
      follow.

    The looks of a run are of the same samples, and the more of them there are, the likelier some show something by
    chance. So bounds are exact (`lightning_gcam.shortcuts.shares.bounds_of`), and beyond them lie 5% divided by the
    number of looks so far whose accuracy is above chance: Bonferroni's correction (Dunn, "Multiple comparisons among
    means", JASA 56(293), 1961). It holds for the looks so far, however these go together. As their number grows, a
    run's looks may add up: with two in a row, chance shows a kind in at most 2.5% times 1 + 1/2 + 1/3 + ..., half as
    many terms as looks, which is 7% of runs of 20 looks and 11% of 100. docs/shortcuts.md has simulated runs.

    The saliency does not decide: it can be on the object while the model reads something else (Adebayo et al., "Post
    hoc explanations may be ineffective for detecting unknown spurious correlation", 2022, arXiv 2212.04629). Whether it
    agrees stands beside.

    Args:
        history: one `Evidence` a look, in order.
        thresholds: from where on a look counts.
        looks_in_a_row: how many looks have to show the same.
        looks_so_far: of the run whose accuracy is above chance; counted in `history` where it is left out.

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
    if looks_so_far is None:
        looks_so_far = sum(each.reliance.is_above_chance for each in history)
    shown = [kinds_of(each.reliance, thresholds, looks_so_far) for each in recent]
    kinds = tuple(kind for kind in shown[-1] if all(kind in each for each in shown))
    if not kinds:
        return None
    last = recent[-1]
    unchecked = unchecked_of(last.reliance)
    return Finding(kinds, _saliency(kinds, last, thresholds), last, looks_in_a_row, unchecked)


def kinds_of(
    reliance: Reliance, thresholds: Thresholds = DEFAULT_THRESHOLDS, looks_so_far: int = 1
) -> tuple[str, ...]:
    """The kinds of evidence that one look shows, of so many that were judged so far."""
    if not reliance.is_above_chance:
        return ()
    compared = _Compared(_BEYOND / max(looks_so_far, 1))
    without, exchanged = (reliance.measurements.get(name) for name in _CHECKS_OF_KINDS)
    survives = (
        without is not None
        and compared.is_above(without, _trusted("background_only_accuracy", reliance, thresholds))
        and share_left("background_only_accuracy", reliance) >= thresholds.survives
    )
    dies = (
        exchanged is not None
        and compared.are_apart(exchanged, before("suspect_swap_accuracy", reliance))
        and 1 - share_left("suspect_swap_accuracy", reliance) >= thresholds.dies
    )
    kinds = [kind for kind, holds in zip(KINDS, (survives, dies), strict=True) if holds]
    followed = _followed(reliance, thresholds, compared)
    if thresholds.trusted_share and not survives:  # a network that is trusted follows backgrounds, too
        followed = [name for name in followed if name != "background"]
    return (*kinds, *(FOLLOWS + name for name in followed))


def judged_by(reliance: Reliance) -> tuple[str, ...]:
    """The names, as `checks=` takes them, of the checks that can be evidence at a look."""
    checks = [name for name in _CHECKS_OF_KINDS if name in reliance.scores]
    if reliance.object_chance == 1:  # of one class: a guess is right without the object, too
        checks = [name for name in checks if name != "background_only_accuracy"]
    return tuple(dict.fromkeys((*(name.removesuffix(KEPT) for name in checks), *_follow_rates(reliance))))


def counted_by(reliance: Reliance) -> dict[str, int]:
    """How many samples each check counts that can be evidence at a look, by its name.

    Example:
        >>> measured = Measurement(0.5, 12, 0, 0, 0, (0.25, 0.75), no_room=4)
        >>> counted_by(Reliance({"accuracy": measured, "background_only_accuracy": measured}, chance=0.1))
        {'background_only_accuracy': 12}
    """
    rates = {name: rate.n for name, (rate, *_) in _follow_rates(reliance).items()}
    measured = {name: reliance.measurements.get(name) for name in judged_by(reliance)}
    measured["suspect"] = reliance.measurements.get("suspect_swap_accuracy")
    return rates | {name: each.n for name, each in measured.items() if each is not None}


def unchecked_of(reliance: Reliance) -> tuple[str, ...]:
    """What the checks of a look could not show, whatever the model relies on: plain noun phrases.

    Cues on the object are always among it: no mask tells them from the object, and an exchange reaches its property
    only.

    Example:
        >>> nothing = Measurement(math.nan, 0, 0, 0, 16, None)
        >>> for each in unchecked_of(Reliance({"accuracy": nothing, "background_only_accuracy": nothing}, chance=0.1)):
        ...     print(each)
        the background: no object leaves enough of the picture
        the properties color, spectrum, texture, border, salient_region
        cues on the object itself
    """
    judged, without = judged_by(reliance), reliance.measurements.get("background_only_accuracy")
    unchecked = []
    if without is None:
        unchecked.append("the background, and marks at any place: they take masks or boxes")
    elif not without.n:
        unchecked.append("the background: no object leaves enough of the picture")
    elif "background_only_accuracy" not in judged:
        unchecked.append("the background: the samples with an object are of one class")
    of_images = [name for name in default_properties() if property_of(name).exchange is not None]
    if missing := [name for name in (*of_images, "salient_region") if name not in judged]:
        unchecked.append(f"the {'properties' if missing[1:] else 'property'} {', '.join(missing)}")
    on_object = [name for name in of_images if name in judged and name != "border"]
    beyond = f" beyond its {', '.join(on_object)}" if on_object else ""
    return (*unchecked, f"cues on the object itself{beyond}")


def follow_excess(reliance: Reliance) -> dict[str, float]:
    """By how much each property's follow rate exceeds the larger of its controls, where it can be judged.

    Example:
        >>> rates = {"follow_rate": 0.5, "follow_chance": 0.02, "same_class_follow_rate": 0.1}
        >>> measured = {f"color_{each}": Measurement(rates[each], 64, 0, 0, 0, (0.0, 1.0)) for each in rates}
        >>> follow_excess(Reliance(measured, chance=0.5))
        {'color': 0.4}
    """
    rates = _follow_rates(reliance).items()
    return {name: rate.value - max(each.value for each in controls) for name, (rate, *controls) in rates}


def _followed(reliance: Reliance, thresholds: Thresholds, compared: _Compared) -> list[str]:
    """The properties that predictions follow at a look, the one that exceeds its controls the most first."""
    rates, excess = _follow_rates(reliance), follow_excess(reliance)
    followed = [
        name
        for name, (rate, *controls) in rates.items()
        if excess[name] >= max(thresholds.follows, _AT_LEAST.get(name, 0.0))
        and compared.is_above(rate, min(reliance.chance_of(name), 0.5))
        and all(compared.are_apart(each, rate) for each in controls)
    ]
    return sorted(followed, key=excess.__getitem__, reverse=True)


def _follow_rates(reliance: Reliance) -> dict[str, list[Measurement]]:
    """The follow rate and its controls of each property that can be judged, by its name."""
    rates: dict[str, list[Measurement]] = {}
    for name in (each.removesuffix(CHANCE) for each in reliance.scores if each.endswith(CHANCE)):
        rate, chance, same_class = (
            reliance.measurements.get(name + each) for each in (RATE, CHANCE, SAME_CLASS_RATE)
        )
        controls = [each for each in (chance, same_class) if each is not None and each.n]
        is_judged = len(controls) == 2 or reliance.chance_of(name) < 0.5  # else of two classes, or of marks
        if rate is not None and is_judged and name not in _NO_EVIDENCE:
            rates[name] = [rate, *controls]
    return rates


def share_left(name: str, reliance: Reliance) -> float:
    """Of the accuracy above chance, the share that a check leaves; below 0 and above 1 are possible.

    NaN where the samples that it counts have no accuracy above chance.
    """
    chance = reliance.chance_of(name)
    above = before(name, reliance).value - chance
    return (reliance.measurements[name].value - chance) / above if above > 0 else math.nan


def before(name: str, reliance: Reliance) -> Measurement:
    """The accuracy on the unchanged images of those samples that a check counts."""
    return reliance.measurements.get(f"{name}{BEFORE}", reliance.measurements["accuracy"])


def _trusted(name: str, reliance: Reliance, thresholds: Thresholds) -> float:
    """The accuracy that a network which is trusted would keep: chance, and the trusted share of what lies above."""
    chance = reliance.chance_of(name)
    return chance + thresholds.trusted_share * max(before(name, reliance).value - chance, 0.0)


@dataclass(frozen=True)
class _Compared:
    """Comparisons of shares by their exact bounds.

    Args:
        beyond: how often the true share may be beyond a bound.
    """

    beyond: float

    def is_above(self, measured: Measurement, share: float) -> bool:
        """Whether the lower bound is above a share that is known."""
        return measured.interval is not None and self._bounds(measured)[0] > share

    def are_apart(self, lower: Measurement, upper: Measurement) -> bool:
        """Whether the lower bound of their difference is above 0: Newcombe's, as in `difference_interval`."""
        if lower.interval is None or upper.interval is None or lower.value >= upper.value:
            return False
        reach = math.hypot(self._bounds(lower)[1] - lower.value, upper.value - self._bounds(upper)[0])
        return upper.value - lower.value > reach

    def _bounds(self, measured: Measurement) -> Interval:
        assert measured.interval is not None
        return bounds_of(measured.value, measured.interval, self.beyond)


def _saliency(kinds: Sequence[str], evidence: Evidence, thresholds: Thresholds) -> Saliency:
    """Whether the maps agree with the checks: hardly more on the object than by chance, or much on the suspect region.

    By how much the energy exceeds its chance is compared, not the energy: of a large object chance alone is most of it.
    """
    if not any(kind in KINDS for kind in kinds):
        return "is not judged"
    scores, signs = evidence.scores, list[Saliency]()
    if (energy := scores.get("energy")) is not None:
        chance = scores.get("energy_chance", 0.0)
        enough = chance + thresholds.energy * (1 - chance)
        low, high = evidence.intervals.get("energy", (energy, energy))
        signs.append("agrees" if high < enough else "is blind" if low >= enough else "is unclear")
    if (lift := scores.get("suspect_lift")) is not None and KINDS[1] in kinds:
        signs.append("agrees" if lift >= thresholds.suspect_lift else "is blind")
    if not signs:
        return "is blind" if scores.get("blank_rate") == 1 else "is not there"
    return next(each for each in ("agrees", "is unclear", "is blind") if each in signs)
