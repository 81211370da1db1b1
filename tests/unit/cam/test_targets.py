"""From an output to the logits, and from the logits to the score that is explained."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_gcam.cam.outputs import find_logits
from lightning_gcam.cam.targets import (
    Labels,
    are_measurements,
    check_classes,
    check_labels,
    predict,
    score_of,
)
from lightning_gcam.utils.errors import InputError

LOGITS = torch.tensor([[1.0, 5.0, 2.0], [7.0, 3.0, 4.0]])
OTHER = torch.zeros(2, 3)


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        (LOGITS, None),
        [torch.zeros(2, 3, 4, 4), LOGITS],
        (None, "text", torch.tensor(0.5), LOGITS),
        {"logits": LOGITS, "out": OTHER},
        OrderedDict(aux=OTHER, out=LOGITS),
        {"features": torch.zeros(2, 8, 4, 4), "scores": LOGITS},
        SimpleNamespace(loss=torch.tensor(1.0), logits=LOGITS),
        {"mask": torch.ones(2, 3, dtype=torch.long), "scores": LOGITS},
    ],
    ids=["tensor", "tuple", "list", "tuple of all sorts", "logits", "out", "any key", "object", "integers"],
)
def test_the_logits_are_found(output) -> None:
    assert find_logits(output, batch_size=2) is LOGITS


def test_one_number_a_sample_is_one_logit_each() -> None:
    assert find_logits(torch.tensor([0.5, -0.5]), batch_size=2).tolist() == [[0.5], [-0.5]]


@pytest.mark.parametrize(
    ("output", "logits"), [(torch.tensor(0.5), [[0.5]]), (torch.tensor([0.5, 2.0]), [[0.5, 2.0]])]
)
def test_a_squeeze_may_have_taken_the_only_sample_too(output: Tensor, logits: list[list[float]]) -> None:
    assert find_logits(output, batch_size=1).tolist() == logits
    with pytest.raises(ValueError, match=r"no logits \(3, K\)"):
        find_logits(output, batch_size=3)


@pytest.mark.parametrize(
    ("output", "came"),
    [
        (torch.zeros(2, 3, 4, 4, 4), r"got a tensor \(2, 3, 4, 4, 4\) float32"),
        (torch.zeros(3, 3), r"got a tensor \(3, 3\) float32"),
        (torch.zeros(2, 3, dtype=torch.long), r"got a tensor \(2, 3\) int64"),
        ({"boxes": torch.zeros(2, 5, 4)}, r"got dict with keys \['boxes'\]"),
        ((torch.zeros(2, 3, 4), None), r"got tuple of \['a tensor \(2, 3, 4\) float32', 'NoneType'\]"),
        (None, r"got NoneType"),
    ],
)
def test_an_output_without_logits_is_described(output, came: str) -> None:
    with pytest.raises(ValueError, match=rf"The model's output holds no logits \(2, K\): {came}.*`forward=`"):
        find_logits(output, batch_size=2)


def test_predictions() -> None:
    assert predict(LOGITS).tolist() == [1, 0]
    assert predict(torch.tensor([[2.0], [-2.0], [0.0]])).tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("targets", "classes", "values"),
    [
        (None, [1, 0], [5, 7]),
        ("predicted", [1, 0], [5, 7]),
        (2, [2, 2], [2, 4]),
        (torch.tensor(2), [2, 2], [2, 4]),
        ([0, 1], [0, 1], [1, 3]),
        ((0, 1), [0, 1], [1, 3]),
        (np.array([0, 1]), [0, 1], [1, 3]),
        (torch.tensor([2, 0]), [2, 0], [2, 7]),
        (torch.tensor([2, 0], dtype=torch.uint8), [2, 0], [2, 7]),
        (torch.tensor([2.0, 0.0]), [2, 0], [2, 7]),
    ],
)
def test_the_score_of_a_class_is_its_logit(targets, classes: list[int], values: list[float]) -> None:
    score = score_of(LOGITS, targets)
    assert score.values.tolist() == values
    assert score.targets is not None
    assert score.targets.tolist() == classes
    assert score.targets.dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_the_score_of_several_classes_is_the_sum_of_theirs(dtype: torch.dtype) -> None:
    marked = torch.tensor([[1, 0, 1], [0, 0, 0]], dtype=dtype)
    score = score_of(LOGITS, marked)
    assert score.values.tolist() == [1 + 2, 7]  # a row without a mark: the predicted class
    assert score.targets is not None
    assert score.targets.tolist() == [[1, 0, 1], [1, 0, 0]]


def test_as_many_samples_as_classes_are_not_taken_for_multi_hot() -> None:
    assert score_of(torch.eye(3), torch.tensor([0, 0, 2])).values.tolist() == [1, 0, 1]


def test_a_single_logit_speaks_for_class_one_and_against_class_zero() -> None:
    logits = torch.tensor([[3.0], [-2.0], [0.5]])
    assert score_of(logits, [1, 1, 0]).values.tolist() == [3.0, -2.0, -0.5]
    predicted = score_of(logits, None)
    assert predicted.values.tolist() == [3.0, 2.0, 0.5]
    assert predicted.targets is not None
    assert predicted.targets.tolist() == [1, 0, 1]


def test_a_callable_gets_the_logits() -> None:
    score = score_of(LOGITS, lambda logits: logits[:, 1] - logits[:, 0])
    assert score.values.tolist() == [4.0, -4.0]
    assert score.targets is None


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (
            [0, 1, 2],
            r"`targets` must be \(2,\) classes or \(2, 3\) multi-hot; got \(3,\). Give one class per sample",
        ),
        (torch.zeros(2, 2), r"`targets` must be \(2,\) classes or \(2, 3\) multi-hot; got \(2, 2\)"),
        (torch.zeros(2, 3, 1), r"got \(2, 3, 1\)"),
        (3, r"`targets` holds class 3, but the logits have 3 \(classes 0 to 2\)"),
        (-1, r"`targets` holds class -1, but the logits have 3"),
        ("label", r'`targets` "label" is not known. Use "predicted"'),
        (
            ["cat", "dog"],
            r"`targets` must be classes, as numbers from 0.*got list \['cat', 'dog'\]. Give each class by its number",
        ),
        ([0, None], r"`targets` must be classes, as numbers.*got list \[0, None\]"),
        (lambda logits: logits, r"callable must give one score per sample, \(2,\); got \(2, 3\)"),
        (lambda logits: logits.sum(), r"callable must give one score per sample, \(2,\); got \(\)"),
        (lambda logits: 3.0, r"callable must give one score per sample, \(2,\); got float"),
    ],
)
def test_what_is_no_target_is_refused(targets, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score_of(LOGITS, targets)


def test_a_single_logit_has_two_classes() -> None:
    with pytest.raises(ValueError, match=r"holds class 2, but the logits have 1 \(classes 0 to 1\)"):
        score_of(torch.zeros(2, 1), 2)


def test_labels_outside_of_the_logits_are_named_with_their_argument() -> None:
    check_classes(torch.tensor([0, 9]), 10)
    with pytest.raises(ValueError, match=r"`labels` holds class 10, but the logits have 10"):
        check_classes(torch.tensor([0, 10]), 10, argument="labels")


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (
            [1, 3, 2],
            r"class 3, .*\(classes 0 to 2\)\. Classes count from 0, and the largest that came is 3: do yours ",
        ),
        (
            [1, 3, 2],
            r"count from 1\? Then subtract 1, as in `labels - 1`\. Give classes in that range, or `forward=`",
        ),
        ([0, 3, 2], r"the largest that came is 3\. Give classes"),
        ([1, 3, 9], r"class 3, .*the largest that came is 9\. Give classes"),
    ],
)
def test_classes_that_are_counted_from_one_are_told_so(classes: list[int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_labels(torch.tensor(classes), 3)


def test_what_is_shown_of_targets_is_short() -> None:
    with pytest.raises(InputError, match=r"got list \['cat', 'cat', .{,70}\.\.\.\. Give"):
        score_of(LOGITS, ["cat"] * 100)


def test_a_negative_class_among_several_stands_for_the_predicted_one() -> None:
    """-100 and its like mean "no label"; there is still something to explain."""
    logits = torch.tensor([[1.0, 5.0, 2.0], [7.0, 2.0, 3.0]])
    score = score_of(logits, torch.tensor([2, -100]))
    assert score.values.tolist() == [2.0, 7.0]
    assert score.targets is not None
    assert score.targets.tolist() == [2, 0]


def test_labels_of_a_binary_cross_entropy_are_classes() -> None:
    logits = torch.tensor([[1.5], [2.5]])
    assert score_of(logits, torch.tensor([[1.0], [0.0]])).values.tolist() == [1.5, -2.5]


@pytest.mark.parametrize("targets", [-1, torch.tensor(-1)])
def test_one_negative_class_for_all_is_refused(targets: Any) -> None:
    with pytest.raises(InputError, match="`targets` holds class -1"):
        score_of(torch.zeros(2, 3), targets)


# ------------------------------------------------------------------------------------------------ the output itself

ONE = torch.tensor([[3.1], [-0.5], [0.0]])


@pytest.mark.parametrize(
    "targets",
    [
        "output",
        torch.tensor([3.2, -0.4, 1.0]),
        [3.2, -0.4, 1.0],
        np.array([3.2, -0.4, 1.0]),
        torch.tensor([[3.2], [-0.4], [1.0]]),
        torch.tensor([2.0, 0.0, 1.0]),  # whole, and no class of two
        torch.tensor([3.2, float("nan"), 1.0]),
        Labels(torch.tensor([1.0, 0.0, 1.0]), measure=True),  # a part of such a batch
    ],
    ids=["word", "labels", "list", "numpy", "column", "whole numbers", "one is missing", "a part"],
)
def test_a_regression_is_explained_by_its_output_whatever_the_sign(targets: Any) -> None:
    score = score_of(ONE, targets)
    assert torch.equal(score.values, ONE[:, 0])
    assert (score.targets, score.explains) == (None, "output")


@pytest.mark.parametrize(
    "targets",
    [
        torch.tensor([1.0, 0.0, 1.0]),
        torch.tensor([1.0, 0.0, -1.0]),  # the last one has no label: its prediction, class 0
        torch.tensor([1, 0, 1]),
        Labels(torch.tensor([1.0, 0.0, 1.0]), measure=False),
    ],
)
def test_zeros_and_ones_are_the_two_classes_of_a_single_logit(targets: Any) -> None:
    score = score_of(torch.tensor([[3.0], [-2.0], [-4.0]]), targets)
    last = targets.values if isinstance(targets, Labels) else targets
    assert score.values.tolist() == [3.0, 2.0, -4.0 if last[2] == 1 else 4.0]
    assert score.explains == "classes"


@pytest.mark.parametrize(
    ("labels", "measure"),
    [
        ([0.5, 1.0], True),
        ([2.0, 1.0], True),
        ([-0.5, 0.0], True),
        ([0.0, 1.0], False),
        ([-1.0, 1.0], False),
        ([-100.0, 0.0], False),
        ([2, 1], False),
        ([[0.5], [1.0]], True),
        ([[0.5, 0.5], [1.0, 0.0]], False),  # soft labels
    ],
)
def test_which_labels_measure(labels: list[Any], measure: bool) -> None:
    assert are_measurements(torch.tensor(labels)) is measure
    assert Labels.of(torch.tensor(labels)).measure is measure


def test_a_part_of_the_labels_keeps_what_the_whole_showed() -> None:
    labels = Labels.of(torch.tensor([0.5, 1.0, 0.0]))
    assert len(labels[1:]) == 2
    assert labels[1:].measure
    assert labels[1:].values.tolist() == [1.0, 0.0]


def test_whole_floats_are_classes_where_there_are_several_logits() -> None:
    assert score_of(LOGITS, torch.tensor([2.0, 0.0])).values.tolist() == [2, 7]
    assert score_of(LOGITS, Labels(torch.tensor([2.0, 0.0]), measure=True)).values.tolist() == [2, 7]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (
            "output",
            r'`targets="output"` explains the output of a model that gives one number, but this one gives 3',
        ),
        (
            torch.tensor([0.37, 1.0]),
            r"`targets` holds 0.37, which is no class, and the model gives 3 numbers per sample",
        ),
        (torch.tensor([float("nan"), 1.0]), "`targets` holds nan, which is no class"),
    ],
)
def test_several_outputs_are_no_regression_and_the_callable_that_is_shown_works(
    targets: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message) as refused:
        score_of(LOGITS, targets)
    pasted: dict[str, Any] = eval(f"dict({str(refused.value).splitlines()[-1].strip()})")
    assert score_of(LOGITS, **pasted).values.tolist() == [1, 7]


def test_labels_of_a_batch_are_held_against_the_logits() -> None:
    check_labels(torch.tensor([0, 2, -1]), 3)
    check_labels(torch.tensor([0.5, -3.0, 200.0]), 1)
    with pytest.raises(
        InputError, match=r"`labels` holds 0.5, which is no class, and the model gives 3 numbers"
    ):
        check_labels(torch.tensor([0.5, 1.0]), 3)
    with pytest.raises(
        InputError, match=r'`labels` holds class 23.*or `targets="output"` if the model predicts a num'
    ):
        check_labels(torch.tensor([23, 0]), 1)


def test_a_score_keeps_no_graph_when_detached() -> None:
    score = score_of(LOGITS.clone().requires_grad_(), 0)
    assert score.values.requires_grad
    detached = score.detached()
    assert not detached.values.requires_grad
    assert not detached.logits.requires_grad
    assert detached.values.tolist() == [1, 7]
