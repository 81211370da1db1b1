"""The tables of `no_annotation.py`: trainings to Markdown. Thresholds are chosen on one seed, tried on the others."""

import math
from collections.abc import Callable, Sequence
from statistics import mean, median
from typing import NamedTuple

from benchmarks.common.cues import ON_THE_OBJECT
from benchmarks.common.measure import Goal, markdown_table
from benchmarks.shortcuts.comparisons import half_width
from benchmarks.shortcuts.follows import (
    OUT_OF_REACH,
    Pick,
    Spoken,
    Watched,
    alarm,
    following,
    pick,
    together,
    unfollowed,
    without_exchanges,
)
from benchmarks.shortcuts.runs import STRENGTHS
from benchmarks.shortcuts.tables import AREA_GOAL, usable
from benchmarks.shortcuts.unannotated import ALL_CUES, PROPERTIES
from benchmarks.shortcuts.verdicts import choose_threshold, roc_area, roc_interval
from lightning_gcam.shortcuts import Evidence, Thresholds

FOLLOWS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
SAMPLES = (16, 32, 64)
NAMED_GOAL, FALSE_GOAL = 0.85, 1 / 30
Measured = Callable[[Watched], list[Evidence]]
"""From a training to what a monitor measured of it: with masks, without, of fewer samples."""


class Groups(NamedTuple):
    """Trainings by what is known of them from outside."""

    reached: list[Watched]  # rely on a cue that a property can reach
    beyond: list[Watched]  # rely on one that none can
    partly: list[Watched]  # rely in part
    silent: list[Watched]  # do not rely

    @staticmethod
    def of(runs: Sequence[Watched]) -> "Groups":
        """Each training in one of them."""
        relying = [run for run in runs if run.truth == "relies"]
        return Groups(
            [run for run in relying if run.reached],
            [run for run in relying if not run.reached],
            [run for run in runs if run.truth == "in part"],
            [run for run in runs if run.truth == "does not"],
        )


def plain(run: Watched) -> list[Evidence]:
    """What a monitor measures that has images and labels."""
    return run.follows()


# ------------------------------------------------------------------------------------- what was planted


def followed_table(runs: Sequence[Watched]) -> str:
    """By cue and strength: what the cue took, and for each property the accuracy kept and the rate that follows."""
    header = ["cue", "strength", "validation / honest", *(f"`{name}`" for name in PROPERTIES)]
    rows = []
    for cue in ("none", *ALL_CUES):
        for strength in (*STRENGTHS, 0.0):
            group = [run for run in runs if (run.cue, run.strength) == (cue, strength)]
            if group:
                rows.append(followed_row(group))
    return markdown_table(header, rows)


def followed_row(group: Sequence[Watched]) -> list[str]:
    first = group[0]
    shown = f"{first.strength:.2f}" if first.strength else ("" if first.cue == "none" else "any kind")
    validation, honest = (mean(run.looks[-1][name] for run in group) for name in ("validation", "honest"))
    cells = []
    for name in PROPERTIES:
        scores = [run.follows(names=PROPERTIES)[-1].reliance.scores for run in group]
        found = [each for each in scores if f"{name}_follow_rate" in each]  # grey images have no colour
        kept, rate = (
            mean(each[f"{name}_{end}"] for each in found) if found else math.nan
            for end in ("swap_accuracy", "follow_rate")
        )
        cell = f"{kept:.2f}, {rate:.2f}" if found else ""
        cells.append(f"**{cell}**" if first.strength and name in first.right else cell)
    return [first.cue, shown, f"{validation:.2f} / {honest:.2f}", *cells]


# ------------------------------------------------------------------------------------------- the alarm


def choose_follows(runs: Sequence[Watched], measured: Measured = plain) -> float:
    """Half way between the trainings without reliance and those that rely on a cue that can be reached."""
    groups = Groups.of(runs)
    positive, negative = (
        [following(measured(run)) for run in group] for group in (groups.reached, groups.silent)
    )
    return usable(choose_threshold(positive, negative))


