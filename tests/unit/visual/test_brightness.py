"""What is drawn the brightest, by hand; and what came and what went."""

import pytest
import torch

from lightning_gcam.utils.errors import InputError
from lightning_gcam.visual.images import change_of, check_scale, to_unit

MAPS = torch.tensor([[[1.0, 2.0]], [[0.0, 8.0]], [[0.0, 0.0]], [[torch.nan, -3.0]]])


@pytest.mark.parametrize(
    ("scale", "top", "expected"),
    [
        ("own", 0.0, [0.5, 1, 0, 1, 0, 0, 0, 0]),
        ("own", 16.0, [0.5, 1, 0, 1, 0, 0, 0, 0]),
        ("shared", 0.0, [0.125, 0.25, 0, 1, 0, 0, 0, 0]),
        ("shared", 16.0, [0.125, 0.25, 0, 1, 0, 0, 0, 0]),
        ("run", 16.0, [0.0625, 0.125, 0, 0.5, 0, 0, 0, 0]),
        ("run", 4.0, [0.125, 0.25, 0, 1, 0, 0, 0, 0]),  # this look is the brightest of the run
    ],
)
def test_the_brightest_of_each_scale(scale, top, expected):
    unit, blank = to_unit(MAPS, scale, top)
    assert unit.flatten().tolist() == expected
    assert blank.tolist() == [False, False, True, True]


def test_a_faint_map_is_not_blank():
    unit, blank = to_unit(torch.tensor([[[1e-6]], [[1e6]]]), "shared")
    assert not blank.any() and 0 < unit[0] < 1e-11


def test_scaling_all_maps_moves_nothing():
    assert torch.equal(to_unit(MAPS, "shared")[0], to_unit(MAPS * 2.0**-20, "shared")[0])


def test_nothing_but_blank_maps():
    for scale in ("own", "shared", "run"):
        unit, blank = to_unit(torch.zeros(2, 1, 3), scale)
        assert blank.all() and not unit.any()


def test_a_change_is_of_maps_each_at_its_own_maximum():
    change, blank, was_blank = change_of(torch.tensor([[[4.0, 1.0, 0.0]]]), torch.tensor([[[0.0, 0.5, 0.5]]]))
    assert change.flatten().tolist() == [1.0, -0.75, -1.0]
    assert not blank.any() and not was_blank.any()
    assert torch.equal(change_of(MAPS, MAPS * 1024)[0], torch.zeros(4, 1, 2))


def test_of_a_blank_map_no_change_can_be_told():
    maps, before = torch.tensor([[[0.0, 0.0]], [[0.0, 3.0]]]), torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])
    change, blank, was_blank = change_of(maps, before)
    assert not change.any()
    assert (blank.tolist(), was_blank.tolist()) == ([True, False], [False, True])


def test_unknown_words():
    assert check_scale("run") == "run"
    with pytest.raises(InputError, match=r"`scale` 'share' is not known here. Did you mean \"shared\"\?"):
        check_scale("share")
    with pytest.raises(InputError, match=r"`scale` 'run' is not known here. Known: \"own\", \"shared\""):
        check_scale("run", allowed=("own", "shared"))
    with pytest.raises(InputError, match=r"`scale` 3 is not known here"):
        check_scale(3)
