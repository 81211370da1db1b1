"""`SaliencyBatch`: images, volumes, videos or signals with what is annotated of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lightning_gcam.data.checks import (
    KINDS,
    Kind,
    check_boxes,
    check_groups,
    check_images,
    check_kind,
    check_labels,
    check_masks,
    check_rows,
    check_strings,
    check_suspect,
    shape_of,
)
from lightning_gcam.utils.dimensions import MODES
from lightning_gcam.utils.errors import InputError
from lightning_gcam.utils.files import shortened


@dataclass(eq=False)  # not frozen: Lightning's precision plugins convert a batch in place, field by field
class SaliencyBatch:
    """Annotated samples: the images as the model takes them, and where the object is, as far as it is annotated.

    Images are `(N, C, *S)`, with one to three dimensions S: signals `(N, C, L)`, images `(N, C, H, W)`, volumes
    `(N, C, D, H, W)` and videos `(N, C, T, H, W)`.

    Args:
        images: `(N, C, *S)` exactly as the model takes them: floating point and normalized, or whole numbers such as
            uint8 where its forward converts them; on any device.
        labels: `(N,)` integer classes, of which negative ones mean "none"; `(N,)` float measurements, for a model that
            predicts a number, of which NaN means "none"; or `(N, K)` multi-hot. A column `(N, 1)` is held as `(N,)`.
        masks: `(N, *S)` bool, True on the object.
        boxes: N tensors `(M, 4)`, each row `x1, y1, x2, y2` in pixels of the image; `(M, 2)` start and end in a signal,
            `(M, 6)` `x1, y1, z1, x2, y2, z2` in a volume or video, with x along the last dimension.
        suspect: `S` or `(N, *S)` bool, a region that should not matter.
        groups: `(N,)` integer, a subgroup to report on.
        names: N names for captions.
        kind: "signal", "image", "volume" or "video"; where it is left out, by the number of dimensions, and a video
            where three of them have three channels.
        frames_first: whether the model takes videos as `(N, T, C, H, W)`; `images` are `(N, C, T, H, W)` all the same.
        head_labels: labels of several heads, `(N,)` or `(N, K)` each, by the name of each.
        inputs: what else the model may take, by name: tensors, or lists, with a row for each sample.
        faults: for each sample "", or why its annotation was left out.
        no_classes: whether labels came that are no classes (keypoints, heat maps, several measurements) and are left
            out here: then no class is read into the model's output, either.

    Tensors of a class of their own (`tv_tensors`) are held as plain ones.

    Raises:
        InputError: where a field has another shape, dtype or length than stated; the message names the field.

    Example:
        >>> batch = SaliencyBatch(torch.rand(2, 3, 8, 8), labels=torch.tensor([1, 0]))
        >>> len(batch), batch.image_size
        (2, (8, 8))
        >>> SaliencyBatch(torch.rand(2, 12, 500)).kind, SaliencyBatch(torch.rand(2, 1, 8, 8, 8)).kind
        ('signal', 'volume')
    """

    images: Tensor
    labels: Tensor | None = None
    masks: Tensor | None = None
    boxes: list[Tensor] | None = None
    suspect: Tensor | None = None
    groups: Tensor | None = None
    names: list[str] | None = None
    kind: Kind | None = None
    frames_first: bool = False
    head_labels: dict[str, Tensor] | None = None
    inputs: dict[str, Any] | None = None
    faults: list[str] | None = None
    no_classes: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            setattr(self, field.name, _apply(_plain, getattr(self, field.name)))
        if isinstance(self.labels, Tensor) and self.labels.ndim == 2 and self.labels.shape[1] == 1:
            self.labels = self.labels[:, 0]  # those of a single output often come as a column
        check_images(self.images)
        if self.kind is None:
            of_dimensions = KINDS[self.images.ndim - 3]
            self.kind = of_dimensions[-1 if self.images.shape[1] == 3 else 0]
        expected = (len(self.images), *self.image_size)
        check_kind(self.kind, expected)
        check_labels(self.labels, expected)
        check_masks(self.masks, expected)
        check_boxes(self.boxes, expected)
        check_suspect(self.suspect, expected)
        check_groups(self.groups, expected)
        check_strings("names", self.names, len(self))
        check_rows("head_labels", self.head_labels, expected)
        check_rows("inputs", self.inputs, expected)
        check_strings("faults", self.faults, len(self))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_size(self) -> tuple[int, ...]:
        """The size S of the images: height and width in pixels, `(L,)` of signals, `(D, H, W)` of volumes."""
        return tuple(self.images.shape[2:])

    @property
    def object_masks(self) -> Tensor | None:
        """Where the object is, `(N, *S)` bool: the masks, else the union of each sample's boxes, else None."""
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
        if labels is None or labels.ndim > 1 or not labels.is_floating_point():
            return False
        known = labels[~labels.isnan()]
        return not torch.equal(known, known.round())

    def map_tensors(self, function: Callable[[Tensor], Tensor]) -> SaliencyBatch:
        """Return the same batch with `function` applied to each of its tensors."""
        return replace(
            self, **{field.name: _apply(function, getattr(self, field.name)) for field in fields(self)}
        )

    @property
    def suspect_masks(self) -> Tensor | None:
        """The suspect region of each sample, `(N, *S)` bool, also where one is given for all; None without any."""
        return self.suspect.expand(len(self), *self.image_size) if self.suspect is not None else None

    @property
    def _shares_suspect(self) -> bool:
        """Whether one suspect region is given for all samples."""
        return self.suspect is not None and self.suspect.ndim == len(self.image_size)

    def to(self, device: torch.device | str) -> SaliencyBatch:
        """Return the same batch on `device`."""
        return self.map_tensors(lambda tensor: tensor.to(device))

    def select(self, rows: Sequence[int]) -> SaliencyBatch:
        """Return the samples at `rows`, in that order, as copies that share no memory with this batch."""
        chosen = torch.tensor(list(rows), dtype=torch.long)
        names = [name for name in _field_names() if not (self._shares_suspect and name == "suspect")]
        per_sample: dict[str, Any] = {name: _take(getattr(self, name), chosen) for name in names}
        if self.suspect is not None and self._shares_suspect:
            per_sample["suspect"] = self.suspect.clone()
        return replace(self, **per_sample)

    def resized(self, size: tuple[int, ...]) -> SaliencyBatch:
        """Return the same samples with images of another size, their masks, boxes and suspect region along.

        Args:
            size: height and width, in pixels; `(L,)` of signals, `(D, H, W)` of volumes.

        Example:
            >>> batch = SaliencyBatch(torch.rand(1, 3, 8, 8), boxes=[torch.tensor([[0.0, 2.0, 4.0, 8.0]])])
            >>> larger = batch.resized((16, 24))
            >>> larger.image_size, larger.boxes[0].tolist()
            ((16, 24), [[0.0, 4.0, 12.0, 16.0]])
        """
        smooth = len(size) == 2  # torch smooths before it makes smaller for images alone
        pixels = functional.interpolate(
            self.images.float(), size, mode=MODES[len(size)], align_corners=False, antialias=smooth
        )
        if not self.images.is_floating_point():
            pixels = pixels.round()
        factors = torch.tensor([new / old for new, old in zip(size, self.image_size, strict=True)][::-1] * 2)
        return replace(
            self,
            images=pixels.to(self.images.dtype),
            masks=_resized_region(self.masks, size),
            boxes=None if self.boxes is None else [boxes * factors.to(boxes.device) for boxes in self.boxes],
            suspect=_resized_region(self.suspect, size),
        )

    @staticmethod
    def cat(batches: Sequence[SaliencyBatch]) -> SaliencyBatch:
        """Join several batches in order; a field is kept where every batch has it."""
        if len(batches) == 1:
            return batches[0]
        if any(each.faults for each in batches):
            batches = [replace(each, faults=each.faults or [""] * len(each)) for each in batches]
        joined = {name: _join(name, [getattr(each, name) for each in batches]) for name in _field_names()}
        if any(each._shares_suspect for each in batches):
            joined["suspect"] = batches[0].suspect
        return SaliencyBatch(**joined)

    def state_dict(self) -> dict[str, Any]:
        """Return tensors, lists and strings only, on the CPU, so that a checkpoint loads with `weights_only=True`."""
        held = {name: getattr(self.to("cpu"), name) for name in _field_names()}
        return {name: value for name, value in held.items() if value is not None and value is not False}


