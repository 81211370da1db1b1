"""Small networks that the tests of the maps share, and a picture of everything a look must leave alone."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

CLASSES = 5
OF_TRANSFORMERS = ("attention_rollout", "attention_relevance")
"""The methods that need attention weights."""
SIZE = (12, 10)
"""Not square: rows and columns must not be mixed up."""
GRID = (6, 5)
"""Of the layers "features.3" and "features.4"."""


class Cnn(nn.Module):
    """Two convolutions; "features.3" is the last one, "features.4" its ReLU.

    Args:
        head: "pooled" (global average), "max" (global maximum) or "flat" (one weight a position, as in VGG).
        inplace: whether the ReLU writes over the convolution's output.
        classes: how many logits.
    """

    def __init__(self, head: str = "pooled", *, inplace: bool = False, classes: int = CLASSES) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=inplace),
            nn.Conv2d(8, 9, 3, stride=2, padding=1),
            nn.ReLU(inplace=inplace),
        )
        pool = {"pooled": nn.AdaptiveAvgPool2d(1), "max": nn.AdaptiveMaxPool2d(1), "flat": nn.Identity()}[
            head
        ]
        cells = GRID[0] * GRID[1] if head == "flat" else 1
        self.head = nn.Sequential(pool, nn.Flatten(), nn.Dropout(0.5), nn.Linear(9 * cells, classes))

    def forward(self, images: Tensor) -> Any:
        return self.head(self.features(images))


def seeded(model: nn.Module, seed: int = 0) -> nn.Module:
    """The same random weights and BatchNorm statistics for the same seed, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            values = torch.randn(tensor.shape, generator=generator) * 0.4
            tensor.copy_(values.abs() + 0.5 if "running_var" in name else values)
    return model.eval()


def cnn(head: str = "pooled", **options: Any) -> Cnn:
    """A `Cnn` whose weights are the same at every call."""
    model = Cnn(head, **options)
    seeded(model)
    return model


def pictures(n: int = 4, seed: int = 1) -> Tensor:
    """Images `(n, 3, 12, 10)`."""
    return torch.randn(n, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def state_of(model: nn.Module) -> dict[str, Any]:
    """All that must be the same after a look, bit for bit: tensors as bytes."""
    modules = dict(model.named_modules())
    return {
        "parameters": {name: (id(each), bits(each)) for name, each in model.named_parameters()},
        "gradients": {name: bits(each.grad) for name, each in model.named_parameters()},
        "requires_grad": {name: each.requires_grad for name, each in model.named_parameters()},
        "buffers": {name: (id(each), bits(each)) for name, each in model.named_buffers()},
        "training": {name: each.training for name, each in modules.items()},
        "hooks": {
            name: [len(value) for key, value in vars(each).items() if "hooks" in key and value is not None]
            for name, each in modules.items()
        },
        "attributes": {name: sorted(vars(each)) for name, each in modules.items()},
        "python": random.getstate(),
        "numpy": [np.asarray(each).tolist() for each in np.random.get_state()],
        "torch": bits(torch.get_rng_state()),
        "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


def bits(tensor: Tensor | None) -> bytes | None:
    """The raw bytes of a tensor: two NaN are the same, 0 and -0 are not."""
    if tensor is None:
        return None
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
