"""Parameters sharded over two processes (`ModelParallelStrategy`, FSDP): every process runs every look."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.sharded_script import MODES

pytestmark = pytest.mark.skipif(
    not hasattr(torch.cpu.Stream, "record_event"),
    reason="this torch cannot shard parameters on the CPU",
)
ROOT = Path(__file__).parents[2]
TIMEOUT = 200


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two processes saw."""
    out = tmp_path_factory.mktemp("sharded")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    done = subprocess.run(
        [*command, "-m", "tests.support.sharded_script", str(out)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=TIMEOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.timeout(TIMEOUT + 20)
@pytest.mark.parametrize("mode", MODES)
def test_a_sharded_training_is_the_same_and_its_looks_agree(mode: str, ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        for what in ("weights", "buffers", "random"):
            assert rank[mode]["with"][what] == rank[mode]["without"][what]
    assert ranks[0][mode]["with"]["history"] == ranks[1][mode]["with"]["history"]
    assert len(ranks[0][mode]["with"]["history"]) >= 2
    assert all("energy" in row for row in ranks[0][mode]["with"]["history"])


def test_every_sharding_sees_the_same(ranks: list[dict[str, Any]]) -> None:
    """The same weights, however they are dealt out: the same scores, but for the order of sums."""
    first, *others = (rank["with"]["history"][0] for rank in ranks[0].values())
    for other in others:
        assert other == pytest.approx(first, rel=1e-3)
