"""The figure of `comparison.py`: by how much guidance is better, score by score, with intervals."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.common.three_digits import LAYERS
from benchmarks.methods.runs import SCORES
from benchmarks.methods.summary import Row, overall
from benchmarks.methods.tables import COMPARED

MARKS = {  # colours that colour-blind eyes tell apart (Okabe and Ito 2008), and shapes that need no colour
    "grad_cam": ("Grad-CAM", "#0072B2", "o"),
    "grad_cam_squared": ("Grad-CAM squared", "#D55E00", "s"),
    "hires_cam": ("HiResCAM", "#009E73", "^"),
}


def draw_differences(rows: Sequence[Row], path: Path) -> None:
    """One panel a layer, one line a score, one mark a rival; right of zero guidance is better."""
    figure, axes = plt.subplots(1, len(LAYERS), figsize=(8.4, 4.2), sharey=True, squeeze=False)
    for axis, layer in zip(axes[0], LAYERS, strict=True):
        draw_layer(axis, rows, layer)
    axes[0, 0].set_yticks(range(len(SCORES)), [score.replace("_", " ") for score in SCORES])
    axes[0, 0].invert_yaxis()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_layer(axis: Axes, rows: Sequence[Row], layer: str) -> None:
    methods = {row["method"]: row["guidance_is_better_by"] for row in overall(rows, layer)}
    axis.axvline(0, color="#777777", linewidth=0.9)
    for number, name in enumerate(COMPARED):
        label, colour, marker = MARKS[name]
        places = [index + 0.24 * (number - 1) for index in range(len(SCORES))]
        triples = [methods[name][score] for score in SCORES]
        shown = [
            (place, *triple) for place, triple in zip(places, triples, strict=True) if None not in triple
        ]
        middle = [value for _, value, _, _ in shown]
        bars = [[value - low for _, value, low, _ in shown], [high - value for _, value, _, high in shown]]
        axis.errorbar(
            middle,
            [place for place, *_ in shown],
            xerr=bars,
            fmt=marker,
            color=colour,
            markersize=4.5,
            linewidth=1.3,
            label=f"against {label}",
        )
    axis.set_title(f"the {layer} layer", fontsize=10)
    axis.set_xlabel("worse  ←  guidance  →  better", fontsize=9)
    axis.grid(axis="y", color="#eeeeee", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
