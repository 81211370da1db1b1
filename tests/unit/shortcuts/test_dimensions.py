"""Signals, images, volumes and videos: regions, removal and exchanges in one to three dimensions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import pad

from lightning_gcam.data import SaliencyBatch
from lightning_gcam.shortcuts import Exchanges, changed_images, exchange_property, measure_reliance
from lightning_gcam.shortcuts.exchange import available_properties, check_sides
from lightning_gcam.shortcuts.regions import moved_at_random, region_around, salient_place, with_rim
from lightning_gcam.shortcuts.removal import boxes_of, exchange_regions, remove_regions
from lightning_gcam.utils.errors import InputError

REMOVALS = ("blur", "mean", "neighbours")
SIZES = {1: (40,), 2: (14, 18), 3: (10, 14, 18)}


def of_size(*size: int, n: int = 4, channels: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images and regions, each region a box at another place."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n, channels, *size, generator=generator)
    regions = torch.zeros(n, *size, dtype=torch.bool)
    for row, region in enumerate(regions):
        starts = [(row * 2) % (side // 2) for side in size]
        region[tuple(slice(start, start + side // 3) for start, side in zip(starts, size, strict=True))] = (
            True
        )
    return images, regions


def batch_of(*size: int, channels: int = 3) -> SaliencyBatch:
    images, masks = of_size(*size, channels=channels)
    suspect = torch.zeros(size, dtype=torch.bool)
    suspect[(-2 if len(size) > 2 else slice(-3, None),) + (slice(-3, None),) * (len(size) - 1)] = True
    return SaliencyBatch(images, torch.tensor([0, 1, 0, 1]), masks=masks, suspect=suspect)


# ------------------------------------------------------------------------------------------------- regions


def test_boxes_have_the_last_side_first():
    volume = torch.zeros(2, 3, 5, 7, dtype=torch.bool)
    volume[0, 1, 2:4, 3:7] = True
    assert boxes_of(volume).tolist() == [[3, 2, 1, 7, 4, 2], [0] * 6]
    assert boxes_of(volume[:, 1, 2]).tolist() == [[3, 7], [0, 0]]


def test_the_region_around_a_small_object_is_a_cube():
    mask = torch.zeros(1, 20, 20, 20, dtype=torch.bool)
    mask[0, 10, 9:11, 8:12] = True
    assert boxes_of(region_around(mask)).tolist() == [[7, 7, 7, 13, 13, 13]]


def test_the_region_around_an_interval_is_wider_at_both_ends():
    mask = torch.zeros(2, 40, dtype=torch.bool)
    mask[0, 10:18] = True
    mask[1, :8] = True  # moved to where there is room
    assert boxes_of(region_around(mask)).tolist() == [[9, 19], [0, 10]]


@pytest.mark.parametrize("sides", [1, 2, 3])
def test_the_rim_is_a_maximum_over_a_window(sides):
    _, masks = of_size(*SIZES[sides])
    around = torch.nn.functional.max_pool3d
    as_volume = masks.view(len(masks), *(1,) * (3 - sides), *SIZES[sides]).float()[:, None]
    window = (*(1,) * (3 - sides), *(3,) * sides)
    expected = around(as_volume, window, stride=1, padding=[each // 2 for each in window])[:, 0] > 0
    assert torch.equal(with_rim(masks), expected.view_as(masks))


@pytest.mark.parametrize("sides", [1, 2, 3])
def test_a_region_moved_at_random_meets_neither_the_object_nor_itself(sides):
    _, regions = of_size(*SIZES[sides], n=6)
    around = region_around(regions.flip(0))
    moved = moved_at_random(regions, around)
    assert not (moved & around).any()
    free = ~(moved & regions).flatten(1).any(dim=1)
    assert free.float().mean() > 0.5  # where there is room for it
    assert (moved.flatten(1).sum(dim=1) <= regions.flatten(1).sum(dim=1)).all()


def test_a_region_of_a_long_signal_is_moved_on_a_coarse_grid():
    region = torch.zeros(1, 160_000, dtype=torch.bool)
    region[0, 1_000:3_000] = True
    moved = moved_at_random(region, region_around(region))
    assert int(moved.sum()) == 2_000
    assert not (moved & region).any()


def test_the_salient_place_of_a_signal_lies_at_its_ends():
    maps = torch.zeros(3, 64)
    maps[:, 2:4], maps[:, 30] = 1.0, 9.0  # the middle half is left out
    assert salient_place(maps).nonzero()[:, 0].tolist() == [2, 3]


# ------------------------------------------------------------------------------------------------- removal


@pytest.mark.parametrize("removal", REMOVALS)
@pytest.mark.parametrize("sides", [1, 2, 3])
def test_nothing_of_the_region_is_left_and_nothing_else_changes(sides, removal):
    images, regions = of_size(*SIZES[sides])
    other = torch.where(regions[:, None], 100 * torch.randn_like(images), images)
    made = remove_regions(images, regions, removal)
    assert torch.equal(made, remove_regions(other, regions, removal))
    assert torch.equal(*(torch.where(regions[:, None], 0, each) for each in (made, images)))


@pytest.mark.parametrize("removal", REMOVALS)
@pytest.mark.parametrize("sides", [1, 2])
def test_a_further_side_of_one_changes_nothing(sides, removal):
    """A signal is an image of one row, and an image a volume of one slice."""
    images, regions = of_size(*SIZES[sides])
    expected = remove_regions(images, regions, removal)
    made = remove_regions(images[:, :, None], regions[:, None], removal)[:, :, 0]
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)


@given(axes=st.permutations([0, 1, 2]), removal=st.sampled_from(["blur", "mean"]), seed=st.integers(0, 2**16))
def test_the_order_of_the_sides_does_not_matter(axes, removal, seed):
    images, regions = of_size(6, 8, 9, n=2, channels=1, seed=seed)
    turned_images = images.permute(0, 1, *(axis + 2 for axis in axes))
    turned_regions = regions.permute(0, *(axis + 1 for axis in axes))
    expected = remove_regions(images, regions, removal).permute(0, 1, *(axis + 2 for axis in axes))
    torch.testing.assert_close(
        remove_regions(turned_images, turned_regions, removal), expected, rtol=1e-4, atol=1e-5
    )


def test_neighbours_of_a_signal_by_hand():
    signal = torch.arange(8.0).view(1, 1, 8)
    region = torch.zeros(1, 8, dtype=torch.bool)
    region[0, 1:4] = True  # four are behind it, one before: the four are mirrored
    assert remove_regions(signal, region)[0, 0].tolist() == [0, 6, 5, 4, 4, 5, 6, 7]


def test_neighbours_of_a_volume_come_from_the_side_with_the_most_room():
    volume = torch.arange(5.0).view(1, 1, 5, 1, 1).expand(1, 1, 5, 3, 3)
    region = torch.zeros(1, 5, 3, 3, dtype=torch.bool)
    region[0, 0:2, 1, 1] = True
    made = remove_regions(volume, region)
    assert made[0, 0, :, 1, 1].tolist() == [3, 2, 2, 3, 4]


@pytest.mark.parametrize("size", [(300,), (8, 160, 12)])
def test_a_wide_blur_over_cells_is_near_the_one_over_pixels(size):
    """By hand: the mean of what lies outside, weighted by a Gaussian of a quarter of the region's longer side."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, *size, generator=generator)
    region = torch.zeros(1, *size, dtype=torch.bool)
    longer = max(size)
    index = [slice(1, side - 1) for side in size]
    index[size.index(longer)] = slice(longer // 8, longer - longer // 8)
    region[(0, *index)] = True
    made = remove_regions(image, region, "blur")
    sigma = max(part.stop - part.start for part in index) / 4
    at = [part.start + (part.stop - part.start) // 3 for part in index]
    grid = torch.meshgrid(*(torch.arange(side) for side in size), indexing="ij")
    distance = sum((each - place) ** 2 for each, place in zip(grid, at, strict=True))
    weights = torch.exp(-0.5 * distance / sigma**2) * ~region[0]
    expected = (image[0, 0] * weights).sum() / weights.sum()
    assert float(made[(0, 0, *at)]) == pytest.approx(float(expected), abs=1e-3)


def test_regions_of_another_size_are_exchanged_in_any_dimension():
    own, lent = torch.zeros(1, 1, 4, 6, 6), torch.full((1, 1, 4, 6, 6), 7.0)
    here, there = torch.zeros(1, 4, 6, 6, dtype=torch.bool), torch.zeros(1, 4, 6, 6, dtype=torch.bool)
    here[0, :2, :3, 1:4], there[0, 2:, 4:, 5:] = True, True
    made = exchange_regions(own, lent, torch.tensor([True]), here, there, here)
    assert torch.equal(made[:, 0] == 7, here)
    of_signals = exchange_regions(
        own[..., 0, 0], lent[..., 0, 0], torch.tensor([True]), here[:, :, 0, 1], there[:, :, 5, 5], here[:, :, 0, 1]
    )  # fmt: skip
    assert of_signals.tolist() == [[[7, 7, 0, 0]]]


# ----------------------------------------------------------------------------------------------- exchanges


@pytest.mark.parametrize("name", ["color", "histogram", "spectrum", "texture", "border"])
def test_a_volume_of_one_slice_is_an_image(name):
    images, _ = of_size(14, 18)
    made = exchange_property(name, images[:, :, None], images.flip(0)[:, :, None])[:, :, 0]
    torch.testing.assert_close(made, exchange_property(name, images, images.flip(0)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["color", "histogram", "spectrum", "texture", "border"])
def test_the_order_of_slices_does_not_matter_but_to_the_spectrum(name):
    images, _ = of_size(6, 8, 10)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    made = exchange_property(name, images, images.flip(0))[:, :, order]
    turned = exchange_property(name, images[:, :, order], images.flip(0)[:, :, order])
    assert torch.allclose(made, turned, atol=1e-5) is (name != "spectrum")


def test_an_own_amplitude_gives_an_own_volume_back():
    images, _ = of_size(5, 6, 7)
    torch.testing.assert_close(exchange_property("spectrum", images, images), images, rtol=1e-4, atol=1e-5)
    donors = 3 * images + 1
    made = exchange_property("spectrum", images, donors)
    torch.testing.assert_close(made, donors, rtol=1e-4, atol=1e-4)  # the phase is the same


def test_the_border_of_a_signal_is_both_ends_and_that_of_a_volume_the_edges_of_its_slices():
    signal = exchange_property("border", torch.zeros(1, 1, 12), torch.ones(1, 1, 12))
    assert signal[0, 0].tolist() == [1, 1, *[0] * 8, 1, 1]
    volume = exchange_property("border", torch.zeros(1, 1, 3, 6, 6), torch.ones(1, 1, 3, 6, 6))
    inside = pad(torch.zeros(4, 4), (1, 1, 1, 1), value=1.0)
    assert torch.equal(volume[0, 0], inside.expand(3, -1, -1))


@pytest.mark.parametrize("name", ["color", "spectrum", "texture"])
def test_what_means_nothing_of_signals_is_refused_by_name(name):
    signals = torch.rand(2, 3, 20)
    with pytest.raises(InputError, match=f'"{name}" is one of images with 2 sides or more.*these have 1'):
        exchange_property(name, signals, signals)
    check_sides([name], 2)
    assert name not in available_properties(sides=1)


# ----------------------------------------------------------------------------------------- all of a batch


@pytest.mark.parametrize("sides", [1, 2, 3])
def test_every_check_of_a_batch_is_made(sides):
    batch = batch_of(*SIZES[sides])
    maps = torch.rand(4, *SIZES[sides], generator=torch.Generator().manual_seed(1))
    removed = changed_images(batch, maps)
    exchanges = Exchanges.of(batch, available_properties(), maps)
    assert exchanges is not None
    missing = {"color", "spectrum", "texture"} if sides == 1 else set()
    assert set(exchanges.names) == {*available_properties()} - missing
    assert set(exchanges.lacking(available_properties())) == missing
    made = {name: make(torch.arange(4)) for name, make in exchanges.versions().items()}
    for name, each in {**removed, **made}.items():
        assert each.shape == batch.images.shape, name
        assert each.isfinite().all(), name
        assert not torch.equal(each, batch.images), name
    logits = dict.fromkeys((*removed, *made), torch.eye(2)[batch.labels].flip(1))
    reliance = measure_reliance(batch, torch.eye(2)[batch.labels], logits, maps)
    assert reliance.scores["background_only_accuracy"] == 0
    rates = exchanges.measure(torch.eye(2)[batch.labels], logits)
    assert all(rates[f"{name}_follow_rate"].value == 1 for name in exchanges.names if name != "object")


@pytest.mark.parametrize("sides", [1, 3])
def test_some_of_the_changed_images_are_those_of_the_whole(sides):
    batch = batch_of(*SIZES[sides])
    maps = torch.rand(4, *SIZES[sides], generator=torch.Generator().manual_seed(1))
    exchanges = Exchanges.of(batch, available_properties(), maps)
    assert exchanges is not None
    for name, make in exchanges.versions().items():
        assert torch.equal(make(torch.arange(4))[[3, 1]], make(torch.tensor([3, 1]))), name
