"""The alarm in words and in numbers: what was measured, what was not checked, what to try; no verdict on the model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from lightning_gcam.metrics import Measurement
from lightning_gcam.shortcuts.detector import KINDS, Finding, before, share_left
from lightning_gcam.shortcuts.exchange import CHANCE, RATE, SAME_CLASS_RATE, property_of
from lightning_gcam.shortcuts.results import Reliance
from lightning_gcam.utils.errors import InputError

_WORDS = {
    "color": "the colours",
    "histogram": "the values of each channel",
    "spectrum": "the spectrum",
    "texture": "the texture",
    "border": "the border",
    "salient_region": "the most salient place",
    "background": "the background",
    "suspect": "the suspect region",
}
_ACCURACIES = {
    "background_only_accuracy": "accuracy without the object",
    "object_only_accuracy": "accuracy with only the object",
    "background_swap_accuracy": "accuracy on another class's background",
    "suspect_swap_accuracy": "accuracy with another class's suspect region",
}
_MOST_NAMED = 3
"""Properties in a headline; the rows name all."""

_MAY_BELONG = {"color", "histogram", "background"}
_MAY_BE_LEGITIMATE = (
    "decide whether it may be legitimate context, as sand is for a camel (`checks=` leaves a check out)"
)
_OF_SALIENCY = {
    "agrees": "look at the overlays for what is salient outside of the object: the saliency agrees",
    "is blind": "go by the numbers, not by the overlays: the saliency is blind to it",
    "is unclear": "take more samples (`num_samples=`): whether the saliency shows it is unclear",
    "is not there": "add scores of the saliency (`scores=None`) to see where it lies",
}
_IN_SUSPECT_REGION = "look at the suspect region in the overlays: the saliency agrees"
_COVERS_ALL = "look for what covers the object as well, such as a tint or the style of a camera"
_AT_LAST = "remove or exchange it, and validate on images without it"


def headline_of(finding: Finding) -> str:
    """The finding in one line: what predictions follow, and what the class does without.

    Example:
        >>> from lightning_gcam.shortcuts.detector import Evidence
        >>> kinds = ("survives without the object", "follows the border", "follows the color")
        >>> headline_of(Finding(kinds, "agrees", Evidence(9, 2, Reliance({}, chance=0.1), {}), looks=2))
        'predictions follow the border and the colours; the class survives without the object'
    """
    names = [_words(name) for name in finding.properties]
    further = [f"{len(names) - _MOST_NAMED} more"] if len(names) > _MOST_NAMED else []
    follow = f"predictions follow {_enumerated([*names[:_MOST_NAMED], *further])}" if names else ""
    survives = "the class survives without the object" if KINDS[0] in finding.kinds else ""
    fails = KINDS[1] in finding.kinds and "suspect" not in finding.properties[:_MOST_NAMED]
    dies = "accuracy falls with the suspect region exchanged" if fails else ""
    return "; ".join(filter(None, (follow, survives, dies)))


def rows_of(finding: Finding) -> list[dict[str, Any]]:
    """The measurements behind the finding, each a row of `what`, `value`, `n`, `interval` and `chance`.

    The chance of a follow rate is the larger of its two controls: the rate of the untouched images, and that of the
    same edit within a class. What a row does not have is None.

    Example:
        >>> from lightning_gcam.shortcuts.detector import Evidence
        >>> accuracy = Measurement(0.75, 100, 0, 0, 0, (0.66, 0.82))
        >>> evidence = Evidence(9, 2, Reliance({"accuracy": accuracy}, chance=0.1), {"energy": 0.2})
        >>> for row in rows_of(Finding(KINDS[:1], "agrees", evidence, looks=2)):
        ...     print(*row.values())
        accuracy 0.75 100 [0.66, 0.82] 0.1
        saliency on the object 0.2 None None None
    """
    reliance = finding.evidence.reliance
    return [
        *_rows_of_accuracy(finding.kinds, reliance),
        *_rows_of_followed(finding.properties, reliance),
        *_rows_of_saliency(finding),
    ]


def advice_of(finding: Finding) -> list[str]:
    """What to try next, the likeliest to help first; it follows from what was found.

    Example:
        >>> from lightning_gcam.shortcuts.detector import Evidence
        >>> evidence = Evidence(9, 2, Reliance({}, chance=0.1), {})
        >>> for each in advice_of(Finding(("follows the border",), "is not judged", evidence, looks=2)):
        ...     print(each)
        for the border, crop the images (of signals the ends), or look for tags, frames and rulers at their edges
        remove or exchange it, and validate on images without it
    """
    names, survives = finding.properties, KINDS[0] in finding.kinds
    may_belong = survives or not _MAY_BELONG.isdisjoint(names)
    unseen = finding.saliency == "is blind" and survives and not names
    of_saliency = _OF_SALIENCY.get(finding.saliency)
    if finding.saliency == "agrees" and not survives and "energy" not in finding.evidence.scores:
        of_saliency = _IN_SUSPECT_REGION  # no object is known
    return [
        *([_MAY_BE_LEGITIMATE] if may_belong else []),
        *([of_saliency] if of_saliency is not None else []),
        *(f"for {_words(name)}, {_remedy(name)}" for name in names),
        *([_COVERS_ALL] if unseen else []),
        _AT_LAST,
    ]


def plain_of(finding: Finding) -> dict[str, Any]:
    """The finding as one flat dict of plain numbers, strings and lists.

    Beside `step`, `message`, `headline`, `evidence` (of `rows_of`), `advice` and `unchecked` it has each score by name.
    """
    evidence = finding.evidence
    plain: dict[str, Any] = {
        "step": evidence.step,
        "epoch": evidence.epoch,
        "message": message_of(finding),
        "headline": headline_of(finding),
        "evidence": rows_of(finding),
        "advice": advice_of(finding),
        "unchecked": list(finding.unchecked),
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


def message_of(finding: Finding) -> str:
    """The finding as a block of text: its headline, one number a line, what was not checked, and what to try.

    Example:
        >>> from lightning_gcam.shortcuts.detector import Evidence
        >>> measured = Measurement(0.75, 100, 0, 0, 0, (0.66, 0.82))
        >>> reliance = Reliance({"accuracy": measured, "suspect_swap_accuracy": measured}, chance=0.1)
        >>> evidence = Evidence(9, 2, reliance, {"energy": 0.2, "energy_chance": 0.15})
        >>> print(message_of(Finding(("follows the suspect",), "is not judged", evidence, 2, ("the background",))))
        predictions follow the suspect region
          2 looks in a row, the last at step 9 (epoch 2)
          accuracy                                      0.75 [0.66, 0.82]  n = 100  chance 0.10
          accuracy with another class's suspect region  0.75 [0.66, 0.82]  n = 100  chance 0.10
          saliency on the object                        0.20                        chance 0.15
          not checked: the background
          try: for the suspect region, cover or remove the suspect region
          try: remove or exchange it, and validate on images without it
    """
    evidence, looks = (
        finding.evidence,
        f"{finding.looks} looks in a row, the last" if finding.looks > 1 else "a look",
    )
    lines = (
        headline_of(finding),
        f"{looks} at step {evidence.step} (epoch {evidence.epoch})",
        *_columns(rows_of(finding)),
        *(f"not checked: {each}" for each in finding.unchecked),
        *(f"try: {each}" for each in advice_of(finding)),
    )
    return "\n  ".join(lines)


def markdown_of(alert: Mapping[str, Any]) -> str:
    """An alert as Markdown: its headline, a table of the evidence, what was not checked, and what to try.

    Args:
        alert: as `plain_of` gives it; one without a headline is its message, a paragraph a line.

    Example:
        >>> row = {"what": "accuracy", "value": 0.75, "n": 100, "interval": [0.66, 0.82], "chance": 0.1}
        >>> print(markdown_of({"headline": "found", "evidence": [row], "advice": ["crop"], "unchecked": ["a", "b"]}))
        ### found
        <BLANKLINE>
        | what | value | 95% interval | n | chance |
        | --- | --- | --- | --- | --- |
        | accuracy | 0.75 | [0.66, 0.82] | 100 | 0.10 |
        <BLANKLINE>
        Not checked: a; b
        <BLANKLINE>
        What to try:
        <BLANKLINE>
        - crop
    """
    if "headline" not in alert:
        return str(alert["message"]).replace("\n", "\n\n")  # Markdown joins lines
    head = ("what", "value", "95% interval", "n", "chance")
    rows = (head, ("---",) * len(head), *map(_cells, alert["evidence"]))
    blocks = (
        f"### {alert['headline']}",
        "\n".join(f"| {' | '.join(row)} |" for row in rows),
        f"Not checked: {'; '.join(alert['unchecked'])}" if alert["unchecked"] else "",
        "What to try:",
        "\n".join(f"- {each}" for each in alert["advice"]),
    )
    return "\n\n".join(filter(None, blocks))


def parts_of_markdown(text: str) -> dict[str, Any]:
    """The headline, evidence, advice and unchecked of an alert, read from what `markdown_of` wrote; else empty.

    Example:
        >>> row = {"what": "accuracy", "value": 0.75, "n": None, "interval": [0.66, 0.82], "chance": 0.1}
        >>> alert = {"headline": "found", "evidence": [row], "advice": ["crop"], "unchecked": ["a", "b"]}
        >>> parts_of_markdown(markdown_of(alert)) == alert, parts_of_markdown("A message of an earlier version.")
        (True, {})
    """
    headline, *lines = text.splitlines() or [""]
    if not headline.startswith("### "):
        return {}
    cells = [line[2:-2].split(" | ") for line in lines if line.startswith("| ")]
    unchecked = [line.removeprefix("Not checked: ") for line in lines if line.startswith("Not checked: ")]
    return {
        "headline": headline.removeprefix("### "),
        "evidence": [row for each in cells[2:] if (row := _row_of_cells(each)) is not None],
        "advice": [line.removeprefix("- ") for line in lines if line.startswith("- ")],
        "unchecked": unchecked[0].split("; ") if unchecked else [],
    }


def _rows_of_accuracy(kinds: Sequence[str], reliance: Reliance) -> Iterator[dict[str, Any]]:
    yield _row("accuracy", reliance.measurements["accuracy"], reliance.chance)
    shares = {"background_only_accuracy": KINDS[0], "suspect_swap_accuracy": KINDS[1]}
    names = [name for name in _ACCURACIES if _has(name, reliance)]
    if any(before(name, reliance) is not reliance.measurements["accuracy"] for name in names):
        yield _row(
            "accuracy of those with an object", before(names[0], reliance), reliance.chance_of(names[0])
        )
    for name in names:
        yield _row(_ACCURACIES[name], reliance.measurements[name], reliance.chance_of(name))
        left = share_left(name, reliance)
        if shares.get(name) in kinds and math.isfinite(left):
            yield _row("share left of the accuracy above chance", min(max(left, 0.0), 1.0))
    if KINDS[0] in kinds and _has("background_share", reliance):
        yield _row("share of the image beside the object", reliance.measurements["background_share"])


def _rows_of_followed(names: Sequence[str], reliance: Reliance) -> Iterator[dict[str, Any]]:
    for name in names:
        if _has(name + RATE, reliance):
            controls = [name + each for each in (CHANCE, SAME_CLASS_RATE) if _has(name + each, reliance)]
            expected = max((reliance.measurements[each].value for each in controls), default=None)
            yield _row(
                f"predictions that follow {_words(name)}", reliance.measurements[name + RATE], expected
            )


def _rows_of_saliency(finding: Finding) -> Iterator[dict[str, Any]]:
    scores, intervals = finding.evidence.scores, finding.evidence.intervals
    if "energy" in scores:
        row = _row("saliency on the object", scores["energy"], scores.get("energy_chance"))
        yield {**row, "interval": list(intervals["energy"]) if "energy" in intervals else None}
    if "suspect_lift" in scores:
        yield _row("saliency in the suspect region, over its area", scores["suspect_lift"], 1.0)
    if finding.saliency == "is blind" and "energy" not in scores:
        yield _row("share of the maps that are blank", scores.get("blank_rate", 1.0))


def _row(what: str, measured: Measurement | float, chance: float | None = None) -> dict[str, Any]:
    if not isinstance(measured, Measurement):
        return {"what": what, "value": float(measured), "n": None, "interval": None, "chance": chance}
    interval = list(measured.interval) if measured.interval is not None else None
    return {"what": what, "value": measured.value, "n": measured.n, "interval": interval, "chance": chance}


def _has(name: str, reliance: Reliance) -> bool:
    """Whether a measurement is there, of one sample at least."""
    return name in reliance.measurements and reliance.measurements[name].n > 0


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the evidence in words; what it does not have is empty."""
    low_high = [f"{each:.2f}" for each in row["interval"] or ()]
    chance = f"{row['chance']:.2f}" if row["chance"] is not None else ""
    n = str(row["n"]) if row["n"] is not None else ""
    return row["what"], f"{row['value']:.2f}", f"[{', '.join(low_high)}]" if low_high else "", n, chance


def _row_of_cells(cells: Sequence[str]) -> dict[str, Any] | None:
    """The row of `_cells`, as exact as that wrote it; None where it is none."""
    with suppress(ValueError):
        what, value, interval, n, chance = cells
        return {
            "what": what,
            "value": float(value),
            "n": int(n) if n else None,
            "interval": [float(each) for each in interval.strip("[]").split(", ")] if interval else None,
            "chance": float(chance) if chance else None,
        }
    return None


def _columns(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The rows with their columns below each other, one a line."""
    table = [
        (what, f"{value} {interval}".strip(), n and f"n = {n}", chance and f"chance {chance}")
        for what, value, interval, n, chance in map(_cells, rows)
    ]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _words(name: str) -> str:
    return _WORDS.get(name, f'the property "{name}"')


def _remedy(name: str) -> str:
    """What to try where a property is followed; one of an earlier run may be registered no more."""
    with suppress(InputError):
        return property_of(name).remedy or "look at the exchanged images"
    return "look at the exchanged images"


def _enumerated(words: Sequence[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last
