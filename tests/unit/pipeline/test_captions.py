"""The words of a look: no class is invented where the output is not of classes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gcam import Attribution, SaliencyBatch
from lightning_gcam.pipeline.captions import captions, correct, explained, subject_of

VALUES = torch.tensor([[3.14], [-0.5], [0.004]])
EMBEDDING = torch.tensor([[0.5, 2.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
SCORES = torch.tensor([0.83, -1.0, 12.5])


def look(logits: Tensor, labels: Tensor | None = None, **fields: Any) -> tuple[SaliencyBatch, Attribution]:
    """Samples and an attribution without maps."""
    batch = SaliencyBatch(torch.zeros(len(logits), 1, 4, 4), labels)
    return batch, replace(Attribution({}, logits, None, "layer", {}, False), **fields)


# ------------------------------------------------------------------------------------------------- a regression


def test_a_regression_shows_the_true_and_the_predicted_value() -> None:
    found = look(VALUES, torch.tensor([3.2, -0.75, 0.0]), explains="output")
    assert captions(*found) == [
        "true 3.20 · predicted 3.14",
        "true -0.75 · predicted -0.50",
        "true 0.00 · predicted 4.0e-03",
    ]
    assert correct(*found) == [None, None, None]
    assert explained(*found) == "maps of the output"


def test_large_values() -> None:
    found = look(1e6 * VALUES, torch.tensor([3.2e6, 23.0, 7.0]), explains="output")
    assert captions(*found) == [
        "true 3.2e+06 · predicted 3.1e+06",
        "true 23.00 · predicted -5.0e+05",
        "true 7.00 · predicted 4000.00",
    ]


@pytest.mark.parametrize("column", [False, True])
def test_float_labels_of_a_single_output_are_values_whatever_is_explained(column: bool) -> None:
    labels = torch.tensor([3.2, -0.75, 0.0])
    found = look(VALUES, labels[:, None] if column else labels, explains="score", values=SCORES)
    assert captions(*found)[0] == "true 3.20 · predicted 3.14"
    assert correct(*found) == [None, None, None]


@pytest.mark.parametrize("labels", [torch.tensor([1, 0, 1]), torch.tensor([[1.0], [0.0], [1.0]])])
def test_zeros_and_ones_are_classes_in_a_column_too(labels: Tensor) -> None:
    found = look(torch.tensor([[2.0], [1.0], [-1.0]]), labels, targets=labels)
    assert captions(*found) == [
        "true 1 · predicted 1 (0.88)",
        "true 0 · predicted 1 (0.73)",
        "true 1 · predicted 0 (0.73)",
    ]
    assert correct(*found) == [True, False, False]
    assert explained(*look(VALUES, labels, targets=labels.flatten())) == "maps of the true class"


def test_the_output_asked_for_without_labels_is_no_class() -> None:
    found = look(VALUES, explains="output")
    assert captions(*found)[:2] == ["predicted 3.14", "predicted -0.50"]


# ------------------------------------------------------------------------------------------------- several classes

MARKED = torch.tensor(
    [[2.0, -1.0, 0.5, -3.0], [-1.0, -2.0, -0.1, 0.0], [3.0, 1.0, 4.0, 2.0], [1.0, -1.0, -1.0, -1.0]]
)
MARKS = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]])


def test_every_class_that_is_more_likely_than_not_is_shown_with_its_probability() -> None:
    found = look(MARKED, MARKS, targets=MARKS)
    assert captions(*found, ["cat", "dog", "owl", "fox"]) == [
        "true cat, owl · predicted cat (0.88), owl (0.62)",  # 1 / (1 + e^-2), 1 / (1 + e^-0.5)
        "true none · predicted none",
        "true cat, dog, owl and 1 more · predicted owl (0.98), cat (0.95), fox (0.88) and 1 more",
        "true dog · predicted cat (0.73)",
    ]
    assert correct(*found) == [True, True, True, False]
    assert explained(*found) == "maps of the true classes"


def test_one_mark_in_every_row_is_one_class_of_many() -> None:
    """e / (e + 1 + 1) = 0.576, not 1 / (1 + 1 / e) = 0.731."""
    marks = torch.eye(3)
    found = look(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]), marks, targets=marks)
    assert captions(*found) == [
        "true 0 · predicted 0 (0.58)",
        "true 1 · predicted 2 (0.58)",
        "true 2 · predicted 0 (0.58)",
    ]
    assert correct(*found) == [True, False, False]
    assert explained(*found) == "maps of the true class"


# ------------------------------------------------------------------------------------------------- an embedding


def test_no_class_is_read_into_an_embedding() -> None:
    found = look(EMBEDDING, explains="score", values=SCORES)
    assert captions(*found) == ["score 0.83", "score -1.00", "score 12.50"]
    assert correct(*found) == [None, None, None]
    assert explained(*found) == "maps of a score of your own"


def test_an_embedding_with_labels_and_names_has_true_classes_only() -> None:
    batch, attribution = look(EMBEDDING, torch.tensor([0, 1, -1]), explains="score", values=SCORES)
    batch.names = ["a.png", "b.png", "c.png"]
    names = ["cat", "dog"]  # of two classes, where the embedding has three numbers
    assert captions(batch, attribution, names) == [
        "a.png · true cat · score 0.83",
        "b.png · true dog · score -1.00",
        "c.png · score 12.50",
    ]
    assert correct(batch, attribution, names) == [None, None, None]


def test_a_name_for_each_number_or_a_mark_for_each_makes_them_classes() -> None:
    labels = torch.tensor([1, 0, 0])
    found = look(EMBEDDING, labels, explains="score", values=SCORES)
    names = ["cat", "dog", "owl"]
    assert subject_of(*found, names) == "classes"
    assert captions(*found, names)[0] == "true dog · predicted dog (0.74)"
    assert correct(*found, names) == [True, True, False]
    marks = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1]])
    marked = look(EMBEDDING, marks, explains="score", values=SCORES)
    assert captions(*marked)[1] == "true 1 · predicted 0 (0.73)"


def test_measurements_beside_several_outputs_are_shown_as_they_are() -> None:
    found = look(EMBEDDING, torch.tensor([0.5, 1.0, 2.25]), explains="score", values=SCORES)
    assert captions(*found)[2] == "true 2.25 · score 12.50"


# ------------------------------------------------------------------------------------------------- a dense head


def test_a_prediction_is_judged_in_the_mask_and_not_where_the_network_made_it() -> None:
    labels = torch.tensor([1, 1, 2])
    found = look(EMBEDDING, labels, targets=labels, in_mask=torch.tensor([True, False, True]))
    assert correct(*found) == [True, None, True]
    assert captions(*found)[1] == "true 1 · predicted 0 (0.58)"


@pytest.mark.parametrize(
    ("in_mask", "words"),
    [
        ([True, True, True], "over the object"),
        ([True, False, True], "over the object or where it is predicted"),
        ([False, False, False], "where it is predicted"),
    ],
)
def test_the_title_says_where_the_logits_were_summed(in_mask: list[bool], words: str) -> None:
    found = look(EMBEDDING, targets=torch.tensor([1, 0, 2]), in_mask=torch.tensor(in_mask))
    assert explained(*found) == f"maps of the predicted class {words}"


def test_a_dense_regression_is_summed_over_the_image() -> None:
    nowhere = torch.zeros(3, dtype=torch.bool)
    assert explained(*look(VALUES, explains="output", in_mask=nowhere)) == "maps of the output over the image"
    assert explained(*look(VALUES, explains="score", in_mask=nowhere)) == "maps of a score of your own"
