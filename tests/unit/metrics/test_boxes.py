"""Box accuracy: components against SciPy's, values by hand, and what the authors' code does otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import masks_to_boxes

from lightning_gcam.metrics import MaxBoxAccuracy
from lightning_gcam.metrics.functional import max_box_accuracy
from lightning_gcam.metrics.wsol import Components, GrowingRegions, _box_overlaps


def regions(seed: int, density: float, size: tuple[int, int] = (13, 11)) -> torch.Tensor:
    return torch.rand(6, *size, generator=torch.Generator().manual_seed(seed)) < density


def square(side: int, top: int, left: int, grid: int = 20) -> torch.Tensor:
    """A True square on a square grid, `(1, grid, grid)`."""
    mask = torch.zeros(1, grid, grid, dtype=torch.bool)
    mask[0, top : top + side, left : left + side] = True
    return mask


def grown(*steps: torch.Tensor) -> tuple[GrowingRegions, Components]:
    """Regions `(N, H, W)` that grow from step to step, and the components of the last."""
    regions = GrowingRegions(tuple(steps[0].shape), "cpu")
    before = torch.zeros_like(steps[0])
    for step in steps:
        found = regions.add((step & ~before).flatten().nonzero()[:, 0])
        before = step
    return regions, found


def check(region: torch.Tensor, regions: GrowingRegions, found: Components) -> None:
    """Roots, boxes and areas are those of SciPy and torchvision."""
    ndimage = pytest.importorskip("scipy.ndimage")
    roots = regions.root_of(torch.arange(region.numel())).reshape(region.shape)
    expected = []
    for sample, mask in enumerate(region):
        theirs, count = ndimage.label(mask.numpy(), structure=np.ones((3, 3)))
        pairs = set(zip(roots[sample][mask].tolist(), theirs[mask.numpy()].tolist(), strict=True))
        assert len(pairs) == len({root for root, _ in pairs}) == count
        for label in range(1, count + 1):
            part = torch.from_numpy(theirs == label)
            box = masks_to_boxes(part[None])[0] + torch.tensor([0, 0, 1, 1])  # theirs ends on the last pixel
            expected.append((sample, *box.tolist(), int(part.sum())))
    ours = zip(found.samples.tolist(), found.boxes.tolist(), found.areas.tolist(), strict=True)
    assert sorted((sample, *box, area) for sample, box, area in ours) == sorted(expected)


@pytest.mark.parametrize("density", [0.0, 0.1, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_components_against_scipy(seed, density) -> None:
    region = regions(seed, density)
    check(region, *grown(region))


@pytest.mark.parametrize("seed", range(3))
def test_regions_that_grow_step_by_step(seed) -> None:
    values = torch.rand(4, 15, 12, generator=torch.Generator().manual_seed(seed))
    steps = [values >= threshold for threshold in (0.95, 0.8, 0.7, 0.7, 0.6, 0.5, 0.3)]
    for count in range(1, len(steps) + 1):
        check(steps[count - 1], *grown(*steps[:count]))


def test_a_long_winding_way_is_one_component() -> None:
    # Rows joined at alternate ends: roots must be found along all of it.
    snake = torch.zeros(1, 21, 20, dtype=torch.bool)
    snake[0, ::2] = True
    snake[0, 1::4, -1], snake[0, 3::4, 0] = True, True
    assert grown(snake)[1].areas.tolist() == [snake.sum()]
    snake[0, 11, 0] = False
    assert len(grown(snake)[1].areas) == 2


def test_grids_do_not_touch_each_other() -> None:
    # The last row of one sample stands before the first of the next in memory.
    assert grown(torch.ones(3, 2, 2, dtype=torch.bool))[1].areas.tolist() == [4, 4, 4]


def test_overlap_by_counting_pixels() -> None:
    """Also of boxes without an area, and of boxes that are upside down, which hold nothing."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.randint(0, 10, (30, 4), generator=generator)
    boxes[:, 2:] += boxes[:, :2]
    others = torch.randint(0, 10, (30, 5, 4), generator=generator)
    others[:20, :, 2:] += others[:20, :, :2]
    found = _box_overlaps(boxes.float(), others.float())
    for row, box in enumerate(boxes.tolist()):
        for column, other in enumerate(others[row].tolist()):
            first, second = pixels_in(box), pixels_in(other)
            expected = len(first & second) / max(len(first | second), 1)
            assert found[row, column].item() == pytest.approx(expected)


def pixels_in(box: list[int]) -> set[tuple[int, int]]:
    left, top, right, bottom = box
    return {(row, column) for row in range(top, bottom) for column in range(left, right)}


@pytest.mark.parametrize("seed", range(3))
def test_the_box_around_each_mask_stands_for_boxes_that_are_left_out(seed) -> None:
    masks = regions(seed, 0.02)
    masks[1] = False
    saliency = regions(seed + 9, 0.5).float()
    boxes = []
    for mask in masks:
        rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
        if len(rows):
            boxes.append(torch.tensor([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]]).float())
        else:
            boxes.append(torch.zeros(0, 4))
    without, given = MaxBoxAccuracy(), MaxBoxAccuracy()
    without.update(saliency, masks)
    given.update(saliency, masks, boxes)
    assert torch.equal(without.total, given.total)
    assert without.n == given.n == int(masks.flatten(1).any(dim=1).sum())


