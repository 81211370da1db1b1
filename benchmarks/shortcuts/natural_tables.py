"""The tables of `natural.py`: of which trainings on natural images the alarm speaks, and at which thresholds.

Thresholds are set on the trainings of all seeds but one and tried on that one, each seed in turn.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import mean, median

from benchmarks.common.measure import Goal, markdown_table
from benchmarks.common.picture_cues import ON_THE_OBJECT
from benchmarks.shortcuts.natural_views import (
    BOXES,
    LABELS,
    SAMPLES,
    Counted,
    Groups,
    Natural,
    Rule,
    View,
    fixed,
)
from lightning_gcam.shortcuts import Thresholds

OF_SMALL = (16, 32, 64)
CONTEXT_TELLS_ALL = "objects, context 1"
SPECTRUM = "spectrum"
ADVISED = {"survives": 0.3}
FOUND_GOAL, FALSE_GOAL = 0.85, 1 / 20
SHARES = [round(0.05 * step, 2) for step in range(3, 18)]
EXCESSES = [round(0.05 * step, 2) for step in range(1, 13)]


def cells(groups: Groups, rule: Rule) -> list[str]:
    """Found, the right evidence first, in part, false alarms."""
    found, in_part, false = (Counted.of(group, rule) for group in groups)
    right = f"{found.right} of {found.views}" if found.views else ""
    return [str(found), right, str(in_part), str(false)]


COLUMNS = ["found", "right evidence first", "in part", "false alarms"]


# ------------------------------------------------------------------------------------------- the tables


def sections(lines: Sequence[Mapping[str, object]]) -> dict[str, str]:
    """Each section of the page by its name."""
    runs = [Natural(line) for line in lines]
    return {
        "natural-goals": "\n".join(f"- {goal}" for goal in goals(runs)),
        "natural-networks": networks_table(runs, Rule()),
        "natural-cues": cues_table(runs, Rule()),
        "natural-samples": samples_table(runs),
        "natural-context": context_table(runs),
        "natural-properties": properties_table(runs),
        "natural-thresholds": "\n\n".join([rules_table(runs), seeds_table(runs)]),
        "natural-errors": errors_list(runs, Rule()),
    }


def judged(runs: Sequence[Natural]) -> list[Natural]:
    """All trainings but those whose ground alone tells the class, of which no alarm is false."""
    return [run for run in runs if run.task != CONTEXT_TELLS_ALL]


def views_of(runs: Sequence[Natural], annotation: str | None = None, samples: int = SAMPLES) -> list[View]:
    return [view for run in runs for view in run.views(samples) if annotation in (None, view.annotation)]


def networks_table(runs: Sequence[Natural], rule: Rule) -> str:
    """By task, network and annotation."""
    header, rows = ["images", "network", "annotation", *COLUMNS], []
    for task in dict.fromkeys(run.task for run in runs):
        for network in dict.fromkeys(run.network for run in runs):
            for annotation in (BOXES, LABELS):
                chosen = [run for run in runs if (run.task, run.network) == (task, network)]
                views = views_of(chosen, annotation)
                if views:
                    rows.append([task, network, annotation, *cells(Groups.of(views), rule)])
    for annotation in (BOXES, LABELS):
        views = views_of(judged(runs), annotation)
        rows.append([f"all but {CONTEXT_TELLS_ALL}", "", annotation, *cells(Groups.of(views), rule)])
    return markdown_table(header, rows)


def cues_table(runs: Sequence[Natural], rule: Rule) -> str:
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
                rows.append([cue, shown, annotation, *cells(Groups.of(views), rule)])
    return markdown_table(header, rows)


def samples_table(runs: Sequence[Natural]) -> str:
    """Small networks, whose monitors had 16, 32 and 64 samples, at the defaults and as the page advises."""
    header, rows = ["samples", "annotation", "thresholds", *COLUMNS], []
    chosen = [run for run in judged(runs) if run.network == "small" and run.cue != "none"]
    advised = Rule(lambda view: Thresholds(**ADVISED, trusted_share=trusted_share(view, runs)))
    for samples in OF_SMALL:
        for annotation in (BOXES, LABELS):
            for name, rule in (("defaults", Rule()), ("advised", advised)):
                groups = Groups.of(views_of(chosen, annotation, samples))
                rows.append([str(samples), annotation, name, *cells(groups, rule)])
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


def properties_table(runs: Sequence[Natural]) -> str:
    """The excess of each property's follow rate without reliance, and where it is right for the cue relied upon."""
    header = [
        "property",
        "without reliance: median",
        "highest",
        "right for the cue: median",
        "lowest",
        "trainings",
    ]
    groups = Groups.of(views_of(judged(runs), LABELS))
    rows = []
    for name in dict.fromkeys(name for view in groups.does_not for name in view.excesses):
        silent = [view.excesses[name] for view in groups.does_not if name in view.excesses]
        right = [view.excesses.get(name, 0.0) for view in groups.relies if name in view.right]
        ends = [*middle_and(max, silent), *middle_and(min, right)]
        rows.append([f"`{name}`", *ends, f"{len(silent)} and {len(right)}"])
    return markdown_table(header, rows)


