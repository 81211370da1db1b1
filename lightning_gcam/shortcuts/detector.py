"""The rule of the alarm: the causal checks of several looks, judged by thresholds, and the message."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lightning_gcam.metrics import Measurement
from lightning_gcam.shortcuts.checks import BEFORE
from lightning_gcam.shortcuts.exchange import property_of
from lightning_gcam.shortcuts.results import Reliance
from lightning_gcam.utils.errors import InputError

Saliency = Literal["agrees", "is blind", "is not there", "is not judged"]

KINDS = ("survives without the object", "dies with the suspect region")
"""The kinds of evidence of the checks with annotation; each exchanged property is one more, as "follows the color"."""

_CHECKS_OF_KINDS = ("background_only_accuracy", "suspect_swap_accuracy")
_FOLLOWS = "follows the "
_RATE, _CHANCE, _SAME_CLASS = "_follow_rate", "_follow_chance", "_same_class_follow_rate"
_KEPT = "_swap_accuracy"
_NO_EVIDENCE = ("object",)  # a good model follows it: a pasted object is of the donor's class


@dataclass(frozen=True)
class Thresholds:
    """The values from which on a look counts, derived in docs/shortcuts.md. All are shares, but `suspect_lift`.

    Args:
        survives: of the accuracy above chance, the share that is left without the object, at least.
        dies: of the accuracy above chance, the share that is gone with the suspect region exchanged, at least.
        energy: of the saliency, the share on the object, below which it agrees.
        suspect_lift: the saliency's share in the suspect region over its area's, from which on it agrees.
        follows: by how much the follow rate of an exchanged property exceeds the larger of its controls, at least.

    Raises:
        InputError: a share outside of (0, 1], or a lift that is not positive.

    Example:
        >>> Thresholds(survives=0.8)
        Thresholds(survives=0.8, dies=0.25, energy=0.5, suspect_lift=2.0, follows=0.15)
    """

    survives: float = 0.25
    dies: float = 0.25
    energy: float = 0.5
    suspect_lift: float = 2.0
    follows: float = 0.15

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
    """The checks and scores of one look.

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
        """Read what `to_plain` wrote."""
        reliance = Reliance.from_plain(plain["reliance"])
        return Evidence(int(plain["step"]), int(plain["epoch"]), reliance, dict(plain["scores"]))


@dataclass(frozen=True)
class Finding:
    """The kinds of evidence that the last looks have in common.

    Args:
        kinds: which of `KINDS` hold at every one of them; then each property that is followed, as "follows the color",
            the one that exceeds its controls the most at the last look first.
        saliency: whether the maps of the last look agree, or are blind to it: on the object all the same, or blank. Not
            judged where properties are followed and nothing else: a colour can be read anywhere.
        evidence: of the last look.
        looks: how many looks in a row.
    """

    kinds: tuple[str, ...]
    saliency: Saliency
    evidence: Evidence
    looks: int

    @property
    def properties(self) -> tuple[str, ...]:
        """The names of the properties that are followed, in the order of the kinds."""
        return tuple(kind.removeprefix(_FOLLOWS) for kind in self.kinds if kind.startswith(_FOLLOWS))


