"""The figure of `shortcuts.py`: what the looks of four trainings measured, one beside the other."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from benchmarks.shortcuts.verdicts import Trained, alarm_speaks
from lightning_gcam.shortcuts import Thresholds

SHOWN = [
    ("none", 0.0, "no cue"),
    ("corner", 0.0, "a corner of any colour"),
    ("corner", 0.95, "a corner that tells the label"),
    ("tint", 0.95, "a tint that tells the label"),
]
LINES = {
    "validation": ("validation accuracy", "#222222", "-"),
    "honest": ("with the cue shuffled", "#222222", ":"),
    "background_only_accuracy": ("with the object removed", "#d1495b", "-"),
    "energy": ("energy: saliency on the object", "#00798c", "-"),
}


def draw_histories(runs: Sequence[Trained], path: Path) -> None:
    """One panel a training of the first seed: accuracies and energy at each look, their chance levels, the alarm."""
    chosen = {(run.cue, run.strength): run for run in reversed(runs)}
    shown = [(chosen[cue, strength], title) for cue, strength, title in SHOWN if (cue, strength) in chosen]
    figure, axes = plt.subplots(1, len(shown), figsize=(3.1 * len(shown), 3.7), sharey=True, squeeze=False)
    for axis, (run, title) in zip(axes[0], shown, strict=True):
        draw_history(axis, run, title)
    axes[0, 0].set_ylabel("share")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_history(axis: Axes, run: Trained, title: str) -> None:
    evidence = run.evidence()
    looks = range(1, len(evidence) + 1)
    values = {name: [look[name] for look in run.looks] for name in ("validation", "honest")}
    name = "background_only_accuracy"
    values[name] = [each.reliance.measurements[name].value for each in evidence]
    values["energy"] = [each.scores.get("energy", math.nan) for each in evidence]
    for key, (label, colour, style) in LINES.items():
        axis.plot(looks, values[key], style, color=colour, label=label, linewidth=1.8)
    axis.axhline(evidence[-1].reliance.chance, color="#d1495b", linewidth=0.8, linestyle="--")
    axis.axhline(evidence[-1].scores["energy_chance"], color="#00798c", linewidth=0.8, linestyle="--")
    look = alarm_speaks(evidence, Thresholds())
    if look is not None:
        axis.axvline(look, color="#edae49", linewidth=1.4, zorder=0)
        axis.text(look, 1.06, "the alarm speaks", fontsize=8, color="#9a6a00", ha="left")
    axis.set_title(title, fontsize=10, pad=18)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("look (one an epoch)")
    axis.set_ylim(-0.02, 1.04)
    axis.spines[["top", "right"]].set_visible(False)