def _resized_region(region: Tensor | None, size: tuple[int, ...]) -> Tensor | None:
    """Resize a region `S` or `(N, *S)` bool."""
    if region is None:
        return None
    stack = region if region.ndim > len(size) else region[None]
    found = functional.interpolate(stack[:, None].float(), size, mode="nearest-exact")[:, 0] > 0.5
    return found if region.ndim > len(size) else found[0]


def _field_names() -> list[str]:
    return [field.name for field in fields(SaliencyBatch)]


def _apply(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if type(value) in (list, tuple):
        return type(value)(_apply(function, each) for each in value)
    if isinstance(value, dict):
        return {key: _apply(function, each) for key, each in value.items()}
    return value


def _plain(tensor: Tensor) -> Tensor:
    return tensor if type(tensor) is Tensor else tensor.as_subclass(Tensor)


def _take(value: Any, rows: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value.detach()[rows.to(value.device)]
    if isinstance(value, list):
        return [_apply(lambda each: each.detach().clone(), value[row]) for row in rows]
    if isinstance(value, dict):
        return {key: _take(each, rows) for key, each in value.items()}
    return value


def _join(name: str, values: list[Any]) -> Any:
    first = values[0]
    if any(value is None for value in values):
        return None
    if isinstance(first, (str, bool)):  # one for all samples
        return first
    if isinstance(first, dict):
        joined: dict[str, Any] = {}
        for key in (key for key in first if all(key in each for each in values)):
            with suppress(InputError):  # of several shapes: it is left out
                joined[key] = _join(f"{name}[{key!r}]", [each[key] for each in values])
        return joined or None
    if isinstance(first, Tensor):
        values = _padded(values) if name.startswith("inputs") else values
        other = next((each for each in values if each.shape[1:] != values[0].shape[1:]), None)
        if other is not None:
            raise InputError(
                f"`{name}` came as {shape_of(values[0])} and as {shape_of(other)}, which cannot be one "
                "batch. Deliver one kind, or make it one with `adapter=`."
            )
        return torch.cat(values)
    return [each for value in values for each in value]


def _padded(values: list[Tensor]) -> list[Tensor]:
    """Fill rows `(N, L, ...)` up with zeros to the longest, as texts of several batches differ in length."""
    if any(each.ndim < 2 for each in values):
        return values
    longest = max(each.shape[1] for each in values)
    missing = [(0, 0) * (each.ndim - 2) + (0, longest - each.shape[1]) for each in values]
    return [functional.pad(each, pad) for each, pad in zip(values, missing, strict=True)]


def boxes_to_masks(boxes: Tensor, size: tuple[int, ...]) -> Tensor:
    """Convert boxes to masks `(M, *S)` bool, one each: the pixels whose centre lies in the box.

    Args:
        boxes: `(M, 4)`, each row `x1, y1, x2, y2` in pixels; a whole `x2` is the first column behind the box. `(M, 2)`
            start and end in a signal, `(M, 6)` `x1, y1, z1, x2, y2, z2` in a volume.
        size: of the image: height and width, `(L,)` or `(D, H, W)`.

    Example:
        >>> boxes_to_masks(torch.tensor([[0.0, 0.0, 2.0, 1.0]]), (2, 3)).int()
        tensor([[[1, 1, 0],
                 [0, 0, 0]]], dtype=torch.int32)
        >>> boxes_to_masks(torch.tensor([[1.0, 3.0]]), (4,)).int()
        tensor([[0, 1, 1, 0]], dtype=torch.int32)
    """
    low, high = boxes.reshape(-1, 2, len(size)).float().flip(-1).unbind(dim=1)  # by dimension, x last
    inside = torch.ones(len(low), *size, dtype=torch.bool, device=boxes.device)
    for axis, length in enumerate(size):
        centres = torch.arange(length, device=boxes.device) + 0.5
        within = (centres >= low[:, axis, None]) & (centres < high[:, axis, None])
        inside &= within.reshape(-1, *(length if axis == other else 1 for other in range(len(size))))
    return inside


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
    return plain_tags(given)


def plain_tags(names: Iterable[str]) -> list[str]:
    """Return names with the signs that every backend takes, as `sample_names`; all numbered where two come out alike.

    Example:
        >>> plain_tags(["age (years)", "sex"]), plain_tags(["a b", "a_b"])
        (['age_years_', 'sex'], ['0_a_b', '1_a_b'])
    """
    plain = [_as_tag(name) or str(number) for number, name in enumerate(names)]
    if len({name.casefold() for name in plain}) == len(plain):
        return plain
    return [f"{number}_{name}" for number, name in enumerate(plain)]


def _as_tag(name: str) -> str:
    parts = _ELSEWHERE.sub("_", name).split("/")
    plain = "/".join(part for part in parts if part.strip("._"))
    return plain if len(plain) <= _LONGEST else shortened(plain.rpartition("/")[2], _LONGEST, plain)
