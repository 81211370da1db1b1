"""Signals in two dimensions: the curves of a few channels, and under them the saliency as a band on the same axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_gcam.visual.drawing import OBJECT_COLOR, SUSPECT_COLOR, Line
from lightning_gcam.visual.forms import BAR, CurveForm
from lightning_gcam.visual.images import Color, Normalize, check_normalize
from lightning_gcam.visual.overlay import shrink_maps
from lightning_gcam.visual.panels import CARD, MUTED, PAGE, TEXT, Regions, Sheet

_FONT_SIZE, _LINE = 10, 12
_TINT, _THICK = 0.16, 1.5
_MOST_TICKS = 7


def curve_sheets(
    form: CurveForm,
    signals: Tensor,
    maps: Mapping[str, Tensor],
    regions: Regions,
    headings: Sequence[str],
    *,
    normalize: Normalize | None = None,
    before: Mapping[str, Tensor] | None = None,
    beside: Mapping[str, Tensor] | None = None,
) -> list[Sheet]:
    """Draw signals, one panel for each map, and before them one for each further signal of a pair.

    Args:
        form: of the panels.
        signals: `(N, C, L)`, as the model takes them.
        maps: `(N, L)`, by name.
        regions: the object's masks `(N, L)` and the suspect region; boxes are not drawn.
        headings: one for each map.
        normalize: undone for the numbers beside the curves.
        before: the maps of an earlier look.
        beside: further signals of the samples, by their heading.
    """
    sheets = []
    for heading, each in (beside or {}).items():
        pictures, words = draw_curves(replace(form, has_band=False), each, Regions(), normalize)
        sheets.append(Sheet(heading, heading, pictures, words=words))
    pictures, words = draw_curves(form, signals, regions, normalize)
    heated = torch.zeros(form.sheet, dtype=torch.bool)
    heated[form.band, form.columns] = True
    for heading, (name, values) in zip(headings, maps.items(), strict=True):
        then = (before or {}).get(name)
        sheets.append(
            Sheet(
                name,
                heading,
                pictures,
                saliency=lay_bands(form, values),
                before=None if then is None else lay_bands(form, then),
                heated=heated,
                peaks=peaks_in_band(form, values)[:, None],
                words=words,
            )
        )
    return sheets


def lay_bands(form: CurveForm, values: Tensor) -> Tensor:
    """Lay maps `(N, L)` into the band of panels `(N, h, w)` that are 0 elsewhere, on the CPU."""
    sheets = torch.zeros(len(values), *form.sheet)
    columns = _to_columns(form, values.detach().float().nan_to_num(0, 0, 0))
    sheets[:, form.band, form.columns] = columns[:, None]
    return sheets


def _to_columns(form: CurveForm, values: Tensor) -> Tensor:
    """The highest value `(N, w)` that each column of the plot stands for, of `(N, L)`, on the CPU."""
    width = form.across
    small = shrink_maps(values[:, None], 1, min(width, form.length))[:, 0].cpu()
    return small[:, torch.arange(width) * small.shape[1] // width]


def peaks_in_band(form: CurveForm, values: Tensor) -> Tensor:
    """Find the row and the column `(N, 2)` of each map's first highest place, in pixels of the panel."""
    peaks = values.detach().nan_to_num(0, 0, 0).argmax(dim=1).cpu()
    column = (peaks + 0.5) * form.across / form.length - 0.5 + form.columns.start
    row = torch.full_like(column, (form.band.start + form.band.stop - 1) / 2)
    return torch.stack([row, column], dim=1)


def draw_curves(
    form: CurveForm,
    signals: Tensor,
    regions: Regions,
    normalize: Normalize | None = None,
    on_one_scale: bool = False,
) -> tuple[Tensor, list[list[Line]]]:
    """Draw the first channels of each signal below each other, each from its own minimum to its maximum.

    Args:
        form: of the panel.
        signals: `(N, C, L)`.
        regions: what is tinted, and has a bar below.
        normalize: undone for the numbers.
        on_one_scale: whether a channel has the same scale in all signals.

    Returns:
        `(N, 3, h, w)` uint8 on the CPU, with an empty band, and the numbers at each panel's edges.
    """
    shown = signals.detach()[:, : form.channels].float()
    if normalize is not None:
        mean, std = (
            torch.tensor(each)[: form.channels, None] for each in check_normalize(normalize, signals.shape[1])
        )
        shown = shown * std.to(shown) + mean.to(shown)
    finite = shown.isfinite()
    lows = shown.where(finite, torch.inf).amin(dim=2).cpu()
    highs = shown.where(finite, -torch.inf).amax(dim=2).cpu()
    if on_one_scale:
        lows, highs = lows.amin(dim=0).expand_as(lows), highs.amax(dim=0).expand_as(highs)
    curves = _coverage(form, shown, lows, highs)
    ground = _color(CARD).expand(len(shown), 3, *form.sheet).clone()
    plot, band = ground[:, :, form.plot, form.columns], ground[:, :, form.band, form.columns]
    _blend(plot, PAGE, torch.ones(()))
    band.zero_()
    row = form.plot.stop + 2
    for masks, color in _known(regions, len(shown), form.length):
        columns = _to_columns(form, masks)[:, None, None]
        dashes = torch.arange(form.across) % 9 < (6 if color == SUSPECT_COLOR else 9)
        _blend(plot, color, columns * _TINT)
        _blend(ground[:, :, row : row + BAR, form.columns], color, columns * dashes)
        row += BAR + 2
    _blend(plot, TEXT, curves[:, None])
    for at in _ticks(form.length):
        ground[:, :, form.band.stop : form.band.stop + 3, _column_of(form, at)] = _color(MUTED)[..., 0]
    return ground.round().to(torch.uint8), [
        _words(form, low, high) for low, high in zip(lows.tolist(), highs.tolist(), strict=True)
    ]


