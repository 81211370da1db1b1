"""The tables of `natural.py`: of which trainings on natural images the alarm speaks, and at which thresholds.

Pure: from the lines that the trainings left to Markdown. The rule is the alarm's own, applied again to what each look
measured. Thresholds are set on two seeds and tried on the third, each seed once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from statistics import mean, median
from typing import NamedTuple

from benchmarks.common.measure import Goal, markdown_table
from benchmarks.common.pictures import ON_THE_OBJECT
from benchmarks.shortcuts.follows import RIGHT
from benchmarks.shortcuts.verdicts import LOOKS_IN_A_ROW, Trained
from lightning_gcam.shortcuts import Evidence, Finding, Thresholds, judge
from lightning_gcam.shortcuts.detector import KINDS, follow_excess, share_left

BOXES, LABELS = "boxes", "labels only"
NEED_BOXES = ("background", "object", "salient_flips")  # what the names of such measurements begin with
SURVIVES, WITHOUT = KINDS[0], "background_only_accuracy"
SAMPLES = 32
OF_SMALL = (16, 32, 64)
CONTEXT_TELLS_ALL = "objects, context 1"
FOUND_GOAL, FALSE_GOAL = 0.85, 1 / 20
SHARES = [round(0.05 * step, 2) for step in range(3, 18)]
EXCESSES = [round(0.05 * step, 2) for step in range(1, 13)]
OF_CELLS = {"module": ("texture", "spectrum"), ON_THE_OBJECT: ("color",)}


class View(NamedTuple):
    """What one monitor saw of a training: with boxes or labels only, of so many samples."""

    run: "Natural"
    annotation: str
    samples: int

    @property
    def evidence(self) -> list[Evidence | None]:
        """Of each look; None where it could not be judged."""
        return self.run.measured(self.annotation, self.samples)

    def spoken(self, thresholds: Thresholds) -> Finding | None:
        """The alarm's first finding; None where it keeps silent."""
        looks = self.evidence
        for end in range(LOOKS_IN_A_ROW, len(looks) + 1):
            recent = [each for each in looks[end - LOOKS_IN_A_ROW : end] if each is not None]
            found = judge(recent, thresholds, LOOKS_IN_A_ROW)
            if found is not None:
                return found
        return None

    def is_right(self, finding: Finding) -> bool:
        """Whether what the alarm names first is right for the cue."""
        right = {**RIGHT, **OF_CELLS}.get(self.run.cue, ())
        first = finding.kinds[0]
        return self.run.cue != ON_THE_OBJECT if first == SURVIVES else finding.properties[0] in right

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
        names = {name for each in self.evidence if each for name in follow_excess(each.reliance)}
        found = [
            (self.highest(lambda each, name=name: follow_excess(each.reliance).get(name, 0.0)) or 0.0, name)
            for name in names
        ]
        return max(found, default=(0.0, ""))

    def highest(self, value: Callable[[Evidence], float]) -> float | None:
        """The highest value that two looks in a row, both above chance, reach."""
        looks = [value(each) if each and each.reliance.is_above_chance else None for each in self.evidence]
        pairs = [min(pair) for pair in pairwise(looks) if None not in pair]
        return max(pairs, default=None)


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
    kept = {
        name: each for name, each in evidence.reliance.measurements.items() if not name.startswith(NEED_BOXES)
    }
    return replace(evidence, reliance=replace(evidence.reliance, measurements=kept), scores={})


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
    def of(views: Sequence[View], thresholds: Thresholds) -> "Counted":
        """Count them."""
        found = [(view, view.spoken(thresholds)) for view in views]
        heard = [(view, each) for view, each in found if each is not None]
        return Counted(len(heard), sum(view.is_right(each) for view, each in heard), len(views))

    def __str__(self) -> str:
        return f"{self.spoken} of {self.views}" if self.views else ""

    def __add__(self, other: "Counted") -> "Counted":  # type: ignore[override]
        return Counted(*(sum(pair) for pair in zip(self, other, strict=True)))


def cells(groups: Groups, thresholds: Thresholds) -> list[str]:
    """Found, the right evidence first, in part, false alarms."""
    found, in_part, false = (Counted.of(group, thresholds) for group in groups)
    right = f"{found.right} of {found.views}" if found.views else ""
    return [str(found), right, str(in_part), str(false)]


COLUMNS = ["found", "right evidence first", "in part", "false alarms"]


# ------------------------------------------------------------------------------------------- the tables


def sections(lines: Sequence[Mapping[str, object]]) -> dict[str, str]:
    """Each section of the page by its name."""
    runs = [Natural(line) for line in lines]
    defaults = Thresholds()
    return {
        "natural-goals": "\n".join(f"- {goal}" for goal in goals(runs)),
        "natural-networks": networks_table(runs, defaults),
        "natural-cues": cues_table(runs, defaults),
        "natural-samples": samples_table(runs, defaults),
        "natural-context": context_table(runs),
        "natural-thresholds": "\n\n".join([shares_table(runs), seeds_table(runs)]),
        "natural-errors": errors_list(runs, defaults),
    }


