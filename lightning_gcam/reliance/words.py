"""A finding in words: what was measured, how sure it is, what guessing would reach, and what to try next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lightning_gcam.metrics import Measurement
from lightning_gcam.reliance.measured import Reliance
from lightning_gcam.reliance.rule import KINDS, Finding, before, share_left

_CHANGES = {
    "background_only_accuracy": "with the object removed",
    "object_only_accuracy": "with only the object left",
    "background_swap_accuracy": "with the object on the background of another class",
    "suspect_swap_accuracy": "with the suspect region of another class",
}
_READINGS = {
    KINDS[0]: "on evidence outside of the object",
    KINDS[1]: "on the suspect region",
}
_NEXT_STEPS = {
    "agrees": "look at the overlays for what is salient outside of the object",
    "is blind": "look for what covers the object as well (a tint, a style of the camera), which no map can show",
    "is not there": "add scores of the saliency (`scores=None`) to see where it lies",
}


def message_of(finding: Finding) -> str:
    """The finding as a few sentences: measured, with n, interval and chance; no verdict on the model.

    Example:
        >>> from lightning_gcam.reliance.rule import Evidence
        >>> measured = Measurement(0.75, 100, 0, 0, 0, (0.66, 0.82))
        >>> reliance = Reliance({"accuracy": measured, "background_only_accuracy": measured}, chance=0.1)
        >>> print(message_of(Finding(KINDS[:1], "agrees", Evidence(9, 2, reliance, {"energy": 0.2}), looks=2)))
        2 looks in a row, the last at step 9 (epoch 2). Accuracy on the fixed samples is 0.75 [0.66, 0.82], n = 100,
        chance 0.10; with the object removed it is 0.75 [0.66, 0.82], n = 100 (100% of what lies above chance is left).
        This is consistent with reliance on evidence outside of the object. The saliency agrees: 0.20 of it lies on the
        object. What to try next: look at the overlays for what is salient outside of the object; then remove or
        exchange it, and validate on images without it.
    """
    evidence, reliance = finding.evidence, finding.evidence.reliance
    accuracy = reliance.measurements["accuracy"]
    measured = [
        f"Accuracy on the fixed samples is {_shown(accuracy)}, chance {reliance.chance:.2f}",
        *_checks(reliance),
    ]
    readings = " and ".join(_READINGS[kind] for kind in finding.kinds)
    return " ".join(
        (
            f"{finding.looks} look{'s' if finding.looks > 1 else ''} in a row, the last at step {evidence.step} "
            f"(epoch {evidence.epoch}).",
            f"{'; '.join(measured)}.",
            f"This is consistent with reliance {readings}.",
            _on_saliency(finding),
            f"What to try next: {_NEXT_STEPS[finding.saliency]}; then remove or exchange it, and validate on images "
            "without it.",
        )
    )


def plain_of(finding: Finding) -> dict[str, Any]:
    """The finding as one flat dict of plain numbers, strings and lists, `step` and `message` among them."""
    evidence = finding.evidence
    plain: dict[str, Any] = {
        "step": evidence.step,
        "epoch": evidence.epoch,
        "message": message_of(finding),
        "kinds": list(finding.kinds),
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


def _on_saliency(finding: Finding) -> str:
    if finding.saliency == "is not there":
        return "No score of the saliency stands beside it."
    where = "; ".join(_places(finding.evidence.scores)) or "every map is blank"
    if finding.saliency == "agrees":
        return f"The saliency agrees: {where}."
    return f"The saliency does not show it: {where}."


def _places(scores: Mapping[str, float]) -> Iterator[str]:
    if "energy" in scores:
        chance = f" (chance {scores['energy_chance']:.2f})" if "energy_chance" in scores else ""
        yield f"{scores['energy']:.2f} of it lies on the object{chance}"
    if "suspect_lift" in scores:
        yield f"in the suspect region it is {scores['suspect_lift']:.1f} times its share of the area"
