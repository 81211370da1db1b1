"""The alarm in words and in numbers: what was measured, and what to try next; no verdict on the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from lightning_gcam.metrics import Measurement
from lightning_gcam.shortcuts.detector import FOLLOWS, KINDS, Finding, before, share_left
from lightning_gcam.shortcuts.exchange import CHANCE, KEPT, RATE, SAME_CLASS_RATE, property_of
from lightning_gcam.shortcuts.results import Reliance
from lightning_gcam.utils.errors import InputError

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
    "is unclear": "look at the overlays: the saliency lies on the object and beside it",
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
    """The finding in a few lines: measured, with n, interval and chance; no verdict on the model.

    Example:
        >>> from lightning_gcam.shortcuts.detector import Evidence
        >>> measured = Measurement(0.75, 100, 0, 0, 0, (0.66, 0.82))
        >>> reliance = Reliance({"accuracy": measured, "background_only_accuracy": measured}, chance=0.1)
        >>> print(message_of(Finding(KINDS[:1], "agrees", Evidence(9, 2, reliance, {"energy": 0.2}), looks=2)))
        2 looks in a row, the last at step 9 (epoch 2), are consistent with reliance on evidence outside of the object.
        Accuracy on the fixed samples is 0.75 [0.66, 0.82], n = 100, chance 0.10; with the object removed it is 0.75
        [0.66, 0.82], n = 100 (100% of what lies above chance is left).
        The saliency agrees: 0.20 of it lies on the object.
        What to try next: look at the overlays for what is salient outside of the object; then remove or exchange it,
        and validate on images without it.
    """
    evidence, reliance, names = finding.evidence, finding.evidence.reliance, finding.properties
    readings = [_READINGS.get(kind, f"on {_words(kind.removeprefix(FOLLOWS))}") for kind in finding.kinds]
    looks, are = ("looks in a row", "are") if finding.looks > 1 else ("look", "is")
    accuracy = f"Accuracy on the fixed samples is {_shown(reliance.measurements['accuracy'])}"
    lines = (
        f"{finding.looks} {looks}, the last at step {evidence.step} (epoch {evidence.epoch}), {are} consistent with "
        f"reliance {_enumerated(readings)}.",
        f"{'; '.join((f'{accuracy}, chance {reliance.chance:.2f}', *_checks(reliance)))}.",
        *_exchanged(names, reliance),
        _on_saliency(finding),
        _YOURS_TO_SAY if _MAY_BELONG & {*names} else "",
        *_next_steps(finding),
    )
    return "\n".join(filter(None, lines))


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
            own = reliance.chance_of(name)
            chance = f", chance {own:.2f}" if own != reliance.chance else ""
            yield f"{change} it is {_shown(measurement)}{chance}{share}"


def _exchanged(names: Sequence[str], reliance: Reliance) -> Iterator[str]:
    """A line for each property that is followed."""
    if names:
        yield "Of the predictions for images with a property of another class, so many are that class:"
    for name in names:
        found = (reliance.measurements.get(name + each) for each in (RATE, CHANCE, SAME_CLASS_RATE, KEPT))
        rate, untouched, same, kept = (each if each is not None and each.n else None for each in found)
        beside = [f"untouched {untouched.value:.2f}"] if untouched is not None else []
        beside += [f"with that of the image's own class {same.value:.2f}"] if same is not None else []
        stay = f"; {kept.value:.2f} stay right" if kept is not None else ""
        if rate is not None:
            yield f"- {_words(name)}: {_shown(rate)} ({', '.join(beside)}){stay}"
    if names and reliance.num_classes == 2:
        yield "Of two classes, what is not right is the other: compare with what the image's own class does."


def _next_steps(finding: Finding) -> Iterator[str]:
    """What to try next: in a line, or in one for each property that is followed."""
    first, names = _NEXT_STEPS.get(finding.saliency), finding.properties
    then = "remove or exchange it, and validate on images without it."
    if not names:
        yield f"What to try next: {first}; then {then}"
        return
    yield "What to try next:"
    yield from ([f"- {first}"] if first else [])
    yield from (f"- {_words(name)}: {_remedy(name)}" for name in names)
    yield f"Then {then}"


def _words(name: str) -> str:
    return _WORDS.get(name, f'the property "{name}"')


def _remedy(name: str) -> str:
    """What to try where a property is followed; one of an earlier run may be registered no more."""
    with suppress(InputError):
        return property_of(name).remedy or "look at the exchanged images"
    return "look at the exchanged images"


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
    if finding.saliency == "is unclear":
        return f"The saliency is unclear: {where}."
    return f"The saliency does not show it: {where}."


def _places(scores: Mapping[str, float]) -> Iterator[str]:
    if "energy" in scores:
        chance = f" (chance {scores['energy_chance']:.2f})" if "energy_chance" in scores else ""
        yield f"{scores['energy']:.2f} of it lies on the object{chance}"
    if "suspect_lift" in scores:
        yield f"in the suspect region it is {scores['suspect_lift']:.1f} times its share of the area"
