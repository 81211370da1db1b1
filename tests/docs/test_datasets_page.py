"""The code in docs/datasets.md runs, and does what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_gcam.datasets import available_datasets
from lightning_gcam.datasets.detection import COCO_LAYOUT, VOC_LAYOUT
from lightning_gcam.datasets.imagenet import IMAGENET_LAYOUT
from tests.support.trees import write_voc

PAGE = (Path(__file__).parents[2] / "docs/datasets.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.M | re.S)


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the page's code has defined, one block after the other."""
    found: dict[str, Any] = {"root": write_voc(tmp_path_factory.mktemp("voc")), "torch": torch}
    exec(BLOCKS[0].replace("num_workers=4, image_size=224", "num_workers=0, image_size=20"), found)
    found["saliency"] = torch.ones(len(found["batch"]["name"]), 20, 20)
    for block in BLOCKS[1:]:
        exec(block, found)
    return found


def test_the_names_are_those_of_the_page() -> None:
    assert f"available_datasets()  # {available_datasets()}" in BLOCKS[0]


def test_blanked_saliency_leaves_void_out(names: dict[str, Any]) -> None:
    from lightning_gcam.metrics.functional import energy_pointing_game

    batch, saliency = names["batch"], names["saliency"]
    blanked = energy_pointing_game(saliency.masked_fill(batch["void"], 0.0), batch["mask"])
    by_hand = [mask.sum() / (~void).sum() for mask, void in zip(batch["mask"], batch["void"], strict=True)]
    torch.testing.assert_close(blanked, torch.stack(by_hand).mean())
    assert blanked > energy_pointing_game(saliency, batch["mask"])


def test_grouped_outputs_are_the_event_that_one_of_them_is_it(names: dict[str, Any]) -> None:
    logits = torch.randn(2, 5)
    grouped = names["Grouped"](lambda images: logits, [[0, 3], [1], [2, 4]])(torch.zeros(2, 3, 4, 4))
    chances = logits.softmax(dim=1)
    expected = torch.stack([chances[:, [0, 3]].sum(1), chances[:, 1], chances[:, [2, 4]].sum(1)], dim=1)
    torch.testing.assert_close(grouped.softmax(dim=1), expected)


@pytest.mark.parametrize("layout", [VOC_LAYOUT, COCO_LAYOUT, IMAGENET_LAYOUT], ids=lambda each: each.dataset)
def test_the_page_and_the_errors_name_the_same_address(layout: Any) -> None:
    for address in re.findall(r"https?://[^\s,]+[^\s,.;]", layout.source):
        assert f"<{address}>" in PAGE
    for archive in re.findall(r"[\w.-]+\.(?:tar\.gz|tar|tgz|zip)", layout.source):
        assert f"`{archive}`" in PAGE
