"""The tables of `shortcuts.py`: trainings to Markdown. Thresholds are chosen on one seed, and tried on the others."""

import math
from collections.abc import Sequence
from statistics import mean, median
from typing import NamedTuple

from benchmarks.common.cues import CUES, ON_THE_OBJECT
from benchmarks.common.measure import Goal, markdown_table
from benchmarks.shortcuts.runs import STRENGTHS
from benchmarks.shortcuts.verdicts import (
    SIGNALS,
    Signal,
    Trained,
    Verdict,
    alarm_speaks,
    alarming,
    at_the_end,
    choose_threshold,
    dying,
    ever,
    first_look,
    roc_area,
    roc_interval,
    split,
    surviving,
)
from lightning_gcam.shortcuts import Thresholds
from lightning_gcam.shortcuts.removal import DEFAULT_REMOVAL

AREA_GOAL = 0.97
EARLY_GOAL = 0.5
LEAST = 0.05  # no share of the accuracy below it is a threshold: with fewer samples it could not be seen
DEFAULT = str(DEFAULT_REMOVAL)


class Named(NamedTuple):
    """A row of the large table: a signal, or the alarm with its thresholds, tried on trainings."""

    name: str
    end: float
    whole: float
    threshold: str
    verdict: Verdict


# ------------------------------------------------------------------------------------- what was planted


def trainings_table(runs: Sequence[Trained], thresholds: Thresholds, removal: str = DEFAULT) -> str:
    """By cue and strength: what the cue took, what was measured at the last look, and when the alarm spoke."""
    header = ["cue", "strength", "trainings", "relies / in part / does not", "validation", "cue shuffled"]
    header += ["energy", "object removed", "suspect exchanged", "alarm spoke", "at look"]
    rows = []
    for cue, strength in [
        *((cue, strength) for cue in CUES for strength in (*STRENGTHS, 0.0)),
        ("none", 0.0),
        (ON_THE_OBJECT, 0.95),
    ]:
        group = [run for run in runs if (run.cue, run.strength) == (cue, strength)]
        if group:
            rows.append(training_row(group, thresholds, removal))
    return markdown_table(header, rows)


def training_row(group: Sequence[Trained], thresholds: Thresholds, removal: str) -> list[str]:
    last = [run.looks[-1] for run in group]
    evidence = [run.evidence(removal) for run in group]
    spoken = [look for each in evidence if (look := alarm_speaks(each, thresholds)) is not None]
    truths = [run.truth for run in group]
    checks = ("background_only_accuracy", "suspect_swap_accuracy")
    measured = [[each[-1].reliance.measurements.get(name) for each in evidence] for name in checks]
    planted = "any kind" if group[0].cue != "none" else ""
    return [
        group[0].cue,
        f"{group[0].strength:.2f}" if group[0].strength else planted,
        str(len(group)),
        " / ".join(str(truths.count(truth)) for truth in ("relies", "in part", "does not")),
        *(f"{mean(look[name] for look in last):.2f}" for name in ("validation", "honest")),
        f"{mean(look['scores'].get('energy', math.nan) for look in last):.2f}",
        *(f"{mean(each.value for each in found if each):.2f}" if all(found) else "" for found in measured),
        f"{len(spoken)} of {len(group)}",
        f"{median(spoken):g}" if spoken else "",
    ]


# ------------------------------------------------------------------------------------ the scores, alone


def choose_thresholds(runs: Sequence[Trained], removal: str = DEFAULT) -> Thresholds:
    """Both shares half way between trainings without reliance and those with it."""
    survives, dies = (threshold_of(signal, runs, removal) for signal in (surviving, dying))
    return Thresholds(survives=usable(survives), dies=usable(dies))


def usable(share: float) -> float:
    return min(max(share, LEAST), 1.0)


def threshold_of(signal: Signal, runs: Sequence[Trained], removal: str = DEFAULT) -> float:
    positive, negative = split(runs)
    return choose_threshold(
        *([ever(signal(run.evidence(removal))) for run in each] for each in (positive, negative))
    )


def verdict_of(signal: Signal, threshold: float, runs: Sequence[Trained], removal: str = DEFAULT) -> Verdict:
    spoken = [[first_look(signal(run.evidence(removal)), threshold) for run in each] for each in split(runs)]
    return Verdict(*spoken, looks=len(runs[0].looks))


def alarm_verdict(
    runs: Sequence[Trained], thresholds: Thresholds, removal: str = DEFAULT, *, suspect: bool = True
) -> Verdict:
    spoken = [
        [alarm_speaks(run.evidence(removal, suspect=suspect), thresholds) for run in each]
        for each in split(runs)
    ]
    return Verdict(*spoken, looks=len(runs[0].looks))


