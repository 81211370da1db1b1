"""The score of a dense head: by hand on grids of a few positions, with masks and without."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_gcam.cam.regions import score_of_regions
from lightning_gcam.cam.targets import Labels
from lightning_gcam.utils.errors import InputError

# One sample, three classes, 2 x 2 positions: class 0 wins two of them, class 1 and 2 one each.
LOGITS = torch.tensor([[[[5.0, 4.0], [1.0, -1.0]], [[0.0, 3.0], [2.0, 0.0]], [[1.0, 1.0], [0.0, 6.0]]]])
LEFT = torch.tensor([[[True, False], [True, False]]])
NOWHERE = torch.zeros(1, 2, 2, dtype=torch.bool)


@pytest.mark.parametrize(("target", "value"), [(0, 6.0), (1, 2.0), (2, 1.0)])
def test_a_class_is_summed_over_the_mask(target: int, value: float) -> None:
    score = score_of_regions(LOGITS, target, LEFT)
    assert score.values.tolist() == [value]
    assert score.logits.tolist() == [[3.0, 1.0, 0.5]]  # the means over the left column
    assert score.targets is not None and score.in_mask is not None
    assert (score.targets.tolist(), score.in_mask.tolist()) == ([target], [True])


@pytest.mark.parametrize(("target", "value"), [(0, 9.0), (1, 2.0), (2, 6.0)])
@pytest.mark.parametrize("masks", [None, NOWHERE], ids=["no mask", "an empty mask"])
def test_without_a_mask_a_class_is_summed_where_it_is_predicted(
    target: int, value: float, masks: Tensor | None
) -> None:
    score = score_of_regions(LOGITS, target, masks)
    assert score.values.tolist() == [value]
    assert score.in_mask is not None
    assert score.in_mask.tolist() == [False]
    mean = score.logits[0, target]
    assert mean == value / {0: 2, 1: 1, 2: 1}[target]


def test_the_predicted_class_is_the_one_of_the_region() -> None:
    assert score_of_regions(LOGITS, None).targets.tolist() == [0]  # most positions
    right = ~LEFT
    score = score_of_regions(LOGITS, "predicted", right)  # means on the right: 1.5, 1.5, 3.5
    assert score.targets.tolist() == [2]
    assert score.values.tolist() == [7.0]
    negative = score_of_regions(LOGITS, torch.tensor([-1]), right)
    assert negative.targets.tolist() == [2]


def test_a_class_that_is_nowhere_predicted_has_no_score_and_no_gradient() -> None:
    logits = (LOGITS - torch.tensor([0.0, 9.0, 0.0])[:, None, None]).requires_grad_()
    score = score_of_regions(logits, 1)
    assert score.values.tolist() == [0.0]
    assert not torch.autograd.grad(score.values.sum(), logits)[0].any()
    torch.testing.assert_close(score.logits, logits.mean(dim=(2, 3)))


def test_samples_with_and_without_a_mask_stand_side_by_side() -> None:
    logits, masks = LOGITS.repeat(3, 1, 1, 1), torch.cat([LEFT, NOWHERE, ~LEFT])
    score = score_of_regions(logits, torch.tensor([0, 2, 1]), masks)
    assert score.values.tolist() == [6.0, 6.0, 3.0]
    assert score.in_mask.tolist() == [True, False, True]


def test_the_gradient_is_one_in_the_region_and_zero_elsewhere() -> None:
    logits = LOGITS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score_of_regions(logits, 1, LEFT).values.sum(), logits)
    assert gradient[0, 1].tolist() == [[1.0, 0.0], [1.0, 0.0]]
    assert not gradient[0, 0].any() and not gradient[0, 2].any()


def test_several_classes_are_summed_where_any_of_them_is_predicted_or_in_the_mask() -> None:
    marked = torch.tensor([[1, 0, 1]])
    assert score_of_regions(LOGITS, marked, LEFT).values.tolist() == [6.0 + 1.0]
    # class 0 or 2 wins everywhere but bottom left: (5 + 4 - 1) + (1 + 1 + 6)
    assert score_of_regions(LOGITS, marked).values.tolist() == [16.0]


def test_a_single_logit_is_the_object_and_its_negative_the_background() -> None:
    logits = torch.tensor([[[[2.0, -1.0], [3.0, -4.0]]]])
    assert score_of_regions(logits, None).values.tolist() == [5.0]  # where it is positive
    assert score_of_regions(logits, None, ~LEFT).values.tolist() == [-5.0]  # class 1 all the same
    assert score_of_regions(logits, 1, LEFT).values.tolist() == [5.0]
    assert score_of_regions(logits, 0).values.tolist() == [5.0]
    assert score_of_regions(logits, "predicted", ~LEFT).targets.tolist() == [0]


def test_a_dense_regression_is_summed_over_the_mask_or_the_image() -> None:
    depth = torch.tensor([[[[2.0, 1.0], [3.0, 4.0]]]])
    whole = score_of_regions(depth, "output")
    assert (whole.values.tolist(), whole.explains, whole.targets) == ([10.0], "output", None)
    assert whole.logits.tolist() == [[2.5]]
    assert score_of_regions(depth, Labels(torch.tensor([2.0]), measure=True), LEFT).values.tolist() == [5.0]
    with pytest.raises(InputError, match="this one gives 3"):
        score_of_regions(LOGITS, "output")


def test_a_callable_gets_every_logit() -> None:
    score = score_of_regions(LOGITS, lambda logits: logits[:, 2].amax(dim=(1, 2)), LEFT)
    assert score.values.tolist() == [6.0]
    assert (score.targets, score.explains) == (None, "score")
    with pytest.raises(InputError, match=r"callable must give one score per sample, \(1,\); got \(1, 3\)"):
        score_of_regions(LOGITS, lambda logits: logits.sum(dim=(2, 3)))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (3, r"`targets` holds class 3, but the logits have 3"),
        ([0, 1], r"`targets` must be \(1,\) classes or \(1, 3\) multi-hot; got \(2,\)"),
        ("label", r'`targets` "label" is not known'),
    ],
)
def test_what_is_no_target_is_refused(targets: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        score_of_regions(LOGITS, targets, LEFT)


# ------------------------------------------------------------------------------------------------- masks on the grid


def test_a_mask_of_the_images_size_is_read_at_the_logits_positions() -> None:
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[:, :, :4] = True
    assert score_of_regions(LOGITS, 0, masks).values.tolist() == [6.0]


def test_an_object_smaller_than_a_position_is_where_it_touches() -> None:
    masks = torch.zeros(2, 9, 9, dtype=torch.bool)
    masks[0, 0, 0] = masks[1, 8, 8] = True  # the nearest pixels are (2, 2), (2, 6), (6, 2) and (6, 6)
    score = score_of_regions(LOGITS.repeat(2, 1, 1, 1), 0, masks)
    assert score.values.tolist() == [5.0, -1.0]
    assert score.in_mask.all()


def test_logits_finer_than_the_mask() -> None:
    logits = nn.functional.interpolate(LOGITS, scale_factor=4)
    assert score_of_regions(logits, 0, LEFT).values.tolist() == [16 * 6.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_sums_over_large_regions_are_not_taken_in_half_precision(dtype: torch.dtype) -> None:
    logits = torch.full((1, 2, 300, 300), 2.0, dtype=dtype)
    score = score_of_regions(logits, 0, torch.ones(1, 300, 300, dtype=torch.bool))
    assert score.values.tolist() == [180_000.0]  # float16 ends at 65504
    assert score.logits.tolist() == [[2.0, 2.0]]


def test_what_lies_outside_of_the_region_does_not_matter_even_if_it_is_not_finite() -> None:
    logits = LOGITS.clone()
    logits[..., 1] = float("nan")
    assert score_of_regions(logits, 0, LEFT).values.tolist() == [6.0]


def test_a_mask_of_inference_mode_is_no_obstacle() -> None:
    with torch.inference_mode():
        masks = LEFT.clone()
    logits = LOGITS.clone().requires_grad_()
    score_of_regions(logits, 0, masks).values.sum().backward()
    assert logits.grad is not None
