"""A picture is made at the size that is seen: nothing of the images' own size is computed, and nothing copied twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_gcam import Attribution, SaliencyBatch
from lightning_gcam.pipeline.rendering import Earlier, Style, draw, layout_of
from lightning_gcam.visual import render_grid, to_display
from lightning_gcam.visual.layout import plan

SIDE, SAMPLES = 2048, 2
VIEWS = ("detach", "slice", "expand", "select", "view", "unsqueeze", "split", "alias", "unbind", "permute")


class Sizes(TorchDispatchMode):
    """The elements of the largest tensor that any operation made, views of what was there left out."""

    def __init__(self) -> None:
        super().__init__()
        self.largest, self.by = 0, ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name not in VIEWS:
            for each in found if isinstance(found, (tuple, list)) else [found]:
                if isinstance(each, Tensor) and each.numel() > self.largest:
                    self.largest, self.by = each.numel(), name
        return found


def look(side: int = SIDE, samples: int = SAMPLES) -> tuple[SaliencyBatch, Attribution]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(samples, dtype=torch.long)
    maps = torch.rand(samples, side, side, generator=generator)
    masks = torch.zeros(samples, side, side, dtype=torch.bool)
    masks[:, side // 4 : side // 2, side // 4 : side // 2] = True
    suspect = torch.zeros(side, side, dtype=torch.bool)
    suspect[-side // 5 :, -side // 5 :] = True
    boxes = [torch.tensor([[1.0, 2.0, side / 3, side / 2]])] * samples
    batch = SaliencyBatch(torch.rand(samples, 3, side, side, generator=generator), labels, masks, boxes)
    batch = replace(batch, suspect=suspect)
    peaks = {"grad_cam": torch.ones(samples)}
    return batch, Attribution({"grad_cam": maps}, torch.zeros(samples, 2), labels, "layer", peaks, False)


STYLES = [Style(), Style(scale="shared", show_change=True), Style(normalize=(0.5, 0.25))]


@pytest.mark.parametrize("style", STYLES, ids=["own", "shared, with changes", "normalized"])
def test_no_tensor_of_the_images_own_size_is_made(style: Style) -> None:
    batch, attribution = look()
    earlier = Earlier(1, {"grad_cam": attribution.maps["grad_cam"].flip(0)})
    with Sizes() as sizes:
        draw(batch, attribution, style, earlier=earlier)
    # one dimension is shrunk after the other: that of the columns is still there in between
    one_shrunk = SAMPLES * SIDE * layout_of(batch, attribution, style).work[0]
    assert sizes.largest <= one_shrunk < SAMPLES * SIDE * SIDE / 9, sizes.by


def test_nothing_grows_faster_than_one_side_of_the_images() -> None:
    largest: list[int] = []
    for side in (512, 1024, 2048):
        batch, attribution = look(side)
        with Sizes() as sizes:
            draw(batch, attribution, Style())
        largest.append(sizes.largest)
    assert largest[2] <= 2 * largest[1] <= 4 * largest[0]


def copies(call: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    taken: list[tuple[int, ...]] = []
    cpu = torch.Tensor.cpu

    def counted(self: Tensor) -> Tensor:
        taken.append(tuple(self.shape))
        return cpu(self)

    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "cpu", counted)
        call()
    return taken


def test_each_tensor_is_copied_once_at_the_size_that_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a copy is taken again behind that, it is of what is on the CPU already, of the same size."""
    batch, attribution = look(512)
    size = layout_of(batch, attribution, Style()).work
    first = {(SAMPLES, 3, *size), (SAMPLES, *size), size, (1, *size), (SAMPLES, 4)}
    assert set(copies(lambda: draw(batch, attribution, Style()), monkeypatch)) <= first


def test_the_layout_of_what_was_shrunk_is_the_layout_of_the_images() -> None:
    for samples, maps in ((1, 1), (4, 2), (16, 1), (32, 3), (64, 2)):
        for side in (1, 7, 31, 56, 112, 160, 183, 224, 256, 257, 300, 512, 4096):
            for other in (1, 20, 112, 224, 300, 1000):
                layout = plan(samples, maps, side, other)
                assert plan(samples, maps, *layout.work) == layout


def test_a_look_of_large_images_is_the_picture_of_the_shrunk_ones() -> None:
    batch, attribution = look(512)
    layout = layout_of(batch, attribution, Style())
    shown = draw(batch, attribution, Style(), texts=["a", "b"])
    by_hand = render_grid(
        to_display(batch.images),
        attribution.maps,
        captions=["a", "b"],
        headings=["grad cam"],
        masks=batch.masks,
        boxes=batch.boxes,
        suspect=batch.suspect,
    )
    assert shown.shape == by_hand.shape
    for sample in range(SAMPLES):
        left, top, right, bottom = layout.panel_box(sample, 0)
        differs = np.abs(shown[top:bottom, left:right].astype(int) - by_hand[top:bottom, left:right])
        assert differs.max() <= 1, "rounding to whole numbers comes before the shrinking here, after it there"


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_pixels_that_are_not_finite_are_left_out_of_what_is_shown(bad: float) -> None:
    """A speckle in each cell that is shown, as where a satellite has no data, does not blacken the picture."""
    images = torch.full((1, 1, 512, 512), 0.6)
    images[:, :, ::4, ::4] = bad
    assert to_display(images, size=(128, 128)).unique().tolist() == [153]
    assert to_display(torch.full_like(images, bad), size=(128, 128)).unique().tolist() == [0]


def test_shrinking_first_shows_the_same_picture_of_any_kind_of_image() -> None:
    generator = torch.Generator().manual_seed(1)
    smooth = torch.nn.functional.interpolate(torch.rand(2, 5, 8, 8, generator=generator), 300, mode="bicubic")
    for images, normalize in (
        (smooth[:, :3].clamp(0, 1), None),
        (smooth.clamp(0, 1), ((0.5,) * 5, (0.25,) * 5)),
        (smooth[:, :1].clamp(0, 1), None),
        (smooth[:, :3].clamp(0, 1).mul(255).to(torch.uint8), None),
    ):
        first, last = (
            to_display(images, normalize, (75, 75)),
            to_display(to_display(images, normalize), size=(75, 75)),
        )
        assert first.shape == last.shape == (2, 3, 75, 75)
        assert (first.int() - last.int()).abs().max() <= 2
