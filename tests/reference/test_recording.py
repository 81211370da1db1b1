"""What the package computed and logged when the recording was taken, it computes and logs today."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.reference.recording.behaviour import fit_of, maps_of, resumed_of
from tests.reference.recording.kept import CHECKPOINT, KEPT, QUICK, unequal
from tests.reference.recording.networks import NETWORKS

pytestmark = pytest.mark.filterwarnings("ignore")

PART = json.loads(KEPT.read_text(encoding="utf-8"))
TOLERANCE = 2e-3
"""Another processor or release of torch rounds differently, and a training carries that on."""


def part(*beginnings: str) -> dict[str, object]:
    found = {name: value for name, value in PART.items() if name.startswith(beginnings)}
    assert found
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_the_maps_are_those_that_were_recorded(name: str) -> None:
    found = maps_of(name, [method for method in QUICK if f"maps/{name}/{method}" in PART])
    for key, value in found.items():
        if key.startswith("maps/"):
            n, height, width = value.shape
            found[key] = value.reshape(n, 4, height // 4, 4, width // 4).mean(axis=(2, 4)).tolist()

    assert unequal(part(f"maps/{name}/", f"layer/{name}"), found, TOLERANCE) == []


def test_the_first_look_of_a_training_is_the_one_that_was_recorded(tmp_path: Path) -> None:
    found = fit_of("flat", tmp_path, "csv")

    assert unequal(part("fit/flat/history/0/"), found, TOLERANCE) == []


def test_a_checkpoint_of_then_is_resumed(tmp_path: Path) -> None:
    torch.load(CHECKPOINT, weights_only=True)

    found = resumed_of("flat", tmp_path, CHECKPOINT)

    assert found["resumed/flat/history/1/step"] == 5
    assert unequal(part("resumed/flat/history/0/"), found, TOLERANCE) == []
