"""What a score asks the model: which changed images it wants to see answered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_gcam.metrics.functional.perturbed import Fill, deletion_steps, insertion_steps, keep_salient


@dataclass(frozen=True)
class Question:
    """A way to change images by their maps; scores that ask the same share the model's answers.

    Args:
        kind: "keep" only the salient pixels, "insert" them one step after the other, or "delete" them.
        fill: What stands where pixels are taken away.
        steps: Of an insertion or a deletion.

    Example:
        >>> from lightning_gcam.metrics import AverageDrop, AverageGain, InsertionAUC
        >>> AverageDrop().question == AverageGain().question, InsertionAUC(steps=5).question.num_images
        (True, 6)
    """

    kind: Literal["keep", "insert", "delete"]
    fill: Fill
    steps: int = 0

    @property
    def num_images(self) -> int:
        """How many images a sample becomes."""
        return self.steps + 1

    def images(self, images: Tensor, maps: Tensor, chunk_size: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
        """Change the images, at most ``chunk_size`` at once.

        Args:
            images: ``(N, C, H, W)`` floating, as the model takes them.
            maps: ``(N, H, W)`` floating, at least 0.
            chunk_size: How many images to give at once.

        Yields:
            Pairs ``(index, images)``: ``(K, 2)`` int64, the sample and the step of each, and ``(K, C, H, W)``.
        """
        if self.kind == "insert":
            yield from insertion_steps(images, maps, self.steps, self.fill, chunk_size)
        elif self.kind == "delete":
            yield from deletion_steps(images, maps, self.steps, self.fill, chunk_size)
        else:
            for rows in torch.arange(len(images), device=images.device).split(chunk_size):
                index = torch.stack([rows, torch.zeros_like(rows)], dim=1)
                yield index, keep_salient(images[rows], maps[rows], self.fill)
