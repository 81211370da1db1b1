"""What monitors saw of trainings on natural images, and what the alarm's own rule makes of it.

Pure: from the lines that `natural.py` keeps to findings, at any thresholds, without a training.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import pairwise
from typing import NamedTuple

from benchmarks.common.picture_cues import ON_THE_OBJECT
from benchmarks.shortcuts.follows import RIGHT
from benchmarks.shortcuts.verdicts import LOOKS_IN_A_ROW, Trained
from lightning_gcam.callbacks.shortcut_alarm import RecentLooks
from lightning_gcam.shortcuts import Evidence, Finding, Thresholds
from lightning_gcam.shortcuts.detector import KINDS, follow_excess, share_left

BOXES, LABELS = "boxes", "labels only"
NEED_BOXES = ("background", "object", "salient_flips")  # what the names of such measurements begin with
SURVIVES, WITHOUT = KINDS[0], "background_only_accuracy"
SAMPLES = 32
# a cell of one crystal has cut corners and an even grey, one of several crystals neither
RIGHT_TOO = {"module": ("texture", "spectrum", "border"), ON_THE_OBJECT: ("color",)}


class View(NamedTuple):
    """What one monitor saw of a training: with boxes or labels only, of so many samples."""

    run: "Natural"
    annotation: str
    samples: int

    @property
    def evidence(self) -> list[Evidence | None]:
        """Of each look; None where it could not be judged."""
        return self.run.measured(self.annotation, self.samples)

    def spoken(self, rule: "Rule") -> Finding | None:
        """The alarm's first finding; None where it keeps silent."""
        recent = RecentLooks(rule.thresholds(self), LOOKS_IN_A_ROW)
        for evidence in self.evidence:
            if evidence is None:
                recent.interrupt()
            elif (finding := recent.add(without(evidence, rule.left_out))) is not None:
                return finding
        return None

    def is_right(self, finding: Finding) -> bool:
        """Whether what the alarm names first is right for the cue."""
        if finding.kinds[0] == SURVIVES:
            return self.run.cue != ON_THE_OBJECT
        return finding.properties[0] in self.right

    @property
    def kept(self) -> float | None:
        """The share of the accuracy above chance without the object that two looks in a row both keep."""
        return (
            self.highest(lambda each: share_left(WITHOUT, each.reliance))
            if self.annotation == BOXES
            else None
        )

    @property
    def follows(self) -> tuple[float, str]:
        """The highest excess of a follow rate that two looks in a row both reach, and the property."""
        return max(((value, name) for name, value in self.excesses.items()), default=(0.0, ""))

    @property
    def excesses(self) -> dict[str, float]:
        """By property, the highest excess of its follow rate that two looks in a row both reach."""
        names = dict.fromkeys(name for each in self.evidence if each for name in follow_excess(each.reliance))
        found = {name: self.highest(partial(excess_of, name)) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def right(self) -> tuple[str, ...]:
        """The properties that are what the cue is."""
        return {**RIGHT, **RIGHT_TOO}.get(self.run.cue, ())

    def highest(self, value: Callable[[Evidence], float]) -> float | None:
        """The highest value that two looks in a row, both above chance, reach."""
        looks = [value(each) if each and each.reliance.is_above_chance else None for each in self.evidence]
        pairs = [min(pair) for pair in pairwise(looks) if None not in pair]
        return max(pairs, default=None)


def excess_of(name: str, evidence: Evidence) -> float:
    return follow_excess(evidence.reliance).get(name, 0.0)


class Rule(NamedTuple):
    """The thresholds of the alarm for what a monitor saw, and the properties that its checks leave out."""

    thresholds: Callable[[View], Thresholds] = lambda view: Thresholds()
    left_out: tuple[str, ...] = ()


def fixed(*left_out: str, **shares: float) -> Rule:
    """The same thresholds for all; the package's own where they are not given."""
    return Rule(lambda view: Thresholds(**shares), left_out)


class Natural(Trained):
    """One training on natural images."""

    @property
    def task(self) -> str:
        """What is told apart."""
        return str(self.line["task"])

    @property
    def network(self) -> str:
        """Small, frozen or fine-tuned."""
        return str(self.line["network"])

    @property
    def name(self) -> str:
        """As the text names it."""
        strength = f" {self.strength:.2f}" if self.strength else " of any kind"
        planted = self.cue + (strength if self.cue != "none" else "")
        return f"{planted}, {self.network}, {self.task}, seed {self.seed}"

    @property
    def has_boxes(self) -> bool:
        """Whether the objects' boxes are known."""
        return self.task.startswith("objects")

    def views(self, samples: int = SAMPLES) -> list[View]:
        """What monitors of so many samples saw; none where there was no such monitor."""
        there = str(samples) in self.looks[0]["measured"]
        annotations = (BOXES, LABELS) if self.has_boxes else (LABELS,)
        return [View(self, each, samples) for each in annotations] if there else []

    def measured(self, annotation: str, samples: int) -> list[Evidence | None]:
        """What was measured at each look, with boxes, or of that what needs none."""
        found = self._measured[str(samples)]
        return found if annotation == BOXES else [each and without_boxes(each) for each in found]

    @cached_property
    def _measured(self) -> dict[str, list[Evidence | None]]:
        names = self.looks[0]["measured"]
        return {
            name: [
                look["measured"][name] and Evidence.from_plain(look["measured"][name]) for look in self.looks
            ]
            for name in names
        }


def without_boxes(evidence: Evidence) -> Evidence:
    """What a monitor measures of the same samples without boxes; of those, "salient_region" leaves the boxes out."""
    return replace(without(evidence, NEED_BOXES), scores={})


def without(evidence: Evidence, names: tuple[str, ...]) -> Evidence:
    """What is measured where the checks leave some out; names are what the measurements' names begin with."""
    measured = evidence.reliance.measurements
    kept = {name: each for name, each in measured.items() if not name.startswith(names)}
    return replace(evidence, reliance=replace(evidence.reliance, measurements=kept))


class Groups(NamedTuple):
    """Views by what shuffling the cue takes: at least 0.2 of accuracy, some, or less than 0.05."""

    relies: list[View]
    in_part: list[View]
    does_not: list[View]

    @staticmethod
    def of(views: Sequence[View]) -> "Groups":
        """Each view in one of them."""
        truths = ("relies", "in part", "does not")
        return Groups(*([view for view in views if view.run.truth == truth] for truth in truths))


class Counted(NamedTuple):
    """How many views the alarm spoke of, of how many, and with the right kind of evidence first."""

    spoken: int
    right: int
    views: int

    @staticmethod
    def of(views: Sequence[View], rule: Rule) -> "Counted":
        """Count them."""
        found = [(view, view.spoken(rule)) for view in views]
        heard = [(view, each) for view, each in found if each is not None]
        return Counted(len(heard), sum(view.is_right(each) for view, each in heard), len(views))

    def __str__(self) -> str:
        return f"{self.spoken} of {self.views}" if self.views else ""

    def __add__(self, other: "Counted") -> "Counted":  # type: ignore[override]
        return Counted(*(sum(pair) for pair in zip(self, other, strict=True)))