def judge(
    history: Sequence[Evidence],
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
    looks_in_a_row: int = 2,
) -> Finding | None:
    """Judge the last looks: the kinds of evidence that all of them show, or None.

    A look counts where accuracy is above chance (the lower end of its interval is), and where

    - without the object, accuracy is still above chance (the lower end of its interval is), and at least
      `thresholds.survives` of what it has above chance is left; or
    - with the suspect region exchanged, at least `thresholds.dies` of what it has above chance is gone, and the two
      intervals do not meet; or
    - with a property of another class (all but "object", which is followed where a model is right), predictions follow
      it: the interval of `<property>_follow_rate` lies wholly above those of both its controls, and the rate exceeds
      the larger of them by at least `thresholds.follows`. The controls are `<property>_follow_chance`, of the untouched
      images, and `<property>_same_class_follow_rate`, of the same edit within a class (where no two samples are of one,
      two classes, and samples of several, are not judged). The interval lies above chance as well, or above 1/2 where
      chance is more: an edit that takes away what tells the class leaves a guess, which may follow.

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
    kinds = tuple(kind for kind in shown[-1] if all(kind in each for each in shown))
    if not kinds:
        return None
    return Finding(kinds, _saliency(kinds, recent[-1].scores, thresholds), recent[-1], looks_in_a_row)


def kinds_of(reliance: Reliance, thresholds: Thresholds = DEFAULT_THRESHOLDS) -> tuple[str, ...]:
    """The kinds of evidence that one look shows."""
    if not reliance.is_above_chance:
        return ()
    without, exchanged = (reliance.measurements.get(name) for name in _CHECKS_OF_KINDS)
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
    kinds = [kind for kind, holds in zip(KINDS, (survives, dies), strict=True) if holds]
    return (*kinds, *(_FOLLOWS + name for name in _followed(reliance, thresholds)))


def judged_by(reliance: Reliance) -> tuple[str, ...]:
    """The names, as `checks=` takes them, of the checks that can be evidence at a look."""
    checks = (name.removesuffix(_KEPT) for name in _CHECKS_OF_KINDS if name in reliance.scores)
    return tuple(dict.fromkeys((*checks, *_follow_rates(reliance))))


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


def _followed(reliance: Reliance, thresholds: Thresholds) -> list[str]:
    """The properties that predictions follow at a look, the one that exceeds its controls the most first."""
    rates, excess, guess = _follow_rates(reliance), follow_excess(reliance), min(reliance.chance, 0.5)
    followed = [
        name
        for name, (rate, *controls) in rates.items()
        if excess[name] >= thresholds.follows
        and _is_above(rate, guess)
        and all(_do_not_meet(each, rate) for each in controls)
    ]
    return sorted(followed, key=excess.__getitem__, reverse=True)


def _follow_rates(reliance: Reliance) -> dict[str, list[Measurement]]:
    """The follow rate and its controls of each property that can be judged, by its name."""
    rates: dict[str, list[Measurement]] = {}
    for name in (each.removesuffix(_CHANCE) for each in reliance.scores if each.endswith(_CHANCE)):
        rate, chance, same_class = (
            reliance.measurements.get(name + each) for each in (_RATE, _CHANCE, _SAME_CLASS)
        )
        controls = [each for each in (chance, same_class) if each is not None and each.n]
        is_judged = len(controls) == 2 or reliance.chance < 0.5  # else of two classes, or of marks
        if rate is not None and is_judged and name not in _NO_EVIDENCE:
            rates[name] = [rate, *controls]
    return rates


def share_left(name: str, reliance: Reliance) -> float:
    """Of the accuracy above chance, the share that a check leaves; below 0 and above 1 are possible.

    NaN where the samples that it counts have no accuracy above chance.
    """
    above = before(name, reliance).value - reliance.chance
    return (reliance.measurements[name].value - reliance.chance) / above if above > 0 else math.nan


def before(name: str, reliance: Reliance) -> Measurement:
    """The accuracy on the unchanged images of those samples that a check counts."""
    return reliance.measurements.get(f"{name}{BEFORE}", reliance.measurements["accuracy"])


def _is_above(measurement: Measurement, chance: float) -> bool:
    return measurement.interval is not None and measurement.interval[0] > chance


def _do_not_meet(lower: Measurement, upper: Measurement) -> bool:
    both = lower.interval is not None and upper.interval is not None
    return both and lower.interval[1] < upper.interval[0]  # type: ignore[index]


def _saliency(kinds: Sequence[str], scores: Mapping[str, float], thresholds: Thresholds) -> Saliency:
    """Whether the maps agree with the checks: little saliency on the object, or much on the suspect region."""
    if not any(kind in KINDS for kind in kinds):
        return "is not judged"
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


_CHANGES = {
    "background_only_accuracy": "with the object removed",
    "object_only_accuracy": "with only the object left",
    "background_swap_accuracy": "with the object on the background of another class",
    "suspect_swap_accuracy": "with the suspect region of another class",
}
_READINGS = {KINDS[0]: "on evidence outside of the object", KINDS[1]: "on the suspect region"}
_NEXT_STEPS = {
    "agrees": "look at the overlays for what is salient outside of the object",
    "is blind": "look for what covers the object as well (a tint, a style of the camera), which no map can show",
    "is not there": "add scores of the saliency (`scores=None`) to see where it lies",
}
_WORDS = {
    "color": "colours",
    "histogram": "the values of each channel (histogram)",
    "spectrum": "the amplitude spectrum",
    "texture": "high frequencies (texture)",
    "border": "the border",
    "salient_region": "the place where the saliency concentrates",
    "background": "the background",
    "suspect": "the suspect region",
}
_MAY_BELONG = {"color", "histogram", "background"}
_YOURS_TO_SAY = (
    "It may belong to the class (a ripe tomato is red, a camel is likelier in sand): that is yours to say, and the "
    "monitor's `checks=` leaves a property out."
)


def message_of(finding: Finding) -> str:
    """The finding as a few sentences: measured, with n, interval and chance; no verdict on the model.

    Example:
        >>> measured = Measurement(0.75, 100, 0, 0, 0, (0.66, 0.82))
        >>> reliance = Reliance({"accuracy": measured, "background_only_accuracy": measured}, chance=0.1)
        >>> print(message_of(Finding(KINDS[:1], "agrees", Evidence(9, 2, reliance, {"energy": 0.2}), looks=2)))
        2 looks in a row, the last at step 9 (epoch 2). Accuracy on the fixed samples is 0.75 [0.66, 0.82], n = 100,
        chance 0.10; with the object removed it is 0.75 [0.66, 0.82], n = 100 (100% of what lies above chance is left).
        This is consistent with reliance on evidence outside of the object. The saliency agrees: 0.20 of it lies on the
        object. What to try next: look at the overlays for what is salient outside of the object; then remove or
        exchange it, and validate on images without it.
    """
    evidence, reliance, names = finding.evidence, finding.evidence.reliance, finding.properties
    accuracy = f"{_shown(reliance.measurements['accuracy'])}, chance {reliance.chance:.2f}"
    readings = [_READINGS.get(kind, f"on {_words(kind.removeprefix(_FOLLOWS))}") for kind in finding.kinds]
    steps = [*filter(None, [_NEXT_STEPS.get(finding.saliency)]), *map(_step, names)]
    sentences = (
        f"{finding.looks} look{'s' if finding.looks > 1 else ''} in a row, the last at step {evidence.step} "
        f"(epoch {evidence.epoch}).",
        f"{'; '.join((f'Accuracy on the fixed samples is {accuracy}', *_checks(reliance)))}.",
        *_exchanged(names, reliance),
        f"This is consistent with reliance {_enumerated(readings)}.",
        _on_saliency(finding),
        _YOURS_TO_SAY if _MAY_BELONG & {*names} else "",
        f"What to try next: {'; '.join(steps)}; then remove or exchange it, and validate on images without it.",
    )
    return " ".join(filter(None, sentences))


def plain_of(finding: Finding) -> dict[str, Any]:
    """The finding as one flat dict of plain numbers, strings and lists, `step` and `message` among them."""
    evidence = finding.evidence
    plain: dict[str, Any] = {
        "step": evidence.step,
        "epoch": evidence.epoch,
        "message": message_of(finding),
        "kinds": list(finding.kinds),
        "properties": list(finding.properties),
        "saliency": finding.saliency,
        "looks_in_a_row": finding.looks,
        **evidence.reliance.scores,
    }
    for name, measurement in evidence.reliance.measurements.items():
        plain[f"{name}_n"] = measurement.n
        plain[f"{name}_interval"] = list(measurement.interval) if measurement.interval is not None else None
    return {**plain, **{name: float(value) for name, value in evidence.scores.items()}}


def _shown(measurement: Measurement) -> str:
    low, high = measurement.interval or (float("nan"), float("nan"))
    return f"{measurement.value:.2f} [{low:.2f}, {high:.2f}], n = {measurement.n}"


def _checks(reliance: Reliance) -> Iterator[str]:
    for name, change in _CHANGES.items():
        measurement = reliance.measurements.get(name)
        if measurement is not None and measurement.n:
            left = share_left(name, reliance)
            of_these = (
                "" if before(name, reliance) is reliance.measurements["accuracy"] else " for these samples"
            )
            share = (
                f" ({max(left, 0.0):.0%} of what lies above chance{of_these} is left)" if left <= 1 else ""
            )
            yield f"{change} it is {_shown(measurement)}{share}"


def _exchanged(names: Sequence[str], reliance: Reliance) -> Iterator[str]:
    """What was measured with properties borrowed from another class: of the first in words, of the others in short."""
    others = []
    for name in names:
        words = _words(name)
        changes = {
            _RATE: f"With {words} borrowed from another class, the share of predictions that are that class is",
            _CHANCE: "for the untouched images it is",
            _SAME_CLASS: f"with {words} borrowed from the image's own class it is",
            _KEPT: "the share that stays right is",
        }
        found = {change: reliance.measurements.get(name + each) for each, change in changes.items()}
        shares = {change: _shown(share) for change, share in found.items() if share is not None and share.n}
        if name == names[0]:
            yield "; ".join(f"{change} {share}" for change, share in shares.items()) + "."
        else:
            rate, *rest = shares.values()
            others.append(f"{words}: {', '.join([rate, *(each.partition(' ')[0] for each in rest)])}")
    if others:
        yield f"The same shares for {'; for '.join(others)}."


def _words(name: str) -> str:
    return _WORDS.get(name, f'the property "{name}"')


def _step(name: str) -> str:
    """What to try where a property is followed; one of an earlier run may be registered no more."""
    remedy = ""
    with suppress(InputError):
        remedy = property_of(name).remedy
    return f"for {_words(name)}: {remedy or 'look at the exchanged images'}"


def _enumerated(words: Sequence[str]) -> str:
    *others, last = dict.fromkeys(words)
    return f"{', '.join(others)} and {last}" if others else last


def _on_saliency(finding: Finding) -> str:
    if finding.saliency == "is not there":
        return "No score of the saliency stands beside it."
    where = "; ".join(_places(finding.evidence.scores))
    if finding.saliency == "is not judged":
        return f"The saliency beside it: {where}." if where else ""
    where = where or "every map is blank"
    if finding.saliency == "agrees":
        return f"The saliency agrees: {where}."
    return f"The saliency does not show it: {where}."


def _places(scores: Mapping[str, float]) -> Iterator[str]:
    if "energy" in scores:
        chance = f" (chance {scores['energy_chance']:.2f})" if "energy_chance" in scores else ""
        yield f"{scores['energy']:.2f} of it lies on the object{chance}"
    if "suspect_lift" in scores:
        yield f"in the suspect region it is {scores['suspect_lift']:.1f} times its share of the area"
