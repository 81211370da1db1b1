"""What can be said of trainings without annotation: which property each cue is, and what the alarm makes of the looks.

Pure: from the lines that `unannotated.py` keeps to numbers. The rule is the alarm's own.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from benchmarks.common.cues import NUM_CLASSES
from benchmarks.shortcuts.comparisons import balanced_rows, counted
from benchmarks.shortcuts.verdicts import LOOKS_IN_A_ROW, SILENT, Trained
from lightning_gcam import SaliencyBatch
from lightning_gcam.shortcuts import Evidence, Exchanges, Finding, Reliance, Thresholds, judge
from lightning_gcam.shortcuts.detector import follow_excess, kinds_of
from lightning_gcam.shortcuts.regions import Donors, regions_of_batch
from lightning_gcam.shortcuts.shares import chance_level

RIGHT: dict[str, tuple[str, ...]] = {
    # a coloured thing at a place that is always the same: the place is what should be named
    "corner": ("border", "salient_region"),  # all of it lies in the outer 17%
    "frame": ("border", "salient_region"),
    "plate": ("salient_region",),  # inside of the border
    # a fine pattern all over: its high frequencies, and the amplitudes of these
    "texture": ("texture", "spectrum"),
    "stripes": ("texture", "spectrum"),
    "noise": ("texture", "spectrum", "color"),  # in one colour
    # a colour without a place: the ratio of the channels, or the amplitude of each channel
    "tint": ("color", "spectrum"),
    "ink": ("color",),  # of the object only: the amplitudes are those of the whole image
    # brightness and contrast: the amplitudes; a power keeps every rank, and a grey pixel has no colour
    "exposure": ("spectrum",),
    # brighter on one side: a matter of places, and the border is where sides differ the most; it has no amplitude
    "lighting": ("border", "salient_region"),
}
"""The properties that count as right for a cue, by how it is made; written down before the trainings were made."""
WITH_HISTOGRAM = ("tint", "ink", "exposure")  # of which "histogram" is right as well, where it is asked for
OUT_OF_REACH = ("mark",)  # a letter at a random place: no property of an image, and no fixed place
DEFAULTS = ("color", "spectrum", "texture", "border", "salient_region")  # on by default, without annotation


class Watched(Trained):
    """One training of which a monitor had the images and labels only."""

    @property
    def right(self) -> tuple[str, ...]:
        """The properties that count as right."""
        return RIGHT.get(self.cue, ()) + (("histogram",) if self.cue in WITH_HISTOGRAM else ())

    @property
    def reached(self) -> bool:
        """Whether a property can be right: the training relies on a cue that one of them is."""
        return self.truth == "relies" and bool(self.right)

    @cached_property
    def labels(self) -> Tensor:
        """The samples' classes `(N,)`."""
        return torch.tensor(self.line["labels"])

    def follows(self, samples: int | None = None, names: Sequence[str] = DEFAULTS) -> list[Evidence]:
        """What the monitor measured of each look.

        Args:
            samples: of fewer of them, the first of each class; all where it is left out.
            names: of the properties; those that are on by default where it is left out.
        """
        key = samples or len(self.labels), tuple(names)
        if key not in self._measured:
            self._measured[key] = self.measure(*key)
        return self._measured[key]

    @cached_property
    def _measured(self) -> dict[tuple[int, tuple[str, ...]], list[Evidence]]:
        return {}

    def measure(self, samples: int, names: Sequence[str]) -> list[Evidence]:
        """As `follows`, anew."""
        rows = balanced_rows(self.labels.tolist(), samples)
        exchanges = self.exchanges(rows, names)
        chance = chance_level(self.labels[rows], NUM_CLASSES)
        found = []
        for look in self.looks:
            right = [[look["predicted"][row] == self.line["labels"][row]] for row in rows]
            exchanged = {name: logits(classes) for name, classes in look["exchanged"].items()}
            measured = exchanges.measure(logits(look["predicted"]), exchanged)
            reliance = Reliance({"accuracy": counted(right), **measured}, chance)
            found.append(Evidence(look["step"], look["epoch"], reliance, {}))
        return found

    def exchanges(self, rows: Sequence[int], names: Sequence[str]) -> Exchanges:
        """The exchanges of this training with the donors that it had; only some samples are counted."""
        batch = SaliencyBatch(torch.zeros(len(self.labels), 3, 1, 1), self.labels)
        counts = torch.zeros(len(self.labels), 1, dtype=torch.bool)
        counts[list(rows)] = True
        sides = {side: torch.tensor(donors) for side, donors in self.line["donors"].items()}
        donors = Donors(**{side: torch.where(counts, each, -1) for side, each in sides.items()})
        annotated = regions_of_batch(batch)
        assert annotated is not None
        return Exchanges(batch.images, annotated, dict.fromkeys(names, donors))

    @cached_property
    def masked(self) -> list[Evidence]:
        """What the checks measured of each look that have the masks, and the suspect region where there is one."""
        return [
            Evidence(look["step"], look["epoch"], Reliance.from_plain(look["with_masks"]), {})
            for look in self.looks
        ]


