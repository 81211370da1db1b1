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
        "ADCC",
        "AverageDrop",
        "AverageGain",
        "AverageIncrease",
        "BestSaliencyIoU",
        "BlankRate",
        "Coherency",
        "Complexity",
        "DeletionAUC",
        "EnergyChance",
        "EnergyPointingGame",
        "GroupedMeasurement",
        "InsertionAUC",
        "MaxBoxAccuracy",
        "Measured",
        "Measurement",
        "Perturbation",
        "PixelAveragePrecision",
        "PointingGame",
        "PositionalConcentration",
        "RandomModelSSIM",
        "RandomModelSimilarity",
        "RegionLift",
        "RelevanceRankAccuracy",
        "SaliencyDrift",
        "SaliencyEntropy",
        "SaliencyGini",
        "SaliencyIoU",
        "SampleMean",
        "SampleScore",
        "SuspectLift",
        "WinRate",
        "available_scores",
        "baseline_scores",
        "default_scores",
        "measure",
        "measure_groups",
        "measure_samples",
        "needs",
        "needs_mask",
        "resolve_scores",
    ]
    assert functional.__all__ == [
        "adcc",
        "average_drop",
        "average_gain",
        "average_increase",
        "best_saliency_iou",
        "blank_rate",
        "centre_map",
        "coherency",
        "complexity",
        "deletion_auc",
        "deletion_steps",
        "drift",
        "energy_chance",
        "energy_pointing_game",
        "insertion_auc",
        "insertion_steps",
        "keep_salient",
        "max_box_accuracy",
        "pixel_average_precision",
        "pointing_game",
        "positional_concentration",
        "random_model_similarity",
        "random_model_ssim",
        "region_lift",
        "relevance_rank_accuracy",
        "saliency_entropy",
        "saliency_gini",
        "saliency_iou",
        "uniform_map",
        "win_rate",
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
