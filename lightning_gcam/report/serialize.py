"""Convert a `SaliencyRecord` to plain data for the page: what stays the same at every look, and what does not."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_gcam.pipeline import captions
from lightning_gcam.pipeline.record import SaliencyRecord
from lightning_gcam.report.reading import data_uri
from lightning_gcam.visual import to_display
from lightning_gcam.visual.images import Color, shrink_images
from lightning_gcam.visual.layout import plan
from lightning_gcam.visual.overlay import peak_centers, shrink_maps
from lightning_gcam.visual.panels import Regions, region_lines

_LONGEST_MAP = 56
"""The grid of a usual target layer is 7 to 28 cells a side; half of a stage before it is seen in twice as many."""


def plain_samples(record: SaliencyRecord) -> list[dict[str, Any]]:
    """Return what stays the same at every look: each sample's picture, outlines, name and classes.

    Args:
        record: any look of the run.

    Returns:
        For each sample `name`, `classes` (names), `image` and `outline` (data URIs; no outline where nothing is known).
    """
    images = to_display(record.batch.images, record.stamp.normalize)
    layout = plan(len(images), len(record.attribution.maps), *images.shape[2:])
    small = shrink_images(images, *layout.work).permute(0, 2, 3, 1).cpu().numpy()
    outlines = _outlines(record, images, layout)
    names = record.batch.names or [""] * len(images)
    return [
        {"name": name, "classes": classes, "image": data_uri(image), **outline}
        for name, classes, image, outline in zip(names, true_classes(record), small, outlines, strict=True)
    ]


def plain_look(record: SaliencyRecord) -> dict[str, Any]:
    """Return what changes at every look: scores with n and interval, and each sample's caption, scores and maps.

    Args:
        record: the look.

    Returns:
        `step`, `epoch`, `layer`, `explains`, `scores`, `measured` (`[n, left out, low, high]` by score), `size` of the
        maps, and `samples`: `caption`, `predicted`, `probability`, `right`, `scores`, and `maps`, which has for each
        method `[cells, raw peak, row, column]`: base64 of a byte a cell; the peak's place in shares of the height and
        width. A raw peak is 0 for a blank map and None for one that was not finite.
    """
    attribution = record.attribution
    side, size, maps = map_side(len(attribution.maps)), (1, 1), {}
    for name, values in attribution.maps.items():
        cells, size = pack_maps(values, side)
        centers = ((peak_centers(values, 1000, 1000) + 0.5) / 1000).tolist()
        peaks = attribution.peaks[name].tolist()
        maps[name] = [
            [cell, _finite(peak), round(row, 3), round(column, 3)]
            for cell, peak, (row, column) in zip(cells, peaks, centers, strict=True)
        ]
    samples = [
        {
            "caption": caption,
            "right": right,
            **prediction,
            "scores": scores,
            "maps": {name: of_all[index] for name, of_all in maps.items()},
        }
        for index, (caption, right, prediction, scores) in enumerate(
            zip(record.captions, record.correct, predicted(record), sample_scores(record), strict=True)
        )
    ]
    return {
        "step": record.step,
        "epoch": record.epoch,
        "layer": attribution.target_layer,
        "explains": captions.explained(record.batch, attribution, record.stamp.class_names),
        "scores": {name: value for name, value in record.scores.items() if math.isfinite(value)},
        "measured": _measured_by_score(record),
        "size": list(size),
        "samples": samples,
    }


def _outlines(record: SaliencyRecord, images: Any, layout: Any) -> list[dict[str, str]]:
    batch = record.batch
    lines = region_lines(Regions(batch.masks, batch.boxes, batch.suspect_masks), layout, images)
    if not lines:
        return [{}] * len(images)
    arrays = [(line.cpu().numpy(), color) for line, color in lines]
    layers = ([(line[index], color) for line, color in arrays] for index in range(len(images)))
    return [{"outline": data_uri(line_layer(layer), exact=True)} for layer in layers]


def true_classes(record: SaliencyRecord) -> list[list[str]]:
    """Return the names of each sample's true classes."""
    labels = record.batch.labels
    if labels is None or record.batch.has_measurements or _subject(record) != "classes":
        return [[]] * len(record.batch)
    if labels.ndim == 2 and labels.shape[1] > 1:
        return [[_name(record, int(each)) for each in row.nonzero()[:, 0]] for row in labels]
    return [[_name(record, int(label))] if label >= 0 else [] for label in labels.flatten().tolist()]


