"""Several layers: their names, the names of their maps, and how maps are fused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_gcam.cam.layers import (
    as_list_of_layers,
    check_fuse,
    format_layer_names,
    fuse_maps,
    map_name,
    resolve_target_layers,
)
from lightning_gcam.utils.errors import InputError
from tests.support.nets import cnn


@pytest.mark.parametrize("given", ["features.3", ["features.3"], ("features.3",)])
def test_one_layer(given: Any) -> None:
    model = cnn()
    assert resolve_target_layers(model, given) == {"features.3": model.features[3]}


def test_several_layers_by_name_and_as_modules_in_the_order_given() -> None:
    model = cnn()
    layers = resolve_target_layers(model, ["features.4", model.features[0], "features"])
    assert list(layers) == ["features.4", "features.0", "features"]
    assert list(layers.values()) == [model.features[4], model.features[0], model.features]


def test_a_container_of_modules_is_one_layer() -> None:
    model = cnn()
    assert as_list_of_layers(model.features) == [model.features]
    assert list(resolve_target_layers(model, model.features)) == ["features"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "`target_layer` is empty"),
        (
            ["features.3", "feature.4"],
            '`target_layer` "feature.4" is not a module of Cnn. Did you mean "features.4"',
        ),
        (["features.3", "features.3"], '`target_layer` holds "features.3" twice'),
        (["features.3", nn.ReLU()], "`target_layer` ReLU is not a module of Cnn"),
        (["features.3", 4], "`target_layer` must be one layer, a name or a module; got 4"),
        (7, "`target_layer` must be one layer, a name or a module; got 7"),
    ],
)
def test_what_is_no_layer_is_refused(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve_target_layers(cnn(), given)


def test_a_layer_under_two_names_is_one() -> None:
    shared = nn.ReLU()
    with pytest.raises(InputError, match='`target_layer` holds "0" twice'):
        resolve_target_layers(nn.Sequential(shared), ["0", shared])


@pytest.mark.parametrize(
    ("fuse", "layers", "message"),
    [
        ("sum", ["a", "b"], '`fuse` "sum" is not known. Known: "product", "mean"'),
        ("prodct", ["a", "b"], 'Did you mean "product"'),
        ("mean", None, r'`fuse="mean"` makes one map of several layers, but `target_layer` is None'),
        ("mean", "a", "but `target_layer` is 'a'"),
        ("product", ["a"], r"but `target_layer` is \['a'\]"),
    ],
)
def test_what_cannot_be_fused_is_refused(fuse: Any, layers: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_fuse(fuse, layers)


def test_what_can_be_fused() -> None:
    check_fuse(None, None)
    check_fuse(None, "a")
    check_fuse("mean", ("a", "b"))


def test_names() -> None:
    assert map_name("layer_cam", "a.b", ["a.b"]) == "layer_cam"
    assert map_name("layer_cam", "a.b", ["c", "a.b"]) == "layer_cam@a.b"
    assert format_layer_names(["a"]) == "a"
    assert format_layer_names(["a", "b"]) == "a, b"
    assert format_layer_names(["a", "b"], "mean") == "a + b"


def test_product_and_mean_are_taken_pixel_by_pixel() -> None:
    maps = [torch.rand(2, 3, 4), torch.rand(2, 3, 4), torch.rand(2, 3, 4)]
    torch.testing.assert_close(fuse_maps(maps, "product"), maps[0] * maps[1] * maps[2])
    torch.testing.assert_close(fuse_maps(maps, "mean"), (maps[0] + maps[1] + maps[2]) / 3)
