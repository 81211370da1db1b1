"""Small pictures: a byte a cell for maps, the smallest encoding for images, lines on a transparent ground."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_gcam.report.reading import data_uri
from lightning_gcam.report.serialize import line_layer, map_side, pack_maps


def pixels_of(uri: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as picture:
        return np.asarray(picture)


def test_cells_by_hand() -> None:
    cells, size = pack_maps(torch.tensor([[[0.0, 1.0], [0.5, float("nan")]]]), side=8)
    assert size == (2, 2)
    assert list(base64.b64decode(cells[0])) == [0, 255, 128, 0]


def test_a_narrow_peak_survives_shrinking() -> None:
    maps = torch.zeros(1, 224, 224)
    maps[0, 100, 31] = 1
    cells, size = pack_maps(maps, side=56)
    grid = np.frombuffer(base64.b64decode(cells[0]), dtype=np.uint8).reshape(size)
    assert size == (56, 56)
    assert np.argwhere(grid).tolist() == [[25, 7]] and grid.max() == 255


def test_the_longer_side_is_the_limit() -> None:
    assert pack_maps(torch.rand(2, 100, 50), side=20)[1] == (20, 10)
    assert pack_maps(torch.rand(2, 500, 1), side=20)[1] == (20, 1)


@pytest.mark.parametrize("maps", range(1, 13))
def test_a_page_of_200_looks_of_16_has_room_for_any_number_of_maps(maps: int) -> None:
    assert 200 * 16 * maps * map_side(maps) ** 2 * 4 / 3 < 15e6


@pytest.mark.parametrize(("side", "kept"), [(16, True), (224, False)])
def test_small_images_are_kept_pixel_by_pixel(side: int, kept: bool) -> None:
    noise = np.random.RandomState(0).randint(0, 256, (side, side, 3)).astype(np.uint8)
    uri = data_uri(noise)
    assert np.array_equal(pixels_of(uri)[..., :3], noise) is kept


def test_the_smallest_encoding_is_taken() -> None:
    noise = np.random.RandomState(0).randint(0, 256, (224, 224, 3)).astype(np.uint8)
    flat = np.zeros((224, 224, 3), dtype=np.uint8)
    assert len(data_uri(noise)) < noise.size
    assert len(data_uri(flat)) < 1000


def test_lines_lie_on_nothing() -> None:
    line = np.zeros((5, 5), dtype=bool)
    line[2, 2] = True
    layer = line_layer([(line, (64, 232, 255))])
    assert layer[2, 2].tolist() == [64, 232, 255, 255]
    assert layer[1, 1].tolist() == [0, 0, 0, 128]
    assert layer[0].max() == 0
    assert np.array_equal(pixels_of(data_uri(layer, exact=True)), layer)
