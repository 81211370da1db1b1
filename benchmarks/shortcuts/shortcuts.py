"""Does the alarm speak where a model relies on a shortcut, and only there? And which method wins which score?

    python -m benchmarks.shortcuts.shortcuts

Part one trains small networks on digits with a cue planted beside them, looks after every epoch, and compares the alarm
with every score used alone. Part two explains one of three digits on a canvas by every method. Both keep what they
measured in runs/, so that a run that was stopped goes on, and tables can be made again without a training.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.measure import describe_machine, markdown_table, publish
from benchmarks.common.three_digits import BETTER, HIGH, measure_all
from benchmarks.shortcuts.comparisons import methods_table, removals_table, samples_table, shares_table
from benchmarks.shortcuts.figure import draw_histories
from benchmarks.shortcuts.runs import Settings, be_quiet, plan_runs, run_all
from benchmarks.shortcuts.tables import (
    alarm_verdict,
    choose_thresholds,
    false_alarms,
    goals,
    rows_of_scores,
    scores_table,
    speaking_table,
    trainings_table,
    with_reliance,
)
from benchmarks.shortcuts.verdicts import Trained, split
from lightning_gcam.shortcuts import Thresholds
from lightning_gcam.shortcuts.removal import DEFAULT_REMOVAL

PACKAGES = ["torch", "pytorch-lightning", "scikit-learn", "scikit-image"]
COMPARED = ["background_only_accuracy", "suspect_swap_accuracy", "energy", "pointing_game", "suspect_lift"]


# --------------------------------------------------------------------------------- part one: trainings


def report_trainings(lines: Sequence[dict[str, Any]], command: str) -> str:
    """All tables of the first part."""
    runs = [Trained(line) for line in lines]
    first = min(run.seed for run in runs)
    chosen_on = [run for run in runs if run.seed == first]
    tried_on = [run for run in runs if run.seed != first] or chosen_on
    chosen, rows = choose_thresholds(chosen_on), rows_of_scores(chosen_on, tried_on)
    return "\n\n".join(
        [
            f"`{command}`",
            ", ".join(
                f"{name} {value}"
                for name, value in describe_machine(PACKAGES).items()
                if name != "load average"
            )
            + ".",
            f"### The trainings\n\n{len(runs)} trainings of {len(runs[0].looks)} looks. The alarm with its defaults.",
            trainings_table(runs, Thresholds()),
            in_part(runs),
            f"### The alarm, and each score used alone\n\nThresholds chosen on seed {first}, verdicts on the others.",
            scores_table(rows),
            "\n".join(f"- {goal}." for goal in goals(rows, runs)),
            chosen_by_seed(runs),
            "Of the trainings with reliance, how many each spoke of, with the same thresholds:",
            speaking_table(chosen_on, tried_on, COMPARED),
            "### Where the thresholds lie\n\nAll trainings, the same share for both checks.",
            shares_table(runs),
            "### The methods",
            methods_table(runs),
            f'### How the object is removed\n\nThe default is "{DEFAULT_REMOVAL}". Without a suspect region.',
            removals_table(runs, chosen_on, tried_on),
            "### How many samples\n\nThe same trainings, as fewer fixed samples would have shown them.",
            samples_table(tried_on, chosen),
        ]
    )


def in_part(runs: Sequence[Trained]) -> str:
    """The trainings that are in no row of the tables below."""
    named = [f"{run.cue} {run.strength:.2f} ({run.drop:.2f})" for run in runs if run.truth == "in part"]
    return f"In part, and so in none of the tables below: {', '.join(named) or 'none'}."


def chosen_by_seed(runs: Sequence[Trained]) -> str:
    """What each seed alone would have chosen, and what the alarm then does on the others."""
    lines = []
    for seed in sorted({run.seed for run in split(runs)[0]}):
        chosen = choose_thresholds([run for run in runs if run.seed == seed])
        others = [run for run in runs if run.seed != seed]
        tried = alarm_verdict(others, chosen) if others else None
        did = (
            f"; on the others it spoke {with_reliance(tried)}, false alarms {false_alarms(tried)}"
            if tried
            else ""
        )
        lines.append(f"- seed {seed}: survives {chosen.survives:.2f}, dies {chosen.dies:.2f}{did}.")
    return "Thresholds that each seed would have chosen:\n\n" + "\n".join(lines)


# -------------------------------------------------------------------------------- part two: three digits


def report_digits(found: dict[str, Any], command: str) -> str:
    """A table for each head and layer; the best of the methods in bold."""
    parts = [f"`{command}`"]
    for head, measured in found.items():
        parts.append(f"### {head} head\n\n{measured['right']:.0%} of the digits are named rightly.")
        for layer, methods in measured["layers"].items():
            parts.append(f"The {layer} layer:\n\n{methods_by_scores(methods)}")
    return "\n\n".join(parts)


def methods_by_scores(methods: dict[str, dict[str, float]]) -> str:
    """One row a score, one column a method."""
    header = ["better", *(each if each in NO_METHOD else f"`{each}`" for each in methods)]
    return markdown_table(header, [score_row(name, methods) for name in BETTER])


def score_row(name: str, methods: dict[str, dict[str, float]]) -> list[str]:
    """A score of every map; the best of the methods in bold, and what is as good to the last digit shown."""
    values = {
        method: round(scores[name], 3) if name in scores else None for method, scores in methods.items()
    }
    of_methods = [value for method, value in values.items() if value is not None and method not in NO_METHOD]
    best = (max if BETTER[name] == HIGH else min)(of_methods)
    bold = {method: value == best and method not in NO_METHOD for method, value in values.items()}
    cells = ["" if value is None else f"{value:.3f}" for value in values.values()]
    wrapped = (f"**{cell}**" if bold[method] else cell for method, cell in zip(methods, cells, strict=True))
    return [f"{name} ({'high' if BETTER[name] == HIGH else 'low'})", *wrapped]


NO_METHOD = ("centre", "uniform")


# ------------------------------------------------------------------------------------------- the script


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--part", choices=["trainings", "digits", "both"], default="both")
    add("--seeds", type=int, default=3, help="of the trainings; thresholds are chosen on the first (3)")
    add("--further-seeds", type=int, default=3, help="of those in which nothing tells the label (3)")
    add("--epochs", type=int, default=Settings().epochs, help="of each training, a look after each (12)")
    add("--train-size", type=int, default=Settings().train_size, help="images of each training (1437)")
    add("--samples", type=int, default=Settings().samples, help="fixed samples of the monitor (64)")
    add("--targets", type=int, default=128, help="digits to explain in the second part (128)")
    add("--digit-epochs", type=int, default=40, help="of each training of the second part (40)")
    add("--workers", type=int, default=2, help="processes that train at the same time (2)")
    add("--runs", type=Path, default=Path("runs"), help="where the trainings are kept")
    add("--output", type=Path, default=Path("docs/shortcuts.md"), help="the page whose sections are written")
    add("--figure", type=Path, default=Path("docs/images/shortcuts.png"))
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, then print the tables and write them into the page."""
    options = parse(arguments)
    be_quiet()
    torch.set_num_threads(1)
    if options.part in ("trainings", "both"):
        settings = Settings(options.epochs, options.train_size, options.samples)
        further = range(options.seeds, options.seeds + options.further_seeds)
        planned = plan_runs(range(options.seeds), further)
        lines = run_all(planned, settings, options.runs / "shortcuts.jsonl", options.workers)
        publish(
            options.output,
            "trainings",
            report_trainings(lines, "python -m benchmarks.shortcuts.shortcuts --part trainings"),
        )
        draw_histories([Trained(line) for line in lines], options.figure)
    if options.part in ("digits", "both"):
        found = digits_kept(options)
        publish(
            options.output,
            "digits",
            report_digits(found, "python -m benchmarks.shortcuts.shortcuts --part digits"),
        )


def digits_kept(options: argparse.Namespace) -> dict[str, Any]:
    """The second part's numbers, measured once for the same settings."""
    asked = {"epochs": options.digit_epochs, "size": options.train_size, "targets": options.targets}
    path = options.runs / "three_digits.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    if kept.get("settings") != asked:
        kept = {"settings": asked, "found": measure_all(**asked)}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(kept))
    return dict(kept["found"])


if __name__ == "__main__":
    main()
