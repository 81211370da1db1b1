"""Images of whole numbers are handed to the forward as they came; what is said where it does not take them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning_gcam._errors import InputError
from lightning_gcam.batch.adapters import adapter_for
from lightning_gcam.cam.calling import NotTaken


@contextmanager
def whole_numbers_explained(batch: Any) -> Iterator[None]:
    """Run the module; where it does not take the images as they came, show an adapter that converts them.

    Args:
        batch: what the images were read from; None where they were given by hand.

    Raises:
        InputError: with the code to copy.
    """
    try:
        yield
    except NotTaken as error:
        code = "batch=SaliencyBatch(images.float() / 255)"
        if batch is not None:
            code = adapter_for(batch, "{images}.float() / 255")
        raise InputError(f"{error} In your `validation_step`? Then do the same in:\n    {code}") from error
