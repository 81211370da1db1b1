"""What `ShortcutAlarm` makes of a monitor's looks: evidence, when to speak, and why it cannot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lightning_gcam.metrics import resolve_scores
from lightning_gcam.record import SaliencyRecord
from lightning_gcam.reliance import Evidence, Finding, Thresholds, judge
from lightning_gcam.scoring import score_maps

_DECISIVE = ("background_only_accuracy", "suspect_swap_accuracy")
_SCORES = ("energy", "energy_chance", "suspect_lift", "blank_rate")


class Watch:
    """The last looks of one monitor, and what was said of them.

    Args:
        thresholds: as in `judge`.
        looks_in_a_row: as in `judge`.
    """

    def __init__(self, thresholds: Thresholds, looks_in_a_row: int) -> None:
        self._thresholds = thresholds
        self._looks_in_a_row = looks_in_a_row
        self._recent: list[Evidence] = []
        self._told: list[str] = []

    def hear(self, evidence: Evidence) -> Finding | None:
        """What is new with one more look: a kind of evidence not told before, or told before a silence."""
        self._recent = [*self._recent, evidence][-self._looks_in_a_row :]
        finding = judge(self._recent, self._thresholds, self._looks_in_a_row)
        kinds = list(finding.kinds) if finding is not None else []
        is_new = any(kind not in self._told for kind in kinds)
        self._told = list(dict.fromkeys([*self._told, *kinds])) if kinds else []
        return finding if is_new else None

    def miss(self) -> None:
        """A look of which nothing can be judged: the looks before it and behind it are not in a row."""
        self._recent = []

    def state_dict(self) -> dict[str, Any]:
        """Plain Python only."""
        return {"recent": [each.to_plain() for each in self._recent], "told": self._told}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the looks of the run that is resumed."""
        self._recent = [Evidence.from_plain(each) for each in state["recent"]]
        self._told = list(state["told"])


def evidence_of(record: SaliencyRecord) -> Evidence | None:
    """What a look measured, with the saliency of its first method; None where nothing of it can be judged."""
    if record.reliance is None or why_not(record) is not None:
        return None
    taken = {name: record.scores[name] for name in _SCORES if _is_ours(record, name)}
    missing = [name for name in _SCORES if name not in taken]
    name, maps = next(iter(record.attribution.maps.items()))
    scores = score_maps(replace(record.attribution, maps={name: maps}), record.batch, missing).values
    return Evidence(record.step, record.epoch, record.reliance, {**scores, **taken})


def _is_ours(record: SaliencyRecord, name: str) -> bool:
    """Whether the look has the score of that name, and it is not one of the user's own under the same name."""
    metric, _ = record.sheet.evidence.get(name, (None, None))
    return name in record.scores and type(metric) is type(resolve_scores(name)[name])


def why_not(record: SaliencyRecord) -> str | None:
    """Why the alarm cannot judge a look, and what to give it; None where it can."""
    batch, reliance = record.batch, record.reliance
    measured = reliance.scores if reliance is not None else {}
    if any(name in measured for name in _DECISIVE):
        return None
    if batch.labels is None:
        return "the fixed samples have no labels. Deliver (images, labels, masks) in the validation batch."
    if batch.object_masks is None and batch.suspect is None:
        return (
            "the fixed samples have neither masks or boxes of their objects nor a suspect region. Deliver "
            "(images, labels, masks) in the validation batch, or pass `adapter=` or `batch=` to the monitor, with "
            "`masks`, `boxes` or `suspect` of a SaliencyBatch."
        )
    return (
        f"no check of {' or '.join(_DECISIVE)} could be made. They take labels that are classes and one score a class, "
        "for the first objects that leave some background, for the second two classes; and the monitor's `checks` must "
        "not leave them out. (A check that failed was warned of by itself.)"
    )
