"""The networks whose maps are recorded: six kinds of head and layout, small, with seeded weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.models import SwinTransformer, VisionTransformer

CLASSES = 4
SIZE = 32


def _features(width: int = 8) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width + 4, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(width + 4, width + 8, 3, stride=2, padding=1),
        nn.ReLU(),
    )


def pooled() -> nn.Module:
    """A global average and one linear layer."""
    return nn.Sequential(_features(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES))


def flat() -> nn.Module:
    """A weight for each position, as in VGG."""
    return nn.Sequential(_features(), nn.Flatten(), nn.Linear(16 * 64, 12), nn.ReLU(), nn.Linear(12, CLASSES))


def max_pooled() -> nn.Module:
    """A global maximum and one linear layer."""
    return nn.Sequential(_features(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES))


def vit() -> nn.Module:
    """Tokens behind a class token."""
    network = VisionTransformer(SIZE, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32)
    network.heads = nn.Sequential(nn.Linear(16, CLASSES))
    return network


def swin() -> nn.Module:
    """Shifted windows, channels last."""
    return SwinTransformer([2, 2], 8, [1, 1], [2, 2], [4, 4], num_classes=CLASSES)


def dense() -> nn.Module:
    """Logits at every position."""
    return nn.Sequential(_features(), nn.Conv2d(16, CLASSES, 1), nn.Upsample(size=(SIZE, SIZE)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "pooled": pooled,
    "flat": flat,
    "max pooled": max_pooled,
    "vit": vit,
    "swin": swin,
    "dense": dense,
}


def network(name: str) -> nn.Module:
    """The network of that name, its weights and statistics the same at every call."""
    generator = torch.Generator().manual_seed(7)
    built = NETWORKS[name]().eval()
    for key, tensor in built.state_dict().items():
        if tensor.is_floating_point():
            values = torch.randn(tensor.shape, generator=generator) * (0.3 if tensor.ndim > 1 else 0.1)
            tensor.copy_(values.abs() + 0.5 if "running_var" in key or _is_scale(key, tensor) else values)
    return built


def _is_scale(key: str, tensor: Tensor) -> bool:
    """The weight of a norm."""
    return tensor.ndim == 1 and key.endswith("weight")


def samples(n: int = 8, seed: int = 3) -> dict[str, Tensor]:
    """Images `(n, 3, 32, 32)` with a bright square in the class's quadrant, labels, masks, and groups."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % CLASSES
    images = 0.3 * torch.rand(n, 3, SIZE, SIZE, generator=generator)
    masks = torch.zeros(n, SIZE, SIZE, dtype=torch.bool)
    for index, label in enumerate(labels.tolist()):
        top, left = 16 * (label // 2) + 2, 16 * (label % 2) + 3
        masks[index, top : top + 10, left : left + 11] = True
        images[index, label % 3][masks[index]] += 0.7
    return {"images": images, "labels": labels, "masks": masks, "groups": torch.arange(n) // 4 % 2}
