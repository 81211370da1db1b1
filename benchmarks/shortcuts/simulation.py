"""How often does the alarm speak by chance, and how often of what is there? Simulated runs, the alarm's own rule.

    python -m benchmarks.shortcuts.simulation

A run is 20 looks at the same samples. Every sample has a propensity of its own, to be right or to follow, for the whole
run: a beta distribution, in which two answers for one sample go together by a half. From look to look each answer stays
as it was with a probability of a half, and is drawn again otherwise.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.common.measure import markdown_table, publish
from lightning_gcam.callbacks.shortcut_alarm import RecentLooks
from lightning_gcam.metrics import Measurement
from lightning_gcam.shortcuts import Evidence, Reliance, Thresholds
from lightning_gcam.shortcuts.detector import DEFAULT_THRESHOLDS
from lightning_gcam.shortcuts.shares import mean_share_interval

LOOKS, TOGETHER, STAYS = 20, 0.5, 0.5
PROPERTIES, DONORS = 5, 2
SAMPLES = (16, 32, 64)
SHARES = (0.25, 0.5, 0.75, 1.0)
TRUSTED = 0.38  # of an honest network on photographs: docs/shortcuts.md
SECTION, COMMAND = "simulation", "python -m benchmarks.shortcuts.simulation"

Counts = npt.NDArray[np.int64]
"""`(runs, looks, samples)`: how many of a sample's answers are so."""


