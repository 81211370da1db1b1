"""A record as plain data: the numbers of the record, nothing that JSON cannot hold, blank maps marked as such."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from lightning_gcam.report import plain_look, plain_samples
from tests.support.pages import EVIL, record_at


def test_what_a_look_says_is_what_the_record_says() -> None:
    record = record_at(7, methods=["guidance_cam", "grad_cam"])
    look = plain_look(record)
    assert (look["step"], look["epoch"]) == (7, 1)
    assert look["scores"] == record.scores
    assert look["measured"]["energy"][0] == 8
    assert [each["caption"] for each in look["samples"]] == record.captions
    assert [each["right"] for each in look["samples"]] == record.correct
    energies = [each["scores"]["energy"] for each in look["samples"]]
    assert np.mean(energies) == pytest.approx(record.scores["energy"], abs=1e-3)
    for name, peaks in record.attribution.peaks.items():
        assert [each["maps"][name][1] for each in look["samples"]] == pytest.approx(peaks.tolist(), rel=1e-3)


def test_what_was_followed_stands_among_the_scores_with_n_and_interval() -> None:
    record = record_at(7, checks=["border", "texture"])
    assert record.reliance is not None
    look = plain_look(record)
    for name in ("border_follow_rate", "texture_swap_accuracy", "texture_follow_chance"):
        found = record.reliance.measurements[name]
        assert look["scores"][name] == found.value == record.scores[name]
        assert look["measured"][name] == pytest.approx([8, found.left_out, *(found.interval or ())], abs=1e-4)


def test_a_map_can_be_read_back_and_its_peak_lies_where_it_is_highest() -> None:
    record = record_at(7)
    look = plain_look(record)
    for sample, saliency in zip(look["samples"], record.attribution.maps["guidance_cam"], strict=True):
        cells, _, row, column = sample["maps"]["guidance_cam"]
        grid = np.frombuffer(base64.b64decode(cells), dtype=np.uint8).reshape(look["size"])
        assert np.abs(grid / 255 - saliency.numpy()).max() < 1 / 255
        assert grid[int(row * 16), int(column * 16)] == 255


def test_blank_and_broken_maps_are_told_apart_from_low_ones() -> None:
    record = record_at(7)
    peaks = record.attribution.peaks["guidance_cam"].clone()
    peaks[:3] = torch.tensor([0.0, float("nan"), float("inf")])
    look = plain_look(replace(record, attribution=replace(record.attribution, peaks={"guidance_cam": peaks})))
    assert [each["maps"]["guidance_cam"][1] for each in look["samples"][:3]] == [0, None, None]
    assert look["samples"][3]["maps"]["guidance_cam"][1] > 0
    json.dumps(look, allow_nan=False)


def test_samples_have_their_classes_and_pictures_once() -> None:
    samples = plain_samples(record_at(7))
    assert [each["classes"] for each in samples] == [[EVIL[i % 4]] for i in range(8)]
    assert all(each["image"].startswith("data:image/") for each in samples)
    assert all(each["outline"].startswith("data:image/") for each in samples)
    assert samples == plain_samples(record_at(11)), "what stays the same may not depend on the look"


def test_without_labels_or_masks_there_is_less_to_say() -> None:
    record = record_at(7)
    bare = replace(record, batch=replace(record.batch, labels=None, masks=None))
    assert [each["classes"] for each in plain_samples(bare)] == [[]] * 8
    assert all("outline" not in each for each in plain_samples(bare))
    assert [each["right"] for each in plain_look(bare)["samples"]] == [None] * 8
