"""What holds for every test: fixed random numbers, no network, no screen, one thread."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Iterator

# Read by these libraries when they are imported, so set before anything imports them.
os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start, too
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"
os.environ["WANDB_ERROR_REPORTING"] = "false"

import hypothesis
import numpy as np
import pytest
import torch

# The tensors here are tiny: handing them to several threads costs more than the work itself, and sums come out
# in another order. One thread is faster, and the same on every machine.
torch.set_num_threads(1)

hypothesis.settings.register_profile("house", deadline=None, derandomize=True)
hypothesis.settings.load_profile("house")


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end, so no garbage collection need walk through it again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """At its end the interpreter tidies up all of it, or some libraries report what is left."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Start every test from the same random state, and hand the old one back after it."""
    python, numpy = random.getstate(), np.random.get_state()
    deterministic = (
        torch.are_deterministic_algorithms_enabled()
    )  # a Trainer leaves it on, and torchmetrics obeys it
    with torch.random.fork_rng():
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        yield
    torch.use_deterministic_algorithms(deterministic)
    random.setstate(python)
    np.random.set_state(numpy)
