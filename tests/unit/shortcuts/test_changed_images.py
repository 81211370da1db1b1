"""The changed images: what each of them keeps, what it loses, and where there is none."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_gcam import SaliencyBatch
from lightning_gcam.shortcuts import available_properties, changed_images, resolve_checks
from lightning_gcam.shortcuts.checks import CHECKS
from lightning_gcam.shortcuts.exchange_checks import Exchanges
from lightning_gcam.shortcuts.regions import (
    donors_of,
    most_salient,
    moved_at_random,
    region_around,
    with_rim,
)

SIZE = 24
ALL = [
    "background_only",
    "object_only",
    "salient_outside",
    "random_outside",
]


def batch_of(n: int = 4, classes: int = 2, **fields) -> SaliencyBatch:
    """Noise of each sample's own brightness, a bright object, and a suspect corner in the class's colour."""
    images = torch.rand(n, 3, SIZE, SIZE) * 0.1 + torch.arange(n)[:, None, None, None] / 10
    labels = torch.arange(n) % classes
    masks = torch.zeros(n, SIZE, SIZE, dtype=torch.bool)
    masks[:, 12:18, 12:18] = True
    suspect = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    suspect[:4, :4] = True
    images[:, :, 12:18, 12:18] = 2.0
    images[:, :, :4, :4] = 5.0 + labels[:, None, None, None]
    return SaliencyBatch(**{"images": images, "labels": labels, "masks": masks, "suspect": suspect, **fields})


def maps_of(batch: SaliencyBatch) -> torch.Tensor:
    """All saliency in the corner, stronger towards the edge."""
    maps = torch.zeros(len(batch), SIZE, SIZE)
    maps[:, :4, :4] = torch.linspace(1, 0.5, 4)[:, None]
    return maps


def exchanged(batch: SaliencyBatch, name: str, maps: torch.Tensor | None = None) -> torch.Tensor:
    """All samples with a property of their first donor."""
    exchanges = Exchanges.of(batch, [name], maps)
    return exchanges.versions()[f"{name}_swap_0"](torch.arange(len(batch)))


# --------------------------------------------------------------------------------------------- what is made


def test_what_the_annotation_allows():
    batch = batch_of()
    assert list(changed_images(batch, maps_of(batch))) == ALL
    assert list(changed_images(batch)) == ALL[:2]
    assert list(changed_images(batch_of(suspect=None), maps_of(batch))) == ALL
    assert list(changed_images(batch_of(masks=None), maps_of(batch))) == []
    boxes = [torch.tensor([[12.0, 12.0, 18.0, 18.0]])] * 4
    with_boxes = changed_images(batch_of(images=batch.images, masks=None, boxes=boxes), maps_of(batch))
    assert all(
        torch.equal(with_boxes[name], made) for name, made in changed_images(batch, maps_of(batch)).items()
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"labels": None},
        {"labels": torch.tensor([0.5, 1.0, 2.0, 3.0])},
        {"masks": None, "suspect": None},
        {"masks": torch.zeros(4, SIZE, SIZE, dtype=torch.bool), "suspect": None},
        {"masks": torch.ones(4, SIZE, SIZE, dtype=torch.bool), "suspect": None},
        {"labels": torch.tensor([-1, -1, -1, -1])},
    ],
    ids=["no labels", "measurements", "no annotation", "empty masks", "full masks", "no class"],
)
def test_where_nothing_can_be_asked_there_is_nothing(fields):
    assert changed_images(batch_of(**fields), maps_of(batch_of())) == {}


def test_of_a_single_class_nothing_is_exchanged():
    assert list(changed_images(batch_of(classes=1), maps_of(batch_of()))) == ALL[:2]


def test_only_what_was_asked_for_is_made():
    batch = batch_of()
    assert list(changed_images(batch, maps_of(batch), checks="salient_flips")) == ALL[2:]
    assert changed_images(batch, maps_of(batch), checks=[]) == {}
    assert resolve_checks(["salient_flips", "salient_flips"]) == ("salient_flips",)
    assert resolve_checks(None) == (
        *CHECKS,
        *(name for name in available_properties() if name != "histogram"),
    )


def test_what_is_not_a_check_is_refused():
    with pytest.raises(
        ValueError, match='`checks` "object_accuracy" is not a check. Did you mean "object_only_accuracy"'
    ):
        resolve_checks("object_accuracy")
    with pytest.raises(ValueError, match="`checks` must be names of checks, or None for all; got int"):
        resolve_checks(3)
    with pytest.raises(
        ValueError, match=r"`maps` must be one a sample, of the images' size, \(4, 24, 24\); got \(4, 7, 7\)"
    ):
        changed_images(batch_of(), torch.rand(4, 7, 7))
    with pytest.raises(ValueError, match='`removal` "blurr" is not known'):
        changed_images(batch_of(), removal="blurr")


# --------------------------------------------------------------------------------------------- each of them


def test_background_only_has_no_object_and_keeps_the_rest():
    batch = batch_of()
    made = changed_images(batch)["background_only"]
    around = region_around(batch.masks)
    assert (
        made.masked_select(around[:, None]).max() < 1.9
    )  # the object is 2, and its surroundings less than 1
    assert torch.equal(made.masked_select(~around[:, None]), batch.images.masked_select(~around[:, None]))
    assert torch.equal(made[:, :, :4, :4], batch.images[:, :, :4, :4])


def test_object_only_has_the_object_on_one_colour_for_all():
    batch = batch_of()
    made = changed_images(batch)["object_only"]
    kept = with_rim(batch.masks)[:, None].expand_as(made)
    assert torch.equal(made[kept], batch.images[kept])
    for channel in range(3):
        assert len(made[:, channel][~kept[:, channel]].unique()) == 1
        expected = batch.images[:, channel][~kept[:, channel]].mean()
        assert made[0, channel, 0, 0] == pytest.approx(float(expected), rel=1e-5)


def test_object_only_loses_a_tint_of_the_background():
    """A blurred background would keep it: two batches that differ by sample's tint are the same afterwards."""
    batch = batch_of(2)
    tinted = batch.images.clone()
    tinted[0] += 0.3
    tinted[1] -= 0.3  # the mean over both is the same
    made = changed_images(batch_of(2, images=tinted))["object_only"]
    assert made[0, :, 0, 0].tolist() == pytest.approx(made[1, :, 0, 0].tolist())


