"""`SaliencyBatch`: annotated samples in the form the rest of the package reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lightning_gcam._errors import InputError
from lightning_gcam.batch import checks


@dataclass(eq=False)  # not frozen: Lightning's precision plugins convert a batch in place, field by field
class SaliencyBatch:
    """Annotated samples: the images as the model takes them, and what is known of where the object is.

    Args:
        images: `(N, C, H, W)` exactly as the model takes them: floating point and normalized, or whole numbers such as
            uint8 where its forward converts them; on any device.
        labels: `(N,)` integer classes, of which negative ones mean "none"; `(N,)` float measurements, for a model that
            predicts a number; or `(N, K)` multi-hot. A column `(N, 1)` is held as `(N,)`.
        masks: `(N, H, W)` bool, True on the object.
        boxes: N tensors `(M, 4)`, each row `x1, y1, x2, y2` in pixels of the image.
        suspect: `(H, W)` or `(N, H, W)` bool, a region that should not matter.
        groups: `(N,)` integer, a subgroup to report on.
        names: N names for captions.

    Tensors of a class of their own (`tv_tensors`) are held as plain ones.

    Raises:
        InputError: where a field has another shape, dtype or length than stated; the message names the field.

    Example:
        >>> batch = SaliencyBatch(torch.rand(2, 3, 8, 8), labels=torch.tensor([1, 0]))
        >>> len(batch), batch.image_size
        (2, (8, 8))
    """

    images: Tensor
    labels: Tensor | None = None
    masks: Tensor | None = None
    boxes: list[Tensor] | None = None
    suspect: Tensor | None = None
    groups: Tensor | None = None
    names: list[str] | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            setattr(self, field.name, _apply(_plain, getattr(self, field.name)))
        if isinstance(self.labels, Tensor) and self.labels.ndim == 2 and self.labels.shape[1] == 1:
            self.labels = self.labels[:, 0]  # those of a single output often come as a column
        checks.check_images(self.images)
        expected = (len(self.images), *self.image_size)
        checks.check_labels(self.labels, expected)
        checks.check_masks(self.masks, expected)
        checks.check_boxes(self.boxes, expected)
        checks.check_suspect(self.suspect, expected)
        checks.check_groups(self.groups, expected)
        checks.check_names(self.names, expected)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images, in pixels."""
        return self.images.shape[-2], self.images.shape[-1]

    @property
    def object_masks(self) -> Tensor | None:
        """Where the object is, `(N, H, W)` bool: the masks, else the union of each sample's boxes, else None."""
        if self.masks is not None:
            return self.masks
        if self.boxes is not None:
            size = self.image_size
            return torch.stack([_boxes_to_mask(boxes, size) for boxes in self.boxes]).to(self.images.device)
        return None

    @property
    def has_measurements(self) -> bool:
        """Whether the labels are numbers to be predicted, not all of them whole, and no classes."""
        labels = self.labels
        is_column = labels is not None and labels.ndim == 1 and labels.is_floating_point()
        return labels is not None and is_column and not torch.equal(labels, labels.round())

    def map_tensors(self, function: Callable[[Tensor], Tensor]) -> SaliencyBatch:
        """The same batch with `function` applied to each of its tensors."""
        return replace(
            self, **{field.name: _apply(function, getattr(self, field.name)) for field in fields(self)}
        )

    def to(self, device: torch.device | str) -> SaliencyBatch:
        """The same batch on `device`."""
        return self.map_tensors(lambda tensor: tensor.to(device))

    def select(self, rows: Sequence[int]) -> SaliencyBatch:
        """The samples at `rows`, in that order, as copies that share no memory with this batch."""
        chosen = torch.tensor(list(rows), dtype=torch.long)
        is_shared = self.suspect is not None and self.suspect.ndim == 2  # one region for all samples
        names = [name for name in _field_names() if not (is_shared and name == "suspect")]
        per_sample: dict[str, Any] = {name: _take(getattr(self, name), chosen) for name in names}
        if self.suspect is not None and is_shared:
            per_sample["suspect"] = self.suspect.clone()
        return replace(self, **per_sample)

    def resized(self, size: tuple[int, int]) -> SaliencyBatch:
        """The same samples with images of another size, their masks, boxes and suspect region along.

        Args:
            size: height and width, in pixels.

        Example:
            >>> batch = SaliencyBatch(torch.rand(1, 3, 8, 8), boxes=[torch.tensor([[0.0, 2.0, 4.0, 8.0]])])
            >>> larger = batch.resized((16, 24))
            >>> larger.image_size, larger.boxes[0].tolist()
            ((16, 24), [[0.0, 4.0, 12.0, 16.0]])
        """
        pixels = functional.interpolate(
            self.images.float(), size, mode="bilinear", align_corners=False, antialias=True
        )
        if not self.images.is_floating_point():
            pixels = pixels.round()
        height, width = self.image_size
        factors = torch.tensor([size[1] / width, size[0] / height] * 2)
        return SaliencyBatch(
            pixels.to(self.images.dtype),
            self.labels,
            _resized_region(self.masks, size),
            None if self.boxes is None else [boxes * factors.to(boxes.device) for boxes in self.boxes],
            _resized_region(self.suspect, size),
            self.groups,
            self.names,
        )

    @staticmethod
    def cat(batches: Sequence[SaliencyBatch]) -> SaliencyBatch:
        """One batch of all samples in order; a field is kept where every batch has it."""
        if len(batches) == 1:
            return batches[0]
        joined = {name: _join(name, [getattr(each, name) for each in batches]) for name in _field_names()}
        suspects = [each.suspect for each in batches]
        if any(suspect is not None and suspect.ndim == 2 for suspect in suspects):
            joined["suspect"] = suspects[0]
        return SaliencyBatch(**joined)

    def state_dict(self) -> dict[str, Any]:
        """Tensors, lists and strings only, on the CPU, so that a checkpoint loads with `weights_only=True`."""
        return {
            name: getattr(self.to("cpu"), name) for name in _field_names() if getattr(self, name) is not None
        }