def areas(
    signal: Signal, runs: Sequence[Trained], removal: str = DEFAULT, *, suspect: bool = True
) -> list[float]:
    """ROC areas of a signal over trainings: of its last two looks, and of the two at which it was highest."""
    values = [[signal(run.evidence(removal, suspect=suspect)) for run in each] for each in split(runs)]
    return [roc_area(*([of(each) for each in group] for group in values)) for of in (at_the_end, ever)]


def rows_of_scores(
    chosen_on: Sequence[Trained], tried_on: Sequence[Trained], removal: str = DEFAULT
) -> list[Named]:
    """The alarm, and each score alone; thresholds of the first trainings, verdicts on the others."""
    runs = [*chosen_on, *tried_on]
    thresholds = choose_thresholds(chosen_on, removal)
    shares = f"{thresholds.survives:.2f}, {thresholds.dies:.2f}"
    rows = []
    for name, suspect, text in (
        ("**the alarm**", True, shares),
        ("without a suspect region", False, shares[:4]),
    ):
        verdict = alarm_verdict(tried_on, thresholds, removal, suspect=suspect)
        rows.append(Named(name, *areas(alarming, runs, removal, suspect=suspect), text, verdict))
    for name, signal in SIGNALS.items():
        threshold = threshold_of(signal, chosen_on, removal)
        verdict = verdict_of(signal, threshold, tried_on, removal)
        rows.append(Named(f"`{name}`", *areas(signal, runs, removal), f"{abs(threshold):.2f}", verdict))
    return rows


def scores_table(rows: Sequence[Named]) -> str:
    header = ["used alone", "ROC area, last two looks", "whole training", "threshold"]
    header += ["spoke where there is reliance", "false alarms", "in the first third", "training left"]
    return markdown_table(header, [score_row(row) for row in rows])


def score_row(row: Named) -> list[str]:
    verdict = row.verdict
    return [
        row.name,
        f"{row.end:.3f}",
        f"{row.whole:.3f}",
        row.threshold,
        with_reliance(verdict),
        false_alarms(verdict),
        f"{verdict.early} of {len(verdict.positive)}",
        f"{verdict.looks_left:.0%}" if verdict.spoken else "",
    ]


def speaking_table(
    chosen_on: Sequence[Trained], tried_on: Sequence[Trained], names: Sequence[str], removal: str = DEFAULT
) -> str:
    """For each cue and each strength, of how many trainings with reliance each score spoke."""
    thresholds = choose_thresholds(chosen_on, removal)
    groups = {cue: [run for run in tried_on if run.cue == cue] for cue in CUES}
    groups |= {
        f"{strength:.2f}": [run for run in tried_on if run.strength == strength] for strength in STRENGTHS
    }
    cells = {"the alarm": [alarm_verdict(group, thresholds, removal) for group in groups.values() if group]}
    for name in names:
        threshold = threshold_of(SIGNALS[name], chosen_on, removal)
        verdicts = [
            verdict_of(SIGNALS[name], threshold, group, removal) for group in groups.values() if group
        ]
        cells[f"`{name}`"] = verdicts
    rows = [[name, *(with_reliance(each) for each in found)] for name, found in cells.items()]
    return markdown_table(["", *(name for name, group in groups.items() if group)], rows)


def with_reliance(verdict: Verdict) -> str:
    return f"{verdict.spoken} of {len(verdict.positive)}"


def false_alarms(verdict: Verdict) -> str:
    return f"{verdict.false_alarms} of {len(verdict.negative)}"


# ----------------------------------------------------------------------------------------------- goals


def goals(rows: Sequence[Named], runs: Sequence[Trained], removal: str = DEFAULT) -> list[Goal]:
    """What the issue asks for; written as a value that must not be above a limit."""
    alarm, singles = rows[0], rows[2:]
    values = [[at_the_end(alarming(run.evidence(removal))) for run in group] for group in split(runs)]
    low, high = roc_interval(*values)
    best = max(singles, key=lambda row: (row.end, row.verdict.spoken))
    late = 1 - alarm.verdict.early / max(len(alarm.verdict.positive), 1)
    area = f"ROC area at least {AREA_GOAL}: {alarm.end:.3f} [{low:.3f}, {high:.3f}]"
    early = f"{alarm.verdict.early} of {len(alarm.verdict.positive)}"
    more = [row.name for row in singles if row.end >= alarm.end]
    return [
        Goal(area, AREA_GOAL - alarm.end, 0),
        Goal(
            f"no false alarm: {alarm.verdict.false_alarms} of {len(alarm.verdict.negative)}",
            alarm.verdict.false_alarms,
            0,
        ),
        Goal(f"half of the others within the first third of the training: {early}", late, 1 - EARLY_GOAL),
        Goal(
            f"a larger ROC area than every score alone: {alarm.end:.3f}, the best of them {best.end:.3f} "
            f"({', '.join(more) or best.name})",
            float(len(more)),
            0,
        ),
    ]
