"""Do what an error says: take the code out of the message, and run it."""

from __future__ import annotations

from typing import Any

import torch

from lightning_gcam import SaliencyBatch


def pasted(message: str, argument: str = "adapter") -> Any:
    """The value of the argument that a message shows, as a user would paste it."""
    _, code = message.split(f"\n    {argument}=")
    return eval(code, {"SaliencyBatch": SaliencyBatch, "torch": torch})
