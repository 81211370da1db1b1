"""`SaliencyBatch`: images with labels, masks, boxes, a suspect region, groups and names; and its checks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lightning_gcam.utils.errors import InputError
from lightning_gcam.utils.files import shortened

Size = tuple[int, int, int]
"""How many samples, and the height and width of their images."""


def shape_of(tensor: Tensor) -> str:
    """Write a tensor's shape and dtype, for messages."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def type_and_shape(value: Any) -> str:
    """Describe what was handed over in a word or two, for messages."""
    if isinstance(value, Tensor):
        return shape_of(value)
    kind = type(value).__name__
    if isinstance(value, (list, tuple, dict, str)):
        return f"{kind} of length {len(value)}"
    return f"{kind} {value.shape}" if hasattr(value, "shape") else kind


def check_images(images: Any) -> None:
    """Check that images are a tensor `(N, C, H, W)` of real numbers, at least one sample."""
    if not isinstance(images, Tensor):
        raise InputError(
            f"`images` must be a tensor (N, C, H, W); "
            f"got {type_and_shape(images)}. Make it one, as with `torch.stack(images)`."
        )
    if images.ndim != 4:
        raise InputError(
            f"`images` must be 4-D, (N, C, H, W); got {shape_of(images)}. Where the batch has another layout, "
            "`adapter=` is the place to say so: a function from the batch to a SaliencyBatch."
        )
    if not len(images):
        raise InputError(f"`images` holds no sample; got {shape_of(images)}. Give at least one.")
    if not images.numel() or images.is_complex():
        raise InputError(
            f"`images` must be real numbers, at least one channel and one pixel; got {shape_of(images)}."
        )


def check_labels(labels: Any, size: Size) -> None:
    """Check that labels are `(N,)` or `(N, K)` finite real numbers."""
    if labels is None:
        return
    n = size[0]
    if not isinstance(labels, Tensor) or labels.ndim not in (1, 2) or len(labels) != n:
        raise InputError(
            f"`labels` must be a tensor ({n},) of classes or measurements, or ({n}, K) multi-hot; "
            f"got {type_and_shape(labels)}. "
            "Give one per sample, or None where there are none."
        )
    is_finite = not labels.is_floating_point() or bool(torch.isfinite(labels).all())
    if labels.is_complex() or not is_finite:
        raise InputError(
            f"`labels` must be finite real numbers; got {shape_of(labels)} with NaN or infinity. Leave such "
            "samples out."
        )


RESIZE = (
    'Resize them first, with mode "nearest", as in `torch.nn.functional.interpolate(masks[:, None].float(), '
    "size=images.shape[-2:])[:, 0] != 0`."
)
"""What to do with masks of another size."""


def check_masks(masks: Any, size: Size) -> None:
    """Check that masks are `(N, H, W)` bool."""
    if masks is None:
        return
    if not isinstance(masks, Tensor) or tuple(masks.shape) != size:
        raise InputError(
            f"`masks` must have the size of the images, {size}; got {type_and_shape(masks)}. {RESIZE}"
        )
    if masks.dtype != torch.bool:
        raise InputError(
            f"`masks` must be bool, True on the object; got {shape_of(masks)}. Try `masks != 0`."
        )


def check_boxes(boxes: Any, size: Size) -> None:
    """Check that boxes are a list of N tensors `(M, 4)`."""
    if boxes is None:
        return
    if not isinstance(boxes, list) or len(boxes) != size[0]:
        raise InputError(
            f"`boxes` must be a list of {size[0]} tensors (M, 4), one per sample; "
            f"got {type_and_shape(boxes)}. Of a sample "
            "without boxes it is `torch.zeros(0, 4)`."
        )
    for index, each in enumerate(boxes):
        if not isinstance(each, Tensor) or each.ndim != 2 or each.shape[1] != 4:
            raise InputError(
                f"`boxes[{index}]` must be a tensor (M, 4) of x1, y1, x2, y2; "
                f"got {type_and_shape(each)}. A single box is "
                "`box[None]`, and none is `torch.zeros(0, 4)`."
            )


