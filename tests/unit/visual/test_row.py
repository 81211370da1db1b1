"""One row of pictures with words: where they stand, what marks one, and what is refused."""

import itertools

import numpy as np
import pytest
import torch

from lightning_gcam.visual import PanelTexts, grid, render_row
from lightning_gcam.visual.layout import plan_row

SIZES = [(8, 8), (28, 28), (224, 224), (512, 512), (32, 96), (512, 8), (1, 300)]


def pictures(count=3, height=28, width=28):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def texts(*notes, details=("follows 0.94, chance 0.02",), marked=()):
    return [PanelTexts(f"name {n}", details, note, n in marked) for n, note in enumerate(notes)]


def cut(figure, box):
    left, top, right, bottom = box
    return figure[top:bottom, left:right]


def boxes_where_it_differs(layout, one, other):
    """The names of the parts of the layout in which two figures differ; "elsewhere" for any other pixel."""
    places, differing = named_boxes(layout), (one != other).any(-1)
    found = [name for name, box in places.items() if cut(differing, box).any()]
    for left, top, right, bottom in places.values():
        differing[top:bottom, left:right] = False
    return [*found, *(["elsewhere"] if differing.any() else [])]


def named_boxes(layout):
    lines = itertools.product(range(layout.panels), range(layout.heading_lines))
    panels = range(layout.panels)
    return {
        "title": layout.title_box(),
        "caption": layout.caption_box(0),
        **{f"heading {panel}.{line}": layout.detail_box(panel, line) for panel, line in lines},
        **{f"panel {panel}": layout.panel_box(0, panel) for panel in panels},
        **{f"note {panel}": layout.note_box(0, panel) for panel in panels},
        **{f"legend {number}": box for number, box in enumerate(layout.footer_boxes())},
    }


def overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("panels", [1, 3, 7, 11])
@pytest.mark.parametrize(("details", "parts"), [(0, 1), (1, 3), (2, 4)])
def test_nothing_overlaps_or_leaves_the_page(panels, size, details, parts):
    layout = plan_row(panels, *size, details, parts)
    everything = named_boxes(layout).values()
    for left, top, right, bottom in everything:
        assert 0 <= left < right <= layout.width and 0 <= top < bottom <= layout.height
    assert not any(overlap(a, b) for a, b in itertools.combinations(everything, 2))
    assert len(layout.footer_boxes()) == parts


def test_panels_are_the_pictures_enlarged():
    layout, images = plan_row(3, 28, 28, 1, 1), pictures()
    figure = render_row(images, texts("a", "b", "c"))
    assert figure.shape == (layout.height, layout.width, 3) and figure.dtype == np.uint8
    for panel in range(3):
        shown = cut(figure, layout.panel_box(0, panel))
        small = shown[:: layout.factors[0], :: layout.factors[1]]
        assert (small == images[panel].permute(1, 2, 0).numpy()).all()


@pytest.mark.parametrize("size", [(28, 28), (512, 8)])
def test_every_word_stays_in_its_own_area_however_long(size):
    layout, images, long = plan_row(3, *size, 1, 2), pictures(3, *size), "a very long name of a class " * 20

    usual = texts("a", "b", "c")

    def drawn(words=usual, **given):
        return render_row(images, words, **{"title": "t", "caption": "c", "legend": ["one", "two"], **given})

    def differing(*args, **given):
        return boxes_where_it_differs(layout, drawn(), drawn(*args, **given))

    assert differing(texts("a", long, "c")) == ["note 1"]
    assert differing([texts("a")[0], PanelTexts(long, (long,), "b"), texts("a", "b", "c")[2]]) == [
        "heading 1.0",
        "heading 1.1",
    ]
    assert differing(title=long) == ["title"]
    assert differing(caption=long) == ["caption"]
    assert differing(legend=["one", long]) == ["legend 1"]


def test_two_rates_are_not_shortened_in_the_narrowest_cell():
    from lightning_gcam.visual.drawing import fit, load_font

    layout = plan_row(30, 28, 28, 1, 1)
    words = "follows 0.94, chance 0.02"
    assert fit(words, load_font(layout.note_size), layout.cell) == words


def test_a_mark_is_a_frame_around_the_picture_and_a_sign_before_the_note():
    layout, images = plan_row(3, 28, 28, 1, 1), pictures()
    plain, marked = (render_row(images, texts("a", "b", "c", marked=which)) for which in ((), (1,)))
    assert boxes_where_it_differs(layout, plain, marked) == ["note 1", "elsewhere"]
    left, top, right, bottom = layout.panel_box(0, 1)
    frame = marked[top - 2 : bottom + 2, left - 2 : right + 2].copy()
    assert (frame[2:-2, 2:-2] == cut(plain, (left, top, right, bottom))).all(), (
        "nothing of the picture is hidden"
    )
    frame[2:-2, 2:-2] = grid.WRONG
    assert (frame == grid.WRONG).all()
    dark = [(cut(each, layout.note_box(0, 1)).max(-1) > 90).sum() for each in (plain, marked)]
    assert dark[1] > dark[0] + 10, "there is a sign more"


def test_a_row_without_details_is_lower():
    assert len(render_row(pictures(), texts("", "", "", details=()))) < len(
        render_row(pictures(), texts("", "", ""))
    )


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ((torch.zeros(3, 3, 8, 8), texts("a", "b", "c")), r"`images` must be uint8 .*to_display"),
        ((pictures(), texts("a")), r"`texts` must have one entry for each picture, 3, but it has 1"),
        ((pictures(0), []), r"`images` is empty"),
    ],
)
def test_refusals(given, match):
    with pytest.raises(ValueError, match=match):
        render_row(*given)
