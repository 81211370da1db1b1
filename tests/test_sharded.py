"""Parameters sharded over two processes (`ModelParallelStrategy`, `fully_shard`): every process runs every look."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.timeout(200)
def test_a_sharded_training_is_the_same_and_its_looks_agree(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    done = subprocess.run(
        [*command, "-m", "tests.sharded_script", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=180,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    for rank in ranks:
        assert rank["with"]["weights"] == rank["without"]["weights"]
        assert rank["with"]["random"] == rank["without"]["random"]
    assert ranks[0]["with"]["history"] == ranks[1]["with"]["history"]
    assert len(ranks[0]["with"]["history"]) >= 2
