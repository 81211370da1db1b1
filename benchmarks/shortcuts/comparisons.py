"""More tables of `shortcuts.py`: where thresholds lie, and what methods, removals and numbers of samples make of it."""

import math
from collections.abc import Sequence
from statistics import mean, median

import torch

from benchmarks.common.cues import NUM_CLASSES
from benchmarks.common.measure import markdown_table
from benchmarks.shortcuts.runs import REMOVALS, STRENGTHS
from benchmarks.shortcuts.tables import (
    DEFAULT,
    alarm_verdict,
    areas,
    false_alarms,
    threshold_of,
    usable,
    with_reliance,
)
from benchmarks.shortcuts.verdicts import (
    SIGNALS,
    Trained,
    Verdict,
    alarm_speaks,
    alarming,
    at_the_end,
    ever,
    roc_area,
    score,
    split,
    surviving,
)
from lightning_gcam.cam import available_methods
from lightning_gcam.metrics import Measurement
from lightning_gcam.shortcuts import Evidence, Reliance, Thresholds
from lightning_gcam.shortcuts.shares import chance_level, mean_share_interval, wilson_interval

SHARES = (0.5, 0.4, 0.3, 0.25, 0.2)
FEW = 16  # samples, as many as the monitor takes where nobody says how many


def shares_table(runs: Sequence[Trained], removal: str = DEFAULT) -> str:
    """What the alarm does at shares that were not chosen here, the same for both checks."""
    header = ["share", *(f"spoke, strength {strength:.2f}" for strength in STRENGTHS)]
    header += ["false alarms", "in the first third", f"spoke, {FEW} samples", f"false alarms, {FEW} samples"]
    rows = []
    for share in SHARES:
        thresholds = Thresholds(survives=share, dies=share)
        of_strength = [[run for run in runs if run.strength == strength] for strength in STRENGTHS]
        verdicts = [alarm_verdict(group, thresholds, removal) for group in of_strength if group]
        verdict = alarm_verdict(runs, thresholds, removal)
        few = [
            [alarm_speaks(with_samples(run, FEW, removal), thresholds) for run in group]
            for group in split(runs)
        ]
        rows.append(
            [
                f"{share:.2f}",
                *(with_reliance(each) for each in verdicts),
                false_alarms(verdict),
                f"{verdict.early} of {len(verdict.positive)}",
                *(of(Verdict(*few, looks=verdict.looks)) for of in (with_reliance, false_alarms)),
            ]
        )
    return markdown_table(header, rows)


def methods_table(runs: Sequence[Trained]) -> str:
    """How well the energy of each method tells the two kinds of trainings apart."""
    header = ["energy of", "ROC area, last two looks", "whole training", "with reliance", "without"]
    rows = []
    for index, method in enumerate(available_methods()[:6]):
        name = "energy" if index == 0 else f"{method}/energy"
        last = [mean(run.looks[-1]["scores"].get(name, math.nan) for run in group) for group in split(runs)]
        found = areas(score(name, -1), runs)
        rows.append([f"`{method}`", *(f"{each:.3f}" for each in found), *(f"{each:.2f}" for each in last)])
    return markdown_table(header, rows)


def removals_table(runs: Sequence[Trained], chosen_on: Sequence[Trained], tried_on: Sequence[Trained]) -> str:
    """How well accuracy without the object tells them apart, by the way in which the object is removed."""
    header = [
        "removal",
        "ROC area, last two looks",
        "whole training",
        "share left with reliance: median, least",
    ]
    header += [
        "without: most",
        "threshold",
        "spoke",
        "false alarms",
        "`background_swap_accuracy`",
        "`salient_flips`",
    ]
    return markdown_table(header, [removal_row(str(each), runs, chosen_on, tried_on) for each in REMOVALS])


