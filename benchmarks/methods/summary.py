"""From the kept runs of `comparison.py` to a summary: means, paired differences with intervals, rank correlations.

The summary is a list of plain rows, one line of JSON each: tables, text and figure are made of nothing else.
Differences are turned so that more is better, whichever end of a score is the better one.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from scipy.stats import kendalltau
from torch import Tensor

from benchmarks.common.three_digits import BETTER, LAYERS
from benchmarks.methods.networks import HEADS, LABELS, Unit, canvas_of_row
from benchmarks.methods.runs import SCORES

GUIDANCE = "guidance_cam"
ALL = "all"
RESAMPLES = 1000
LEVEL = 0.95
CONTRASTS = [
    (GUIDANCE, "grad_cam"),
    ("grad_cam_squared", "grad_cam"),
    (GUIDANCE, "grad_cam_squared"),
    (GUIDANCE, "hires_cam"),
    ("hires_cam_squared", "hires_cam"),
    (GUIDANCE, "hires_cam_squared"),
]
"""What is gained, what of that squaring alone gains, and what is left for the other factor."""

Row = dict[str, Any]
SIGNS = torch.tensor([float(BETTER[score]) for score in SCORES], dtype=torch.float64)


class Condition(NamedTuple):
    """The labels, the head and the layer that runs of several seeds share."""

    labels: str
    head: str
    layer: str


class Samples(NamedTuple):
    """Every sample's number `(methods, scores, samples)`, NaN where it is left out, and draws of the samples.

    Args:
        methods: their names.
        values: float64.
        times: how often each draw has each sample, `(RESAMPLES, samples)`.
    """

    methods: list[str]
    values: Tensor
    times: Tensor


class Estimates(NamedTuple):
    """Means over the samples `(...)`, and means over each draw of them `(RESAMPLES, ...)`."""

    mean: Tensor
    draws: Tensor


def summarize(lines: Sequence[Row]) -> list[Row]:
    """All rows of the summary but those about the machine and the cost."""
    samples = samples_of(lines)
    rows = networks_of(lines)
    for layer in LAYERS:
        at_layer = {condition: each for condition, each in samples.items() if condition.layer == layer}
        groups = {(condition.labels, condition.head): [condition] for condition in at_layer}
        for head in HEADS:
            groups[ALL, head] = [each for each in at_layer if each.head == head]
        groups[ALL, ALL] = list(at_layer)
        for (labels, head), members in groups.items():
            if members:
                rows += rows_of_group(
                    {**Condition(labels, head, layer)._asdict()}, [samples[each] for each in members]
                )
        rows.append({"kind": "maps", "layer": layer, **map_correlations(lines, layer)})
    return rows + score_correlations(rows)


def networks_of(lines: Sequence[Row]) -> list[Row]:
    """How right the networks are, and at which layers their gradients were constant over space."""
    rows = []
    for labels in LABELS:
        for head in HEADS:
            own = [line for line in lines if (line["labels"], line["head"]) == (labels, head)]
            accuracies = {line["seed"]: round(line["accuracy"], 4) for line in own}
            even = sorted({line["layer"] for line in own if line["even"]})
            rows.append(
                {
                    "kind": "network",
                    "labels": labels,
                    "head": head,
                    "accuracy": list(accuracies.values()),
                    "even": even,
                }
            )
    return rows


# ------------------------------------------------------------------------------------------- samples


def samples_of(lines: Sequence[Row]) -> dict[Condition, Samples]:
    """The numbers of all seeds of each condition, in the order of the seeds."""
    found: dict[Condition, list[Row]] = {}
    for line in sorted(lines, key=lambda each: each["seed"]):
        found.setdefault(Condition(line["labels"], line["head"], line["layer"]), []).append(line)
    return {condition: gathered(condition, own) for condition, own in found.items()}


def gathered(condition: Condition, lines: Sequence[Row]) -> Samples:
    methods = list(lines[0]["values"])
    values = torch.cat([values_of(line["values"], methods) for line in lines], dim=2)
    size = values.shape[2] // len(lines)
    canvases = canvas_of_row(Unit(condition.labels, condition.head, 0), size)
    return Samples(methods, values, draw_samples(len(lines), canvases))


def values_of(values: dict[str, dict[str, list[float | None]]], methods: Sequence[str]) -> Tensor:
    numbers = [
        [[float("nan") if each is None else each for each in values[method][score]] for score in SCORES]
        for method in methods
    ]
    return torch.tensor(numbers, dtype=torch.float64)


def draw_samples(seeds: int, canvases: Tensor) -> Tensor:
    """How often each of RESAMPLES draws has each sample `(RESAMPLES, seeds * len(canvases))`.

    Seeds are drawn with replacement, and in each drawn one canvases: what shares a network or a canvas is not
    independent. The draws are the same for every condition of as many canvases: heads are asked about the same images,
    so their draws are the same too.
    """
    generator = torch.Generator().manual_seed(0)
    number = int(canvases.max()) + 1
    times = torch.zeros(RESAMPLES, seeds, number, dtype=torch.float64)
    for draw in times:
        for seed in torch.randint(seeds, (seeds,), generator=generator).tolist():
            drawn = torch.randint(number, (number,), generator=generator)
            draw[seed] += torch.bincount(drawn, minlength=number)
    return times[:, :, canvases].flatten(1)


def estimate(values: Tensor, times: Tensor) -> Estimates:
    """Means of `(..., samples)` over the samples that count, and over those of each draw."""
    counted = ~values.isnan()
    numbers = values.nan_to_num(0.0)
    draws = torch.einsum("bn,...n->b...", times, numbers) / torch.einsum(
        "bn,...n->b...", times, counted.double()
    )
    return Estimates(numbers.sum(dim=-1) / counted.sum(dim=-1), draws)


def averaged(several: Sequence[Estimates]) -> Estimates:
    """Every condition counts alike."""
    return Estimates(*(torch.stack(each).nanmean(dim=0) for each in zip(*several, strict=True)))


def triples(found: Estimates) -> list[list[list[float | None]]]:
    """By method and score `[mean, lower end, upper end]`, rounded; None where there is none."""
    tail = (1 - LEVEL) / 2
    low, high = found.draws.nanquantile(torch.tensor([tail, 1 - tail], dtype=torch.float64), dim=0)
    stacked = torch.stack([found.mean, low, high], dim=-1).tolist()
    return [[[rounded(each) for each in triple] for triple in row] for row in stacked]


def rounded(value: float) -> float | None:
    return None if value != value else round(value, 4) + 0.0  # no -0.0


# ------------------------------------------------------------------------------------------ the rows


def rows_of_group(group: Row, samples: Sequence[Samples]) -> list[Row]:
    """A row for each method: its scores, and by how much guidance is better; and one for each contrast."""
    methods = [name for name in samples[0].methods if all(name in each.methods for each in samples)]
    values = [each.values[[each.methods.index(name) for name in methods]] for each in samples]
    blank = torch.stack(
        [each[:, SCORES.index("energy")].isnan().double().mean(dim=1) for each in values]
    ).mean(dim=0)
    scores = triples(averaged([estimate(each, one.times) for each, one in zip(values, samples, strict=True)]))

    def better(first: str, second: str | None = None) -> list[list[list[float | None]]]:
        """By how much one method is better than another, or than each."""
        a = methods.index(first)
        b = slice(None) if second is None else [methods.index(second)]
        found = [
            estimate(SIGNS[:, None] * (each[a] - each[b]), one.times)
            for each, one in zip(values, samples, strict=True)
        ]
        return triples(averaged(found))

    rows = [
        {
            "kind": "method",
            **group,
            "method": method,
            "blank": rounded(float(share)),
            "scores": dict(zip(SCORES, own, strict=True)),
            "guidance_is_better_by": dict(zip(SCORES, less, strict=True)),
        }
        for method, share, own, less in zip(methods, blank, scores, better(GUIDANCE), strict=True)
    ]
    return rows + [
        {
            "kind": "contrast",
            **group,
            "first": first,
            "second": second,
            "scores": dict(zip(SCORES, better(first, second)[0], strict=True)),
        }
        for first, second in CONTRASTS
    ]


# ---------------------------------------------------------------------------------- rank correlations


def map_correlations(lines: Sequence[Row], layer: str) -> Row:
    """Spearman's correlation of every two methods' maps, averaged over all networks."""
    own = [line for line in lines if line["layer"] == layer]
    methods = list(own[0]["values"])
    matrices = [
        [[float("nan") if each is None else each for each in row] for row in line["spearman"]] for line in own
    ]
    mean = torch.tensor(matrices, dtype=torch.float64).nanmean(dim=0).tolist()
    return {"methods": methods, "spearman": [[None if v != v else round(v, 3) for v in row] for row in mean]}


def score_correlations(rows: Sequence[Row]) -> list[Row]:
    """Kendall's tau between the orders in which two scores put the methods."""
    found: list[Row] = []
    for layer in LAYERS:
        methods = overall(rows, layer)
        columns = [[row["scores"][score][0] * BETTER[score] for row in methods] for score in SCORES]
        taus = [[round(float(kendalltau(one, other).statistic), 3) for other in columns] for one in columns]
        found.append({"kind": "scores", "layer": layer, "kendall": taus})
    return found


def overall(rows: Sequence[Row], layer: str) -> list[Row]:
    """The methods' rows over all conditions of a layer."""
    return [
        row
        for row in rows
        if row["kind"] == "method" and (row["labels"], row["head"], row["layer"]) == (ALL, ALL, layer)
    ]


# --------------------------------------------------------------------------------------------- the file


def write_summary(rows: Sequence[Row], path: Path) -> None:
    """One row a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, separators=(",", ":")) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_summary(path: Path) -> list[Row]:
    """The rows as they were written."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