def test_a_callable_removal_is_asked_for_the_background_as_well():
    made = changed_images(batch_of(), removal=lambda images, regions: torch.full_like(images, -1.0))
    assert (made["object_only"][:, :, 0, 0] == -1).all()
    assert (made["background_only"][:, :, 14, 14] == -1).all()


def test_background_swap_takes_the_other_classes_background_and_not_its_object():
    batch = batch_of()
    batch.masks[1] = False
    batch.masks[1, 4:8, 14:18] = True
    batch.images[1, :, 4:8, 14:18] = 9.0
    made = exchanged(batch, "background")
    partners = Exchanges.of(batch, ["background"]).donors["background"].others[:, 0]
    kept = with_rim(batch.masks)[:, None].expand_as(made)
    assert torch.equal(made[kept], batch.images[kept])
    assert torch.equal(made[:, :, :4, :4], batch.images[partners][:, :, :4, :4])
    takers = (partners == 1).nonzero()[:, 0]
    assert len(takers) and made[takers].max() < 9
    assert (made[:, 0, 0, 0] - 5 != batch.labels).all()


def test_suspect_swap_exchanges_the_corner_and_nothing_else():
    batch = batch_of()
    made = exchanged(batch, "suspect")
    outside = ~batch.suspect.expand(4, 3, -1, -1)
    assert torch.equal(made[outside], batch.images[outside])
    assert (made[:, 0, :4, :4] == 6 - batch.labels[:, None, None]).all()


def test_suspect_regions_at_other_places_are_laid_on_each_other():
    batch = batch_of(2)
    suspect = torch.zeros(2, SIZE, SIZE, dtype=torch.bool)
    suspect[0, :4, :4] = True
    suspect[1, 18:20, 2:10] = True
    batch.images[1, :, 18:20, 2:10] = 7.0
    made = exchanged(batch_of(2, images=batch.images, suspect=suspect), "suspect")
    assert (made[0, :, :4, :4] == 7).all()
    assert (made[1, :, 18:20, 2:10] == 5).all()
    outside = ~suspect[:, None].expand_as(made)
    assert torch.equal(made[outside], batch.images[outside])


def test_a_suspect_background_lends_and_covers_no_object():
    """All but the object is suspect: the object must stay, and the partner's must not come along."""
    batch = batch_of(2)
    batch.masks[1] = False
    batch.masks[1, 2:8, 2:8] = True
    batch.images[1] = 0.1
    batch.images[1, :, 2:8, 2:8] = 9.0
    made = exchanged(batch_of(2, images=batch.images, masks=batch.masks, suspect=~batch.masks), "suspect")
    assert (made[0, :, 12:18, 12:18] == 2).all()
    assert (made[1, :, 2:8, 2:8] == 9).all()
    assert made[0].max() <= 6  # nine is the other's object


def test_salient_outside_replaces_what_is_salient_by_another_class():
    batch = batch_of()
    made = changed_images(batch, maps_of(batch))
    changed = (made["salient_outside"] != batch.images).any(dim=1)
    assert torch.equal(changed, batch.suspect.expand(4, -1, -1))
    assert (made["salient_outside"][:, 0, 0, 0] - 5 != batch.labels).all()
    elsewhere = (made["random_outside"] != batch.images).any(dim=1)
    assert not (elsewhere & batch.suspect).any()
    assert not (elsewhere & region_around(batch.masks)).any()


