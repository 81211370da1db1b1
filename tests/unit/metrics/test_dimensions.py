"""Signals and volumes: what holds for every score in one and three dimensions, values by hand, and others' numbers."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torchmetrics.functional.classification import binary_average_precision, binary_jaccard_index
from torchmetrics.functional.regression import spearman_corrcoef

from lightning_gcam.metrics import (
    MaxBoxAccuracy,
    Measured,
    PointingGame,
    available_scores,
    baseline_scores,
    functional,
    measure_groups,
    resolve_scores,
)
from lightning_gcam.metrics.localization import dilate
from lightning_gcam.metrics.perturbation import filled
from lightning_gcam.metrics.samples import CheckedMaps
from lightning_gcam.metrics.wsol import GrowingRegions, _box_overlaps
from tests.support.score_batches import batch_with_gaps, inputs_of, seeded_batch
from tests.unit.metrics.test_base import FUNCTIONS, counts, expected_counts, fresh, result

SIZES = {"signal": (71,), "volume": (6, 7, 8)}
# A signal, an image and a volume fall into 64 cells along one, two or three dimensions. SSIM needs 11 slices, and
# there is none of a signal (it is refused, see test_similarity.py).
ANISOTROPIC = {"positional_concentration", "random_model_ssim"}
ISOTROPIC = [name for name in available_scores() if name not in ANISOTROPIC]
every_score = pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for name in available_scores()
        for kind in SIZES
        if (name, kind) != ("random_model_ssim", "signal")
    ],
)


@pytest.fixture
def inputs(name: str, kind: str) -> tuple[torch.Tensor, ...]:
    """What the score's `update` takes, of seven signals or volumes, four of which do not count."""
    return inputs_of(name, batch_with_gaps(SIZES[kind]))


# ------------------------------------------------------------------------------------- every score


@every_score
def test_class_equals_function_and_the_same_samples_are_left_out(name, kind, inputs) -> None:
    metric = fresh(name)
    metric.update(*inputs)
    torch.testing.assert_close(metric.compute(), FUNCTIONS[name](*inputs))
    assert math.isfinite(metric.compute())
    assert counts(metric) == expected_counts(name)


@every_score
def test_the_split_into_batches_and_the_order_of_the_samples_change_nothing(name, kind, inputs) -> None:
    expected, split, order = result(name, *inputs), fresh(name), torch.tensor([4, 2, 6, 0, 1, 5, 3])
    assert result(name, *(each[order] for each in inputs)) == pytest.approx(expected, abs=1e-6)
    for part in zip(*(each.split([3, 4]) for each in inputs), strict=True):
        split.update(*part)
    assert split.compute().item() == pytest.approx(expected, abs=1e-6)


@every_score
def test_turning_map_and_mask_together_changes_nothing(name, kind, inputs) -> None:
    def turned(each: torch.Tensor) -> torch.Tensor:
        if each.ndim != len(SIZES[kind]) + 1 or name in ("insertion", "deletion"):  # a curve is no map
            return each
        return each.flip(1).movedim(1, -1)

    assert result(name, *map(turned, inputs)) == pytest.approx(result(name, *inputs), abs=1e-6)


