"""The picture of a look at signals, volumes and videos: whole, sample by sample, with changes, pairs and exchanges."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from lightning_gcam import SaliencyBatch, SaliencyRecord
from lightning_gcam.pipeline.record import Stamp
from lightning_gcam.pipeline.rendering import Earlier
from lightning_gcam.pipeline.run import record_saliency
from lightning_gcam.utils.errors import InputError
from lightning_gcam.visual.layout import cut_panels
from tests.support.dimensions import CLASSES, boxes_of, network, signals, videos, volumes

KINDS = ["signal", "volume", "video"]
METHODS = ["layer_cam", "hires_cam"]


def batch_of(kind: str, n: int = 4, **options: Any) -> SaliencyBatch:
    make = {"signal": signals, "volume": volumes, "video": videos}[kind]
    images, labels, masks = make(n)
    return SaliencyBatch(images, labels % CLASSES, **{"masks": masks, **options})


def record_of(batch: SaliencyBatch, **options: Any) -> SaliencyRecord:
    torch.manual_seed(0)
    model = network(len(batch.image_size), batch.images.shape[1], CLASSES)
    options = {"checks": [], "scores": ["energy"], "stamp": Stamp(8, 2), **options}
    return record_saliency(model.eval(), batch, **options)


@cache
def record(kind: str) -> SaliencyRecord:
    return record_of(batch_of(kind), methods=METHODS)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_one_picture_of_the_size_of_its_layout_and_has_a_part_for_each_sample(kind: str) -> None:
    look = record(kind)
    assert look.batch.kind == kind and look.overlay.dtype == np.uint8
    assert look.overlay.shape == (look.layout.height, look.layout.width, 3)
    assert len(look.sample_overlays) == 4 and len({each.shape for each in look.sample_overlays.values()}) == 1
    assert np.array_equal(replace(look).overlay, look.overlay), "the same at every drawing"
    assert set(look.pictures) == {"saliency/overlay"}


@pytest.mark.parametrize("kind", KINDS)
def test_its_panels_do_not_overlap_and_lie_in_their_card(kind: str) -> None:
    layout = record(kind).layout
    for card, panels in zip(layout.boxes.cards, layout.boxes.panels, strict=True):
        for index, (left, top, right, bottom) in enumerate(panels):
            assert card[0] <= left < right <= card[2] and card[1] <= top < bottom <= card[3]
            for other in panels[:index]:
                assert other[2] <= left or right <= other[0] or other[3] <= top or bottom <= other[1]
    cards = layout.boxes.cards
    assert all(one[2] <= two[0] or one[3] <= two[1] or two[2] <= one[0] for one, two in pairwise(cards))


@pytest.mark.parametrize("kind", KINDS)
def test_each_method_shows_its_own_peak_in_the_brightest_colour(kind: str) -> None:
    look = record(kind)
    panels = cut_panels(look.overlay, look.layout)
    for sample in panels:
        red, green, blue = sample[look.layout.pictures].astype(int).transpose(2, 0, 1)
        assert ((red > 240) & (green > 240) & (blue < 215)).any()
    assert not np.array_equal(panels[0][-1], panels[0][-2]), "of two methods"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", ["own", "shared", "run"])
def test_what_came_and_what_went_has_a_panel_of_its_own(kind: str, scale: Any) -> None:
    look = record(kind)
    before = {"layer_cam": look.attribution.maps["layer_cam"].roll(look.batch.image_size[0] // 2, dims=1)}
    earlier = Earlier(4, before, {"layer_cam": 1.0})
    changed = replace(look, stamp=replace(look.stamp, show_change=True, scale=scale), earlier=earlier)
    assert changed.layout.panels == look.layout.panels + 2
    panels = cut_panels(changed.overlay, changed.layout)
    first = changed.layout.pictures

    # orange grows where saliency does: more red than blue; nothing of the kind at a first look
    def warm(panel: Any) -> bool:
        red, blue = panel[..., 0].astype(int), panel[..., 2].astype(int)
        return bool(((red - blue > 60) & (panel[..., 1] > 80)).any() and (blue - red > 60).any())

    assert all(warm(sample[first + 1]) for sample in panels)


@pytest.mark.parametrize("kind", KINDS)
def test_blank_maps_and_empty_masks_are_drawn(kind: str) -> None:
    look = record(kind)
    maps = {name: each.clone() for name, each in look.attribution.maps.items()}
    peaks = {name: each.clone() for name, each in look.attribution.peaks.items()}
    for name in maps:
        maps[name][0], peaks[name][0] = 0, 0
        maps[name][1], peaks[name][1] = torch.nan, torch.nan
    masks = torch.zeros_like(look.batch.masks)  # type: ignore[arg-type]
    blank = replace(
        look,
        batch=replace(look.batch, masks=masks),
        attribution=replace(look.attribution, maps=maps, peaks=peaks),
    )
    for sample in cut_panels(blank.overlay, blank.layout)[:2]:
        panel = sample[-1].astype(int)
        assert (panel[..., 0] - panel[..., 2]).max() < 60, "no heat"


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_are_drawn_where_there_are_no_masks(kind: str) -> None:
    batch = batch_of(kind)
    boxes = replace(batch, masks=None, boxes=boxes_of(batch.masks))  # type: ignore[arg-type]
    with_boxes, without = record_of(boxes).overlay, record_of(replace(batch, masks=None)).overlay
    cyan = [(each == [64, 232, 255]).all(axis=2).sum() for each in (with_boxes, without)]
    assert cyan[0] > 100 > cyan[1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_picture_of_a_pair_stands_beside_the_first(kind: str) -> None:
    batch = batch_of(kind, 3, masks=None)
    pair = replace(batch, inputs={"after": batch.images.flip(2), "age": torch.ones(3), "ids": ["a"] * 3})
    one = record_of(batch)
    two = replace(one, batch=pair)
    other = replace(one, batch=replace(batch, images=pair.inputs["after"]))  # type: ignore[index]
    assert two.layout.panels == one.layout.panels + 1 and two.layout.pictures == one.layout.pictures + 1
    own, after, both = (cut_panels(each.overlay, each.layout)[0] for each in (one, other, two))
    if kind == "signal":
        curve = slice(0, 70)
        assert np.array_equal(both[0][curve], after[0][curve]) and np.array_equal(both[1], own[0])
    else:
        assert np.array_equal(both[0], own[0]) and np.array_equal(both[1], after[0])


def test_a_pair_of_images_stands_side_by_side() -> None:
    images = torch.rand(2, 3, 16, 16)
    batch = SaliencyBatch(images, torch.tensor([0, 1]), inputs={"after": images.flip(3)})
    look = record_of(batch)
    before, after, _ = cut_panels(look.overlay, look.layout)[0]
    assert np.array_equal(before, after[:, ::-1])


@pytest.mark.parametrize("kind", KINDS)
def test_an_attribution_shows_the_same_picture(kind: str) -> None:
    look = record(kind)
    shown = look.attribution.show(look.batch).image
    below = look.layout.header
    assert np.array_equal(shown[below:], look.overlay[below:])
    with pytest.raises(InputError, match="`captions`"):
        look.attribution.show(look.batch, captions=["one"])


def test_the_title_names_the_channels_that_are_shown() -> None:
    images = torch.randn(2, 12, 187)
    look = record_of(SaliencyBatch(images, torch.tensor([0, 1])))
    assert look.title.endswith("channels 1-4 of 12")
    assert record("signal").title.endswith("maps of the true class")


def test_a_signal_says_where_its_peak_is() -> None:
    from lightning_gcam.pipeline.rendering import _notes

    look = record("signal")
    notes = _notes("layer_cam", look.attribution, 1.0, "own", "signal")
    places = look.attribution.maps["layer_cam"].argmax(dim=1).tolist()
    assert [int(note.rpartition(" ")[2]) for note in notes] == places


@pytest.mark.parametrize("kind", KINDS)
def test_an_exchange_is_drawn_by_a_slice_or_by_its_curve(kind: str) -> None:
    look = record_of(batch_of(kind, 6), checks=["border"])
    picture = look.exchange_figure().image
    assert picture.ndim == 3 and picture.shape[1] < 1200
    assert np.array_equal(picture, look.exchange_figure().image)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_images_of_any_kind_of_number(kind: str, dtype: torch.dtype) -> None:
    look = record(kind)
    images = (look.batch.images * 40 + 100).clamp(0, 255).to(dtype)
    shown = replace(look, batch=replace(look.batch, images=images)).overlay
    assert shown.shape == look.overlay.shape and shown.std() > 5
