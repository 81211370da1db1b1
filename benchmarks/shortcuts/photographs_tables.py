"""The tables of `photographs.py`: what predictions follow on photographs, and what the alarm made of it."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from statistics import median
from typing import Any, NamedTuple

from benchmarks.common.measure import markdown_table
from benchmarks.shortcuts.follows import RIGHT
from benchmarks.shortcuts.verdicts import Trained, alarm_speaks
from lightning_gcam.shortcuts import Evidence, Reliance, Thresholds
from lightning_gcam.shortcuts.detector import follow_excess

FOLLOWS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)


class OnPhotographs(Trained):
    """One training on photographs."""

    @property
    def name(self) -> str:
        """As the text names it."""
        strength = f" {self.strength:.2f}" if self.strength else ""
        return f"{self.cue}{strength}, {self.learns}"

    @property
    def learns(self) -> str:
        """What is trained."""
        return "last blocks" if self.line["learns_blocks"] else "linear layer"

    @property
    def alerts(self) -> list[Mapping[str, Any]]:
        """The alerts, each with its look and the properties that it names."""
        return list(self.line["alerts"])

    @cached_property
    def reliances(self) -> list[Reliance]:
        """What was measured at each look."""
        return [Reliance.from_plain(look["reliance"]) for look in self.looks]

    @cached_property
    def excess(self) -> list[dict[str, float]]:
        """At each look that the alarm counts, by how much each property's follow rate exceeds its controls."""
        return [follow_excess(each) if each.is_above_chance else {} for each in self.reliances]

    def spoke(self, thresholds: Thresholds) -> bool:
        """Whether the alarm would have alerted."""
        looks = zip(self.looks, self.reliances, strict=True)
        evidence = [Evidence(look["step"], look["epoch"], reliance, {}) for look, reliance in looks]
        return alarm_speaks(evidence, thresholds) is not None


class Highest(NamedTuple):
    """The highest excess of a property, and the training in which it was."""

    value: float
    training: str

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.training})" if self.training else ""


NONE = Highest(0.0, "")