def spoken_of(
    runs: Sequence[Watched], thresholds: Thresholds, measured: Measured = plain
) -> list[Spoken | None]:
    """The alarm's first word on each training."""
    return [alarm(measured(run), thresholds) for run in runs]


def count(spoken: Sequence[Spoken | None]) -> str:
    return f"{sum(each is not None for each in spoken)} of {len(spoken)}"


def right_names(runs: Sequence[Watched], spoken: Sequence[Spoken | None]) -> str:
    return f"{named_right(runs, spoken)[0]} of {len(runs)}"


def named_right(runs: Sequence[Watched], spoken: Sequence[Spoken | None]) -> tuple[int, int]:
    """Of how many trainings a right property is the strongest that the alarm names; and is named at all."""
    heard = [(run, each) for run, each in zip(runs, spoken, strict=True) if each is not None]
    first = sum(each.named in run.right for run, each in heard)
    return first, sum(not set(run.right).isdisjoint(each.finding.properties) for run, each in heard)


def cues_table(runs: Sequence[Watched], thresholds: Thresholds) -> str:
    """By cue: of which trainings the alarm spoke without a mask, when, and what it named."""
    header = ["cue", "right ones", "spoke where it is relied on", "at look", "named right", "first named"]
    header += ["further named", "in part", "false alarms"]
    rows = []
    for cue in ("none", *ALL_CUES):
        groups = Groups.of([run for run in runs if run.cue == cue])
        relying = groups.reached + groups.beyond
        spoken = spoken_of(relying, thresholds)
        looks = [each.look for each in spoken if each]
        right = ", ".join(relying[0].right if relying else ()) or ("none" if cue in OUT_OF_REACH else "")
        rows.append(
            [
                cue,
                right,
                count(spoken) if relying else "",
                f"{median(looks):g}" if looks else "",
                right_names(relying, spoken) if relying and cue not in OUT_OF_REACH else "",
                tally([each.named for each in spoken if each]),
                tally([name for each in spoken if each for name in each.finding.properties[1:]]),
                count(spoken_of(groups.partly, thresholds)) if groups.partly else "",
                count(spoken_of(groups.silent, thresholds)) if groups.silent else "",
            ]
        )
    return markdown_table(header, rows)


def tally(names: Sequence[str]) -> str:
    """Each name with how often it is there, the commonest first."""
    found = sorted(set(names), key=lambda name: (-names.count(name), name))
    return ", ".join(f"{name} {names.count(name)}" for name in found)


def areas_of(
    runs: Sequence[Watched], measured: Measured = plain, last: bool = False
) -> tuple[float, float, float]:
    """The area under the ROC curve with its interval, over trainings: those reached against those without reliance."""
    groups = Groups.of(runs)
    values = [[following(measured(run), last) for run in group] for group in (groups.reached, groups.silent)]
    return roc_area(*values), *roc_interval(*values)


def seeds_table(runs: Sequence[Watched]) -> str:
    """What each seed alone would have chosen, and what the alarm then does on the others."""
    header = ["chosen on seed", "`follows`", "spoke of the others", "named right", "false alarms"]
    rows = []
    all_runs = Groups.of(runs)
    for seed in sorted({run.seed for run in all_runs.reached} & {run.seed for run in all_runs.silent}):
        chosen = choose_follows([run for run in runs if run.seed == seed])
        others = Groups.of([run for run in runs if run.seed != seed])
        rows.append([str(seed), f"{chosen:.2f}", *verdict_cells(others, Thresholds(follows=chosen))])
    return markdown_table(header, rows)


def verdict_cells(groups: Groups, thresholds: Thresholds, measured: Measured = plain) -> list[str]:
    """Spoken of, named right, false alarms."""
    spoken = spoken_of(groups.reached, thresholds, measured)
    false = spoken_of(groups.silent, thresholds, measured)
    return [count(spoken), right_names(groups.reached, spoken), count(false)]