def middle_and(end: Callable[[Sequence[float]], float], values: Sequence[float]) -> list[str]:
    return [f"{each(values):.2f}" if values else "" for each in (median, end)]


# --------------------------------------------------------------------------------------- the thresholds


RULES: dict[str, Rule] = {
    "before: `survives` 0.25, `follows` 0.15": fixed(survives=0.25, follows=0.15),
    "the defaults": Rule(),
    **{f"`follows` {follows:.2f}": fixed(follows=follows) for follows in (0.15, 0.25, 0.5)},
    **{f"`survives` {survives:.2f}": fixed(survives=survives) for survives in (0.4, 0.5, 0.65, 0.7)},
    **{
        f"without `{SPECTRUM}`, `follows` {follows:.2f}": fixed(SPECTRUM, follows=follows)
        for follows in (0.15, 0.25, 0.35)
    },
}
"""Thresholds that are tried on all trainings."""


def rules_table(runs: Sequence[Natural]) -> str:
    """The alarm at other thresholds on all trainings, and at those that the other seeds set."""
    header = ["thresholds", *(f"{name}, {annotation}" for annotation in (BOXES, LABELS) for name in ENDS)]
    tried = {name: [(judged(runs), rule)] for name, rule in RULES.items()} | tried_on_others(runs)
    rows = []
    for name, parts in tried.items():
        found = [both_ends(parts, annotation) for annotation in (BOXES, LABELS)]
        rows.append([name, *(str(each) for ends in found for each in ends)])
    return markdown_table(header, rows)


def tried_on_others(runs: Sequence[Natural]) -> dict[str, list["Part"]]:
    """The trainings of each seed with what the others set: thresholds alone, and what a person can do beside them."""
    planted = [run for run in runs if run.cue != "none"]
    return {
        "set on the other seeds": set_on_others(runs, chosen_on),
        f"without `{SPECTRUM}`, set on the other seeds": set_on_others(
            runs, partial(chosen_on, left_out=(SPECTRUM,))
        ),
        "set on the other seeds, with a `trusted_share`": set_on_others(
            planted, partial(chosen_on, trusted=partial(trusted_share, runs=runs))
        ),
    }


def trusted_share(view: View, runs: Sequence[Natural]) -> float:
    """What the training without a cue keeps without the object, of the view's task and seed: on the same samples."""
    honest = [run for run in runs if (run.cue, run.task, run.seed) == ("none", view.run.task, view.run.seed)]
    kept = [each.kept or 0.0 for each in views_of(honest, BOXES)] if view.annotation == BOXES else []
    return min(max(*kept, 0.0), 0.95) if kept else 0.0


ENDS = ("found", "false alarms")


Part = tuple[Sequence[Natural], Rule]
"""Trainings, and the rule that they are tried with."""


def both_ends(parts: Sequence[Part], annotation: str, but: str = "") -> tuple[Counted, Counted]:
    """What is found, and what is a false alarm; of all cues but one."""
    relies = does_not = Counted(0, 0, 0)
    for runs, rule in parts:
        groups = Groups.of([view for view in views_of(runs, annotation) if view.run.cue != but])
        relies += Counted.of(groups.relies, rule)
        does_not += Counted.of(groups.does_not, rule)
    return relies, does_not