def logits(classes: Sequence[int]) -> Tensor:
    """Logits of which the predictions are these classes."""
    return one_hot(torch.tensor(classes), NUM_CLASSES).float()


def without_exchanges(evidence: Sequence[Evidence]) -> list[Evidence]:
    """The checks that the alarm had before there were exchanges."""
    return [with_measurements(each, {**each.reliance.measurements}, "_follow_rate") for each in evidence]


def together(first: Sequence[Evidence], second: Sequence[Evidence]) -> list[Evidence]:
    """Looks with the measurements of both."""
    return [
        with_measurements(one, {**one.reliance.measurements, **other.reliance.measurements})
        for one, other in zip(first, second, strict=True)
    ]


def with_measurements(evidence: Evidence, measured: Mapping[str, Any], but: str = "\0") -> Evidence:
    kept = {name: each for name, each in measured.items() if not name.endswith(but)}
    return Evidence(evidence.step, evidence.epoch, Reliance(kept, evidence.reliance.chance), evidence.scores)


# ------------------------------------------------------------------------------------- a number a training


def following(evidence: Sequence[Evidence], last: bool = False) -> float:
    """The largest excess of a follow rate over its controls that a property has on two looks in a row.

    Looks whose accuracy is not clearly above chance have none. `last`: of the last two looks only.
    """
    shown = [excesses(each) for each in evidence]
    spans = [shown[end - LOOKS_IN_A_ROW : end] for end in range(LOOKS_IN_A_ROW, len(shown) + 1)]
    values = [
        max((min(each[name] for each in span) for name in common(span)), default=SILENT) for span in spans
    ]
    return values[-1] if last else max(values, default=SILENT)


def excesses(evidence: Evidence) -> dict[str, float]:
    """By property, the excess at one look."""
    return follow_excess(evidence.reliance) if evidence.reliance.is_above_chance else {}


def common(span: Sequence[Mapping[str, float]]) -> set[str]:
    return set.intersection(*(set(each) for each in span))


# ----------------------------------------------------------------------------------------- the alarm


class Spoken(NamedTuple):
    """When the alarm spoke, the look counted from 1, and what it found."""

    look: int
    finding: Finding

    @property
    def named(self) -> str:
        """The property that exceeds its controls the most; empty where another check spoke."""
        return next(iter(self.finding.properties), "")


def alarm(evidence: Sequence[Evidence], thresholds: Thresholds) -> Spoken | None:
    """The alarm's first word; None where it never speaks."""
    for look in range(1, len(evidence) + 1):
        if (finding := judge(evidence[:look], thresholds)) is not None:
            return Spoken(look, finding)
    return None


# ------------------------------------------------------------------------------------ which look to keep


class Pick(NamedTuple):
    """A look that a person would keep, counted from 1, and its accuracy with the cue and with the cue shuffled."""

    look: int
    validation: float
    honest: float


def pick(run: Watched, among: Sequence[int] | None = None) -> Pick | None:
    """The first look of the best validation accuracy, of all or among some (from 0); None where there is none."""
    looks = range(len(run.looks)) if among is None else among
    best = max(looks, key=lambda look: (run.looks[look]["validation"], -look), default=None)
    if best is None:
        return None
    return Pick(best + 1, run.looks[best]["validation"], run.looks[best]["honest"])


def unfollowed(evidence: Sequence[Evidence], thresholds: Thresholds) -> list[int]:
    """The looks (from 0) whose accuracy is clearly above chance, so that they are judged, and which show nothing."""
    return [
        look
        for look, each in enumerate(evidence)
        if each.reliance.is_above_chance and not kinds_of(each.reliance, thresholds)
    ]