def thresholds_table(runs: Sequence[Watched]) -> str:
    """What the alarm does at thresholds that were not chosen here, on all trainings."""
    header = ["`follows`", *(f"spoke, strength {strength:.2f}" for strength in STRENGTHS)]
    header += [
        "named right",
        "false alarms",
        "spoke of those out of reach",
        f"false alarms, {SAMPLES[0]} samples",
    ]
    groups, rows = Groups.of(runs), []
    for follows in FOLLOWS:
        thresholds = Thresholds(follows=follows)
        by_strength = [[run for run in groups.reached if run.strength == each] for each in STRENGTHS]
        _, right, false = verdict_cells(groups, thresholds)
        few = spoken_of(groups.silent, thresholds, lambda run: run.follows(SAMPLES[0]))
        cells = [count(spoken_of(each, thresholds)) for each in by_strength]
        rows.append(
            [f"{follows:.2f}", *cells, right, false, count(spoken_of(groups.beyond, thresholds)), count(few)]
        )
    return markdown_table(header, rows)


def samples_table(runs: Sequence[Watched], thresholds: Thresholds) -> str:
    """What the alarm does with fewer fixed samples, the donors among all of them."""
    header = ["samples", "interval of a share of 0.5", "ROC area", "spoke", "named right", "false alarms"]
    rows = []
    for samples in [each for each in SAMPLES if each <= len(runs[0].labels)]:

        def fewer(run: Watched, samples: int = samples) -> list[Evidence]:
            return run.follows(samples)

        area, *_ = areas_of(runs, fewer)
        cells = verdict_cells(Groups.of(runs), thresholds, fewer)
        rows.append([str(samples), f"± {half_width(samples):.2f}", f"{area:.3f}", *cells])
    return markdown_table(header, rows)


MONITORS: dict[str, Measured] = {
    "with masks, without exchanges": lambda run: without_exchanges(run.masked),
    "exchanges, without masks": plain,
    "with masks, and exchanges": lambda run: together(run.masked, run.follows()),
}


def masks_table(runs: Sequence[Watched], thresholds: Thresholds) -> str:
    """Today's checks with masks, the exchanges without any, and both, on the same trainings."""
    groups = Groups.of(runs)
    ink = [run for run in groups.reached if run.cue == ON_THE_OBJECT]
    others = [run for run in groups.reached if run.cue != ON_THE_OBJECT]
    header = [
        "the monitor has",
        "spoke of cues in reach",
        f"of {ON_THE_OBJECT}",
        f"of {', '.join(OUT_OF_REACH)}",
    ]
    header += ["false alarms", "in the first third of the training"]
    rows = []
    for name, measured in MONITORS.items():
        cells = [
            count(spoken_of(each, thresholds, measured))
            for each in (others, ink, groups.beyond, groups.silent)
        ]
        relying = spoken_of(groups.reached + groups.beyond, thresholds, measured)
        early = sum(each is not None and each.look <= len(runs[0].looks) / 3 for each in relying)
        rows.append([name, *cells, f"{early} of {len(relying)}"])
    return markdown_table(header, rows)


# ------------------------------------------------------------------------------------- the use of it


def picks_table(runs: Sequence[Watched], thresholds: Thresholds) -> str:
    """Which look a person would keep, by validation alone and among the looks at which nothing is followed."""
    header = ["trainings", "kept by", "validation", "honest", "at look", "no such look"]
    groups, rows = Groups.of(runs), []
    named = {
        "rely on a cue in reach": groups.reached,
        f"rely on {', '.join(OUT_OF_REACH)}": groups.beyond,
        "rely in part": groups.partly,
        "do not rely": groups.silent,
    }
    for name, group in named.items():
        if group:
            watched, lost = watched_picks(group, thresholds)
            best = [pick(run) for run in group]
            rows.append([f"{name} ({len(group)})", "validation", *pick_cells(best), ""])
            rows.append(["", "validation, where nothing is followed", *pick_cells(watched), str(lost)])
            rows.append(["", "honest accuracy, which nobody has", *pick_cells(honest_picks(group)), ""])
    return markdown_table(header, rows)