def check_suspect(suspect: Any, size: Size) -> None:
    """Check that a suspect region is `(H, W)` or `(N, H, W)` bool."""
    if suspect is None:
        return
    allowed = (size[1:], size)
    if not isinstance(suspect, Tensor) or tuple(suspect.shape) not in allowed or suspect.dtype != torch.bool:
        is_in_shape = isinstance(suspect, Tensor) and tuple(suspect.shape) in allowed
        remedy = (
            "Try `suspect != 0`."
            if is_in_shape
            else "Resize it to the images first, or draw it at their size."
        )
        raise InputError(
            f"`suspect` must be bool of shape {allowed[0]} or {allowed[1]}; got {type_and_shape(suspect)}. {remedy}"
        )


def check_groups(groups: Any, size: Size) -> None:
    """Check that groups are `(N,)` integers."""
    if groups is None:
        return
    if not isinstance(groups, Tensor) or tuple(groups.shape) != (size[0],) or groups.is_floating_point():
        raise InputError(
            f"`groups` must be an integer tensor ({size[0]},); "
            f"got {type_and_shape(groups)}. Number the groups, and give one "
            "number per sample, as with `torch.tensor(groups)`."
        )


def check_names(names: Any, size: Size) -> None:
    """Check that there are N names."""
    if names is not None and len(names) != size[0]:
        raise InputError(
            f"`names` must hold {size[0]} names, one per sample; got {len(names)}. Give one for each, or None."
        )


@dataclass(eq=False)  # not frozen: Lightning's precision plugins convert a batch in place, field by field
class SaliencyBatch:
    """Annotated samples: the images as the model takes them, and where the object is, as far as it is annotated.

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
        check_images(self.images)
        expected = (len(self.images), *self.image_size)
        check_labels(self.labels, expected)
        check_masks(self.masks, expected)
        check_boxes(self.boxes, expected)
        check_suspect(self.suspect, expected)
        check_groups(self.groups, expected)
        check_names(self.names, expected)

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
            masks = [boxes_to_masks(boxes, size).any(dim=0) for boxes in self.boxes]
            return torch.stack(masks).to(self.images.device)
        return None

    @property
    def has_measurements(self) -> bool:
        """Whether the labels are numbers to be predicted, not all of them whole, and no classes."""
        labels = self.labels
        is_column = labels is not None and labels.ndim == 1 and labels.is_floating_point()
        return labels is not None and is_column and not torch.equal(labels, labels.round())

    def map_tensors(self, function: Callable[[Tensor], Tensor]) -> SaliencyBatch:
        """Return the same batch with `function` applied to each of its tensors."""
        return replace(
            self, **{field.name: _apply(function, getattr(self, field.name)) for field in fields(self)}
        )

    @property
    def suspect_masks(self) -> Tensor | None:
        """The suspect region of each sample, `(N, H, W)` bool, also where one is given for all; None without any."""
        return self.suspect.expand(len(self), -1, -1) if self.suspect is not None else None

    def to(self, device: torch.device | str) -> SaliencyBatch:
        """Return the same batch on `device`."""
        return self.map_tensors(lambda tensor: tensor.to(device))

    def select(self, rows: Sequence[int]) -> SaliencyBatch:
        """Return the samples at `rows`, in that order, as copies that share no memory with this batch."""
        chosen = torch.tensor(list(rows), dtype=torch.long)
        is_shared = self.suspect is not None and self.suspect.ndim == 2  # one region for all samples
        names = [name for name in _field_names() if not (is_shared and name == "suspect")]
        per_sample: dict[str, Any] = {name: _take(getattr(self, name), chosen) for name in names}
        if self.suspect is not None and is_shared:
            per_sample["suspect"] = self.suspect.clone()
        return replace(self, **per_sample)

    def resized(self, size: tuple[int, int]) -> SaliencyBatch:
        """Return the same samples with images of another size, their masks, boxes and suspect region along.

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
        """Join several batches in order; a field is kept where every batch has it."""
        if len(batches) == 1:
            return batches[0]
        joined = {name: _join(name, [getattr(each, name) for each in batches]) for name in _field_names()}
        suspects = [each.suspect for each in batches]
        if any(suspect is not None and suspect.ndim == 2 for suspect in suspects):
            joined["suspect"] = suspects[0]
        return SaliencyBatch(**joined)

    def state_dict(self) -> dict[str, Any]:
        """Return tensors, lists and strings only, on the CPU, so that a checkpoint loads with `weights_only=True`."""
        return {
            name: getattr(self.to("cpu"), name) for name in _field_names() if getattr(self, name) is not None
        }