def set_on_others(
    runs: Sequence[Natural], choose: Callable[[Sequence[Natural]], Rule]
) -> list[tuple[list[Natural], Rule]]:
    """The trainings of each seed, with the rule that those of the other seeds set."""
    seeds = sorted({run.seed for run in runs})
    parts = [
        [[run for run in judged(runs) if (run.seed == seed) == own] for own in (True, False)]
        for seed in seeds
    ]
    return [(own, choose(others)) for own, others in parts if others]


def seeds_table(runs: Sequence[Natural]) -> str:
    """What the other seeds set, and what the alarm then does on each."""
    header = ["thresholds", "tried on seed", "`survives`", "`follows`"]
    header += [f"{name}, {annotation}" for annotation in (BOXES, LABELS) for name in ENDS]
    rows = []
    for name, parts in tried_on_others(runs).items():
        for own, rule in parts:
            thresholds = rule.thresholds(View(own[0], BOXES, SAMPLES))
            ends = [each for annotation in (BOXES, LABELS) for each in both_ends([(own, rule)], annotation)]
            shares = [f"{thresholds.survives:.2f}", f"{thresholds.follows:.2f}"]
            rows.append([name, str(own[0].seed), *shares, *map(str, ends)])
    return markdown_table(header, rows)


def chosen_on(
    runs: Sequence[Natural],
    trusted: Callable[[View], float] = lambda view: 0.0,
    left_out: tuple[str, ...] = (),
) -> Rule:
    """`follows` by labels only, then `survives` with boxes: the most found with at most one false alarm in twenty."""

    def rule(follows: float, survives: float) -> Rule:
        shares = {"follows": follows, "survives": survives}
        return Rule(lambda view: Thresholds(**shares, trusted_share=trusted(view)), left_out)

    labels, boxes = (Groups.of(views_of(runs, annotation)) for annotation in (LABELS, BOXES))
    follows = best_of(EXCESSES, lambda value: rule(value, SHARES[0]), labels)
    return rule(follows, best_of(SHARES, lambda value: rule(follows, value), boxes))


def best_of(values: Sequence[float], make: Callable[[float], Rule], groups: Groups) -> float:
    """Of the values that are allowed the one with the most found, the middle of several; else the highest of all."""
    found = []
    for value in values:
        false = Counted.of(groups.does_not, make(value)).spoken
        if false <= FALSE_GOAL * len(groups.does_not):
            found.append((Counted.of(groups.relies, make(value)).spoken, value))
    most = max((count for count, _ in found), default=0)
    best = [value for count, value in found if count == most]
    return best[len(best) // 2] if best else values[-1]


# --------------------------------------------------------------------------------------- goals and errors


def goals(runs: Sequence[Natural]) -> list[Goal]:
    """What was asked for, at the defaults, and at thresholds that the other seeds set."""
    tried = {"the defaults": [(judged(runs), Rule())], **tried_on_others(runs)}
    return [
        goal
        for annotation in (BOXES, LABELS)
        for name, parts in tried.items()
        if annotation == BOXES or "trusted" not in name  # which only boxes can
        for goal in goals_of(f"{annotation}, {name}", parts, annotation)
    ]


def goals_of(name: str, parts: Sequence[Part], annotation: str) -> list[Goal]:
    """Both goals; of cues on the object, which no box can tell, the first is said without, too."""
    relies, does_not = both_ends(parts, annotation)
    beside, _ = both_ends(parts, annotation, but=ON_THE_OBJECT)
    found, false = relies.spoken / max(relies.views, 1), does_not.spoken / max(does_not.views, 1)
    most = f"{relies}; {beside} without the {ON_THE_OBJECT}"
    return [
        Goal(f"{name}: at least {FOUND_GOAL:.0%} of those that rely found: {most}", FOUND_GOAL - found, 0),
        Goal(f"{name}: at most 1 false alarm in 20: {does_not}", false, FALSE_GOAL),
    ]


def errors_list(runs: Sequence[Natural], rule: Rule) -> str:
    """Each miss and each false alarm, with what was measured."""
    groups, rows = Groups.of(views_of(judged(runs))), []
    for what, group, is_error in (
        ("missed", groups.relies, lambda spoken: spoken is None),
        ("false alarm", groups.does_not, lambda spoken: spoken is not None),
    ):
        for view in group:
            if is_error(spoken := view.spoken(rule)):
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
