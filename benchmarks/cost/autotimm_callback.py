"""A rival of `overhead.py` that is published: AutoTimm's `InterpretationCallback`, where `autotimm` is installed.

It explains the predicted classes of fixed images one after the other, each by a forward for the class and a forward and
a backward for the map, and logs one overlay an image. It computes no scores and outlines no object.
"""

from importlib.util import find_spec
from typing import Any

from torch import Tensor

HOOK = "on_train_epoch_end"
"""Where it looks."""


def is_installed() -> bool:
    """Whether there is something to compare with: `uv pip install autotimm`."""
    return find_spec("autotimm") is not None


def interpretation(images: Tensor, target_layer: str) -> Any:
    """The callback, set to look at these images after every epoch, as its documentation shows it.

    Args:
        images: `(N, C, H, W)`, as the model takes them.
        target_layer: a name from `pl_module.named_modules()`.
    """
    from autotimm.interpretation.callbacks import InterpretationCallback

    return InterpretationCallback(
        list(images), target_layer=target_layer, log_every_n_epochs=1, num_samples=len(images)
    )