def judged(runs: Sequence[Natural]) -> list[Natural]:
    """All trainings but those whose ground alone tells the class, of which no alarm is false."""
    return [run for run in runs if run.task != CONTEXT_TELLS_ALL]


def views_of(runs: Sequence[Natural], annotation: str | None = None, samples: int = SAMPLES) -> list[View]:
    return [view for run in runs for view in run.views(samples) if annotation in (None, view.annotation)]


def networks_table(runs: Sequence[Natural], thresholds: Thresholds) -> str:
    """By task, network and annotation."""
    header, rows = ["images", "network", "annotation", *COLUMNS], []
    for task in dict.fromkeys(run.task for run in runs):
        for network in dict.fromkeys(run.network for run in runs):
            for annotation in (BOXES, LABELS):
                chosen = [run for run in runs if (run.task, run.network) == (task, network)]
                views = views_of(chosen, annotation)
                if views:
                    rows.append([task, network, annotation, *cells(Groups.of(views), thresholds)])
    for annotation in (BOXES, LABELS):
        views = views_of(judged(runs), annotation)
        rows.append([f"all but {CONTEXT_TELLS_ALL}", "", annotation, *cells(Groups.of(views), thresholds)])
    return markdown_table(header, rows)


def cues_table(runs: Sequence[Natural], thresholds: Thresholds) -> str:
    """By cue: where it tells and is relied upon, and where the same cue tells nothing."""
    header, rows = ["cue", "accuracy, and with the cue shuffled", "annotation", *COLUMNS], []
    for cue in dict.fromkeys(run.cue for run in judged(runs)):
        chosen = [run for run in judged(runs) if run.cue == cue]
        relies = [run for run in chosen if run.truth == "relies"]
        shown = ", ".join(
            f"{mean(run.looks[-1][name] for run in relies):.2f}"
            for name in ("validation", "honest")
            if relies
        )
        for annotation in (BOXES, LABELS):
            views = views_of(chosen, annotation)
            if views:
                rows.append([cue, shown, annotation, *cells(Groups.of(views), thresholds)])
    return markdown_table(header, rows)


def samples_table(runs: Sequence[Natural], thresholds: Thresholds) -> str:
    """Small networks, whose monitors had 16, 32 and 64 samples."""
    header, rows = ["samples", "annotation", *COLUMNS], []
    chosen = [run for run in judged(runs) if run.network == "small"]
    for samples in OF_SMALL:
        for annotation in (BOXES, LABELS):
            views = views_of(chosen, annotation, samples)
            rows.append([str(samples), annotation, *cells(Groups.of(views), thresholds)])
    return markdown_table(header, rows)


def context_table(runs: Sequence[Natural]) -> str:
    """What is left without the object: where nothing relies on a cue, and where something does."""
    header = [
        "images",
        "network",
        "left without reliance: median",
        "highest",
        "left with reliance: median",
        "lowest",
    ]
    rows = []
    for task in dict.fromkeys(run.task for run in runs if run.has_boxes):
        for network in dict.fromkeys(run.network for run in runs):
            chosen = [run for run in runs if (run.task, run.network) == (task, network)]
            groups = Groups.of([v for v in views_of(chosen, BOXES) if v.run.cue != ON_THE_OBJECT])
            silent, relying = (
                [view.kept for view in group if view.kept is not None]
                for group in (groups.does_not, groups.relies)
            )
            ends = [middle_and(max, silent), middle_and(min, relying)]
            rows.append([task, network, *(cell for each in ends for cell in each)])
    return markdown_table(header, rows)


def middle_and(end: Callable[[Sequence[float]], float], values: Sequence[float]) -> list[str]:
    return [f"{each(values):.2f}" if values else "" for each in (median, end)]


# --------------------------------------------------------------------------------------- the thresholds


def shares_table(runs: Sequence[Natural]) -> str:
    """The alarm at other thresholds, on all trainings: chosen afterwards, so nothing that was tried."""
    header = [
        "`survives`",
        "`follows`",
        "found, boxes",
        "false alarms, boxes",
        "found, labels only",
        "false, labels only",
    ]
    rows = []
    for survives, follows in ((0.25, 0.15), (0.4, 0.2), (0.5, 0.25), (0.55, 0.3), (0.6, 0.3), (0.7, 0.4)):
        thresholds, row = (
            Thresholds(survives=survives, follows=follows),
            [f"{survives:.2f}", f"{follows:.2f}"],
        )
        for annotation in (BOXES, LABELS):
            groups = Groups.of(views_of(judged(runs), annotation))
            row += [str(Counted.of(group, thresholds)) for group in (groups.relies, groups.does_not)]
        rows.append(row)
    return markdown_table(header, rows)