def predicted(record: SaliencyRecord) -> list[dict[str, Any]]:
    """Return each sample's `predicted` class and its `probability`; nothing where the output is not of classes."""
    if _subject(record) != "classes":
        return [{}] * len(record.batch)
    return [
        {"predicted": _name(record, guess), "probability": _finite(share)}
        for guess, share in zip(record.predictions.tolist(), record.probabilities.tolist(), strict=True)
    ]


def sample_scores(record: SaliencyRecord) -> list[dict[str, float]]:
    """Return each sample's value of every score that is a mean over samples, without those that do not count."""
    scores: list[dict[str, float]] = [{} for _ in range(len(record.batch))]
    for key, (_, sample) in record.results.samples.items():
        name = record.results.name_of(key)
        if sample.values.ndim != 1 or len(sample.values) != len(scores):
            continue
        for row, value, counts in zip(scores, sample.values.tolist(), sample.counted.tolist(), strict=True):
            if counts and math.isfinite(value):
                row[name] = round(value, 4)
    return scores


def _measured_by_score(record: SaliencyRecord) -> dict[str, list[float | None]]:
    checks = record.reliance.measurements if record.reliance is not None else {}
    return {
        name: [found.n, found.left_out, *(map(_finite, found.interval) if found.interval else (None, None))]
        for name, found in {**record.measurements, **checks}.items()
    }


def _subject(record: SaliencyRecord) -> str:
    return captions.subject_of(record.batch, record.attribution, record.stamp.class_names)


def _name(record: SaliencyRecord, index: int) -> str:
    names = record.stamp.class_names
    return str(names[index]) if names is not None and 0 <= index < len(names) else str(index)


def _finite(value: float) -> float | None:
    """Round to four digits; None for NaN and infinity, which JSON does not have."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def map_side(maps: int) -> int:
    """Return how many cells a map keeps along its longer side: 56 for one map, fewer for several.

    Example:
        >>> map_side(1), map_side(2), map_side(6)
        (56, 39, 22)
    """
    return max(16, int(_LONGEST_MAP / math.sqrt(max(maps, 1))))


def pack_maps(maps: Tensor, side: int) -> tuple[list[str], tuple[int, int]]:
    """Encode maps as base64 of one byte a cell; a cell has the highest value of its pixels.

    Args:
        maps: `(N, H, W)`, float in [0, 1]; NaN counts as 0.
        side: the most cells along the longer side.

    Returns:
        A string for each map, and the height and width they share.

    Example:
        >>> pack_maps(torch.tensor([[[0.0, 1.0]]]), 8)
        (['AP8='], (1, 2))
    """
    height, width = maps.shape[1:]
    scale = min(1.0, side / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    small = shrink_maps(maps.detach().float().nan_to_num(0).clamp(0, 1), *size)
    cells = small.mul(255).round().to(torch.uint8).cpu().numpy()
    return [base64.b64encode(each.tobytes()).decode() for each in cells], size


def line_layer(lines: list[tuple[npt.NDArray[np.bool_], Color]]) -> npt.NDArray[np.uint8]:
    """Draw lines with a dark edge on a transparent layer.

    Args:
        lines: each `(H, W)` bool, and its colour.

    Returns:
        `(H, W, 4)`, uint8.
    """
    layer = np.zeros((*lines[0][0].shape, 4), dtype=np.uint8)
    for line, color in lines:
        around = np.zeros_like(line)
        rows, columns = line.nonzero()
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                beside = (
                    (rows + down).clip(0, line.shape[0] - 1),
                    (columns + right).clip(0, line.shape[1] - 1),
                )
                around[beside] = True
        layer[around] = (0, 0, 0, 128)
        layer[line] = (*color, 255)
    return layer
