"""Every score in two processes, the samples shared unevenly; started by `tests/distributed/test_scores.py`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import distributed

from lightning_gcam.metrics import Measured, available_scores, resolve_scores
from tests.support.score_batches import inputs_of, seeded_batch

GROUPS = torch.tensor([0, 1, 1, 0, -1, 1, 1])
SHARES = {"uneven": (slice(0, 5), slice(5, 7)), "empty": (slice(0, 7), slice(7, 7))}
"""Which samples each process has; of "empty", the second is never updated."""


def values(share: str | None, rank: int) -> dict[str, object]:
    """Each score over this process's share, brought together by torchmetrics; over all samples without a share."""
    found: dict[str, object] = {}
    for name in available_scores():
        metric = resolve_scores(name)[name]
        metric._to_sync = share is not None
        measured = Measured(metric, resamples=20, sync_on_compute=share is not None)
        part = slice(None) if share is None else SHARES[share][rank]
        inputs = [each[part] for each in inputs_of(name, gaps())]
        if len(inputs[0]):
            metric.update(*inputs)
            measured.update(*inputs, groups=GROUPS[part])
        found[name] = [float(metric.compute()), measured.compute()]
    return found


def gaps() -> tuple[torch.Tensor, torch.Tensor]:
    """As the fixture of that name."""
    saliency, mask = seeded_batch()
    saliency[1], mask[2] = 0, False
    return saliency, mask


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")  # a process without samples is warned of
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    seen = {str(share): values(share, rank) for share in (None, *SHARES)}
    (Path(sys.argv[1]) / f"rank{rank}.json").write_text(json.dumps(seen))
    distributed.destroy_process_group()