def seeds_table(runs: Sequence[Natural]) -> str:
    """What the other seeds would have chosen, and what the alarm then does on each seed."""
    header = [
        "tried on seed",
        "`survives`",
        "`follows`",
        *(f"{c}, {a}" for a in (BOXES, LABELS) for c in COLUMNS),
    ]
    rows = []
    for seed, thresholds in set_on_the_others(runs):
        row = [str(seed), f"{thresholds.survives:.2f}", f"{thresholds.follows:.2f}"]
        for annotation in (BOXES, LABELS):
            row += cells(Groups.of(views_of(of_seed(runs, seed), annotation)), thresholds)
        rows.append(row)
    return markdown_table(header, rows)


def of_seed(runs: Sequence[Natural], seed: int) -> list[Natural]:
    return [run for run in judged(runs) if run.seed == seed]


def set_on_the_others(runs: Sequence[Natural]) -> Iterator[tuple[int, Thresholds]]:
    """Each seed, with the thresholds that the other seeds set."""
    seeds = sorted({run.seed for run in runs})
    for seed in seeds if len(seeds) > 1 else ():
        yield seed, chosen_on([run for run in judged(runs) if run.seed != seed])


def chosen_on(runs: Sequence[Natural]) -> Thresholds:
    """`follows` by labels only, then `survives` with boxes: the most found with at most one false alarm in twenty."""
    follows = best_of(EXCESSES, lambda value: Thresholds(follows=value), Groups.of(views_of(runs, LABELS)))
    return best_of(
        SHARES,
        lambda value: Thresholds(survives=value, follows=follows.follows),
        Groups.of(views_of(runs, BOXES)),
    )


def best_of(values: Sequence[float], make: Callable[[float], Thresholds], groups: Groups) -> Thresholds:
    """Of the values that are allowed the one with the most found, the middle of several; else the highest."""
    found = []
    for thresholds in map(make, values):
        false = Counted.of(groups.does_not, thresholds).spoken
        if false <= FALSE_GOAL * len(groups.does_not):
            found.append((Counted.of(groups.relies, thresholds).spoken, thresholds))
    most = max((count for count, _ in found), default=0)
    best = [thresholds for count, thresholds in found if count == most]
    return best[(len(best) - 1) // 2] if best else make(values[-1])


# --------------------------------------------------------------------------------------- goals and errors


def goals(runs: Sequence[Natural]) -> list[Goal]:
    """What was asked for, at the defaults, and at thresholds that other seeds set."""
    found = []
    for annotation in (BOXES, LABELS):
        groups = Groups.of(views_of(judged(runs), annotation))
        counted = [Counted.of(group, Thresholds()) for group in (groups.relies, groups.does_not)]
        found += goals_of(f"{annotation}, default thresholds", *counted)
        tried = [
            [Counted.of(group, thresholds) for group in (each.relies, each.does_not)]
            for seed, thresholds in set_on_the_others(runs)
            for each in [Groups.of(views_of(of_seed(runs, seed), annotation))]
        ]
        if tried:
            relies, does_not = (
                Counted(*map(sum, zip(*each, strict=True))) for each in zip(*tried, strict=True)
            )
            found += goals_of(f"{annotation}, thresholds of the other seeds", relies, does_not)
    return found


def goals_of(name: str, relies: Counted, does_not: Counted) -> list[Goal]:
    return [
        Goal(
            f"{name}: at least {FOUND_GOAL:.0%} of those that rely found: {relies}",
            FOUND_GOAL - relies.spoken / max(relies.views, 1),
            0,
        ),
        Goal(
            f"{name}: at most 1 false alarm in 20: {does_not}",
            does_not.spoken / max(does_not.views, 1),
            FALSE_GOAL,
        ),
    ]


def errors_list(runs: Sequence[Natural], thresholds: Thresholds) -> str:
    """Each miss and each false alarm, with what was measured."""
    groups, rows = Groups.of(views_of(judged(runs))), []
    for what, group, is_error in (
        ("missed", groups.relies, lambda spoken: spoken is None),
        ("false alarm", groups.does_not, lambda spoken: spoken is not None),
    ):
        for view in group:
            if is_error(spoken := view.spoken(thresholds)):
                excess, name = view.follows
                kept = f"{view.kept:.2f}" if view.annotation == BOXES and view.kept is not None else ""
                kinds = ", ".join(spoken.kinds) if spoken else reason(view)
                rows.append([what, view.run.name, view.annotation, kept, f"{excess:.2f} {name}", kinds])
    header = ["error", "training", "annotation", "left without the object", "highest excess", "why"]
    return markdown_table(header, rows)


def reason(view: View) -> str:
    """Why the alarm was silent."""
    if not any(each and each.reliance.is_above_chance for each in view.evidence):
        return "accuracy is not above chance"
    if view.annotation == LABELS and view.run.cue == "mark":
        return "a letter at a random place is no property"
    if view.annotation == BOXES and view.run.cue == ON_THE_OBJECT:
        return "the cue lies on the object"
    return "below the thresholds, or intervals that meet"