def test_samples_that_lack_what_a_version_takes_are_unchanged():
    batch = batch_of()
    batch.masks[0], batch.masks[1] = False, True
    made = changed_images(batch, maps_of(batch))
    for name in (*ALL, "background"):
        each = exchanged(batch, name) if name == "background" else made[name]
        assert torch.equal(each[:2], batch.images[:2])
        assert not torch.equal(each[2], batch.images[2])


def test_blank_and_broken_maps_change_nothing():
    batch, maps = batch_of(), maps_of(batch_of())
    maps[0], maps[1] = 0.0, torch.nan
    made = changed_images(batch, maps)
    assert torch.equal(made["salient_outside"][:2], batch.images[:2])
    assert torch.equal(made["random_outside"][:2], batch.images[:2])


# --------------------------------------------------------------------------------------------- invariants


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64, torch.bfloat16])
def test_dtype_shape_and_the_batch_are_kept(dtype, channels):
    images = (torch.rand(4, channels, SIZE, SIZE) * 200).to(dtype)
    batch, before = batch_of(images=images), images.clone()
    for made in changed_images(batch, maps_of(batch)).values():
        assert made.dtype == dtype
        assert made.shape == images.shape
    assert torch.equal(images, before)


def test_the_same_images_every_time_and_no_random_stream_moves():
    batch = batch_of()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    first, second = (changed_images(batch, maps_of(batch)) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in ALL)
    assert states[0] == random.getstate()
    assert states[1] == np.random.get_state()[1].tolist()
    assert torch.equal(states[2], torch.get_rng_state())
    other = changed_images(batch, maps_of(batch), seed=1)
    assert not torch.equal(first["random_outside"], other["random_outside"])


@given(st.lists(st.integers(0, 4), min_size=1, max_size=20), st.data())
def test_partners_are_of_another_class_and_taken_once_where_that_can_be(classes, data):
    usable = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(classes), max_size=len(classes))))
    labels = torch.tensor(classes)
    partners = donors_of(labels, usable)
    rows = usable.nonzero()[:, 0]
    assert (partners[~usable] == -1).all()
    if len(labels[rows].unique()) < 2:
        assert (partners == -1).all()
        return
    assert usable[partners[rows]].all()
    assert (labels[partners[rows]] != labels[rows]).all()
    if 2 * labels[rows].bincount().max() <= len(rows):
        assert sorted(partners[rows].tolist()) == rows.tolist()


def test_multi_hot_partners_have_other_marks():
    labels = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 1]])
    batch = batch_of(labels=labels)
    made = exchanged(batch, "background")[:, 0, 23, 23]
    lenders = [batch.images[:, 0, 23, 23].tolist().index(value) for value in made.tolist()]
    assert lenders == [2, 2, 0, 0]


# --------------------------------------------------------------------------------------- the salient region


def test_the_most_salient_region_by_hand():
    maps = torch.tensor([[[0.0, 0.9, 0.2, 0.3], [1.0, 0.8, 0.0, 0.1], [0.0] * 4, [0.0] * 4]])
    masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    masks[0, 1, 0:2] = True
    assert most_salient(maps, masks, masks).nonzero().tolist() == [[0, 0, 1], [0, 0, 3]]
    around = masks.clone()
    around[0, :3, :3] = (
        True  # what lies around the object is not outside; of the seven pixels left, one is a quarter
    )
    assert most_salient(maps, masks, around).nonzero().tolist() == [[0, 0, 3]]


def test_where_all_saliency_is_on_the_object_there_is_no_region_outside():
    masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    masks[0, 1, 1] = True
    assert not most_salient(masks.float(), masks, masks).any()


@given(st.integers(0, 2**16))
def test_elsewhere_is_of_the_same_area_and_meets_neither(seed):
    generator = torch.Generator().manual_seed(seed)
    around = torch.zeros(3, 16, 16, dtype=torch.bool)
    around[:, 6:12, 5:11] = True
    maps = torch.rand(3, 4, 4, generator=generator).repeat_interleave(4, 1).repeat_interleave(4, 2)
    region = most_salient(maps, around, around)
    elsewhere = moved_at_random(region, around, seed)
    assert not (elsewhere & around).any()
    if not (moved_at_random(region, around | region, seed).sum(dim=(1, 2)) < region.sum(dim=(1, 2))).any():
        assert torch.equal(elsewhere.sum(dim=(1, 2)), region.sum(dim=(1, 2)))


def test_elsewhere_is_every_place_that_is_free():
    """Of four pixels in a row one is the object's and one the region: both others are drawn, in about equal shares."""
    region = torch.tensor([[[True, False, False, False]]])
    around = torch.tensor([[[False, True, False, False]]])
    drawn = [int(moved_at_random(region, around, seed).flatten().nonzero()) for seed in range(200)]
    assert set(drawn) == {2, 3}
    assert 70 <= drawn.count(2) <= 130
