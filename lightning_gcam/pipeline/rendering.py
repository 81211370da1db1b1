"""`draw()`: a batch and its maps as one picture, for a record's overlay and for `Attribution.show()` alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import Tensor

from lightning_gcam.data import SaliencyBatch
from lightning_gcam.pipeline import captions
from lightning_gcam.visual import Normalize, render_grid, shown_channels, to_display
from lightning_gcam.visual.images import Scale


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
    earlier = earlier or Earlier()
    names, maps = list(attribution.maps), dict(attribution.maps)
    if style.scale != "own":
        maps = {name: _raw(name, attribution) for name in names}
    before = earlier.tops if style.scale == "run" else {}
    tops = {name: max(_highest(name, attribution), before.get(name, 0.0)) for name in names}
    return render_grid(
        to_display(batch.images, style.normalize),
        maps,
        captions=texts if texts is not None else captions.captions(batch, attribution, style.class_names),
        correct=captions.correct(batch, attribution, style.class_names),
        headings=[_heading(name, attribution) for name in names],
        notes={name: _notes(name, attribution, tops[name], style.scale) for name in names},
        masks=batch.masks,
        boxes=batch.boxes,
        suspect=batch.suspect,
        title=title_of(when, batch, attribution, style),
        scale=style.scale,
        tops=tops,
        before=_comparable(earlier, attribution) if style.show_change else None,
        since=f"at step {earlier.step}" if earlier.step is not None else "at the look before",
    )


def title_of(when: str, batch: SaliencyBatch, attribution: captions.Explanation, style: Style) -> str:
    """The line above a picture: when, the layer, what the maps explain, which channels are shown."""
    explained = captions.explained(batch, attribution, style.class_names)
    parts = [when, f"layer {attribution.target_layer}", explained, shown_channels(batch.images.shape[1])]
    return " · ".join(part for part in parts if part)


def _raw(name: str, attribution: captions.Explanation) -> Tensor:
    """The map before it was scaled."""
    peaks = attribution.peaks[name].float().nan_to_num(0, 0, 0)
    return attribution.maps[name] * peaks.to(attribution.maps[name].device)[:, None, None]


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


def _notes(name: str, attribution: captions.Explanation, top: float, scale: Scale) -> list[str]:
    """Each map's raw peak, and that of the brightest where they share a scale."""
    peaks = attribution.peaks[name].tolist()
    return [
        _note(peak, top if scale != "own" else None) if np.isfinite(peak) else "not finite" for peak in peaks
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
