"""The room's facade, its docstrings, and their examples."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

from lightning_gcam import metrics
from lightning_gcam.metrics import functional

MODULES = [
    metrics.__name__,
    *(m.name for m in pkgutil.walk_packages(metrics.__path__, metrics.__name__ + ".")),
]


def test_the_facade_is_what_it_says() -> None:
    assert metrics.__all__ == [
        "BlankRate",
        "EnergyChance",
        "EnergyPointingGame",
        "PointingGame",
        "RegionLift",
        "RelevanceRankAccuracy",
        "SaliencyIoU",
        "SampleMean",
        "available_scores",
        "needs_mask",
        "resolve_scores",
    ]
    assert functional.__all__ == [
        "blank_rate",
        "energy_chance",
        "energy_pointing_game",
        "pointing_game",
        "region_lift",
        "relevance_rank_accuracy",
        "saliency_iou",
    ]


@pytest.mark.parametrize("room", [metrics, functional])
def test_every_public_name_has_a_doctested_docstring(room) -> None:
    for name in room.__all__:
        documented = inspect.getdoc(getattr(room, name))
        assert "Example:" in documented, name
        assert ">>> " in documented, name


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_print_what_they_say(module) -> None:
    assert doctest.testmod(importlib.import_module(module)).failed == 0
