"""Pictures of a look: `draw` the samples with their maps, `draw_exchanges` one sample with borrowed properties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_gcam.data import SaliencyBatch
from lightning_gcam.pipeline import captions
from lightning_gcam.shortcuts.exchange import CHANCE, RATE, SAME_CLASS_RATE
from lightning_gcam.visual import Normalize, PanelTexts, render_row, shown_channels, to_display
from lightning_gcam.visual.curves import curve_sheets, draw_curves
from lightning_gcam.visual.forms import (
    MOST_CHANNELS,
    CurveForm,
    Form,
    curve_form,
    plan_sheets,
    video_form,
    volume_form,
)
from lightning_gcam.visual.grid import FigureTexts, render_sheets
from lightning_gcam.visual.images import Scale, check_count, check_same_size, shrink_images
from lightning_gcam.visual.layout import FigureLayout, plan, plan_row
from lightning_gcam.visual.overlay import shrink_maps, shrink_saliency
from lightning_gcam.visual.panels import HeatStyle, Regions, Sheet, flat_sheets
from lightning_gcam.visual.planes import lay_slices, plane_sheets


@dataclass(frozen=True)
class Earlier:
    """What a picture shows of the looks before.

    Args:
        step: of the look before; None where there is none.
        maps: of the look before, by name.
        tops: for each map its greatest raw peak at all looks before.
    """

    step: int | None = None
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    tops: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Style:
    """How a picture is drawn.

    Args:
        class_names: for captions; the class's number where there is none.
        normalize: `(mean, std)` of the input normalization, undone for display.
        scale: what is drawn the brightest: "own", each map's own maximum; "shared", the highest peak of all samples;
            "run", the highest peak of all samples at this look and those before.
        show_change: whether a further column beside each map shows what came and what went since the look before.
    """

    class_names: Sequence[str] | None = None
    normalize: Normalize | None = None
    scale: Scale = "own"
    show_change: bool = False


def draw(
    batch: SaliencyBatch,
    attribution: captions.Explanation,
    style: Style,
    *,
    when: str = "",
    texts: Sequence[str] | None = None,
    earlier: Earlier | None = None,
) -> npt.NDArray[np.uint8]:
    """Draw a card for each sample: its caption, its image with masks and boxes, and a heatmap for each map.

    Args:
        batch: the samples.
        attribution: their maps.
        style: how they are drawn.
        when: what the title begins with.
        texts: a line for each sample, in place of what it is and was taken for.
        earlier: the looks before; there are none where it is left out.

    Returns:
        `(height, width, 3)`, uint8.
    """
    earlier, layout = earlier or Earlier(), layout_of(batch, attribution, style)
    names, said = list(attribution.maps), texts or captions.captions(batch, attribution, style.class_names)
    for name, each in attribution.maps.items():
        check_same_size(batch.images, each, f'maps["{name}"]')
    check_count(said, len(batch), "captions", "sample")
    known = earlier.tops if style.scale == "run" else {}
    tops = {name: max(_highest(name, attribution), known.get(name, 0.0)) for name in names}
    shown = FigureTexts(
        title_of(when, batch, attribution, style),
        said,
        {name: _notes(name, attribution, tops[name], style.scale, batch.kind) for name in names},
        captions.correct(batch, attribution, style.class_names),
        f"at step {earlier.step}" if earlier.step is not None else "at the look before",
    )
    before = _comparable(earlier, attribution) if style.show_change else {}
    sheets = _sheets(batch, attribution, style, layout, before)
    has_object = batch.masks is not None or batch.boxes is not None
    present = ["object"] if has_object else []
    present += ["suspect region"] if batch.suspect is not None else []
    present += ["prediction"] if attribution.predicted_boxes is not None else []
    return render_sheets(sheets, layout, shown, HeatStyle(style.scale, tops, style.show_change), present)


def layout_of(batch: SaliencyBatch, attribution: captions.Explanation, style: Style) -> FigureLayout:
    """Where everything stands in the picture, and at which size the panels are computed."""
    columns, kind = 2 if style.show_change else 1, batch.kind
    # the curve of a signal stands above its bands
    maps, pictures = columns * len(attribution.maps), len(second_images(batch)) + (kind != "signal")
    if kind == "image":
        return plan(len(batch), maps, *batch.image_size, columns, pictures)
    sheet = _form(batch, maps + pictures).sheet
    return plan_sheets(len(batch), maps, sheet, columns, pictures, stacked=kind != "volume")


def _form(batch: SaliencyBatch, panels: int) -> Form | CurveForm:
    """What stands where on the sheets of signals, volumes and videos."""
    size, panels = batch.image_size, panels * len(batch)
    has_object = batch.masks is not None or batch.boxes is not None
    if batch.kind == "signal":
        return curve_form(size[0], batch.images.shape[1], panels, has_object + (batch.suspect is not None))
    return video_form(size, panels) if batch.kind == "video" else volume_form(size, panels, has_object)


def second_images(batch: SaliencyBatch) -> dict[str, Tensor]:
    """The other inputs that have the form of the images, the second pictures of a pair, by their heading."""
    same = batch.images.shape, batch.images.dtype
    return {
        f"input {name}": each
        for name, each in (batch.inputs or {}).items()
        if isinstance(each, Tensor) and (each.shape, each.dtype) == same
    }


def _sheets(
    batch: SaliencyBatch,
    attribution: captions.Explanation,
    style: Style,
    layout: FigureLayout,
    before: Mapping[str, Tensor],
) -> list[Sheet]:
    """The columns of the figure in two dimensions."""
    headings = [_heading(name, attribution) for name in attribution.maps]
    maps, beside, size = dict(attribution.maps), second_images(batch), layout.work
    if batch.kind == "image":  # nothing is drawn at a size that nobody sees, or on the device
        maps, before = _shrunk(maps, size), _shrunk(before, size)
    if style.scale != "own":
        maps = {name: _raw(each, attribution.peaks[name]) for name, each in maps.items()}
    if batch.kind == "image":
        shown = {name: to_display(each, style.normalize, size) for name, each in beside.items()}
        images, predicted = to_display(batch.images, style.normalize, size), attribution.predicted_boxes
        regions = Regions(
            _region(batch.masks, size),
            _scaled(batch.boxes, batch.images, size),
            _region(batch.suspect_masks, size),
            _scaled([*predicted], batch.images, size) if predicted is not None else None,
        )
        return flat_sheets(images, maps, regions, layout, headings, before, shown)
    form, objects = _form(batch, layout.panels), batch.object_masks
    shared: dict[str, Any] = {"normalize": style.normalize, "before": before, "beside": beside}
    if isinstance(form, CurveForm):
        regions = Regions(objects, suspect=batch.suspect)
        return curve_sheets(form, batch.images, maps, regions, headings, **shared)
    regions, width = Regions(batch.masks, batch.boxes, batch.suspect), layout.line_width
    return plane_sheets(
        form, batch.images, maps, regions, headings, objects=objects, line_width=width, **shared
    )


def _shrunk(maps: Mapping[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
    """The maps at the size they are shown, on the CPU: nothing is drawn at one that nobody sees, or on the device."""
    return {name: shrink_saliency(each, *size) for name, each in maps.items()}


def _region(masks: Tensor | None, size: tuple[int, int]) -> Tensor | None:
    """The masks of a region `(N, h, w)`, on the CPU."""
    return None if masks is None else shrink_maps(masks, *size).cpu()


def _scaled(
    boxes: Sequence[Tensor] | None, images: Tensor, shown: tuple[int, int]
) -> Sequence[Tensor] | None:
    """The boxes in pixels of the shrunk image, on the CPU; they are copied at once."""
    if not boxes:
        return boxes
    scale = torch.tensor([shown[1] / images.shape[3], shown[0] / images.shape[2]] * 2)
    together = torch.cat([each.detach() for each in boxes]).cpu() * scale
    return list(torch.split(together, [len(each) for each in boxes]))


def title_of(when: str, batch: SaliencyBatch, attribution: captions.Explanation, style: Style) -> str:
    """The line above a picture: when, the layer, what the maps explain, which channels are shown."""
    explained = captions.explained(batch, attribution, style.class_names)
    return _joined(when, f"layer {attribution.target_layer}", explained, _shown_channels(batch))


def _shown_channels(batch: SaliencyBatch) -> str | None:
    return shown_channels(batch.images.shape[1], batch.kind == "signal")


def _joined(*parts: str | None) -> str:
    return " · ".join(part for part in parts if part)


class Edit(NamedTuple):
    """A sample with one property of a donor.

    Args:
        name: of the property.
        image: `(C, H, W)`.
        donor: its row in the batch.
        prediction: the class `()` or the marks `(K,)`; None where the logits are not finite.
    """

    name: str
    image: Tensor
    donor: int
    prediction: Tensor | None


class Rate(Protocol):
    """A share with the number of samples that it is of."""

    @property
    def value(self) -> float:
        """The share."""

    @property
    def n(self) -> int:
        """The number of samples."""


@dataclass(frozen=True)
class ExchangedSample:
    """One sample with the properties that it borrows of donors.

    Args:
        row: of the sample in its batch.
        labels: `(N,)` classes or `(N, K)` marks, of the batch.
        edits: one a property.
        rates: how often predictions follow, over all samples: `<property>_follow_rate`, its chance and its control.
    """

    row: int
    labels: Tensor
    edits: Sequence[Edit]
    rates: Mapping[str, Rate]


def draw_exchanges(
    exchanged: ExchangedSample,
    batch: SaliencyBatch,
    attribution: captions.Explanation,
    style: Style,
    *,
    when: str = "",
) -> npt.NDArray[np.uint8]:
    """Draw a sample, its donor, and the sample with each property of the donor, with what is predicted for it.

    Properties with another donor, of a sample without a mask perhaps, stand behind that.

    Args:
        exchanged: the sample.
        batch: all samples.
        attribution: their maps and logits.
        style: how they are drawn.
        when: what the title begins with.

    Returns:
        `(height, width, 3)`, uint8.
    """
    names, row, labels = style.class_names, exchanged.row, exchanged.labels
    panels = [(batch.images[row], PanelTexts("image", note=f"true {_named(labels[row], names)}"))]
    for donor in dict.fromkeys(each.donor for each in exchanged.edits):
        panels.append((batch.images[donor], PanelTexts("donor", note=f"true {_named(labels[donor], names)}")))
        edits = (each for each in exchanged.edits if each.donor == donor)
        panels += [(each.image, _edited(exchanged, each, names)) for each in edits]
    return render_row(
        _on_one_scale([image for image, _ in panels], row, batch, style.normalize),
        [texts for _, texts in panels],
        title=_joined(when, "what the prediction follows", _shown_channels(batch)),
        caption=captions.captions(batch, attribution, names)[row],
        correct=captions.correct(batch, attribution, names)[row],
        legend=_exchange_legend(exchanged),
    )


def _on_one_scale(
    images: Sequence[Tensor], row: int, batch: SaliencyBatch, normalize: Normalize | None
) -> Tensor:
    """Versions `(C, *S)` of a sample as pictures `(M, 3, h, w)`: of volumes and videos the slice with most object."""
    if batch.kind == "signal":
        channels = min(batch.images.shape[1], MOST_CHANNELS)
        form = CurveForm(batch.image_size[0], channels, width=256, has_band=False)
        return draw_curves(form, torch.stack(list(images)), Regions(), normalize, on_one_scale=True)[0]
    if batch.kind != "image":
        masks, number = batch.object_masks, batch.image_size[0] // 2
        if masks is not None and bool(masks[row].any()):
            number = int(masks[row].flatten(1).sum(dim=1).argmax())
        return lay_slices(images, number, is_video=batch.kind == "video", normalize=normalize)
    # side by side in one image, so that all of them are shown on one scale
    height, width = batch.image_size
    size = plan_row(len(images), height, width, details=0, parts=1).work
    small = [shrink_images(image[None], *size).cpu() for image in images]
    whole = to_display(torch.cat(small, dim=3), normalize)
    return torch.cat(whole.chunk(len(images), dim=3))


def _edited(exchanged: ExchangedSample, edit: Edit, class_names: captions.ClassNames) -> PanelTexts:
    """The words around a sample with one property of its donor."""
    found = [[(word, exchanged.rates.get(f"{edit.name}{kind}")) for word, kind in line] for line in _RATES]
    lines = (
        ", ".join(f"{word} {rate.value:.2f}" for word, rate in line if rate is not None) for line in found
    )
    own, theirs = exchanged.labels[exchanged.row], exchanged.labels[edit.donor]
    outcome = _outcome(edit.prediction, own, theirs, class_names)
    return PanelTexts(edit.name.replace("_", " "), [line for line in lines if line], *outcome)


def _outcome(
    guess: Tensor | None, own: Tensor, theirs: Tensor, class_names: captions.ClassNames
) -> tuple[str, bool]:
    """Whose class the prediction for an edited sample is, in words, and whether it is the donor's.

    Where a sample may be of several classes, the labels in which it differs from its donor are counted.
    """
    if guess is None:
        return "not finite", False
    predicted, differs = _named(guess, class_names), own != theirs
    followed, count = int((guess == theirs)[differs].sum()), int(differs.sum())
    if followed == count:
        return f"follows: {predicted}", True
    if bool((guess == own)[differs].all()):
        return f"stays: {predicted}", False
    return (f"follows {followed} of {count}: {predicted}" if guess.ndim else f"other: {predicted}"), False


def _named(label: Tensor, names: captions.ClassNames) -> str:
    """The name of a class, or those of all marked ones."""
    numbers = label.nonzero()[:, 0].tolist() if label.ndim else [int(label)]
    known = len(names) if names is not None else 0
    return (
        ", ".join(names[each] if names is not None and each < known else str(each) for each in numbers)
        or "none"
    )


_RATES = (("follows", RATE), ("chance", CHANCE)), (("control", SAME_CLASS_RATE),)
"""The lines above a panel: words, and what their numbers are named behind the property."""


def _exchange_legend(exchanged: ExchangedSample) -> list[str]:
    """What the words above and below the panels mean."""
    legend = ["stays: the image's own class is predicted", "» follows: the donor's class is predicted"]
    rates = (exchanged.rates.get(f"{each.name}{RATE}") for each in exchanged.edits)
    if counts := sorted({each.n for each in rates if each is not None}):
        of = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else counts[0]
        legend.append(f"rates: of {of} samples; chance: before the edit")
    if any(f"{each.name}{SAME_CLASS_RATE}" in exchanged.rates for each in exchanged.edits):
        legend.append("control: with a donor of the image's own class")
    return legend


def _raw(maps: Tensor, peaks: Tensor) -> Tensor:
    """The maps before they were scaled."""
    return maps * peaks.float().nan_to_num(0, 0, 0).to(maps.device).view(-1, *[1] * (maps.ndim - 1))


def _highest(name: str, attribution: captions.Explanation) -> float:
    """The highest raw peak of all samples; 0 where every map is blank."""
    return float(attribution.peaks[name].float().nan_to_num(0, 0, 0).max())


def _comparable(earlier: Earlier, attribution: captions.Explanation) -> dict[str, Tensor]:
    """The earlier maps of the same samples."""
    now = attribution.maps
    return {
        name: maps for name, maps in earlier.maps.items() if name in now and maps.shape == now[name].shape
    }


def _heading(name: str, attribution: captions.Explanation) -> str:
    """A map's name above its column: "grad cam · layer2_1" for "grad_cam@layer2_1"."""
    source = attribution.source_of(name)
    at_layer = "" if name == source.method else f" · {source.layer}"
    return source.method.replace("_", " ") + at_layer


def _notes(
    name: str, attribution: captions.Explanation, top: float, scale: Scale, kind: str | None
) -> list[str]:
    """Each map's raw peak, that of the brightest where they share a scale, and where it is in a signal."""
    peaks = attribution.peaks[name].tolist()
    notes = [
        _note(peak, top if scale != "own" else None) if np.isfinite(peak) else "not finite" for peak in peaks
    ]
    if kind != "signal":
        return notes
    places = attribution.maps[name].detach().nan_to_num(0, 0, 0).argmax(dim=1).tolist()
    return [
        f"{note} at {place}" if peak else note for note, place, peak in zip(notes, places, peaks, strict=True)
    ]


def _note(peak: float, top: float | None) -> str:
    """Short enough to stand below a panel of 128 pixels."""
    if top is None:
        return f"peak {_number(peak)}"
    text = f"{_number(peak)} of {_number(top)}"
    return f"peak {text}" if len(text) <= _LONGEST else text


_LONGEST = 14


def _number(value: float) -> str:
    """Two digits: 0.32, 2.8e-4, 1.2e3."""
    text = f"{value:.2g}" if value == 0 or abs(value) >= 1e-3 else f"{value:.1e}"
    return text.replace("e-0", "e-").replace("e+0", "e")