def removal_row(
    removal: str, runs: Sequence[Trained], chosen_on: Sequence[Trained], tried_on: Sequence[Trained]
) -> list[str]:
    relying = [at_the_end(surviving(run.evidence(removal))) for run in split(runs)[0]]
    highest = max(ever(surviving(run.evidence(removal))) for run in split(runs)[1])
    threshold = usable(threshold_of(surviving, chosen_on, removal))
    verdict = alarm_verdict(tried_on, Thresholds(survives=threshold), removal, suspect=False)
    return [
        f'"{removal}"',
        *(f"{each:.3f}" for each in areas(surviving, runs, removal)),
        f"{median(relying):.2f}, {min(relying):.2f}",
        f"{highest:.2f}",
        f"{threshold:.2f}",
        with_reliance(verdict),
        false_alarms(verdict),
        *(
            f"{areas(SIGNALS[name], runs, removal)[0]:.3f}"
            for name in ("background_swap_accuracy", "salient_flips")
        ),
    ]


def samples_table(runs: Sequence[Trained], thresholds: Thresholds, removal: str = DEFAULT) -> str:
    """What the alarm does with fewer fixed samples."""
    header = ["samples", "interval of a share of 0.5", "ROC area, last two looks", "spoke", "false alarms"]
    header += ["in the first third", "of those without reliance, most share left"]
    rows = []
    most = len(runs[0].line["labels"])
    for samples in sorted({each for each in (10, 16, 32, 64, 128) if each < most} | {most}):
        evidence = [[with_samples(run, samples, removal) for run in group] for group in split(runs)]
        spoken = [[alarm_speaks(each, thresholds) for each in group] for group in evidence]
        verdict = Verdict(*spoken, looks=len(runs[0].looks))
        area = roc_area(*([at_the_end(alarming(each)) for each in group] for group in evidence))
        highest = max(ever(alarming(each)) for each in evidence[1])
        rows.append(
            [
                str(samples),
                f"± {half_width(samples):.2f}",
                f"{area:.3f}",
                with_reliance(verdict),
                false_alarms(verdict),
                f"{verdict.early} of {len(verdict.positive)}",
                f"{highest:.2f}",
            ]
        )
    return markdown_table(header, rows)


def half_width(n: int) -> float:
    low, high = wilson_interval(n // 2, n) or (0.0, 1.0)
    return (high - low) / 2


# ------------------------------------------------------------------------------ with fewer samples


def with_samples(run: Trained, samples: int, removal: str = DEFAULT) -> list[Evidence]:
    """The looks as fewer samples would have shown them: the first of each class, as the monitor chooses."""
    rows = balanced_rows(run.line["labels"], samples)
    labels = [run.line["labels"][row] for row in rows]
    chance = chance_level(torch.tensor(labels), NUM_CLASSES)
    found = []
    for look in run.looks:
        answers = look["removals"][removal]["predicted"]
        guesses = {"accuracy": [look["predicted"]], "background_only_accuracy": [answers["background_only"]]}
        swapped = [guess for name, guess in answers.items() if name.startswith("suspect_swap_")]
        if swapped:
            guesses["suspect_swap_accuracy"] = swapped
        measurements = {
            name: counted(
                [[guess[row] == label for guess in each] for row, label in zip(rows, labels, strict=True)]
            )
            for name, each in guesses.items()
        }
        found.append(Evidence(look["step"], look["epoch"], Reliance(measurements, chance), look["scores"]))
    return found


def balanced_rows(labels: Sequence[int], samples: int) -> list[int]:
    """As even over the classes as may be, the earliest of each class first."""
    seen: dict[int, int] = {}
    turns = []
    for row, label in enumerate(labels):
        turns.append((seen.get(label, 0), row))
        seen[label] = seen.get(label, 0) + 1
    return sorted(row for _, row in sorted(turns)[:samples])


def counted(right: Sequence[Sequence[bool]]) -> Measurement:
    """The accuracy on samples of which each has one version that is right or wrong, or several."""
    shares = torch.tensor(right).double().mean(dim=1)
    return Measurement(float(shares.mean()), len(shares), 0, 0, 0, mean_share_interval(shares, len(right[0])))
