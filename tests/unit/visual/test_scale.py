"""Sizes change; what is shown does not."""

import torch
import torch.nn.functional as F

from lightning_gcam.visual.images import shrink_images
from lightning_gcam.visual.overlay import enlarge, peak_centers, shrink_maps


def test_enlarging_repeats_every_pixel_exactly():
    pictures = torch.randint(0, 256, (2, 3, 5, 7)).to(torch.uint8)
    large = enlarge(pictures, 4)
    assert torch.equal(large, pictures.repeat_interleave(4, 2).repeat_interleave(4, 3))
    assert torch.equal(large[..., 1::4, 2::4], pictures)


def test_what_has_its_size_is_left_alone():
    pictures, maps = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.zeros(1, 4, 4)
    assert enlarge(pictures, 1) is pictures
    assert shrink_images(pictures, 4, 4) is pictures and shrink_maps(maps, 4, 4) is maps


def test_shrinking_pictures_averages():
    checkered = torch.tensor([[0, 255], [255, 0]], dtype=torch.uint8).repeat(1, 3, 64, 64)
    centre = shrink_images(checkered, 32, 32)[..., 2:-2, 2:-2].int()
    assert (centre - 128).abs().max() <= 2


def test_shrinking_keeps_a_narrow_peak_and_a_thin_mask():
    maps = torch.zeros(1, 512, 512)
    maps[0, 101, 301] = 1
    small = shrink_maps(maps, 224, 224)
    assert small.max() == 1 and small[0, int(101 * 224 / 512), int(301 * 224 / 512)] == 1
    assert shrink_maps(maps.bool(), 224, 224).dtype == torch.bool


def test_peaks_are_the_middle_of_the_highest_pixel():
    maps = F.one_hot(torch.tensor([0, 7, 13]), 15).float().view(3, 3, 5)
    assert peak_centers(maps, 3, 5).tolist() == [[0, 0], [1, 2], [2, 3]]
    # a pixel shown 10 wide begins at 0 and ends at 9
    assert peak_centers(maps, 30, 50)[0].tolist() == [4.5, 4.5]