def _resized_region(region: Tensor | None, size: tuple[int, int]) -> Tensor | None:
    """`(H, W)` or `(N, H, W)` bool in another size."""
    if region is None:
        return None
    stack = region if region.ndim == 3 else region[None]
    found = functional.interpolate(stack[:, None].float(), size, mode="nearest-exact")[:, 0] > 0.5
    return found if region.ndim == 3 else found[0]


def _field_names() -> list[str]:
    return [field.name for field in fields(SaliencyBatch)]


def _apply(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, list):
        return [_apply(function, each) for each in value]
    return value


def _plain(tensor: Tensor) -> Tensor:
    return tensor if type(tensor) is Tensor else tensor.as_subclass(Tensor)


def _take(value: Any, rows: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value.detach()[rows.to(value.device)]
    if isinstance(value, list):
        return [
            each.detach().clone() if isinstance(each, Tensor) else each
            for each in (value[row] for row in rows)
        ]
    return value


def _join(name: str, values: list[Any]) -> Any:
    if any(value is None for value in values):
        return None
    if isinstance(values[0], Tensor):
        other = next((each for each in values if each.shape[1:] != values[0].shape[1:]), None)
        if other is not None:
            raise InputError(
                f"`{name}` came as {checks.shape_of(values[0])} and as {checks.shape_of(other)}, which cannot be one "
                "batch. Deliver one kind, or make it one with `adapter=`."
            )
        return torch.cat(values)
    return [each for value in values for each in value]


def _boxes_to_mask(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """The union of boxes `(M, 4)` xyxy: the pixels whose centre lies in one of them."""
    height, width = size
    rows = torch.arange(height, device=boxes.device) + 0.5
    columns = torch.arange(width, device=boxes.device) + 0.5
    x1, y1, x2, y2 = boxes.reshape(-1, 4).float().unbind(dim=1)
    in_rows = (rows >= y1[:, None]) & (rows < y2[:, None])
    in_columns = (columns >= x1[:, None]) & (columns < x2[:, None])
    return (in_rows[:, :, None] & in_columns[:, None, :]).any(dim=0)
