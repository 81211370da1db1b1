"""Signals, volumes and videos as plain data: slices below each other, their part of the map, a signal's band."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from lightning_gcam import SaliencyBatch, SaliencyRecord
from lightning_gcam.pipeline.record import Stamp
from lightning_gcam.pipeline.run import record_saliency
from lightning_gcam.report import Store, build_page, plain_look, plain_samples
from lightning_gcam.report.page import write_strips
from lightning_gcam.report.reading import check_look, decode_picture, repair_samples
from tests.support.dimensions import CLASSES, network, signals, videos, volumes

KINDS = ["signal", "volume", "video"]


def record_of(batch: SaliencyBatch, step: int = 8) -> SaliencyRecord:
    torch.manual_seed(step)
    model = network(len(batch.image_size), batch.images.shape[1], CLASSES)
    return record_saliency(
        model.eval(), batch, methods="layer_cam", checks=[], scores=["energy"], stamp=Stamp(step)
    )


def batch_of(kind: str, n: int = 4) -> SaliencyBatch:
    images, labels, masks = {"signal": signals, "volume": volumes, "video": videos}[kind](n)
    return SaliencyBatch(images, labels % CLASSES, masks)


@cache
def record(kind: str) -> SaliencyRecord:
    return record_of(batch_of(kind))


def cells_of(look: dict[str, Any], sample: int) -> npt.NDArray[np.uint8]:
    packed = look["samples"][sample]["maps"]["layer_cam"][0]
    return np.frombuffer(base64.b64decode(packed), dtype=np.uint8).reshape(look["size"])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_back_as_it_is(kind: str) -> None:
    look, samples = plain_look(record(kind)), plain_samples(record(kind))
    assert repair_samples(json.loads(json.dumps(samples))) == (samples, None)
    assert check_look(json.loads(json.dumps(look)), 8, 4) == 4


@pytest.mark.parametrize(("kind", "depth"), [("volume", 12), ("video", 8)])
def test_each_slice_has_its_picture_its_outline_and_its_part_of_the_map(kind: str, depth: int) -> None:
    look, samples, batch = plain_look(record(kind)), plain_samples(record(kind)), record(kind).batch
    for index, sample in enumerate(samples):
        slices = sample["slices"]
        assert slices == {"kind": kind, "of": depth, "numbers": list(range(depth)), "size": [32, 32]}
        picture, outline = decode_picture(sample["image"]), decode_picture(sample["outline"])
        assert picture.shape == outline.shape == (depth * 32, 32, 3)
        lined = outline.reshape(depth, -1).max(axis=1) > 0
        assert lined.tolist() == batch.masks[index].flatten(1).any(dim=1).tolist()  # type: ignore[index]
        parts = cells_of(look, index).reshape(depth, -1).max(axis=1)
        values = record(kind).attribution.maps["layer_cam"][index].flatten(1).amax(dim=1)
        assert np.abs(parts - values.numpy() * 255).max() <= 0.51, "each slice keeps its highest value"


@pytest.mark.parametrize("kind", ["volume", "video"])
def test_the_peak_lies_in_its_slice(kind: str) -> None:
    look, maps = plain_look(record(kind)), record(kind).attribution.maps["layer_cam"]
    for index, sample in enumerate(look["samples"]):
        _, _, row, column = sample["maps"]["layer_cam"]
        depth, height, width = maps.shape[1:]
        place = [int(each) for each in torch.unravel_index(maps[index].argmax(), maps.shape[1:])]
        assert int(row * depth) == place[0]
        assert abs(row * depth % 1 - (place[1] + 0.5) / height) < 0.01
        assert abs(column - (place[2] + 0.5) / width) < 0.01


def test_a_deep_volume_has_a_few_slices_and_no_peak_between_them_is_lost() -> None:
    maps = torch.zeros(2, 100, 16, 16)
    maps[0, 37, 3, 4], maps[1, 99, 15, 15] = 1, 1
    batch = SaliencyBatch(torch.rand(2, 1, 100, 16, 16))
    deep = record_of(batch)
    deep = replace(deep, attribution=replace(deep.attribution, maps={"layer_cam": maps}))
    look, samples = plain_look(deep), plain_samples(deep)
    numbers = samples[0]["slices"]["numbers"]
    assert len(numbers) == 24 and numbers[0] == 2 and numbers[-1] == 97
    for index, peak in enumerate((37, 99)):
        at = int(look["samples"][index]["maps"]["layer_cam"][2] * 24)
        assert abs(numbers[at] - peak) <= 2
        assert cells_of(look, index).reshape(24, -1).max(axis=1)[at] == 255


@pytest.mark.parametrize(("n", "count"), [(2, 24), (8, 24), (16, 12), (100, 6)])
def test_many_samples_share_a_number_of_slices(n: int, count: int) -> None:
    batch = SaliencyBatch(torch.rand(n, 1, 64, 8, 8))
    assert len(plain_samples(record_of(batch))[0]["slices"]["numbers"]) == count


def test_the_data_stays_small() -> None:
    generator = torch.Generator().manual_seed(0)
    batch = SaliencyBatch(torch.randn(8, 1, 48, 96, 96, generator=generator))
    heavy = record_of(batch)
    assert len(json.dumps(plain_samples(heavy))) < 2_500_000, "once a run, even of pure noise"
    assert len(json.dumps(plain_look(heavy))) < 100_000, "at every look"


def test_the_map_of_a_signal_lies_in_the_band_of_its_picture() -> None:
    look, samples = plain_look(record("signal")), plain_samples(record("signal"))
    maps = record("signal").attribution.maps["layer_cam"]
    assert look["size"] == [1, 187]
    for index, sample in enumerate(samples):
        left, top, right, bottom = sample["band"]
        picture = decode_picture(sample["image"])
        height, width, _ = picture.shape
        assert 0 < left < right < width and 0 < top < bottom < height
        assert picture[top + 2 : bottom - 2, left + 2 : right - 2].max() < 12, "left empty for the map"
        _, _, row, column = look["samples"][index]["maps"]["layer_cam"]
        assert top < row * height < bottom
        share = (float(maps[index].argmax()) + 0.5) / 187
        assert abs(column * width - left - share * (right - left)) < 1


def test_second_pictures_go_along() -> None:
    images = torch.rand(2, 3, 16, 16)
    pair = SaliencyBatch(images, inputs={"after": images.flip(3)})
    samples = plain_samples(record_of(pair))
    first, second = (
        decode_picture(each) for each in (samples[0]["image"], samples[0]["beside"]["input after"])
    )
    assert np.array_equal(first, second[:, ::-1])
    assert repair_samples(samples) == (samples, None)


@pytest.mark.parametrize(
    ("kind", "part", "value"),
    [
        ("volume", "slices", 3),
        ("volume", "slices", {"kind": "volume", "of": 12, "numbers": [], "size": [32, 32]}),
        ("volume", "slices", {"kind": "volume", "of": 12, "numbers": [0] * 7, "size": [32, 32]}),
        ("volume", "slices", {"kind": "volume", "of": "12", "numbers": [0], "size": [32, 32]}),
        ("volume", "slices", {"kind": None, "of": 12, "numbers": [0], "size": [32, 32]}),
        ("signal", "band", [1, 2, 3]),
        ("signal", "band", [0, 0, 99999, 10]),
        ("signal", "band", [10, 0, 10, 10]),
        ("signal", "band", None),
        ("signal", "beside", {"a": 3}),
        ("signal", "beside", {"a": "data:image/png;base64,AA"}),
    ],
)
def test_what_is_broken_is_a_grey_square(kind: str, part: str, value: Any) -> None:
    samples = json.loads(json.dumps(plain_samples(record(kind))))
    samples[1][part] = value
    mended, words = repair_samples(samples)
    assert words is not None and words.startswith("sample 1:")
    assert part not in mended[1] and mended[2] == samples[2]


@pytest.mark.parametrize("kind", KINDS)
def test_strips_show_each_look(kind: str, tmp_path: Path) -> None:
    store, batch = Store(tmp_path / "data"), batch_of(kind)
    for step in (0, 8):
        look = record_of(batch, step)
        store.add_look("saliency", step, json.dumps(plain_samples(look)), json.dumps(plain_look(look)))
    run = store.read("a run")
    assert run.left_out == []
    assert len(write_strips(run, tmp_path / "strips")) == 8
    assert build_page([run], tmp_path / "report.html").stat().st_size > 10_000