def watched_picks(group: Sequence[Watched], thresholds: Thresholds) -> tuple[list[Pick], int]:
    """The look kept of each training where nothing is followed; and how many have none, and keep the best of all."""
    found = [pick(run, unfollowed(run.follows(), thresholds)) for run in group]
    return [each or pick(run) for run, each in zip(group, found, strict=True)], found.count(None)


def honest_picks(group: Sequence[Watched]) -> list[Pick]:
    """The look at which the accuracy with the cue shuffled is the best."""
    found = [max(range(len(run.looks)), key=lambda look, run=run: run.looks[look]["honest"]) for run in group]
    return [pick(run, [look]) for run, look in zip(group, found, strict=True)]


def pick_cells(picks: Sequence[Pick]) -> list[str]:
    validation, honest = (mean(getattr(each, name) for each in picks) for name in ("validation", "honest"))
    return [f"{validation:.2f}", f"{honest:.2f}", f"{median(each.look for each in picks):g}"]


# ----------------------------------------------------------------------------------------------- goals


def goals(runs: Sequence[Watched], chosen_on: Sequence[Watched], tried_on: Sequence[Watched]) -> list[Goal]:
    """What was asked for; written as a value that must not be above a limit."""
    thresholds = Thresholds(follows=choose_follows(chosen_on))
    groups = Groups.of(tried_on)
    area, low, high = areas_of(runs)
    spoken = spoken_of(groups.reached, thresholds)
    right, at_all = named_right(groups.reached, spoken)
    relying = len(groups.reached)
    false = [run for run in groups.silent if alarm(plain(run), thresholds)]
    ink = [run for run in groups.reached if run.cue == ON_THE_OBJECT]
    found = spoken_of(ink, thresholds)
    missed = len(ink) - sum(each is not None for each in found)
    return [
        Goal(f"ROC area at least {AREA_GOAL}: {area:.3f} [{low:.3f}, {high:.3f}]", AREA_GOAL - area, 0),
        Goal(
            f"at most 1 false alarm in 30 trainings without reliance: {len(false)} of {len(groups.silent)}"
            + (f" ({', '.join(where(run) for run in false)})" if false else ""),
            len(false) / max(len(groups.silent), 1),
            FALSE_GOAL,
        ),
        Goal(
            f"a right property named first in at least {NAMED_GOAL:.0%} of those with reliance: {right} of {relying}"
            f" (named at all: {at_all})",
            NAMED_GOAL - right / max(relying, 1),
            0,
        ),
        Goal(f"`{ON_THE_OBJECT}` found: {count(found)}", float(missed), 0),
        *worse_with_masks(tried_on, thresholds),
    ]


def worse_with_masks(runs: Sequence[Watched], thresholds: Thresholds) -> list[Goal]:
    """With masks nothing may get worse: what was spoken of is, and no false alarm is added."""
    groups = Groups.of(runs)
    masked, _, both = MONITORS.values()
    relying = groups.reached + groups.beyond
    lost = [run for run in relying if alarm(masked(run), thresholds) and not alarm(both(run), thresholds)]
    added = [
        run for run in groups.silent if alarm(both(run), thresholds) and not alarm(masked(run), thresholds)
    ]
    return [
        Goal(
            f"with masks nothing gets worse: {len(lost)} of {len(relying)} lost, {len(added)} of "
            f"{len(groups.silent)} false alarms added",
            float(len(lost) + len(added)),
            0,
        )
    ]


def where(run: Watched) -> str:
    return f"{run.cue} seed {run.seed}"
