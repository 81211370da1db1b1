"""Samples whose truth is known, and the many layouts in which a dataloader may deliver them."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass
from keyword import iskeyword
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor
from torchvision import tv_tensors

from lightning_gcam import SaliencyBatch
from lightning_gcam.data.fields import KEYS
from lightning_gcam.data.structure import PICTURES

NAMES = ["ant", "bee", "cat", "dog", "eel"]
CLASSES = len(NAMES)


@dataclass
class Truth:
    """What a batch holds; `labels`, `masks` and `boxes` may be absent."""

    images: Tensor
    labels: Tensor | None = None
    masks: Tensor | None = None
    boxes: list[Tensor] | None = None

    def is_told_by(self, batch: SaliencyBatch) -> bool:
        """Whether a batch holds exactly this; a row of marks stands for the class of its largest."""
        found = batch.labels
        if found is not None and found.ndim == 2:
            found = found.float().argmax(dim=1)
        return (
            torch.equal(batch.images, self.images)
            and _same(found, self.labels)
            and _same(batch.masks, self.masks)
            and _same_boxes(batch.boxes, self.boxes)
        )


def _same(left: Tensor | None, right: Tensor | None) -> bool:
    if left is None or right is None:
        return left is right
    return left.shape == right.shape and bool((left == right).all()) and type(left) is Tensor


def _same_boxes(left: list[Tensor] | None, right: list[Tensor] | None) -> bool:
    if left is None or right is None:
        return left is right
    return len(left) == len(right) and all(
        torch.allclose(each.double(), other.double(), atol=1e-3)
        for each, other in zip(left, right, strict=True)
    )


class Ducks:
    """It has keys and can be asked for one, and is neither a Mapping nor a dict."""

    def __init__(self, parts: dict[str, Any]) -> None:
        self.parts = parts

    def keys(self) -> Any:
        return self.parts.keys()

    def __getitem__(self, key: str) -> Any:
        return self.parts[key]


# --------------------------------------------------------------------------------------- what is in a batch


def sizes(draw: Any, d: int) -> tuple[int, ...]:
    """Channels and the size of images of d dimensions; signals are longer than they have channels."""
    if d == 1:
        return draw(st.integers(1, 3)), draw(st.integers(10, 20))
    return draw(st.sampled_from([1, 2, 3, 4, 13])), *(draw(st.integers(5, 9)) for _ in range(d))


@st.composite
def truths(draw: Any, annotated: bool = True, d: int | None = None) -> Truth:
    """Up to four images of any number of channels, with labels, and with masks or boxes or neither."""
    n, seed = draw(st.integers(1, 4)), draw(st.integers(0, 99))
    d = draw(st.sampled_from([2, 2, 1, 3])) if d is None else d
    channels, *size = sizes(draw, d)
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(n, channels, *size, generator=generator)
    if draw(st.booleans()):
        images = (images * 255).to(torch.uint8)
    truth = Truth(images, torch.randint(CLASSES, (n,), generator=generator))
    corner = torch.rand(n, d, generator=generator) * (torch.tensor(size[::-1]) - 3.0)
    boxes = torch.cat([corner, corner + 2 + torch.rand(n, d, generator=generator)], dim=1)
    kinds = ["masks", "neither", *(["boxes"] if d > 1 else [])]  # start and end could be anything
    kind = draw(st.sampled_from(kinds)) if annotated else "neither"
    if kind == "masks":
        whole = SaliencyBatch(images, boxes=[each[None].round() for each in boxes])
        truth.masks = whole.object_masks
    if kind == "boxes":
        truth.boxes = [each[None] for each in boxes]
    return truth


# -------------------------------------------------------------------------------------- how each is written


def written_images(draw: Any, images: Tensor, *, named: bool) -> Any:
    """As an array of any library, or as a list."""
    ways = [images, images.numpy(), tv_tensors.Image(images)]
    if named and images.ndim == 4:
        ways += [list(images), tuple(map(tv_tensors.Image, images))]
    return draw(st.sampled_from(ways))


def written_labels(draw: Any, labels: Tensor) -> Any:
    """As classes, marks, shares or words, in any container."""
    n = len(labels)
    marks = torch.eye(CLASSES)[labels]
    shares = 0.9 * marks + 0.1 / CLASSES
    ways = [
        *(labels, labels.int(), labels.to(torch.uint8), labels[:, None], labels.float(), labels.numpy()),
        *(labels.tolist(), list(labels), tuple(np.int64(each) for each in labels.tolist())),
        *([NAMES[each] for each in labels], np.array([NAMES[each] for each in labels])),
        *(marks, marks.long(), marks.bool(), shares, shares.half(), shares.tolist(), marks.numpy()),
    ]
    ways += [labels[0], int(labels[0]), NAMES[labels[0]]] if n == 1 else []
    return draw(st.sampled_from(ways))


def written_masks(draw: Any, masks: Tensor, labels: Tensor) -> Any:
    """As 0 and 1 or 255 or a class in each pixel, with a channel or without."""
    segmentation = torch.where(masks, labels.reshape(-1, *(1,) * (masks.ndim - 1)) + 1, 0)
    ways = [
        *(masks, masks[:, None], masks.float(), masks.long(), masks.to(torch.uint8) * 255, masks[..., None]),
        *(tv_tensors.Mask(masks), list(masks), [each[None].float() for each in masks], masks.numpy()),
        *(
            masks.to(torch.uint8)[:, None].numpy(),
            segmentation.double() if len(labels) == 1 else masks.half(),
        ),
    ]
    return draw(st.sampled_from(ways))


def written_boxes(draw: Any, boxes: list[Tensor], size: tuple[int, ...]) -> Any:
    """As corners, or of images of two dimensions in a format and on a canvas of their own."""
    whole = torch.cat(boxes)
    if len(size) != 2:
        return draw(st.sampled_from([whole[:, None], boxes, tuple(boxes), [each.tolist() for each in boxes]]))
    corners, extent = whole[:, :2], whole[:, 2:] - whole[:, :2]
    canvas = draw(st.sampled_from([size, (2 * size[0], 3 * size[1])]))
    scale = torch.tensor([canvas[1] / size[1], canvas[0] / size[0]]).repeat(2)
    angle = torch.zeros(len(whole), 1)
    written = {
        "XYXY": whole * scale,
        "XYWH": torch.cat([corners, extent], dim=1) * scale,
        "CXCYWH": torch.cat([corners + extent / 2, extent], dim=1) * scale,
        "CXCYWHR": torch.cat([torch.cat([corners + extent / 2, extent], dim=1) * scale, angle], dim=1),
    }
    name = draw(st.sampled_from([each for each in written if hasattr(tv_tensors.BoundingBoxFormat, each)]))
    wrapped = tv_tensors.BoundingBoxes(written[name], format=name, canvas_size=canvas)  # type: ignore[call-overload]
    lone = [tv_tensors.wrap(wrapped[row][None], like=wrapped) for row in range(len(whole))]
    ways = [whole[:, None], boxes, tuple(boxes), wrapped, lone]
    ways += [[each[0] for each in boxes]] if len(boxes) != 4 else []  # or x1, y1, x2 and y2 of all
    ways += [[each.numpy() for each in boxes], [each.tolist() for each in boxes]]
    return draw(st.sampled_from(ways))


# ------------------------------------------------------------------------------------ how they are delivered


@st.composite
def delivered(draw: Any) -> tuple[Any, Truth]:
    """A batch that can be read, and what it holds."""
    way = draw(
        st.sampled_from([_in_order, _by_name, _by_name, _further_in, _with_targets, _sample_by_sample])
    )
    batch, truth = way(draw)
    if draw(st.integers(0, 5)) == 0:
        wrapped = [
            [batch],
            (batch, "validation"),
            {"batch": batch, "index": None},
            {"data": batch, "meta": {"a": 1}},
        ]
        if truth.images.ndim == 3:
            wrapped = wrapped[1:]  # in a list by itself it could be a sample
        batch = draw(st.sampled_from(wrapped)) if way is not _sample_by_sample else {"samples_": batch}
    return batch, truth


def _parts(draw: Any, truth: Truth, *, named: bool) -> dict[str, Any]:
    parts = {"images": written_images(draw, truth.images, named=named)}
    if truth.labels is not None:
        parts["labels"] = written_labels(draw, truth.labels)
    if truth.masks is not None:
        assert truth.labels is not None
        parts["masks"] = written_masks(draw, truth.masks, truth.labels)
    if truth.boxes is not None:
        parts["boxes"] = written_boxes(draw, truth.boxes, tuple(truth.images.shape[2:]))
    return parts


def _in_order(draw: Any) -> tuple[Any, Truth]:
    truth = draw(truths())
    values = list(_parts(draw, truth, named=False).values())
    kinds = [tuple, list, lambda parts: namedtuple("Batch", [f"part{i}" for i in range(len(parts))])(*parts)]
    return draw(st.sampled_from(kinds))(values), truth


def _by_name(draw: Any) -> tuple[Any, Truth]:
    truth = draw(truths())
    return _container(draw, _renamed(draw, _parts(draw, truth, named=True))), truth


def _renamed(draw: Any, parts: dict[str, Any]) -> dict[str, Any]:
    names = {field: draw(st.sampled_from(KEYS[field])) for field in parts}
    if len(parts["images"].shape if hasattr(parts["images"], "shape") else ()) == 3:
        names["images"] = draw(st.sampled_from([each for each in KEYS["images"] if each not in PICTURES]))
    return {names[field]: value for field, value in parts.items()}


def _container(draw: Any, parts: dict[str, Any]) -> Any:
    """Mappings with something else beside, named tuples and dataclasses."""
    beside = draw(
        st.sampled_from([{}, {"idx": torch.arange(9)}, {"path": "a/b.png", "size": (3, 4), 7: None}])
    )
    kind = draw(st.sampled_from([dict, OrderedDict, UserDict, Ducks, "dataclass", "named tuple"]))
    if isinstance(kind, type) or any(map(iskeyword, parts)):
        return (kind if isinstance(kind, type) else dict)({**beside, **parts})
    if kind == "dataclass":
        return dataclasses.make_dataclass("Batch", list(parts))(**parts)
    return namedtuple("Batch", list(parts))(**parts)


def _further_in(draw: Any) -> tuple[Any, Truth]:
    truth = draw(truths())
    parts = _renamed(draw, _parts(draw, truth, named=True))
    images, *annotation = parts.items()
    inner = _container(draw, dict(annotation))
    if draw(st.booleans()) and not isinstance(images[1], (list, tuple)):
        return draw(st.sampled_from([(images[1], inner), [images[1], inner]])), truth
    return _container(draw, {images[0]: images[1], "target_": inner}), truth


def _with_targets(draw: Any) -> tuple[Any, Truth]:
    """torchvision's detection targets: the object that is meant, and smaller ones of another class."""
    truth = draw(truths(annotated=False, d=2))
    n, (height, width) = len(truth.images), truth.images.shape[-2:]
    assert truth.labels is not None
    large, small = [0.0, 1.0, 4.0, 4.0], [1.0, 0.0, 2.0, 2.0]
    extra = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    masks = SaliencyBatch(truth.images, boxes=[torch.tensor([large])] * n).object_masks
    assert masks is not None
    kinds = draw(st.sampled_from([("boxes",), ("masks",), ("boxes", "masks")]))
    truth.boxes = [torch.tensor([large])] * n if "boxes" in kinds else None
    truth.masks = masks if "masks" in kinds else None
    targets = []
    for row, count in enumerate(extra):
        label = int(truth.labels[row])
        boxes = torch.tensor([small] * count + [large])
        each = {"labels": torch.tensor([(label + 1) % CLASSES] * count + [label]), "image_id": row}
        if "boxes" in kinds:
            each["boxes"] = draw(
                st.sampled_from(
                    [boxes, tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width))]
                )  # type: ignore[call-overload]
            )
        if "masks" in kinds:
            every = [SaliencyBatch(truth.images[:1], boxes=[box[None]]).object_masks[0] for box in boxes]  # type: ignore[index]
            each["masks"] = draw(st.sampled_from([torch.stack(every), torch.stack(every).to(torch.uint8)]))
        targets.append(each)
    images = draw(st.sampled_from([truth.images, list(truth.images)]))
    return draw(
        st.sampled_from([(images, targets), [images, tuple(targets)], {"image": images, "target": targets}])
    ), truth


def _sample_by_sample(draw: Any) -> tuple[Any, Truth]:
    truth = draw(truths(annotated=False, d=2))
    assert truth.labels is not None
    rows = zip(truth.images, truth.labels, strict=True)
    if draw(st.booleans()):
        return [(image, draw(st.sampled_from([label, int(label)]))) for image, label in rows], truth
    return [{"image": image.numpy(), "label": int(label)} for image, label in rows], truth