def tables(lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """All tables, of the lines that the trainings left."""
    runs = [OnPhotographs(line) for line in lines]
    relies, does_not = ([run for run in runs if run.truth == truth] for truth in ("relies", "does not"))
    names = list(follow_excess(runs[0].reliances[0]))
    yield (
        f"{len(runs)} trainings. At the last look: the accuracy on validation images and on the same with the cue "
        "shuffled; of each property the follow rate, and the larger of its controls. In bold what is right for a cue "
        "on which the training relies."
    )
    yield trainings_table(runs, names)
    yield "\n".join(f"- {each}." for each in verdicts(runs, relies, does_not))
    yield "The highest excess of a follow rate over its controls, of one look, and of two in a row:"
    yield highest_table(names, relies, does_not)
    yield (
        "The same excess at the last look, of texture and border as they are and narrower: the high frequencies beside "
        "a low pass of one pixel instead of a 32nd of the side, and the outer tenth instead of 17%."
    )
    yield narrower_table(relies, does_not)
    yield "The alarm with other thresholds:"
    yield thresholds_table(relies, does_not)


def trainings_table(runs: Sequence[OnPhotographs], names: Sequence[str]) -> str:
    """A training a row."""
    header = [
        "cue",
        "strength",
        "trained",
        "accuracy",
        "relies",
        *(f"`{name}`" for name in names),
        "the alarm",
    ]
    return markdown_table(header, [training_row(run, names) for run in runs])


def training_row(run: OnPhotographs, names: Sequence[str]) -> list[str]:
    last, strength = run.looks[-1], f"{run.strength:.2f}" if run.strength else "any kind"
    return [
        run.cue,
        strength if run.cue != "none" else "",
        run.learns,
        f"{last['validation']:.2f}, {last['honest']:.2f}",
        {"relies": "yes", "does not": "no"}.get(run.truth, run.truth),
        *(rate_cell(run, name) for name in names),
        "; ".join(f"look {each['look']}: {', '.join(each['properties'])}" for each in run.alerts),
    ]


def rate_cell(run: OnPhotographs, name: str) -> str:
    """The follow rate and its control at the last look."""
    scores, excess = run.reliances[-1].scores, follow_excess(run.reliances[-1])
    if name not in excess:
        return ""
    rate = scores[f"{name}_follow_rate"]
    cell = f"{rate:.2f}, {rate - excess[name]:.2f}"
    return f"**{cell}**" if run.truth == "relies" and name in RIGHT[run.cue] else cell


def verdicts(
    runs: Sequence[OnPhotographs], relies: Sequence[OnPhotographs], does_not: Sequence[OnPhotographs]
) -> Iterator[str]:
    """What the alarm made of all trainings."""
    found, false = [run for run in relies if run.alerts], [run for run in does_not if run.alerts]
    right = [run for run in found if run.alerts[0]["properties"][0] in RIGHT[run.cue]]
    yield f"Of the trainings that rely on their cue, it alerted in {len(found)} of {len(relies)}"
    yield f"In {len(right)} of these the property that it named first is right for the cue"
    yield f"Silent in spite of reliance: {named([run for run in relies if not run.alerts])}"
    yield f"False alarms: {len(false)} of {len(does_not)}" + (f" ({named(false)})" if false else "")
    in_part = [run for run in runs if run.truth == "in part"]
    yield (
        f"Neither, since shuffling the cue takes some of the accuracy, but less than 0.2 of it: {named(in_part)}; it "
        f"alerted in {sum(bool(run.alerts) for run in in_part)} of {len(in_part)}"
    )


def named(runs: Sequence[OnPhotographs]) -> str:
    return "; ".join(run.name for run in runs) or "none"


def highest_table(
    names: Sequence[str], relies: Sequence[OnPhotographs], does_not: Sequence[OnPhotographs]
) -> str:
    """Each property without reliance, and where it is right for a cue that is relied upon."""
    header = ["property", "no reliance, one look", "two in a row", "right for the cue: lowest", "highest"]
    rows = []
    for name in names:
        right = [highest(run, name, 2) for run in relies if name in RIGHT[run.cue]]
        without = [max((highest(run, name, looks) for run in does_not), default=NONE) for looks in (1, 2)]
        rows.append([f"`{name}`", *map(str, without), *(str(of(right)) for of in (min, max) if right)])
    return markdown_table(header, [row + [""] * (len(header) - len(row)) for row in rows])


def narrower_table(relies: Sequence[OnPhotographs], does_not: Sequence[OnPhotographs]) -> str:
    """The excess of properties as they are, and narrower: without reliance, and where they are right for a cue."""
    rows = []
    for name in does_not[0].looks[-1]["narrower"] if does_not else []:
        right = [run for run in relies if name in RIGHT[run.cue]]
        for words, excess in ((f"`{name}`", last_excess), (f"`{name}`, narrower", last_narrower)):
            spreads = [sorted(excess(run, name) for run in group) for group in (does_not, right)]
            rows.append(
                [words, *(f"{median(each):.2f}, {each[0]:.2f} to {each[-1]:.2f}" for each in spreads if each)]
            )
    header = ["property", "no reliance: median, range", "right for the cue"]
    return markdown_table(header, [row + [""] * (len(header) - len(row)) for row in rows])


def last_excess(run: OnPhotographs, name: str) -> float:
    return run.excess[-1].get(name, 0.0)


def last_narrower(run: OnPhotographs, name: str) -> float:
    return float(run.looks[-1]["narrower"][name])


def highest(run: OnPhotographs, name: str, looks: int) -> Highest:
    """The highest excess that as many looks in a row all reach."""
    values = [each.get(name, 0.0) for each in run.excess]
    in_a_row = [min(values[start : start + looks]) for start in range(len(values) - looks + 1)]
    return Highest(max(in_a_row, default=0.0), run.name)


def thresholds_table(relies: Sequence[OnPhotographs], does_not: Sequence[OnPhotographs]) -> str:
    """How often the alarm would have alerted."""
    rows = []
    for follows in FOLLOWS:
        spoken = [[run.spoke(Thresholds(follows=follows)) for run in group] for group in (relies, does_not)]
        rows.append([f"{follows:.2f}", *(f"{sum(each)} of {len(each)}" for each in spoken)])
    return markdown_table(["`follows`", "alerted, with reliance", "false alarms"], rows)
