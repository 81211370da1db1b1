"""Everything has its place, nothing overlaps, and the figure has a screen's proportions."""

import itertools

import pytest

from lightning_gcam.visual.layout import plan

SIZES = [
    (8, 8),
    (28, 28),
    (48, 48),
    (100, 100),
    (224, 224),
    (256, 256),
    (512, 512),
    (32, 96),
    (512, 8),
    (1, 300),
]


def boxes(layout):
    yield layout.title_box()
    yield from layout.footer_boxes()
    for block, panel in itertools.product(range(layout.blocks), range(layout.panels)):
        yield layout.heading_box(block, panel)
    for sample in range(layout.samples):
        yield layout.caption_box(sample)
        for panel in range(layout.panels):
            yield layout.panel_box(sample, panel)
            yield layout.note_box(sample, panel)


def overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@pytest.mark.parametrize("bars", [1, 2])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("samples", "maps"), [(1, 1), (2, 6), (5, 2), (16, 1)])
def test_nothing_overlaps_or_leaves_the_page(samples, maps, size, bars):
    layout = plan(samples, maps, *size, bars=bars)
    assert len(layout.footer_boxes()) == bars + 1
    everything = list(boxes(layout))
    for left, top, right, bottom in everything:
        assert 0 <= left < right <= layout.width and 0 <= top < bottom <= layout.height
    assert not any(overlap(a, b) for a, b in itertools.combinations(everything, 2))


@pytest.mark.parametrize("size", [s for s in SIZES if max(s) <= 224 and min(s) > 8])
@pytest.mark.parametrize("samples", [1, 4, 16, 32])
@pytest.mark.parametrize("maps", [1, 3, 6])
def test_panels_are_large_enough_and_not_too_large(samples, maps, size):
    layout = plan(samples, maps, *size)
    assert 112 <= max(layout.panel) <= 256
    assert min(layout.caption_size, layout.note_size, layout.title_size) >= 11


def test_small_images_are_enlarged_by_a_whole_factor_and_large_ones_shrunk():
    for side in (8, 28, 48, 64):
        layout = plan(16, 1, side, side)
        assert layout.work == (side, side) and layout.panel[0] == side * layout.factors[0]
    assert plan(16, 1, 512, 512).panel == (224, 224)
    assert plan(16, 1, 512, 256).panel == (224, 112)
    assert plan(16, 1, 224, 224).panel == (224, 224)


@pytest.mark.parametrize("size", [(28, 28), (48, 48), (224, 224), (512, 512)])
@pytest.mark.parametrize(("samples", "maps"), [(16, 1), (16, 2), (9, 1), (12, 1), (32, 1), (32, 2)])
def test_proportions_of_a_screen(samples, maps, size):
    layout = plan(samples, maps, *size)
    # 4:3 to 16:9 where cards of this size can be put together so, and else what comes nearest
    assert 1.2 <= layout.width / layout.height <= 2.25


@pytest.mark.parametrize(
    ("size", "work", "panel"),
    [
        ((60, 1), (60, 1), (180, 32)),
        ((1, 60), (1, 60), (32, 180)),
        ((1, 1), (1, 1), (128, 128)),
        ((4096, 1), (224, 1), (224, 32)),
        ((2000, 12), (224, 12), (224, 36)),
        ((500, 40), (224, 32), (224, 32)),
        ((224, 20), (224, 20), (224, 40)),
        ((512, 256), (224, 112), (224, 112)),
    ],
)
def test_a_thin_image_is_stretched_by_a_whole_factor_for_each_side(size, work, panel):
    layout = plan(16, 1, *size)
    assert (layout.work, layout.panel) == (work, panel)
    assert layout.panel == tuple(side * factor for side, factor in zip(work, layout.factors, strict=True))
