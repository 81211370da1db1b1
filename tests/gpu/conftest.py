"""A look on the CPU, where it always runs, and on a CUDA device, where there is one."""

from __future__ import annotations

import pytest
import torch

from tests.support.device import needs_cuda


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=needs_cuda)])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)
