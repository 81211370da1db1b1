"""Box accuracy: components against SciPy's, values by hand, and what the authors' code does otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou, masks_to_boxes

from lightning_gcam.metrics import MaxBoxAccuracy
from lightning_gcam.metrics.functional import max_box_accuracy
from lightning_gcam.metrics.functional.boxes import _iou
from lightning_gcam.metrics.functional.components import component_boxes, label_components


def regions(seed: int, density: float, size: tuple[int, int] = (13, 11)) -> torch.Tensor:
    return torch.rand(6, *size, generator=torch.Generator().manual_seed(seed)) < density


def square(side: int, top: int, left: int, grid: int = 20) -> torch.Tensor:
    """A True square on a square grid, `(1, grid, grid)`."""
    mask = torch.zeros(1, grid, grid, dtype=torch.bool)
    mask[0, top : top + side, left : left + side] = True
    return mask


@pytest.mark.parametrize("density", [0.0, 0.1, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_components_against_scipy(seed, density) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    region = regions(seed, density)
    for labels, mask in zip(label_components(region), region.numpy(), strict=True):
        theirs, count = ndimage.label(mask, structure=np.ones((3, 3)))
        pairs = set(zip(labels.flatten().tolist(), theirs.flatten().tolist(), strict=True))
        # One label of theirs to one of ours, and back; outside is -1 here and 0 there.
        assert len(pairs) == count + (not mask.all())
        assert ((labels == -1).numpy() == ~mask).all()


def test_a_long_winding_way_is_one_component() -> None:
    # Rows joined at alternate ends: labels must travel along all of it.
    snake = torch.zeros(1, 21, 20, dtype=torch.bool)
    snake[0, ::2] = True
    snake[0, 1::4, -1], snake[0, 3::4, 0] = True, True
    assert label_components(snake)[snake].unique().numel() == 1
    snake[0, 11, 0] = False
    assert label_components(snake)[snake].unique().numel() == 2


def test_a_start_from_smaller_regions_changes_nothing() -> None:
    values = torch.rand(4, 15, 15, generator=torch.Generator().manual_seed(0))
    labels = None
    for threshold in (0.9, 0.7, 0.5, 0.3):
        labels = label_components(values >= threshold, labels)
        assert torch.equal(labels, label_components(values >= threshold))


@pytest.mark.parametrize("seed", range(3))
def test_boxes_and_areas_of_components(seed) -> None:
    region = regions(seed, 0.4)
    labels = label_components(region)
    boxes, areas = component_boxes(labels)
    assert areas.sum(dim=1).tolist() == region.flatten(1).sum(dim=1).tolist()
    for sample, label in [(n, int(each)) for n in range(6) for each in labels[n].unique() if each >= 0]:
        mask = labels[sample : sample + 1] == label
        expected = masks_to_boxes(mask)[0] + torch.tensor([0, 0, 1, 1])  # torchvision's end on the last pixel
        assert boxes[sample, label].tolist() == expected.tolist()
        assert areas[sample, label] == mask.sum()


def test_overlap_against_torchvision() -> None:
    generator = torch.Generator().manual_seed(0)
    near = torch.randint(0, 10, (2, 30, 2), generator=generator)
    first, second = torch.cat(
        [near, near + torch.randint(1, 9, near.shape, generator=generator)], dim=2
    ).float()
    torch.testing.assert_close(_iou(first, second), box_iou(first, second).diagonal())


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
    ours = component_boxes(label_components(mask))
    assert ours.boxes[ours.areas > 0].tolist() == [[5, 5, 15, 15]]  # "first pixel outside": 10 x 10
    sides = [theirs[2] - theirs[0] + 1, theirs[3] - theirs[1] + 1]
    assert sides == [11, 11]
    intersection = (truth[2] - truth[0] + 1) * (truth[3] - truth[1] + 1)
    assert intersection / (sides[0] * sides[1]) == pytest.approx(100 / 121)
    assert _iou(ours.boxes[ours.areas > 0], torch.tensor([[5.0, 5, 15, 15]])).item() == 1


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
    with pytest.raises(ValueError, match=r"`boxes` must hold 1 tensors \(M, 4\), one a sample, got "):
        max_box_accuracy(square(2, 0, 0).float(), square(2, 0, 0), boxes)


@pytest.mark.parametrize(
    "score", [MaxBoxAccuracy, lambda version: max_box_accuracy(None, None, version=version)]
)
@pytest.mark.parametrize("version", [0, 3, "v2", None])
def test_wrong_version_is_refused(score, version) -> None:
    with pytest.raises(ValueError, match=r"`version` must be 1 \(MaxBoxAcc\) or 2 \(MaxBoxAccV2\), got "):
        score(version=version)
