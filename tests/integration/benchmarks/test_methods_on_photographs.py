"""The methods on photographs, small: statistics and tables by hand, and a run on noise with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from lightning_gcam import attribute
from lightning_gcam.cam import ModelMethod
from lightning_gcam.cam.methods import score_cam
from tests.support.nets import cnn, pictures

pytest.importorskip("timm")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    from benchmarks.methods import photographs

    return photographs


@pytest.fixture(scope="module")
def rows() -> ModuleType:
    from benchmarks.methods import photographs_tables

    return photographs_tables


def line(variant: int, place: str, values: dict[str, Any]) -> dict[str, Any]:
    """Of three photographs, the last of which is all box."""
    about = {"part": "maps", "layer": "bn2", "even": place == "found", "photographs": ["dog", "cup", "cat"]}
    return {
        "variant": variant,
        "place": place,
        **about,
        "shares": [0.2, 0.4, 1.0],
        "right": [True, False, True],
        "values": {name: {"energy": of_name} for name, of_name in values.items()},
    }


def test_the_statistics_by_hand(rows: ModuleType) -> None:
    found = rows.Estimate.of(np.array([1.0, 2.0, 3.0, np.nan]))
    assert found == (2.0, pytest.approx(4.3027 / 3**0.5, abs=1e-4), 3) and found.decides == 0
    assert rows.Estimate.of(np.array([2.0, 2.1, 2.0])).decides == 1
    assert rows.Estimate.of(np.array([-2.0, -2.1, -2.0])).decides == -1
    pairs = rows.over_networks(np.array([[1.0, np.nan, 4.0], [3.0, np.nan, np.nan]]))
    np.testing.assert_array_equal(pairs, [2.0, np.nan, 4.0])


def test_the_tables_by_hand(rows: ModuleType) -> None:
    found = {"guidance_cam": [0.5, 0.7, 1.0], "grad_cam": [0.2, 0.41, 1.0], "centre": [0.1, 0.2, 1.0]}
    lines = [
        line(0, "found", found),
        line(1, "found", {name: [each + 0.1 for each in values] for name, values in found.items()}),
        line(0, "1/16", {"guidance_cam": [0.9, None, 1.0], "grad_cam": [0.5, 0.6, 1.0]}),
    ]
    table = rows.Table(lines)

    assert table.names == ["guidance_cam", "grad_cam"] and table.places == ["found", "1/16"]
    assert table.mean("found", "guidance_cam", "energy")[::2] == (pytest.approx(0.65), 2), (
        "the cat is left out"
    )
    difference = table.better_by("energy", ("found", "grad_cam"), ("found", "guidance_cam"))
    assert difference == (pytest.approx(-0.295), pytest.approx(12.706 * 0.005, abs=1e-4), 2)
    of_centre = table.better_by("energy", ("1/16", "grad_cam"), ("1/16", "centre"))
    assert of_centre.mean == pytest.approx(0.4), (
        "the middle is the same at every layer, and Lite1 has no number here"
    )
    text = "\n".join(rows.tables(lines))
    assert "(cat)\nboxes fill" in text and "They predict it for 2, 2 of them" in text
    assert "| `guidance_cam` | 0.650 ± 1.271 |" in text and "| `grad_cam` | *-0.295* ± 0.064 |" in text
    assert "- **found**: against `guidance_cam`, `grad_cam` (worse by `energy`)." in text
    assert '### At the layer that is found ("bn2"; gradients constant over space)' in text


def test_score_cam_of_the_channels_that_vary_most(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The channels of this layer are 8: all of them are Score-CAM, the first of them is that channel."""
    methods = [ModelMethod(score_cam, "whole"), ModelMethod(script.capped_score_cam, "capped")]
    options: dict[str, Any] = {"methods": methods, "target_layer": "features.4"}
    maps = attribute(cnn(), pictures(), 0, **options).maps
    torch.testing.assert_close(maps["capped"], maps["whole"])

    monkeypatch.setattr(script, "CHANNELS", 1)
    maps = attribute(cnn(), pictures(), 0, **options).maps
    varying = attribute(cnn(), pictures(), 0, methods={"one": most_varying}, target_layer="features.4").maps
    torch.testing.assert_close(maps["capped"], varying["one"])


def most_varying(activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    first = activations.flatten(2).var(dim=2).argmax(dim=1)
    return activations[torch.arange(len(first)), first].relu()


@pytest.mark.filterwarnings("ignore:.*maps are blank")
def test_a_stopped_run_goes_on(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0").eval()
    images = torch.randint(0, 256, (3, 3, 224, 224), dtype=torch.uint8)
    shown = [
        script.Photograph(name, 5, [(20, 20, 100, 90)], image)
        for name, image in zip(script.SHOWN, images, strict=True)
    ]
    monkeypatch.setattr(script, "photographs", lambda: [*shown, shown[0]._replace(label=None)])
    monkeypatch.setattr(script, "pretrained", lambda **_: network)
    for name, value in {"SIDES": (64,), "CHANNELS": 2}.items():
        monkeypatch.setattr(script, name, value)
    parts = [("found", "maps"), ("1/16", "maps"), ("found", "guidance_cam"), ("found", "score_cam")]
    monkeypatch.setattr(script, "plan", lambda *_: [script.Unit(0, *each) for each in parts])
    files = {name: tmp_path / name for name in ("results", "output", "figure")}
    files["figure"] = files["figure"].with_suffix(".jpg")
    arguments = [text for name, path in files.items() for text in (f"--{name}", str(path))]

    script.main(arguments)
    kept = files["results"].read_text(encoding="utf-8")
    monkeypatch.setattr(script, "measure", None)  # nothing is measured again
    script.main(arguments)

    assert files["results"].read_text(encoding="utf-8") == kept and files["figure"].stat().st_size > 0
    maps, _, curves, of_score_cam = map(json.loads, kept.split("\n\n"))
    assert maps["layer"] == "bn2" and maps["even"] and maps["photographs"] == list(script.SHOWN)
    assert set(maps["values"]["centre"]) == {"energy", "pointing_game", "iou"}
    assert set(curves["values"]["guidance_cam"]) == {"insertion", "deletion"}
    assert len(of_score_cam["values"]["score_cam"]) == 5
    assert "| `score_cam` |" in files["output"].read_text(encoding="utf-8")


def test_the_plan(script: ModuleType) -> None:
    units = script.plan([0, 1], [0])
    assert len(units) == len(set(units)) == 2 * 5 + 3 * 4 + 3 + 1 + 1
    assert [unit.part for unit in units[:10]] == ["maps"] * 10
