"""Two real processes on gloo give what one gives, also where one of them has no sample."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lightning_gcam.metrics import available_scores
from tests.support.processes import run_script


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two processes computed."""
    out = tmp_path_factory.mktemp("processes")
    done = run_script("tests.support.score_script", str(out), processes=2, timeout=240)
    assert done.returncode == 0, done.said[-4000:]
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in (0, 1)]


def numbers(value: Any) -> list[Any]:
    """All numbers within, in order; -1 where there is none."""
    if isinstance(value, dict):
        return numbers([[int(group), found] for group, found in value.items()])
    return (
        [each for part in value for each in numbers(part)]
        if isinstance(value, list)
        else [-1 if value is None else value]
    )


@pytest.mark.parametrize("share", ["uneven", "empty"])
@pytest.mark.parametrize("name", available_scores())
def test_the_number_of_processes_changes_nothing(ranks, name, share) -> None:
    alone = numbers(ranks[0]["None"][name])
    assert len(alone) > 10
    for rank in (0, 1):
        assert numbers(ranks[rank][share][name]) == pytest.approx(alone, abs=1e-5, nan_ok=True)
