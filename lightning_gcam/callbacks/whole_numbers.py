"""Images of whole numbers are handed to the forward as they came; what is said where it does not take them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from lightning_gcam._errors import InputError
from lightning_gcam.batch.adapters import adapter_for
from lightning_gcam.record import is_out_of_memory


@contextmanager
def whole_numbers_explained(images: Tensor, batch: Any) -> Iterator[None]:
    """Run the module on `images`; a failure on uint8 images names the likely cause and an adapter to copy.

    Args:
        images: as the module is called with them.
        batch: what they came from, as the dataloader delivered it; None where they were given by hand.

    Raises:
        InputError: in the place of an error that is not ours, where the images are whole numbers.
    """
    try:
        yield
    except Exception as error:
        if images.is_floating_point() or isinstance(error, InputError) or is_out_of_memory(error):
            raise
        kind = str(images.dtype).removeprefix("torch.")
        code = (
            adapter_for(batch, "{images}.float() / 255")
            if batch is not None
            else "batch=SaliencyBatch(images.float() / 255)"
        )
        raise InputError(
            f"The images are {kind}, and the forward does not take them so ({type(error).__name__}: {error}). Convert "
            f"them as your `validation_step` does, for example:\n    {code}"
        ) from error
