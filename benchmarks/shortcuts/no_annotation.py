"""Does the alarm find what a model relies on, where batches are `(images, labels)` and nothing else?

    python -m benchmarks.shortcuts.no_annotation

trains small networks on digits with a cue planted beside them, or on them, looks after every epoch, and keeps what it
measured in runs/no_annotation.jsonl, so that a run that was stopped goes on, and tables can be made again without a
training.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.measure import describe_machine, publish
from benchmarks.shortcuts.follows import Watched
from benchmarks.shortcuts.follows_tables import (
    Groups,
    choose_follows,
    cues_table,
    followed_table,
    goals,
    masks_table,
    picks_table,
    samples_table,
    seeds_table,
    thresholds_table,
)
from benchmarks.shortcuts.runs import Settings, be_quiet, read_runs, run_all
from benchmarks.shortcuts.shortcuts import PACKAGES
from benchmarks.shortcuts.unannotated import plan_unannotated, train_unannotated
from lightning_gcam.shortcuts import Thresholds

SECTION, COMMAND = "no annotation", "python -m benchmarks.shortcuts.no_annotation"


def report(lines: Sequence[dict[str, Any]]) -> str:
    """All tables."""
    runs = [Watched(line) for line in lines]
    first = min(run.seed for run in runs)
    chosen_on = [run for run in runs if run.seed == first]
    tried_on = [run for run in runs if run.seed != first] or chosen_on
    thresholds, chosen = Thresholds(), Thresholds(follows=choose_follows(chosen_on))
    machine = {name: value for name, value in describe_machine(PACKAGES).items() if name != "load average"}
    return "\n\n".join(
        [
            f"`{COMMAND}`",
            ", ".join(f"{name} {value}" for name, value in machine.items()) + ".",
            f"### Without annotation: the trainings\n\n{len(runs)} trainings of {len(runs[0].looks)} looks; at the "
            "last one, the accuracy that is kept and the rate that follows, means over the seeds. Right ones in bold.",
            followed_table(runs),
            "### Without annotation: the alarm\n\n"
            f"`follows` chosen on seed {first}: {chosen.follows:.2f}; tried on the others ({len(tried_on)} trainings).",
            "\n".join(f"- {goal}." for goal in goals(runs, chosen_on, tried_on)),
            cues_table(tried_on, chosen),
            in_part(runs),
            "What each seed alone would have chosen:",
            seeds_table(runs),
            "### Without annotation: where the threshold lies\n\nAll trainings.",
            thresholds_table(runs),
            f"### Without annotation: how many samples\n\nThe same trainings, as fewer fixed samples would have shown "
            f"them, at {chosen.follows:.2f}.",
            samples_table(tried_on, chosen),
            "### With masks, without, and both\n\nThe same trainings and samples; the masks and, where the cue has a "
            f"place, the suspect region are the recorder's. `follows` at {chosen.follows:.2f}.",
            masks_table(tried_on, chosen),
            "### Which look to keep\n\nBy the best validation accuracy of all looks, or of those at which accuracy is "
            "clearly above chance and nothing is followed (where there is none: of all looks, counted in the last "
            f"column). All trainings, the alarm's default ({thresholds.follows:.2f}).",
            picks_table(runs, thresholds),
        ]
    )


def in_part(runs: Sequence[Watched]) -> str:
    """The trainings that count neither as relying nor as not."""
    named = [
        f"{run.cue} {run.strength:.2f} seed {run.seed} ({run.drop:.2f})" for run in Groups.of(runs).partly
    ]
    return f"In part, and so in no goal: {', '.join(named) or 'none'}."


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seeds", type=int, default=3, help="of the trainings; the threshold is chosen on the first (3)")
    add("--further-seeds", type=int, default=1, help="of those in which nothing tells the label (1)")
    add("--epochs", type=int, default=Settings().epochs, help="of each training, a look after each (12)")
    add("--train-size", type=int, default=Settings().train_size, help="images of each training (1437)")
    add("--samples", type=int, default=Settings().samples, help="fixed samples of the monitor (64)")
    add("--workers", type=int, default=2, help="processes that train at the same time (2)")
    add("--kept", action="store_true", help="only the tables, of the trainings that are kept already")
    add("--runs", type=Path, default=Path("runs"), help="where the trainings are kept")
    add("--output", type=Path, default=Path("docs/shortcuts.md"), help="the page whose section is written")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, then print the tables and write them into the page."""
    options = parse(arguments)
    be_quiet()
    torch.set_num_threads(1)
    settings = Settings(options.epochs, options.train_size, options.samples)
    planned = plan_unannotated(
        range(options.seeds), range(options.seeds, options.seeds + options.further_seeds)
    )
    path = options.runs / "no_annotation.jsonl"
    if options.kept:
        done = read_runs(path, settings)
        lines = [done[run] for run in planned if run in done]
    else:
        lines = run_all(planned, settings, path, options.workers, train_unannotated)
    publish(options.output, SECTION, report(lines))


if __name__ == "__main__":
    main()
