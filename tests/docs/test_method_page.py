"""docs/method.md: its table names every method, and its code runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_gcam import attribute
from lightning_gcam.cam import available_methods, registry
from lightning_gcam.cam.methods import gradient
from tests.support.nets import cnn, pictures

PAGE = Path(__file__).parents[2] / "docs" / "method.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_the_table_names_every_method_and_no_other() -> None:
    table = TEXT.split("## All methods")[1].split("\n\n")[2]
    named = [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert len(named) == len(set(named))
    of_docstrings = {"mean_activation", "darkened"}  # which doctests of the same process register
    expected = {*available_methods()} - of_docstrings
    assert set(named) == expected, f'rows of "All methods" in docs/method.md: {sorted(set(named) ^ expected)}'


def test_the_code_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    seen: list[dict[str, Any]] = []

    def explain(*arguments: Any, **options: Any) -> Any:
        found = attribute(*arguments, target_layer="features.4", **options)
        seen.append(found.maps)
        return found

    names: dict[str, Any] = {
        "attribute": explain,
        "model": cnn("flat"),
        "images": pictures(),
        "labels": [0, 1, 2, 3],
    }
    names["torch"] = torch
    section = TEXT.split("## All methods")[1].split("## What the numbers say")[0]
    for code in re.findall(r"```python\n(.*?)```", section, flags=re.S):
        exec(code, names)
    assert list(seen[0]) == ["guidance_cam", "ss_cam_4"]
    assert (
        explain(cnn("flat"), pictures(), 0, methods=names["mean_gradient"]).maps["mean_gradient"].max() == 1
    )
    assert explain(cnn("flat"), pictures(), 0, methods="brightness").peaks["brightness"].max() > 0


def test_what_the_page_links_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", TEXT):
        assert target.startswith("http") or (PAGE.parent / target).exists(), target


def test_the_method_to_copy_is_for_any_number_of_dimensions() -> None:
    """The one that CONTRIBUTING.md shows step by step."""
    page = (PAGE.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = next(
        each for each in re.findall(r"```python\n(.*?)```", page, flags=re.S) if "positive_cam" in each
    )
    names = {**vars(gradient), "register_method": lambda name: lambda function: function}
    exec(code, names)
    for grid in ((3,), (2, 3), (2, 3, 4)):
        activations, gradients = torch.zeros(1, 2, *grid), torch.ones(1, 2, *grid)
        activations[:, 0, -1], gradients[:, 1] = 3.0, -1.0  # the second channel speaks against
        assert torch.equal(names["positive_cam"](activations, gradients), activations[:, 0]), grid
