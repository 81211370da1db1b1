"""Convert a `SaliencyRecord` to plain data for the page: what stays the same at every look, and what does not."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from lightning_gcam.data import SaliencyBatch
from lightning_gcam.pipeline import captions
from lightning_gcam.pipeline.record import SaliencyRecord
from lightning_gcam.pipeline.rendering import second_images
from lightning_gcam.report.reading import data_uri
from lightning_gcam.visual import to_display
from lightning_gcam.visual.curves import draw_curves, peaks_in_band
from lightning_gcam.visual.drawing import Line, write_lines
from lightning_gcam.visual.forms import CurveForm, curve_form, stack_form
from lightning_gcam.visual.images import Color, shrink_images
from lightning_gcam.visual.layout import plan
from lightning_gcam.visual.overlay import peak_centers, shrink_maps
from lightning_gcam.visual.panels import Regions, region_lines
from lightning_gcam.visual.planes import fixed_view, lay_pictures, lines_in_tiles, peaks_of

_LONGEST_MAP = 56
"""The grid of a usual target layer is 7 to 28 cells a side; half of a stage before it is seen in twice as many."""

_MOST_SLICES, _FEWEST_SLICES, _SLICES_OF_ALL = 24, 6, 192
_SLICE_SIDE = 96
"""Pixels of a slice: all slices of eight samples take about half a megabyte, once a run."""


def plain_samples(record: SaliencyRecord) -> list[dict[str, Any]]:
    """Return what stays the same at every look: each sample's picture, outlines, name and classes.

    Args:
        record: any look of the run.

    Returns:
        For each sample `name`, `classes` (names), `image` and `outline` (data URIs; no outline where nothing is known),
        `beside` (data URIs by heading, of a pair), and where the image has not two dimensions what `sample_pictures`
        gives it.
    """
    found = sample_pictures(record, record.batch.images)
    names = record.batch.names or [""] * len(record.batch)
    others = {
        name: sample_pictures(record, each).images for name, each in second_images(record.batch).items()
    }
    samples = [
        {"name": name, "classes": classes, "image": data_uri(image), **outline, **found.more}
        for name, classes, image, outline in zip(
            names, true_classes(record), found.images, _outlines(found), strict=True
        )
    ]
    for index, sample in enumerate(samples if others else []):
        sample["beside"] = {name: data_uri(each[index]) for name, each in others.items()}
    return samples


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
    attribution, size, maps = record.attribution, (1, 1), {}
    for name, values in attribution.maps.items():
        cells, size, centers = plain_maps(record, values)
        peaks = attribution.peaks[name].tolist()
        maps[name] = [
            [cell, _finite(peak), row, column]
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


class SamplePictures(NamedTuple):
    """Each sample as the page shows it.

    Args:
        images: `(N, h, w, 3)`, uint8.
        lines: of each region `(N, h, w)` bool, and its colour.
        more: where slices stand below each other, `slices` (`kind`, `of` how many, `numbers`, `size` of one); where
            the map is a band, the `band` (left, top, right, bottom).
    """

    images: npt.NDArray[np.uint8]
    lines: list[tuple[Tensor, Color]]
    more: dict[str, Any]


def sample_pictures(record: SaliencyRecord, images: Tensor) -> SamplePictures:
    """Draw images of the samples: as they are, as slices or frames below each other, or as curves.

    Args:
        record: any look of the run.
        images: the samples' own, or the second ones of a pair.
    """
    batch, normalize = record.batch, record.stamp.normalize
    regions = Regions(batch.masks, batch.boxes, batch.suspect_masks)
    if batch.kind == "image":
        pictures = to_display(images, normalize)
        layout = plan(len(images), len(record.attribution.maps), *pictures.shape[2:])
        small = shrink_images(pictures, *layout.work).cpu()
        return SamplePictures(_pixels(small), region_lines(regions, layout, pictures), {})
    if batch.kind == "signal":
        form = _curve_form(batch)
        drawn, words = draw_curves(
            form, images, Regions(batch.object_masks, suspect=batch.suspect), normalize
        )
        band = [form.columns.start, form.band.start, form.columns.stop, form.band.stop]
        return SamplePictures(_written(_pixels(drawn), words), [], {"band": band})
    size, is_video = batch.image_size, batch.kind == "video"
    numbers = _slice_numbers(batch)
    stack = stack_form(size, len(numbers), _SLICE_SIDE, is_video)
    view = fixed_view(numbers, len(batch))
    slices = {"kind": batch.kind, "of": size[0], "numbers": numbers, "size": list(stack.tiles[0].size)}
    drawn = lay_pictures(images, stack, view, normalize)
    return SamplePictures(_pixels(drawn), lines_in_tiles(stack, view, regions), {"slices": slices})


def _slice_numbers(batch: SaliencyBatch) -> list[int]:
    """The slices or frames that are shown of each sample, evenly chosen: fewer where there are many samples."""
    most = min(max(_SLICES_OF_ALL // len(batch), _FEWEST_SLICES), _MOST_SLICES, batch.image_size[0])
    return [(2 * index + 1) * batch.image_size[0] // (2 * most) for index in range(most)]


def _curve_form(batch: SaliencyBatch) -> CurveForm:
    has_object = batch.masks is not None or batch.boxes is not None
    bars = int(has_object) + int(batch.suspect is not None)
    return curve_form(batch.image_size[0], batch.images.shape[1], 16, bars)


def _pixels(pictures: Tensor) -> npt.NDArray[np.uint8]:
    found: npt.NDArray[np.uint8] = pictures.permute(0, 2, 3, 1).numpy()
    return found


def _written(pictures: npt.NDArray[np.uint8], words: Sequence[Sequence[Line]]) -> npt.NDArray[np.uint8]:
    """The pictures with lines of text written into them."""
    canvases = [Image.fromarray(np.ascontiguousarray(each)) for each in pictures]
    for canvas, lines in zip(canvases, words, strict=True):
        write_lines(canvas, lines)
    return np.stack([np.array(each) for each in canvases])


def _outlines(found: SamplePictures) -> list[dict[str, str]]:
    if not found.lines:
        return [{}] * len(found.images)
    arrays = [(line.cpu().numpy(), color) for line, color in found.lines]
    layers = ([(line[index], color) for line, color in arrays] for index in range(len(found.images)))
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


def plain_maps(
    record: SaliencyRecord, values: Tensor
) -> tuple[list[str], tuple[int, int], list[tuple[float, float]]]:
    """Encode the maps of a look for the pictures of `sample_pictures`.

    Args:
        record: the look.
        values: `(N, *S)`, float in [0, 1].

    Returns:
        Of each map the cells, as of `pack_maps`, the height and width they share, and each peak's row and column in
        shares of the picture.
    """
    batch, side = record.batch, map_side(len(record.attribution.maps))
    if batch.kind == "image":
        centers = (peak_centers(values, 1000, 1000) + 0.5) / 1000
        return *pack_maps(values, side), [
            (round(row, 3), round(column, 3)) for row, column in centers.tolist()
        ]
    if batch.kind == "signal":
        form = _curve_form(batch)
        centers = (peaks_in_band(form, values) + 0.5) / torch.tensor(form.sheet)
        return *pack_maps(values[:, None], 4 * side), _rounded(centers)
    peaks, count = peaks_of(values)[0], len(_slice_numbers(batch))
    across, slab = torch.tensor(batch.image_size), peaks[:, 0] * count // batch.image_size[0]
    row, column = ((peaks[:, 1:] + 0.5) / across[1:]).unbind(1)
    # each slice has the highest values of those that it stands for
    slabs = shrink_maps(values.detach().flatten(2), count, values.shape[2] * values.shape[3])
    cells = _cells(slabs.view(-1, *values.shape[2:]), max(side * 2 // 7, 8))
    stacked = cells.reshape(len(values), -1, cells.shape[-1])
    return (
        _encoded(stacked),
        (stacked.shape[1], stacked.shape[2]),
        _rounded(torch.stack([(slab + row) / count, column], dim=1)),
    )


def _rounded(centers: Tensor) -> list[tuple[float, float]]:
    return [(round(row, 4), round(column, 4)) for row, column in centers.tolist()]


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
    cells = _cells(maps, side)
    return _encoded(cells), (cells.shape[1], cells.shape[2])


def _cells(maps: Tensor, side: int) -> npt.NDArray[np.uint8]:
    height, width = maps.shape[1:]
    scale = min(1.0, side / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    small = shrink_maps(maps.detach().float().nan_to_num(0).clamp(0, 1), *size)
    cells: npt.NDArray[np.uint8] = small.mul(255).round().to(torch.uint8).cpu().numpy()
    return cells


def _encoded(cells: npt.NDArray[np.uint8]) -> list[str]:
    return [base64.b64encode(each.tobytes()).decode() for each in cells]


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
