"""Forwards that are counted."""

from __future__ import annotations

import torch

from lightning_gcam.utils.chunking import count_forwards, one_forward


def test_a_forward_that_calls_another_is_one() -> None:
    images = torch.zeros(3, 1, 2, 2)
    with count_forwards() as count:
        with one_forward(images), one_forward(images):
            pass
        with one_forward(images):
            pass
    assert count.images == 6


def test_an_image_whose_gradient_is_taken_counts_three_times() -> None:
    images = torch.zeros(3, 1, 2, 2, requires_grad=True)
    with count_forwards() as count:
        with torch.enable_grad(), one_forward(images):
            pass
        assert count.images == 9
        with torch.no_grad(), one_forward(images):
            pass
    assert count.images == 12


def test_a_count_inside_of_another_adds_to_it() -> None:
    images = torch.zeros(2, 1, 2, 2)
    with count_forwards() as outer, one_forward(images):
        pass
    with count_forwards() as outer:
        with count_forwards() as inner, one_forward(images):
            pass
        with one_forward(images):
            pass
    assert (inner.images, outer.images) == (2, 4)
