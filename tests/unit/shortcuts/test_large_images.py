"""What changing images costs: no step grows faster than the pixels, and only the images that are asked for are made."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import max_pool2d

from lightning_gcam import SaliencyBatch
from lightning_gcam.pipeline.model_outputs import logits_for_versions
from lightning_gcam.shortcuts import Exchanges, available_properties, changed_images
from lightning_gcam.shortcuts.checks import image_changes
from lightning_gcam.shortcuts.regions import with_rim
from lightning_gcam.shortcuts.removal import boxes_of, remove_regions


def batch_of(n: int = 6, size: int = 24) -> tuple[SaliencyBatch, Tensor]:
    """Samples of two classes and one of none, with objects and suspect regions at places of their own."""
    generator = torch.Generator().manual_seed(7)
    images = torch.rand(n, 3, size, size, generator=generator)
    masks, suspect = (torch.zeros(n, size, size, dtype=torch.bool) for _ in range(2))
    for row in range(n):
        masks[row, 8 + row : 14 + row, 3 + row : 8 + row] = True
        suspect[row, : 2 + row, 17:] = True
    labels = torch.tensor([row % 2 for row in range(n - 1)] + [-1])
    return SaliencyBatch(images, labels, masks, suspect=suspect), torch.rand(
        n, size, size, generator=generator
    )


# ------------------------------------------------------------------------------------------------ the rim


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 150), st.integers(1, 150), st.integers(0, 10**6), st.sampled_from([0.001, 0.05, 0.5]))
def test_the_rim_is_a_maximum_over_a_square(height: int, width: int, seed: int, share: float) -> None:
    masks = torch.rand(2, height, width, generator=torch.Generator().manual_seed(seed)) < share
    radius = max(round(min(height, width) / 64), 1)
    expected = max_pool2d(masks[:, None].float(), 2 * radius + 1, stride=1, padding=radius)[:, 0] > 0
    assert torch.equal(with_rim(masks), expected)


def processor_time(work: Callable[[], object]) -> float:
    """The least of three."""
    taken = []
    for _ in range(3):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return min(taken)


def test_the_rim_of_a_large_mask_costs_no_more_than_a_few_passes_over_it() -> None:
    """A maximum over the window took ninety times as long as the passes here."""
    masks = torch.zeros(1, 1024, 1024, dtype=torch.bool)
    masks[:, 300:600, 200:500] = True
    a_pass = processor_time(lambda: max_pool2d(masks.float(), 3, stride=1, padding=1))
    assert processor_time(lambda: with_rim(masks)) < 10 * a_pass


# ------------------------------------------------------------------------------------------------ the blur


def blurred(image: Tensor, region: Tensor) -> Tensor:
    """By the formula: the mean of all pixels outside, weighted by a Gaussian of a quarter of the longer side."""
    left, top, right, bottom = boxes_of(region[None])[0].tolist()
    sigma = max(max(right - left, bottom - top) / 4, 1)
    down, across = (
        torch.exp(-0.5 * ((torch.arange(n)[:, None] - torch.arange(n)[None]).double() / sigma) ** 2)
        for n in region.shape
    )
    outside = (~region).double()
    return (down @ (image.double() * outside) @ across) / (down @ outside @ across)


@pytest.mark.parametrize(
    ("size", "box"),
    [((40, 56), (10, 30, 20, 33)), ((331, 420), (20, 320, 30, 390)), ((333, 290), (0, 300, 5, 290))],
)
def test_a_wide_blur_over_small_cells_is_the_blur_over_pixels(
    size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    image = torch.rand(2, *size, generator=torch.Generator().manual_seed(1))
    image += torch.linspace(0, 3, size[1])  # what is on one side is not what is on the other
    region = torch.zeros(size, dtype=torch.bool)
    region[box[0] : box[1], box[2] : box[3]] = True
    made = remove_regions(image[None], region[None], "blur")[0]
    expected = torch.where(region, blurred(image, region), image.double())
    assert float((made - expected).abs().max()) < 4e-3  # a thousandth of the values' range


# ------------------------------------------------------------------------------------------------ piece by piece


@pytest.mark.parametrize("removal", ["neighbours", "blur", "mean", lambda images, regions: images.flip(3)])
@pytest.mark.parametrize("rows", [[4], [5, 0, 2], [0, 1, 2, 3, 4, 5]])
def test_some_of_the_changed_images_are_those_of_the_whole(rows: list[int], removal: object) -> None:
    batch, maps = batch_of()
    exchanges = Exchanges.of(batch, available_properties(), maps, removal)  # type: ignore[arg-type]
    makers = {**image_changes(batch, maps, removal=removal), **exchanges.versions()}  # type: ignore[arg-type, union-attr]
    whole = {name: make(torch.arange(len(batch))) for name, make in makers.items()}
    assert len(whole) == 4 + 3 * 8  # an object is exchanged with its background
    for name, make in makers.items():
        torch.testing.assert_close(make(torch.tensor(rows)), whole[name][rows], msg=name)


def test_where_memory_runs_out_fewer_images_are_made_at_once() -> None:
    batch, maps = batch_of()
    made: list[int] = []

    def scarce(images: Tensor, regions: Tensor) -> Tensor:
        if len(images) > 2:
            raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")
        made.append(len(images))
        return torch.zeros_like(images)

    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 24 * 24, 2))
    changes = image_changes(batch, maps, removal=scarce)
    answers, size = logits_for_versions(network, batch, changes, chunk_size=6)
    assert size <= 2
    assert max(made) <= 2
    whole = changed_images(batch, maps, removal=lambda images, regions: torch.zeros_like(images))
    for name, images in whole.items():
        torch.testing.assert_close(answers.logits[name], network(images).detach())
    some, _ = logits_for_versions(network, batch, changes, rows=[3, 1], chunk_size=2)
    for name, logits in some.logits.items():
        torch.testing.assert_close(logits, answers.logits[name][[3, 1]])
