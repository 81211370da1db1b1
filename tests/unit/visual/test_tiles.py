"""What is cut out of the figure is what was drawn there."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from lightning_gcam.utils.errors import InputError
from lightning_gcam.visual import render_grid
from lightning_gcam.visual.layout import cut_panels, cut_samples, plan


def figure(n: int = 3) -> npt.NDArray[np.uint8]:
    """Each sample has a grey of its own."""
    images = torch.stack([torch.full((3, 28, 28), 60 * (each + 1), dtype=torch.uint8) for each in range(n)])
    generator = torch.Generator().manual_seed(0)
    maps = {name: torch.rand(n, 28, 28, generator=generator) for name in ("a", "b")}
    return render_grid(images, maps, captions=[f"sample {each}" for each in range(n)])


def test_each_sample_has_its_own_card_with_the_headings_of_its_columns() -> None:
    drawn, layout = figure(), plan(3, 2, 28, 28)

    cards = cut_samples(drawn, layout)

    assert len({card.shape for card in cards}) == 1
    for index, card in enumerate(cards):
        left, top, right, bottom = layout.card_box(index)
        height = card.shape[0] - (bottom - top)
        assert np.array_equal(card[height:], drawn[top:bottom, left:right])
        _, above, _, below = layout.heading_box(index % layout.blocks, 0)
        assert np.array_equal(card[:height], drawn[above:below, left:right])
        assert len(np.unique(card[:height])) > 3, "words, no empty strip"


def test_panels_are_the_image_and_each_map() -> None:
    panels = cut_panels(figure(), plan(3, 2, 28, 28))

    assert [len(row) for row in panels] == [3, 3, 3]
    assert [int(row[0].mean()) for row in panels] == [60, 120, 180]
    assert not np.array_equal(panels[0][1], panels[0][2])


@pytest.mark.parametrize("cut", [cut_samples, cut_panels])
def test_another_layout_is_refused(cut: object) -> None:
    with pytest.raises(InputError, match="`layout` is of a figure of .* x .* pixels, but `figure` has"):
        cut(figure(), plan(3, 1, 28, 28))  # type: ignore[operator]