def test_a_map_that_equals_the_object_matches_at_every_overlap() -> None:
    mask = square(10, 5, 5)
    for version in (1, 2):
        assert max_box_accuracy(mask.float(), mask, version=version).item() == 1
        assert MaxBoxAccuracy(version)(mask.float(), mask).item() == 1


def test_the_authors_box_is_one_pixel_too_large() -> None:
    """As wsolevaluation draws a box around a contour, and takes its last column and row as inside."""
    cv2 = pytest.importorskip("cv2")
    mask = square(10, 5, 5)
    contours, _ = cv2.findContours(
        mask[0].numpy().astype(np.uint8) * 255, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE
    )
    x, y, width, height = cv2.boundingRect(max(contours, key=cv2.contourArea))
    theirs, truth = (x, y, x + width, y + height), (5, 5, 14, 14)  # both "last pixel inside"
    ours = grown(mask)[1].boxes
    assert ours.tolist() == [[5, 5, 15, 15]]  # "first pixel outside": 10 x 10
    sides = [theirs[2] - theirs[0] + 1, theirs[3] - theirs[1] + 1]
    assert sides == [11, 11]
    intersection = (truth[2] - truth[0] + 1) * (truth[3] - truth[1] + 1)
    assert intersection / (sides[0] * sides[1]) == pytest.approx(100 / 121)
    assert _box_overlaps(ours, torch.tensor([[[5.0, 5, 15, 15]]])).item() == 1


@pytest.mark.parametrize(
    ("wide", "expected"), [(10, 1), (14, 1), (15, 2 / 3), (20, 2 / 3), (21, 1 / 3), (33, 1 / 3), (34, 0)]
)
def test_version_2_averages_over_three_overlaps(wide, expected) -> None:
    # A box of 10 in one of `wide`: the IoU is 10 / wide, a match from 0.7, 0.5 and 0.3 on.
    saliency, mask = torch.zeros(1, 1, 40), torch.zeros(1, 1, 40, dtype=torch.bool)
    saliency[..., :wide], mask[..., :10] = 1, True
    assert max_box_accuracy(saliency, mask).item() == pytest.approx(expected)
    assert max_box_accuracy(saliency, mask, version=1).item() == float(wide <= 20)


def test_version_1_takes_the_largest_component_and_version_2_the_best() -> None:
    saliency = (square(6, 0, 0) | square(4, 12, 12)).float()
    assert max_box_accuracy(saliency, square(4, 12, 12), version=1).item() == 0
    assert max_box_accuracy(saliency, square(4, 12, 12), version=2).item() == 1


def test_pixels_that_touch_at_a_corner_are_one_component() -> None:
    mask = square(3, 2, 2) | square(3, 5, 5)
    assert max_box_accuracy(mask.float(), mask, version=1).item() == 1


def test_the_threshold_is_one_for_all_samples() -> None:
    # Sample 0 needs its whole ramp, 8 long; sample 1 the top of it, 3 long. Each alone is found, both are not.
    saliency = torch.tensor([1.0] * 3 + [0.5] * 5).reshape(1, 1, 8).repeat(2, 1, 1)
    mask = torch.zeros(2, 1, 8, dtype=torch.bool)
    mask[0, 0, :8], mask[1, 0, :3] = True, True
    assert max_box_accuracy(saliency, mask, version=1).item() == 1 / 2
    assert max_box_accuracy(saliency[:1], mask[:1], version=1).item() == 1
    assert max_box_accuracy(saliency[1:], mask[1:], version=1).item() == 1


def test_boxes_stand_for_the_mask_where_they_are_given() -> None:
    # Two objects: the box around both fits neither map; each box by itself does.
    two = square(4, 0, 0) | square(4, 14, 14)
    boxes = [torch.tensor([[0.0, 0, 4, 4], [14, 14, 18, 18]])]
    saliency = square(4, 14, 14).float()
    assert max_box_accuracy(saliency, two, version=1).item() == 0
    assert max_box_accuracy(saliency, two, boxes, version=1).item() == 1
    metric = MaxBoxAccuracy(version=1)
    metric.update(saliency.repeat(2, 1, 1), two.repeat(2, 1, 1), [boxes[0], torch.zeros(0, 4)])
    assert (metric.n, metric.no_mask, metric.compute().item()) == (1, 1, 1)


@pytest.mark.parametrize("boxes", [[torch.zeros(4)], [torch.zeros(1, 5)], [], [[0, 0, 1, 1]]])
def test_wrong_boxes_are_refused(boxes) -> None:
    with pytest.raises(ValueError, match=r"`boxes` must hold 1 tensors \(M, 4\), one per sample, got "):
        max_box_accuracy(square(2, 0, 0).float(), square(2, 0, 0), boxes)


@pytest.mark.parametrize(
    "score", [MaxBoxAccuracy, lambda version: max_box_accuracy(None, None, version=version)]
)
@pytest.mark.parametrize("version", [0, 3, "v2", None])
def test_wrong_version_is_refused(score, version) -> None:
    with pytest.raises(ValueError, match=r"`version` must be 1 \(MaxBoxAcc\) or 2 \(MaxBoxAccV2\), got "):
        score(version=version)
