"""Checks of the callbacks' arguments, made before training time is spent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lightning_gcam.cam.calling import IntegerImagesError
from lightning_gcam.data.adapters import adapter_for
from lightning_gcam.utils.errors import InputError

_OR_NEVER = ", or None for never"


def check_whole(name: str, value: Any, otherwise: str = "") -> None:
    """Refuse anything but a whole number from one; `otherwise` names what else the argument takes."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"`{name}` must be a whole number from 1{otherwise}; got {value!r}.")


def check_flag(name: str, value: Any) -> None:
    """Refuse anything but True and False."""
    if not isinstance(value, bool):
        raise InputError(f"`{name}` must be True or False; got {value!r}.")


def check_dataloader_idx(value: Any) -> None:
    """Refuse anything but a whole number from zero."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(f"`dataloader_idx` must be a whole number from 0; got {value!r}.")


def check_intervals(every_n_epochs: int | None, every_n_train_steps: int | None) -> None:
    """Refuse a schedule without looks."""
    if every_n_epochs is None and every_n_train_steps is None:
        raise InputError(
            "`every_n_epochs` and `every_n_train_steps` are both None, so there would never be a look. Give one, such "
            "as `every_n_epochs=1`."
        )
    if every_n_epochs is not None:
        check_whole("every_n_epochs", every_n_epochs, _OR_NEVER)
    if every_n_train_steps is not None:
        check_whole("every_n_train_steps", every_n_train_steps, _OR_NEVER)


def check_targets(targets: Any) -> None:
    """Refuse targets that are no known word, no class and no callable."""
    if callable(targets) or targets in ("label", "predicted", "output"):
        return
    if not isinstance(targets, int) or isinstance(targets, bool) or targets < 0:
        raise InputError(
            '`targets` must be "label", "predicted", "output", a class from 0, or a callable on the logits; got '
            f"{targets!r}."
        )


def check_prefix(log_prefix: Any) -> None:
    """Refuse a prefix that is no name."""
    if not isinstance(log_prefix, str) or not log_prefix.strip("/"):
        raise InputError(f'`log_prefix` must be a name, such as the default "saliency"; got {log_prefix!r}.')


def check_class_names(class_names: Any) -> None:
    """Refuse class names that are no sequence of names."""
    if class_names is not None and (isinstance(class_names, str) or not hasattr(class_names, "__getitem__")):
        raise InputError(
            f'`class_names` must be a list of names, one for each class, such as ["cat", "dog"]; got {class_names!r}.'
        )


def check_about(about: Mapping[str, Any] | None) -> None:
    """Refuse facts that cannot be written into `evaluation.json`, which would be found out when all is computed."""
    try:
        json.dumps(dict(about or {}), allow_nan=False, default=str)
    except (TypeError, ValueError) as error:
        raise InputError(f"`about` must hold plain facts, by name: {error}.") from error


@contextmanager
def whole_numbers_explained(batch: Any) -> Iterator[None]:
    """Run the body; where the module does not take whole-number images, raise with an adapter that converts them.

    Args:
        batch: what the images were read from; None where they were given by hand.

    Raises:
        InputError: with the code to copy.
    """
    try:
        yield
    except IntegerImagesError as error:
        code = "batch=SaliencyBatch(images.float() / 255)"
        if batch is not None:
            code = adapter_for(batch, "{images}.float() / 255")
        raise InputError(f"{error} In your `validation_step`? Then do the same in:\n    {code}") from error
