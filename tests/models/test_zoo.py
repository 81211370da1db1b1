"""Every family of networks: its layer is found, its map drawn, and the map peaks where a fitted head looks.

What each network goes through is in `tests/models/zoo/examine.py`. A few run here; all of them by `make zoo`, which
keeps the table in docs/models.md, or by `pytest -m zoo tests/models/test_zoo.py`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn

from lightning_gcam import attribute
from lightning_gcam.cam import layout_evidence as evidence
from tests.models.zoo.__main__ import read, report, run
from tests.models.zoo.examine import CLASSES, Finding, examine
from tests.models.zoo.families import EXCEPTIONS, TIMM_NAMES, TRANSFORMERS_CONFIGS, ZOO, look

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
QUICK = [
    "torchvision mobilenet_v3_small",
    "torchvision resnet18",
    "torchvision shufflenet_v2_x0_5",
    "torchvision squeezenet1_1",
    "timm deit deit_tiny_patch16_224",
    "timm levit levit_128s",
    "timm starnet starnet_s050",
    *(f"transformers {family}" for family in TRANSFORMERS_CONFIGS if family != "MobileViT"),
]

pytestmark = pytest.mark.filterwarnings("ignore")  # what the libraries say of their own networks


@pytest.mark.parametrize("name", QUICK)
def test_a_small_network(name: str) -> None:
    assert look(ZOO[name]).failures == []


@pytest.mark.zoo
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.timeout(1200)) for name in ZOO if name not in QUICK]
)
def test_a_network_of_the_zoo(name: str) -> None:
    failures = look(ZOO[name]).failures
    if name in EXCEPTIONS:
        assert [each for each in failures if EXCEPTIONS[name][0] in each] == failures != []
    else:
        assert failures == []


# --------------------------------------------------------------------------------------- what the zoo is made of


def test_every_classifier_of_torchvision_is_in_the_zoo() -> None:
    names = torchvision.models.list_models(module=torchvision.models)
    assert len(names) >= 80
    assert {f"torchvision {name}" for name in names} <= set(ZOO)


def test_every_module_of_timm_is_in_the_zoo() -> None:
    assert set(TIMM_NAMES) <= set(timm.list_modules())
    assert len(TIMM_NAMES) >= 60
    assert all(timm.models.is_model_in_modules(name, [family]) for family, (name, _) in TIMM_NAMES.items())


@pytest.mark.zoo  # `make zoo` writes the page's table
def test_the_page_has_one_row_for_each_network() -> None:
    rows = re.findall(
        r"^\| ((?:torchvision|timm|transformers) [^|]+?) \|", PAGE.read_text(encoding="utf-8"), flags=re.M
    )
    assert sorted(rows) == sorted(ZOO)


# -------------------------------------------------------------------------------- what is examined can be missed


def turn(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    straight = module.layout_by_shape

    def turned(*args: Any) -> Any:
        layout = straight(*args)
        if layout is None or not layout.kind.startswith("tokens"):
            return layout
        return replace(layout, reshape=lambda tensor: layout.reshape(tensor).transpose(2, 3))

    monkeypatch.setattr(module, "layout_by_shape", turned)


def test_a_grid_that_is_turned_over_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    turn(monkeypatch, evidence)
    monkeypatch.setattr(evidence, "FOUND", 2.0)  # nothing contradicts the shape
    failures = look(ZOO["transformers ViT"]).failures
    assert any("are not where the map peaks" in each for each in failures)


def test_a_grid_that_is_turned_over_is_turned_back_by_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    turn(monkeypatch, evidence)
    assert look(ZOO["transformers ViT"]).failures == []


class Blind(nn.Module):
    """Its maps are those of one class, whatever class is asked for; or it looks at nothing."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 16, 3, stride=8), nn.ReLU())
        self.head = nn.Linear(16, 1 if kind == "one class" else CLASSES)
        self.kind = kind

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.head(self.features(images).mean(dim=(2, 3)))
        return logits.expand(-1, CLASSES) if self.kind == "one class" else 0 * logits


@pytest.mark.parametrize(
    ("kind", "failure"), [("one class", "does not move with the class"), ("nothing", "has no spatial layer")]
)
def test_a_map_that_does_not_move_and_a_network_without_a_layer_are_noticed(kind: str, failure: str) -> None:
    if kind == "nothing":
        with pytest.raises(ValueError, match=failure):
            examine(Blind(kind), 64)
    else:
        assert any(failure in each for each in examine(Blind(kind), 64).failures)


def test_a_run_that_was_stopped_goes_on_and_counts(tmp_path: Path) -> None:
    names = ["transformers ViT", "transformers ResNet"]
    results = tmp_path / "runs" / "zoo.jsonl"
    first = run(names[:1], results)
    assert first[names[0]].failures == []
    results.write_text(results.read_text().replace(first[names[0]].layer, "kept.as.it.was"))

    findings = run(names, results)

    assert list(read(results)) == names
    assert findings[names[0]].layer == "kept.as.it.was"  # not looked at again
    findings[names[1]] = Finding(failures=["no reason"])
    text = report(findings)
    assert "**1 of 2 networks**" in text
    assert "| transformers ViT | `kept.as.it.was` | tokens, 1 before the patches | 8 x 8 | 64 |" in text
    assert "no reason" in text


def test_images_that_are_not_square() -> None:
    model = timm.create_model(
        "vit_tiny_patch16_224", pretrained=False, img_size=(64, 96), num_classes=CLASSES
    ).eval()
    drawn = attribute(model, torch.randn(2, 3, 64, 96), [0, 1])
    assert drawn.target_layer == "blocks.11.norm1"
    assert drawn.maps["guidance_cam"].shape == (2, 64, 96)
