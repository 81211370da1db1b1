"""Opening the files that a dataset's lists name, and boxes as regions of pixels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from lightning_gcam.batch import SaliencyBatch
from lightning_gcam.datasets.layout import Layout


@contextmanager
def opened(path: Path, layout: Layout, named_by: str) -> Iterator[Image.Image]:
    """A picture as it is in its file, open for the length of a `with`.

    Args:
        path: the file.
        layout: of its dataset, for the errors.
        named_by: what says that the file should be there.

    Raises:
        InputError: where it is not there, or is no picture.
    """
    try:
        picture = Image.open(path)
        picture.load()
    except FileNotFoundError:
        raise layout.missing(path, named_by) from None
    except Exception as error:  # Pillow's readers of broken files raise errors of many types
        raise layout.unreadable(path, error) from error
    with picture:
        yield picture


def read_rgb(path: Path, layout: Layout, named_by: str) -> Image.Image:
    """A picture in three channels, whatever it has in its file; arguments and errors as of :func:`opened`."""
    with opened(path, layout, named_by) as picture:
        return picture.convert("RGB")


def inside(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """The pixels `(H, W)` bool whose centre lies in one of the boxes `(M, 4)`.

    Example:
        >>> inside(torch.tensor([[0.0, 0.0, 2.0, 1.0]]), (2, 3)).int()
        tensor([[1, 1, 0],
                [0, 0, 0]], dtype=torch.int32)
    """
    masks = SaliencyBatch(torch.zeros(1, 1, *size), boxes=[boxes]).object_masks
    assert masks is not None
    return masks[0]
