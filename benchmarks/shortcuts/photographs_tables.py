"""The tables of `photographs.py`: what predictions follow on photographs, and what the alarm made of it."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from statistics import median
from typing import Any, NamedTuple

from benchmarks.common.measure import markdown_table
from benchmarks.shortcuts.follows import RIGHT
from benchmarks.shortcuts.verdicts import Trained
from lightning_gcam.shortcuts import Evidence, Reliance, Thresholds, judge
from lightning_gcam.shortcuts.detector import follow_excess

FOLLOWS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
AS_IS, NARROWER = "reliance", "narrower"  # the names of both in a look
NARROWED = ("texture", "border")


class OnPhotographs(Trained):
    """One training on photographs."""

    @property
    def name(self) -> str:
        """As the text names it."""
        strength = f" {self.strength:.2f}" if self.strength else " of any kind"
        return f"{self.cue}{strength if self.cue != 'none' else ''}, {self.learns}"

    @property
    def learns(self) -> str:
        """What is trained."""
        return "last blocks" if self.line["learns_blocks"] else "linear layer"

    @property
    def alerts(self) -> list[Mapping[str, Any]]:
        """The alerts, each with its look and the properties that it names."""
        return list(self.line["alerts"])

    @cached_property
    def evidence_of(self) -> dict[str, list[Evidence]]:
        """What was measured at each look, with the properties as they are and with the narrower ones."""
        return {
            exchanged: [
                Evidence(look["step"], look["epoch"], Reliance.from_plain(look[exchanged]), {})
                for look in self.looks
            ]
            for exchanged in (AS_IS, NARROWER)
        }

    def excess(self, exchanged: str) -> list[dict[str, float]]:
        """At each look that the alarm counts, by how much each property's follow rate exceeds its controls."""
        looks = [each.reliance for each in self.evidence_of[exchanged]]
        return [follow_excess(each) if each.is_above_chance else {} for each in looks]

    def named_first(self, exchanged: str, thresholds: Thresholds) -> str | None:
        """The property that the alarm would name first; None where it keeps silent."""
        evidence = self.evidence_of[exchanged]
        findings = (judge(evidence[:looks], thresholds) for looks in range(1, len(evidence) + 1))
        return next((finding.properties[0] for finding in findings if finding is not None), None)

    def is_right(self, name: str | None) -> bool:
        """Whether a property is what the cue is."""
        return name in RIGHT.get(self.cue, ())


class Highest(NamedTuple):
    """The highest excess of a property, and the training in which it was."""

    value: float
    training: str

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.training})"


def tables(lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """All tables, of the lines that the trainings left."""
    runs = [OnPhotographs(line) for line in lines]
    relies, does_not = ([run for run in runs if run.truth == truth] for truth in ("relies", "does not"))
    names = list(follow_excess(runs[0].evidence_of[AS_IS][0].reliance))
    yield (
        f"{len(runs)} trainings. At the last look: the accuracy on validation images and on the same with the cue "
        "shuffled; of each property the follow rate, and the larger of its controls. In bold what is right for a cue "
        "on which the training relies."
    )
    yield trainings_table(runs, names)
    yield "\n".join(f"- {each}." for each in verdicts(runs, relies, does_not))
    yield (
        "The highest excess of a follow rate over its controls, at one look and at two in a row. *Narrower*: the high "
        "frequencies beside a low pass of one pixel instead of 1.5, and the outer tenth instead of 17%."
    )
    yield highest_table(names, relies, does_not)
    yield "The alarm, with other thresholds and with the two narrower properties in the place of those that are wider:"
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
    reliance = run.evidence_of[AS_IS][-1].reliance
    scores, excess = reliance.scores, follow_excess(reliance)
    if name not in excess:
        return ""
    rate = scores[f"{name}_follow_rate"]
    cell = f"{rate:.2f}, {rate - excess[name]:.2f}"
    return f"**{cell}**" if run.truth == "relies" and run.is_right(name) else cell


def verdicts(
    runs: Sequence[OnPhotographs], relies: Sequence[OnPhotographs], does_not: Sequence[OnPhotographs]
) -> Iterator[str]:
    """What the alarm made of all trainings."""
    found, false = [run for run in relies if run.alerts], [run for run in does_not if run.alerts]
    right = [run for run in found if run.is_right(run.alerts[0]["properties"][0])]
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
    header = [
        "property",
        "no reliance, one look",
        "two in a row: median",
        "highest",
        "right for the cue: lowest",
    ]
    rows = []
    for name, exchanged in [*((name, AS_IS) for name in names), *((name, NARROWER) for name in NARROWED)]:
        once, twice = ([highest(run, name, exchanged, looks) for run in does_not] for looks in (1, 2))
        right = [highest(run, name, exchanged, 2) for run in relies if run.is_right(name)]
        middle = f"{median(each.value for each in twice):.2f}" if twice else ""
        cells = [str(max(once, default="")), middle, str(max(twice, default="")), str(min(right, default=""))]
        rows.append([f"`{name}`" + (", narrower" if exchanged == NARROWER else ""), *cells])
    return markdown_table(header, rows)


def highest(run: OnPhotographs, name: str, exchanged: str, looks: int) -> Highest:
    """The highest excess that as many looks in a row all reach."""
    values = [each.get(name, 0.0) for each in run.excess(exchanged)]
    in_a_row = [min(values[start : start + looks]) for start in range(len(values) - looks + 1)]
    return Highest(max(in_a_row, default=0.0), run.name)


def thresholds_table(relies: Sequence[OnPhotographs], does_not: Sequence[OnPhotographs]) -> str:
    """How often the alarm would have alerted, and how often with the right property first."""
    columns = ("with reliance", "the right one first", "false alarms")
    header = ["`follows`", *columns, *(f"{each}, narrower" for each in columns)]
    return markdown_table(header, [thresholds_row(follows, relies, does_not) for follows in FOLLOWS])


def thresholds_row(
    follows: float, relies: Sequence[OnPhotographs], does_not: Sequence[OnPhotographs]
) -> list[str]:
    thresholds, row = Thresholds(follows=follows), [f"{follows:.2f}"]
    for exchanged in (AS_IS, NARROWER):
        found, false = (
            [run.named_first(exchanged, thresholds) for run in group] for group in (relies, does_not)
        )
        right = sum(run.is_right(name) for run, name in zip(relies, found, strict=True))
        counts = [
            (len(found) - found.count(None), relies),
            (right, relies),
            (len(false) - false.count(None), does_not),
        ]
        row += [f"{count} of {len(group)}" for count, group in counts]
    return row