class Task(NamedTuple):
    """What a network knows, and how many fixed samples there are, as many of every class as may be."""

    samples: int
    classes: int
    accuracy: float

    @property
    def chance(self) -> float:
        """The accuracy of a guess on these samples, as the checks take it."""
        return max(1 / self.classes, -(-self.samples // self.classes) / self.samples)

    @property
    def mistaken(self) -> float:
        """How often an untouched image is taken for one other class."""
        return (1 - self.accuracy) / (self.classes - 1)

    @property
    def mates(self) -> int:
        """How many samples have another one of their own class."""
        each, further = divmod(self.samples, self.classes)
        return {0: 0, 1: 2 * further}.get(each, self.samples)


Runs = Iterator[list[Reliance]]
"""The looks of each run."""
Simulate = Callable[[np.random.Generator, Task, float, int], Runs]

TASKS = ((2, 0.9), (2, 0.7), (10, 0.95), (10, 0.6), (100, 0.8), (100, 0.3))


# ------------------------------------------------------------------------------------------------- a run


def answers(draw: np.random.Generator, share: float, runs: int, samples: int, times: int = 1) -> Counts:
    """How many of each sample's answers are so, run by run and look by look, where a share of all is."""
    spread, size = 1 / TOGETHER - 1, (runs, samples)
    inside = 0 < share < 1
    propensity = draw.beta(share * spread, (1 - share) * spread, size) if inside else np.full(size, share)
    now = draw.random((times, *size)) < propensity
    looks = [now]
    for _ in range(LOOKS - 1):
        again = draw.random(now.shape) < propensity
        now = np.where(draw.random(now.shape) < STAYS, now, again)
        looks.append(now)
    return np.stack(looks, axis=1).sum(axis=0).swapaxes(0, 1)


def measured(counts: Counts, times: int = 1) -> list[list[Measurement]]:
    """The share and its interval of each run at each look, as the checks measure it."""
    samples = np.stack([(counts == count).sum(axis=2) for count in range(times + 1)], axis=2)
    return [[measurement(tuple(look)) for look in run] for run in samples.tolist()]


@cache
def measurement(samples: tuple[int, ...]) -> Measurement:
    """Of so many samples with no answer, with one, ... that is so."""
    times = len(samples) - 1
    shares = torch.tensor([count / times for count, each in enumerate(samples) for _ in range(each)])
    if not len(shares):
        return Measurement(float("nan"), 0, 0, 0, 0, None)
    parts = times if shares.unique().numel() > 1 else 1
    return Measurement(
        float(shares.double().mean()), len(shares), 0, 0, 0, mean_share_interval(shares, parts)
    )


def without_object(draw: np.random.Generator, task: Task, left: float, runs: int) -> Runs:
    """Runs with masks: of the accuracy above chance, this share is left without the object."""
    kept = task.chance + left * (task.accuracy - task.chance)
    shares = {"accuracy": task.accuracy, "background_only_accuracy": kept}
    columns = {name: answers(draw, share, runs, task.samples) for name, share in shares.items()}
    return looks_of({name: measured(each) for name, each in columns.items()}, task)


def exchanged(draw: np.random.Generator, task: Task, followed: float, runs: int) -> Runs:
    """Runs with images and labels: one property is followed by this share of the predictions.

    The others, or all of them where it is 0, are edits that leave a guess, whatever the class of the donor.
    """
    guess = 1 / task.classes
    columns = {"accuracy": measured(answers(draw, task.accuracy, runs, task.samples))}
    for number in range(PROPERTIES):
        is_followed = number == 0 and followed > 0
        rate, within = (followed, task.mistaken) if is_followed else (guess, guess)
        columns |= {
            f"p{number}_follow_rate": measured(answers(draw, rate, runs, task.samples, DONORS), DONORS),
            f"p{number}_follow_chance": measured(answers(draw, task.mistaken, runs, task.samples)),
            f"p{number}_same_class_follow_rate": measured(answers(draw, within, runs, task.mates)),
        }
    return looks_of(columns, task)


def looks_of(columns: dict[str, list[list[Measurement]]], task: Task) -> Runs:
    """The looks of each run, of each measurement in each run at each look."""
    for run in zip(*columns.values(), strict=True):
        yield [
            Reliance(dict(zip(columns, look, strict=True)), task.chance) for look in zip(*run, strict=True)
        ]


def spoken(
    simulate: Simulate, task: Task, share: float, runs: int, thresholds: Thresholds = DEFAULT_THRESHOLDS
) -> float:
    """In which share of runs the alarm speaks at any of the looks; of a fixed seed."""
    draw = np.random.default_rng(0)
    return sum(speaks(looks, thresholds) for looks in simulate(draw, task, share, runs)) / runs


def speaks(looks: Sequence[Reliance], thresholds: Thresholds) -> bool:
    """Whether the alarm speaks at any look."""
    recent = RecentLooks(thresholds, looks_in_a_row=2)
    return any(recent.add(Evidence(step, step, each, {})) is not None for step, each in enumerate(looks))


# -------------------------------------------------------------------------------------------- the tables


def report(runs: int) -> Iterator[str]:
    """Both tables."""
    yield f"`{COMMAND}`"
    yield (
        f"{runs} runs of {LOOKS} looks for each false alarm, and a quarter as many for what is found; the alarm with "
        "its defaults. *Nothing left*: without the object the network guesses. *Nothing followed*: "
        f"{PROPERTIES} exchanged properties, each of which leaves a guess."
    )
    tasks = [Task(samples, *each) for samples in SAMPLES for each in TASKS]
    yield table(tasks, runs)
    yield (
        f"An honest network that keeps {TRUSTED} of its accuracy by the background, as one fine-tuned on photographs "
        "does (four classes, accuracy 0.90): how often the alarm speaks, and how often it does where 0.90 is left."
    )
    yield trusted_table(runs)


def table(tasks: Sequence[Task], runs: int) -> str:
    """A row for each task."""
    header = ["samples", "classes", "accuracy", "false alarms: nothing left", "nothing followed"]
    header += [f"found: {share:.2f} left" for share in SHARES] + [f"{share:.2f} followed" for share in SHARES]
    return markdown_table(header, [row(task, runs) for task in tasks])


def row(task: Task, runs: int) -> list[str]:
    """Of one task: the false alarms, and what is found of each share."""
    cells = [(simulate, share) for simulate in (without_object, exchanged) for share in SHARES]
    false = [spoken(simulate, task, 0.0, runs) for simulate in (without_object, exchanged)]
    found = [spoken(simulate, task, share, max(runs // 4, 1)) for simulate, share in cells]
    numbers = [f"{each:.3f}" for each in false] + [f"{each:.2f}" for each in found]
    return [str(task.samples), str(task.classes), f"{task.accuracy:.2f}", *numbers]


def trusted_table(runs: int) -> str:
    """What `survives` and `trusted_share` make of a network that keeps something."""
    ways = {
        "`survives=0.25`": Thresholds(survives=0.25),
        f"the default, `survives={Thresholds().survives}`": Thresholds(),
        f"`trusted_share={TRUSTED}`": Thresholds(trusted_share=TRUSTED),
    }
    header = [
        "thresholds",
        *(f"{share} left, {samples} samples" for share in (TRUSTED, 0.9) for samples in SAMPLES),
    ]
    tasks = [Task(samples, 4, 0.9) for samples in SAMPLES]
    rows = [
        [
            name,
            *(
                f"{spoken(without_object, task, share, runs, thresholds):.2f}"
                for share in (TRUSTED, 0.9)
                for task in tasks
            ),
        ]
        for name, thresholds in ways.items()
    ]
    return markdown_table(header, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, print the tables and write them into the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--runs", type=int, default=400, help="of each false-alarm cell; a quarter of it elsewhere (400)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("docs/shortcuts.md"), help="the page that is written"
    )
    options = parser.parse_args(arguments)
    publish(options.output, SECTION, "\n\n".join(report(options.runs)))


if __name__ == "__main__":
    main()