@every_score
def test_no_map_is_changed(name, kind, inputs) -> None:
    before = [each.clone() for each in inputs]
    result(name, *inputs)
    torch.testing.assert_close(list(inputs), before, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("name", ISOTROPIC)
@pytest.mark.parametrize(("flat", "axis"), [((9, 8), 1), ((9, 8), 3), ((71,), 1), ((71,), 2)])
def test_a_dimension_of_one_pixel_more_changes_nothing(name, flat, axis) -> None:
    """A volume of one slice scores what the image does, an image of one row what the signal does, to the bit."""
    inputs = inputs_of(name, batch_with_gaps(flat))
    is_map = [each.ndim == len(flat) + 1 and each.shape[1:] == flat for each in inputs]
    deeper = [each.unsqueeze(axis) if maps else each for each, maps in zip(inputs, is_map, strict=True)]
    for mine, theirs in zip(fresh(name).per_sample(*deeper), fresh(name).per_sample(*inputs), strict=True):
        assert (mine is None) == (theirs is None)
        assert mine is None or torch.equal(mine.nan_to_num(), theirs.nan_to_num())


@pytest.mark.parametrize("name", [name for name in ISOTROPIC if not name.startswith("max_box_accuracy")])
def test_a_score_of_no_neighbours_is_that_of_the_same_pixels_in_a_row(name) -> None:
    inputs = inputs_of(name, batch_with_gaps(SIZES["volume"]))
    rows = [each.flatten(1) if each.ndim == 4 else each for each in inputs]
    for mine, theirs in zip(fresh(name).per_sample(*inputs), fresh(name).per_sample(*rows), strict=True):
        assert (mine is None) == (theirs is None)
        assert mine is None or torch.equal(mine.nan_to_num(), theirs.nan_to_num())


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize(
    "name", ["energy", "object_lift", "pixel_average_precision", "positional_concentration"]
)
def test_intervals_and_groups_of_signals_and_volumes(name, kind) -> None:
    inputs, groups = batch_with_gaps(SIZES[kind]), torch.tensor([0, 0, 1, 1, 1, 1, 0])
    found, measured = measure_groups(fresh(name), *inputs, groups=groups), Measured(fresh(name))
    for rows in (slice(0, 3), slice(3, 7)):
        measured.update(*(each[rows] for each in inputs), groups=groups[rows])
    assert measured.compute() == found
    overall = found.overall
    assert (overall.n, overall.blank, overall.no_mask, overall.undefined) == (3, 3, 1, 0)
    assert overall.value == pytest.approx(result(name, *inputs), abs=1e-6)
    assert overall.interval[0] <= overall.value <= overall.interval[1]
    assert found.groups[0].value == pytest.approx(
        result(name, *(each[groups == 0] for each in inputs)), abs=1e-6
    )


# ------------------------------------------------------------------------------------- values by hand


def corner(*size: int) -> torch.Tensor:
    """A mask of one sample that is True on the first two pixels along each dimension."""
    mask = torch.zeros(1, *size, dtype=torch.bool)
    mask[(slice(None), *[slice(2)] * len(size))] = True
    return mask


def test_values_of_a_volume_by_hand() -> None:
    mask = corner(4, 4, 4)  # 8 of 64 voxels
    saliency = torch.ones(1, 4, 4, 4)
    saliency[mask] = 2.0
    saliency[0, 3, 3, 3] = 4.0
    total = 8 * 2 + 55 * 1 + 4
    assert functional.energy_pointing_game(saliency, mask).item() == pytest.approx(16 / total)
    assert functional.energy_chance(saliency, mask).item() == pytest.approx(8 / 64)
    assert functional.region_lift(saliency, mask).item() == pytest.approx(16 / total * 8)
    assert functional.pointing_game(saliency, mask).item() == 0
    assert functional.relevance_rank_accuracy(saliency, mask).item() == pytest.approx(7 / 8)
    assert functional.saliency_iou(saliency, mask).item() == pytest.approx(
        8 / 9
    )  # 2 reaches 0.3 * 4, and 1 does not
    assert functional.complexity(saliency).item() == pytest.approx(total / 4 / 64)


@pytest.mark.parametrize(
    ("size", "tolerance", "expected"),
    [((4,), 1.9, 0), ((4,), 2, 1), ((4, 4, 4), 3.4, 0), ((4, 4, 4), 3.5, 1)],
)
def test_the_tolerance_is_a_distance_in_any_number_of_dimensions(size, tolerance, expected) -> None:
    # From the last pixel to the second one: 2 along each dimension, sqrt(12) = 3.46 in a volume.
    saliency = torch.zeros(1, *size)
    saliency.flatten(1)[0, -1] = 1
    assert functional.pointing_game(saliency, corner(*size), tolerance).item() == expected
    assert PointingGame(tolerance)(saliency, corner(*size)).item() == expected


@pytest.mark.parametrize("size", [(40,), (13, 11), (5, 7, 6)])
@pytest.mark.parametrize("tolerance", [0, 0.5, 1, 1.5, 2.3, 4, 100])
def test_a_grown_mask_is_that_of_all_distances(size, tolerance) -> None:
    mask = torch.rand(3, *size, generator=torch.Generator().manual_seed(0)) < 0.03
    mask[0] = False
    places = torch.tensor(list(itertools.product(*map(range, size)))).float()
    for sample, grown in zip(mask, dilate(mask, tolerance), strict=True):
        inside = places[sample.flatten()]
        nearest = (
            torch.cdist(places, inside).amin(dim=1) if len(inside) else torch.full((len(places),), math.inf)
        )
        assert torch.equal(grown.flatten(), nearest <= tolerance)


def test_concentration_has_as_many_cells_in_any_number_of_dimensions() -> None:
    for size in ((128,), (16, 16), (8, 8, 8)):
        full = round(64 ** (1 / len(size)))
        # An object in each of the 64 cells, and a map that always lies in the first of them, or in two.
        cells = torch.eye(64).reshape(64, *[full] * len(size))
        for axis in range(1, len(size) + 1):
            cells = cells.repeat_interleave(2, axis)
        assert functional.positional_concentration(cells, cells > 0).item() == pytest.approx(0, abs=1e-6)
        always = cells[:1].expand_as(cells)
        assert functional.positional_concentration(always, cells > 0).item() == pytest.approx(1)
        both = torch.cat([cells[:1], cells[-1:]]).repeat(32, *[1] * len(size))
        assert functional.positional_concentration(both, cells > 0).item() == pytest.approx(1 - 1 / 6)


@pytest.mark.parametrize("size", [(41,), (21, 41, 31)])
def test_the_centre_map_is_a_gaussian_along_each_dimension(size) -> None:
    grid = functional.centre_map(size)
    for place in itertools.product(*((0, side // 2, side - 3) for side in size)):
        powers = [((each - (side - 1) / 2) / (side / 4)) ** 2 for each, side in zip(place, size, strict=True)]
        assert grid[place].item() == pytest.approx(math.exp(-0.5 * sum(powers)), rel=1e-5)
    assert torch.equal(functional.uniform_map(size), torch.ones(size))


@pytest.mark.parametrize("kind", SIZES)
def test_baselines_are_scored_on_signals_and_volumes(kind) -> None:
    _, mask = seeded_batch(size=SIZES[kind])
    found = baseline_scores(mask, ["energy", "iou", "pointing_game", "max_box_accuracy"])
    area = mask.float().flatten(1).mean().item()
    assert found["uniform"]["energy"] == found["uniform"]["energy_chance"] == pytest.approx(area)
    centre = functional.centre_map(SIZES[kind]).expand(mask.shape)
    assert found["centre"] == {
        name: pytest.approx(result(name, centre, mask))
        for name in ("energy", "energy_chance", "iou", "pointing_game", "max_box_accuracy")
    }


# ------------------------------------------------------------------------------------- others' numbers


@pytest.mark.parametrize("kind", SIZES)
def test_against_torchmetrics(kind) -> None:
    saliency, mask = seeded_batch(size=SIZES[kind], seed=3)
    other, _ = seeded_batch(size=SIZES[kind], seed=4)
    scaled = saliency / CheckedMaps(saliency).peak.reshape(-1, *[1] * len(SIZES[kind]))
    iou = [
        binary_jaccard_index(each.flatten(), m.flatten(), 0.3) for each, m in zip(scaled, mask, strict=True)
    ]
    assert functional.saliency_iou(saliency, mask).item() == pytest.approx(torch.stack(iou).mean().item())
    pxap = binary_average_precision(scaled.flatten(), mask.flatten().long(), thresholds=101)
    assert functional.pixel_average_precision(saliency, mask).item() == pytest.approx(pxap.item(), abs=1e-6)
    drift = spearman_corrcoef(saliency.flatten(1).T, other.flatten(1).T).mean().item()
    assert functional.drift(saliency, other).item() == pytest.approx(drift, abs=1e-5)


def test_ssim_of_volumes_against_scipys_gaussian() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    first, second = (seeded_batch(2, (12, 13, 14), seed)[0] for seed in (0, 1))
    second = first + second / 4
    expected = []
    for pair in zip(first, second, strict=True):
        a, b = ((each / each.max()).double().numpy() for each in pair)

        def mean(values):
            return ndimage.gaussian_filter(values, 1.5, mode="mirror", radius=5)

        covariance, variances = (
            mean(a * b) - mean(a) * mean(b),
            mean(a * a) + mean(b * b) - mean(a) ** 2 - mean(b) ** 2,
        )
        c1, c2 = 0.01**2, 0.03**2
        index = (2 * mean(a) * mean(b) + c1) * (2 * covariance + c2)
        expected.append((index / ((mean(a) ** 2 + mean(b) ** 2 + c1) * (variances + c2))).mean())
    assert functional.random_model_ssim(first, second).item() == pytest.approx(sum(expected) / 2, abs=1e-4)


# ------------------------------------------------------------------------------------- boxes


def pixels_in(box: torch.Tensor) -> set[tuple[int, ...]]:
    """The pixels of a box of whole numbers: x, y, z."""
    starts, ends = box.long().chunk(2)
    return set(itertools.product(*map(range, starts.tolist(), ends.tolist())))


def overlap(first: torch.Tensor, second: torch.Tensor) -> float:
    """The IoU of two boxes, by counting pixels."""
    mine, theirs = pixels_in(first), pixels_in(second)
    return len(mine & theirs) / max(len(mine | theirs), 1)


def components(region: torch.Tensor) -> list[tuple[torch.Tensor, int]]:
    """Box and size of each connected component of one region, found by walking from neighbour to neighbour."""
    left, found = set(map(tuple, region.nonzero().tolist())), []
    while left:
        part, ahead = set(), [left.pop()]
        while ahead:
            part.add(place := ahead.pop())
            near = itertools.product(*(range(each - 1, each + 2) for each in place))
            ahead += (touched := left & set(near))
            left -= touched
        places = torch.tensor(sorted(part)).flip(1)
        found.append((torch.cat([places.amin(dim=0), places.amax(dim=0) + 1]), len(part)))
    return found


@pytest.mark.parametrize("size", [(40,), (9, 8), (5, 4, 6)])
@pytest.mark.parametrize("density", [0.05, 0.2, 0.5])
def test_components_against_a_walk(size, density) -> None:
    region = torch.rand(4, *size, generator=torch.Generator().manual_seed(1)) < density
    found = GrowingRegions(tuple(region.shape), "cpu").add(region.flatten().nonzero()[:, 0])
    ours = zip(found.samples.tolist(), found.boxes.tolist(), found.areas.tolist(), strict=True)
    expected = [
        (sample, box.tolist(), n) for sample, mask in enumerate(region) for box, n in components(mask)
    ]
    assert sorted(ours) == sorted(expected)


@pytest.mark.parametrize("dimensions", [1, 3])
def test_overlap_by_counting_pixels(dimensions) -> None:
    generator = torch.Generator().manual_seed(0)
    starts = torch.randint(0, 6, (20, 4, dimensions), generator=generator)
    boxes = torch.cat([starts, starts + torch.randint(-1, 5, starts.shape, generator=generator)], dim=-1)
    found = _box_overlaps(boxes[:, 0].float(), boxes[:, 1:].float())
    for row, (first, *others) in zip(found, boxes, strict=True):
        assert row.tolist() == pytest.approx([overlap(first, other) for other in others])


@pytest.mark.parametrize("size", [(40,), (5, 6, 7)])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("with_boxes", [True, False])
def test_box_accuracy_against_a_naive_loop(size, version, with_boxes) -> None:
    n, thresholds, matches = 4, 6, {1: [0.5], 2: [0.3, 0.5, 0.7]}[version]
    generator = torch.Generator().manual_seed(2)
    saliency, mask = seeded_batch(n, size, 5)[0] * 0.6, torch.zeros(n, *size, dtype=torch.bool)
    truth = []
    for sample in range(n):
        starts = torch.cat(
            [torch.randint(0, side // 2, (2, 1), generator=generator) for side in size[::-1]], dim=1
        )
        truth.append(torch.cat([starts, starts + 2], dim=1).float())
        for box in truth[-1][: 2 if with_boxes else 1]:
            low, high = (part.flip(0).tolist() for part in box.long().chunk(2))
            mask[(sample, *map(slice, low, high))] = True
        saliency[sample] += mask[sample] * 0.5
    hits = torch.zeros(thresholds, len(matches))
    for sample, level in itertools.product(range(n), range(thresholds)):
        found = components(saliency[sample] >= (level + 1) / thresholds * saliency[sample].max())
        most = max(size for _, size in found)
        kept = [box for box, size in found if version == 2 or size == most]
        objects = truth[sample] if with_boxes else truth[sample][:1]
        best = max(overlap(box, other) for box in kept for other in objects)
        hits[level] += torch.tensor([float(best >= match) for match in matches])
    expected = (hits / n).amax(dim=0).mean().item()
    metric = MaxBoxAccuracy(version, thresholds)
    metric.update(saliency, mask, *([truth] if with_boxes else []))
    assert metric.compute().item() == pytest.approx(expected)
    assert expected > 0


def test_many_samples_are_taken_a_few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = {
        "max_box_accuracy": seeded_batch(5, (4, 5, 6)),
        "random_model_ssim": torch.rand(2, 5, 11, 11, 12),
    }
    whole = {name: fresh(name).per_sample(*each).values for name, each in inputs.items()}
    monkeypatch.setattr("lightning_gcam.metrics.wsol._PIXELS_AT_ONCE", 2 * 4 * 5 * 6)
    monkeypatch.setattr("lightning_gcam.metrics.wsol._JOINED_AT_ONCE", 7)
    monkeypatch.setattr("lightning_gcam.metrics.similarity._PIXELS_AT_ONCE", 2 * 11 * 11 * 12)
    for name, each in inputs.items():
        assert torch.equal(fresh(name).per_sample(*each).values, whole[name])


@pytest.mark.parametrize(("size", "columns"), [((6,), 2), ((4, 4, 4), 6)])
def test_boxes_of_another_number_of_dimensions_are_refused(size, columns) -> None:
    expected = rf"`boxes` must hold 1 tensors \(M, {columns}\), one per sample, got \[\(1, 4\)\]"
    with pytest.raises(ValueError, match=expected):
        functional.max_box_accuracy(torch.ones(1, *size), corner(*size), [torch.tensor([[0.0, 0, 1, 1]])])


# ------------------------------------------------------------------------------------- perturbed images


@pytest.mark.parametrize("fill", ["zero", "blur", "mean"])
def test_a_volume_of_one_slice_is_perturbed_as_its_image_is(fill) -> None:
    images = torch.rand(2, 3, 9, 8, generator=torch.Generator().manual_seed(0))
    maps, _ = seeded_batch(2)
    kept = functional.keep_salient(images[:, :, None], maps[:, None], fill)
    torch.testing.assert_close(kept[:, :, 0], functional.keep_salient(images, maps, fill))
    for steps in (functional.insertion_steps, functional.deletion_steps):
        flat, deep = steps(images, maps, 5, fill), steps(images[:, :, None], maps[:, None], 5, fill)
        for (index, shown), (same, slices) in zip(flat, deep, strict=True):
            assert torch.equal(index, same)
            torch.testing.assert_close(slices[:, :, 0], shown)


@pytest.mark.parametrize("size", [(30,), (4, 5, 6)])
def test_the_most_salient_pixels_come_and_go_first(size) -> None:
    images, maps = torch.rand(2, 3, *size) + 1, seeded_batch(2, size)[0]
    pixels = math.prod(size)
    for make, shown_first in ((functional.insertion_steps, True), (functional.deletion_steps, False)):
        for index, changed in make(images, maps, 7, "zero", chunk_size=5):
            assert changed.shape[1:] == (3, *size)
            for (sample, step), image in zip(index.tolist(), changed, strict=True):
                order = maps[sample].flatten().argsort(descending=True)
                there = (image != 0).all(dim=0).flatten()[order]
                assert torch.equal(there, (torch.arange(pixels) < step * pixels // 7) == shown_first)


@pytest.mark.parametrize("size", [(200,), (30, 40), (8, 30, 40)])
def test_the_blur_is_scipys_along_each_dimension(size) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    images = torch.rand(1, 2, *size, generator=torch.Generator().manual_seed(0))
    sigma = min(size[-2:]) / 10  # of a slice: a video of eight frames is blurred as each of them is
    for channel, blurred in zip(images[0], filled(images, "blur")[0], strict=True):
        theirs = ndimage.gaussian_filter(channel.numpy(), sigma, mode="nearest", radius=round(3 * sigma))
        torch.testing.assert_close(blurred, torch.from_numpy(theirs), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(30,), (4, 5, 6)])
def test_a_channels_mean_is_over_all_its_pixels(size) -> None:
    images = torch.rand(2, 3, *size)
    expected = images.flatten(2).mean(dim=2)
    torch.testing.assert_close(
        filled(images, "mean").flatten(2), expected[..., None].expand(-1, -1, math.prod(size))
    )


def test_the_default_scores_take_signals_and_volumes() -> None:
    for size in SIZES.values():
        for metric in resolve_scores(None).values():
            metric.update(*seeded_batch(size=size))
            assert metric.n == 7