def _coverage(form: CurveForm, signals: Tensor, lows: Tensor, highs: Tensor) -> Tensor:
    """How far each pixel `(N, channels * lane, w)` of the plot is covered by a curve, 0 to 1.

    In each column a curve reaches from its lowest to its highest value there, and half of the way to its neighbours.
    """
    width = form.across
    flat = signals.flatten(0, 1)
    if form.length < width:
        flat = F.interpolate(flat[None], width, mode="linear")[0]
    finite = flat.isfinite()
    top = shrink_maps(flat.where(finite, -torch.inf)[:, None], 1, width)[:, 0].cpu()
    bottom = -shrink_maps(-flat.where(finite, torch.inf)[:, None], 1, width)[:, 0].cpu()
    spread = (highs - lows).flatten()[:, None]
    middle = (highs + lows).flatten()[:, None] / 2
    spread = spread.where(spread > 0, torch.inf)
    # rows grow downwards
    first, last = (form.lane / 2 - (each - middle) / spread * (form.lane - 8) for each in (top, bottom))
    left, right = [0, *range(width - 1)], [*range(1, width), width - 1]
    begins = torch.stack([first, (first + last[:, left]) / 2, (first + last[:, right]) / 2]).amin(dim=0)
    ends = torch.stack([last, (last + first[:, left]) / 2, (last + first[:, right]) / 2]).amax(dim=0)
    row = torch.arange(form.lane)[:, None]
    begin, end = (begins - _THICK / 2)[:, None], (ends + _THICK / 2)[:, None]
    covered: Tensor = (
        (torch.minimum(end, row + 1.0) - torch.maximum(begin, row.float())).clamp(0, 1).nan_to_num(0)
    )
    return covered.view(*signals.shape[:2], *covered.shape[1:]).flatten(1, 2)


def _known(regions: Regions, samples: int, length: int) -> list[tuple[Tensor, Color]]:
    found = ((regions.masks, OBJECT_COLOR), (regions.suspect, SUSPECT_COLOR))
    return [(each.float().expand(samples, length), color) for each, color in found if each is not None]


def _blend(pixels: Tensor, color: Color, share: Tensor) -> None:
    """Move pixels `(N, 3, h, w)`, in place, towards a colour by a share of the way."""
    pixels.lerp_(_color(color).expand_as(pixels), share)


def _color(color: Color) -> Tensor:
    return torch.tensor(color, dtype=torch.float32).view(3, 1, 1)


def _words(form: CurveForm, lows: Sequence[float], highs: Sequence[float]) -> list[Line]:
    """The lowest and the highest value of each curve, and the numbers of the axis."""
    lines = []
    for index, (low, high) in enumerate(zip(lows, highs, strict=True)):
        top = form.plot.start + index * form.lane
        names = [(top, f"{high:.3g}"), (top + form.lane - _LINE, f"{low:.3g}")]
        if form.channels > 1:
            names.append((top + (form.lane - _LINE) // 2, f"ch {index + 1}"))
        lines += [
            _line(0, form.columns.start - 3, row, text, TEXT if text.startswith("ch") else MUTED)
            for row, text in names
        ]
    for at in _ticks(form.length):
        column = _column_of(form, at)
        left = min(column - 30, form.width - 60)
        lines.append(_line(left, left + 60, form.band.stop + 4, str(at), MUTED))
    return lines


def _line(left: int, right: int, top: int, text: str, color: Color) -> Line:
    return Line((left, top, right, top + _LINE), text, _FONT_SIZE, color, center=True)


def _column_of(form: CurveForm, at: int) -> int:
    return int(form.columns.start + min((at + 0.5) * form.across // form.length, form.across - 1))


def _ticks(length: int) -> range:
    """Round numbers along an axis, a handful.

    Example:
        >>> list(_ticks(187))
        [0, 50, 100, 150]
    """
    step = 1
    while length / step > _MOST_TICKS:
        step = step * 5 // 2 if str(step).startswith("2") else step * 2
    return range(0, length, step)