def _resized_region(region: Tensor | None, size: tuple[int, int]) -> Tensor | None:
    """Resize a region `(H, W)` or `(N, H, W)` bool."""
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
                f"`{name}` came as {shape_of(values[0])} and as {shape_of(other)}, which cannot be one "
                "batch. Deliver one kind, or make it one with `adapter=`."
            )
        return torch.cat(values)
    return [each for value in values for each in value]


def boxes_to_masks(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Convert boxes to masks `(M, H, W)` bool, one each: the pixels whose centre lies in the box.

    Args:
        boxes: `(M, 4)`, each row `x1, y1, x2, y2` in pixels; a whole `x2` is the first column behind the box.
        size: height and width of the image.

    Example:
        >>> boxes_to_masks(torch.tensor([[0.0, 0.0, 2.0, 1.0]]), (2, 3)).int()
        tensor([[[1, 1, 0],
                 [0, 0, 0]]], dtype=torch.int32)
    """
    height, width = size
    rows = torch.arange(height, device=boxes.device) + 0.5
    columns = torch.arange(width, device=boxes.device) + 0.5
    x1, y1, x2, y2 = boxes.reshape(-1, 4).float()[..., None].unbind(dim=1)
    in_rows, in_columns = (rows >= y1) & (rows < y2), (columns >= x1) & (columns < x2)
    return in_rows[:, :, None] & in_columns[:, None, :]


_ELSEWHERE = re.compile(r"[^A-Za-z0-9_./-]+")
"""What some backend refuses in a tag: MLflow takes letters of ASCII, digits, and these signs."""

_LONGEST = 80
"""MLflow puts the whole tag, with a time and an id, into one file name of at most 255 signs."""


def sample_names(batch: SaliencyBatch) -> list[str]:
    """Return each sample's name with the signs that every backend takes, or its number where it has none.

    Where two come out alike, or would on a disk that ignores the case of letters, all get their numbers in
    front. A name never leads out of the folder it is put into, and one that is too long for a file's ends in a
    checksum.

    Args:
        batch: the samples.

    Example:
        >>> import torch
        >>> images = torch.zeros(4, 3, 8, 8)
        >>> sample_names(SaliencyBatch(images, names=["cats/tom 1.png", "", "../a", "b"]))
        ['cats/tom_1.png', '1', 'a', 'b']
        >>> sample_names(SaliencyBatch(images, names=["cat", "dog", "cat", ""]))
        ['0_cat', '1_dog', '2_cat', '3_3']
        >>> sample_names(SaliencyBatch(images[:2], names=["a", "A"]))
        ['0_a', '1_A']
    """
    given = batch.names if batch.names is not None else [""] * len(batch)
    plain = [_as_tag(name) or str(number) for number, name in enumerate(given)]
    if len({name.casefold() for name in plain}) == len(plain):
        return plain
    return [f"{number}_{name}" for number, name in enumerate(plain)]


def _as_tag(name: str) -> str:
    parts = _ELSEWHERE.sub("_", name).split("/")
    plain = "/".join(part for part in parts if part.strip("._"))
    return plain if len(plain) <= _LONGEST else shortened(plain.rpartition("/")[2], _LONGEST, plain)
