"""The device of `tests/gpu`: a CUDA device, or another one in its place, to prove the tests themselves."""

from __future__ import annotations

import os

import pytest
import torch

ON = os.environ.get("LIGHTNING_GCAM_GPU_TESTS_ON", "cuda")
"""`LIGHTNING_GCAM_GPU_TESTS_ON=cpu python -m pytest tests/gpu` runs what makes sense there."""

needs_cuda = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
"""For what only a CUDA device has."""

needs_device = needs_cuda if ON == "cuda" else [pytest.mark.gpu]
"""For what is about the CUDA device, and can be tried on another."""
