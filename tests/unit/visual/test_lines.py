"""Lines lie where the regions end, and can be seen on any picture."""

import pytest
import torch
from scipy import ndimage

from lightning_gcam.visual import mark_peaks, outline
from lightning_gcam.visual.drawing import box_edges, box_masks, edge

RED = (255, 0, 0)


def flat(level, samples=1, size=40):
    return torch.full((samples, 3, size, size), level, dtype=torch.uint8)


def is_color(pictures, color):
    return (pictures == torch.tensor(color).view(1, 3, 1, 1)).all(1)


def random_masks():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, 40, 40, generator=generator) > 0.3


@pytest.mark.parametrize("width", [1, 2])
def test_edge_is_the_mask_less_its_erosion(width):
    for mask in random_masks():
        inside = ndimage.binary_erosion(mask.numpy(), iterations=width)
        assert torch.equal(edge(mask, width), mask & ~torch.from_numpy(inside))


def test_outline_paints_the_edge_and_nothing_else_in_its_colour():
    masks = random_masks()
    assert torch.equal(is_color(outline(flat(99, 3), masks, RED), RED), edge(masks))


@pytest.mark.parametrize("level", [0, 128, 255])
def test_outline_is_seen_on_dark_and_on_light(level):
    mask = torch.zeros(1, 40, 40, dtype=torch.bool)
    mask[:, 10:30, 10:30] = True
    drawn = outline(flat(level), mask, (255, 255, 255))[0, 0, 20].int()
    assert (drawn - level).abs().max() >= 127
    assert drawn[:8].unique().tolist() == [level] and drawn[14:26].unique().tolist() == [level]


def test_outline_of_the_whole_picture_runs_along_its_border():
    drawn = is_color(outline(flat(99), torch.ones(1, 40, 40, dtype=torch.bool), RED), RED)
    assert drawn.sum() == 4 * 39 and drawn[0, 0].all() and drawn[0, :, -1].all()


def test_empty_mask_draws_nothing():
    assert torch.equal(outline(flat(99), torch.zeros(1, 40, 40, dtype=torch.bool)), flat(99))


def test_dashes_leave_gaps_on_every_side():
    mask = torch.zeros(1, 40, 40, dtype=torch.bool)
    mask[:, 3:37, 3:37] = True
    line = is_color(outline(flat(99), mask, RED, dashed=True), RED)[0]
    for side in (line[3, 3:37], line[36, 3:37], line[3:37, 3], line[3:37, 36]):
        assert 0.4 < side.float().mean() < 0.8


def test_box_masks_scale_with_the_panel():
    boxes = torch.tensor([[1.0, 2, 4, 5], [-9, -9, 99, 99], [3, 3, 3, 5], [0, 0, torch.nan, 5]])
    shown = box_masks(boxes, (10, 10), (30, 30))
    expected = torch.zeros(30, 30, dtype=torch.bool)
    expected[6:15, 3:12] = True
    assert torch.equal(shown[0], expected) and shown[1].all() and not shown[2:].any()


def test_a_thin_box_is_not_lost_when_shrunk():
    assert box_masks(torch.tensor([[100.2, 0, 100.4, 400]]), (400, 400), (40, 40)).any(1).sum() == 1


def test_overlapping_boxes_stay_apart():
    boxes = [torch.tensor([[0.0, 0, 20, 20], [10, 10, 30, 30]]), torch.zeros(0, 4)]
    lines = box_edges(boxes, (40, 40), (40, 40), torch.device("cpu"))
    assert lines[0, 10, 15] and lines[0, 19, 15] and not lines[1].any()


def test_ring_is_centred_on_the_peak_and_leaves_it_visible():
    centers = torch.tensor([[20.0, 12.0], [9.0, 30.0], [20.0, 20.0]])
    ringed = mark_peaks(flat(99, 3), centers, torch.tensor([True, True, False]), RED)
    for drawn, (row, column) in zip(is_color(ringed, RED)[:2], centers, strict=False):
        rows, columns = drawn.nonzero().double().unbind(1)
        assert (rows.mean(), columns.mean()) == (row, column)
        assert (ringed[:2, :, row.int(), column.int()] != torch.tensor(RED)).any()
    assert torch.equal(ringed[2], flat(99)[0])


@pytest.mark.parametrize("corner", [(0.0, 0.0), (39.0, 39.0), (-0.5, 20.0)])
def test_ring_at_the_border_is_cut_not_wrapped(corner):
    drawn = is_color(mark_peaks(flat(99), torch.tensor([corner]), torch.tensor([True]), RED), RED)[0]
    distance = (drawn.nonzero() - torch.tensor(corner)).norm(dim=1)
    assert len(distance) > 5 and distance.max() < 8


def test_outline_refuses():
    with pytest.raises(ValueError, match=r"`masks` must be .*\(1, 40, 40\).*\(40, 40\)"):
        outline(flat(0), torch.zeros(40, 40, dtype=torch.bool))
