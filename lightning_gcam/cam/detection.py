"""Object detectors: one score for each class from the list of detections that they return in eval mode.

torchvision's Faster R-CNN, Mask R-CNN, Keypoint R-CNN, RetinaNet, FCOS and SSD return a dict for each image, with the
`boxes`, the `labels` and the `scores` of its detections. These scores carry a graph where gradients are on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou  # type: ignore[import-untyped]  # it carries no types

from lightning_gcam.cam.calling import Rows, WrappedForward, call_model, forward_at, rows_of
from lightning_gcam.cam.invocation import Forward
from lightning_gcam.cam.outputs import are_detections
from lightning_gcam.utils.dimensions import Size, size_of
from lightning_gcam.utils.isolation import eager_without_graph, replaced_attribute, untouched

MATCHED = 0.5
"""The least intersection over union of a detection and the target box that it is of."""

Detection = Mapping[str, Tensor]
"""The detections in one image: `boxes` `(M, 4)`, `labels` `(M,)` and `scores` `(M,)`."""


@dataclass(frozen=True)
class DetectionForward(WrappedForward):
    """A `forward` that gives a score `(N, K)` for each class, between 0 and 1, of a model that returns detections.

    It is the score of the best detection of the class. Of the class of a sample's target boxes only those detections
    count that match one of them, by an intersection over union of at least 0.5: the mean (of the log-odds) of the best
    detection of each box that has one; where no box has one, the best of the class all the same. A class without any
    detection has the score 0, without influence of any layer.

    Thresholds that hide detections are off while it runs: a network that has learned little has none above them. Masks
    and keypoints are not computed.

    Args:
        forward: the inner one; None to call the model with the images.
        num_classes: K, with torchvision's class 0, the background.
        boxes: the target boxes `(M, 4)` of N samples.
        labels: the class of each sample's boxes, `(N,)`.
        has_background: whether class 0 stands for "nothing found", with a score of 0.5: then the predicted class, that
            of the highest score, is one that was found.

    Example:
        >>> class Detector(nn.Module):
        ...     def forward(self, images):
        ...         boxes = torch.tensor([[0.0, 0, 4, 4], [4.0, 4, 8, 8]])
        ...         found = {"boxes": boxes, "labels": torch.tensor([2, 2]), "scores": torch.tensor([0.9, 0.3])}
        ...         return [found] * len(images)
        >>> scores = DetectionForward(None, num_classes=3)(Detector(), torch.zeros(1, 3, 8, 8))
        >>> [round(each, 2) for each in scores[0].tolist()]
        [0.0, 0.0, 0.9]
        >>> target = DetectionForward(None, 3, [torch.tensor([[4.0, 4, 8, 7]])], torch.tensor([2]))
        >>> [round(each, 2) for each in target(Detector(), torch.zeros(1, 3, 8, 8))[0].tolist()]
        [0.0, 0.0, 0.3]
    """

    num_classes: int
    boxes: Sequence[Tensor] | None = None
    labels: Tensor | None = None
    has_background: bool = False

    def __call__(self, model: nn.Module, images: Tensor) -> Tensor:
        """The score of each class, `(B, K)` float32."""
        detections = self.detections(model, images)
        targets: list[tuple[Tensor, Tensor] | None] = [None] * len(images)
        if self.boxes is not None and self.labels is not None and len(self.boxes) == len(images):
            targets = list(zip(self.boxes, self.labels, strict=True))
        rows = [self._log_odds(each, target) for each, target in zip(detections, targets, strict=True)]
        return torch.stack(rows).sigmoid()

    def detections(self, model: nn.Module, images: Tensor) -> list[Detection]:
        """The detections of the model, all that it has, also those with the lowest scores."""
        with every_detection(model):
            found: list[Detection] = super().__call__(model, images)
        return found

    def at(self, rows: Rows) -> DetectionForward:
        """The same for some of the samples: with their target boxes.

        Args:
            rows: as in `WrappedForward.at`.
        """
        return dataclasses.replace(
            self,
            forward=forward_at(self.forward, rows),
            boxes=rows_of(self.boxes, rows) if self.boxes is not None else None,
            labels=rows_of(self.labels, rows) if self.labels is not None else None,
        )

    def covered_size(self, model: nn.Module, images: Tensor) -> Size | None:
        """The size of the images and what torchvision's detectors pad them with at the right and below.

        Args:
            model: in eval mode.
            images: `(N, C, H, W)`.

        Returns:
            Height and width, in pixels of the images as they came; None where nothing is padded.
        """
        transform = next((each for each in model.modules() if _pads(each)), None)
        if transform is None:
            return None
        padded, _ = transform([images[0].detach()])
        sides = zip(size_of(images), padded.tensors.shape[2:], padded.image_sizes[0], strict=True)
        covered = tuple(round(side * whole / part) for side, whole, part in sides)
        return covered if covered != size_of(images) else None

    def _log_odds(self, detection: Detection, target: tuple[Tensor, Tensor] | None) -> Tensor:
        """The log-odds of each class `(K,)` in one image."""
        odds, classes = log_odds(detection["scores"]), detection["labels"].long()
        is_class = (classes >= 0) & (classes < self.num_classes)
        # in the graph of the scores also where there is none of them: then the gradient is zero, and the map is blank
        none = (odds[:0].sum() + log_odds(odds.new_zeros(()))).expand(self.num_classes)
        best = none.scatter_reduce(0, classes[is_class], odds[is_class], "amax")
        if self.has_background:
            best = torch.cat([best.new_zeros(1), best[1:]])
        if target is None or not len(odds) or not len(target[0]):
            return best
        boxes, label = target[0].to(detection["boxes"]), target[1].to(classes.device)
        matches = box_iou(detection["boxes"].detach(), boxes) >= MATCHED
        matches = matches & (classes == label)[:, None]
        of_box = torch.where(matches, odds[:, None], none[0]).amax(dim=0)
        is_found = matches.any(dim=0)
        mean = torch.where(is_found, of_box, 0.0).sum() / is_found.sum().clamp(min=1)
        is_explained = (torch.arange(self.num_classes, device=classes.device) == label) & is_found.any()
        return torch.where(is_explained, mean, best)


def log_odds(scores: Tensor) -> Tensor:
    """The log-odds of scores between 0 and 1, float32 and finite: -16 for a score of 0.

    Example:
        >>> log_odds(torch.tensor([0.0, 0.5, 1.0])).round().tolist()
        [-16.0, 0.0, 16.0]
    """
    scores, least = scores.float(), torch.finfo(torch.float32).eps
    return (scores + least).log() - (1 - scores + least).log()


@contextmanager
def every_detection(model: nn.Module) -> Iterator[None]:
    """Have a model return all its detections inside, whatever their score, and no masks or keypoints of them.

    Args:
        model: its parts that have a `score_thresh` and `detections_per_img`, as torchvision's detectors have them, are
            changed; they are put back, also after an exception.
    """
    with ExitStack() as stack:
        for each in model.modules():
            if hasattr(each, "score_thresh") and hasattr(each, "detections_per_img"):
                stack.enter_context(replaced_attribute(each, "score_thresh", 0.0))
                stack.enter_context(replaced_attribute(each, "detections_per_img", 2**31))
                for name in ("has_mask", "has_keypoint"):
                    if hasattr(each, name):
                        stack.enter_context(replaced_attribute(each, name, lambda: False))
        yield


MOST_BOXES = 8
"""How many boxes of a sample are drawn, at the most."""


def predicted_boxes(
    model: nn.Module, images: Tensor, forward: Forward | None, classes: Tensor | None
) -> Tensor | None:
    """The boxes that a detector predicts for each sample's class, by one more forward; None for any other model.

    These are the boxes of the detections with a score above 0.5, or of the best one.

    Args:
        model: in eval mode (see `lightning_gcam.utils.isolation.untouched`).
        images: `(N, C, H, W)`.
        forward: the `DetectionForward`.
        classes: `(N,)`, or marks `(N, K)`.

    Returns:
        `(N, 8, 4)` x1, y1, x2, y2 in pixels, the best first; NaN behind the last.
    """
    if not isinstance(forward, DetectionForward) or classes is None:
        return None
    with eager_without_graph():
        found = zip(forward.detections(model, images.clone()), classes, strict=True)
        return torch.stack([_best_boxes(detection, each) for detection, each in found])


def _best_boxes(detection: Detection, classes: Tensor) -> Tensor:
    """The boxes `(8, 4)` of the best detections of one class, or of those marked `(K,)`."""
    of_class = detection["labels"].to(classes.device)
    is_of = (of_class[:, None] == classes.nonzero().T).any(dim=1) if classes.ndim else of_class == classes
    scores, boxes = (detection[key][is_of.to(detection[key].device)] for key in ("scores", "boxes"))
    best = scores.argsort(descending=True)[:MOST_BOXES]
    best = best[(scores[best] > 0.5) | (torch.arange(len(best), device=best.device) == 0)]
    padded = boxes.new_full((MOST_BOXES, 4), torch.nan)
    padded[: len(best)] = boxes[best]
    return padded


# ------------------------------------------------------------------------------------------- recognising detectors


def with_detection(
    model: nn.Module,
    images: Tensor,
    forward: Forward | None,
    boxes: Sequence[Tensor] | None = None,
    labels: Tensor | None = None,
    *,
    at_once: bool = False,
) -> Forward | None:
    """A `DetectionForward` around a forward that returns detections; any other forward as it came.

    A model with a part of torchvision's detectors is run on one image to see it, the first time. Any other is known to
    be one once `at_once` was used, where a `DetectionsError` was raised.

    Args:
        model: it is left as it was.
        images: `(N, C, H, W)`.
        forward: as in `call_model`; a `DetectionForward` stays as it is.
        boxes: the target boxes of the samples, as in `DetectionForward`.
        labels: the class of each sample, `(N,)`; marks `(N, K)` name no class of the boxes.
        at_once: run it on one image whatever its parts are.
    """
    if is_of_detections(forward) or not (at_once or may_detect(model, forward)) or images.ndim != 4:
        return forward
    seen = _entry(model, forward) or _see(model, images, forward)
    if seen.num_classes is None:
        return forward
    if labels is None or labels.ndim > 1 or labels.is_floating_point():
        return DetectionForward(forward, seen.num_classes)
    seen.num_classes = _classes_of_head(model) or max(seen.num_classes, int(labels.max()) + 1)
    seen.counts_from_zero |= bool((labels == 0).any())
    return DetectionForward(
        forward, seen.num_classes, boxes, labels, has_background=not seen.counts_from_zero
    )


def is_of_detections(forward: Forward | None) -> bool:
    """Whether a forward, or one inside of it, is a `DetectionForward`."""
    while isinstance(forward, WrappedForward) and not isinstance(forward, DetectionForward):
        forward = forward.forward
    return isinstance(forward, DetectionForward)


@dataclass
class _Seen:
    """What is known of a model and a user's `forward`, once it was run, or came with labels.

    Args:
        user: the user's `forward`, None for none.
        num_classes: with the background; None where it returns no detections.
        counts_from_zero: whether 0 is a class, and no background: it was among the labels of some batch, or, of another
            detector than torchvision's, among the detections in the first image.
    """

    user: ReferenceType[Any] | None
    num_classes: int | None
    counts_from_zero: bool = False

    def is_of(self, user: Forward | None) -> bool:
        """Whether it is of this `forward`; one that was collected meanwhile is nobody's."""
        return self.user is None if user is None else self.user is not None and self.user() is user


_KNOWN: WeakKeyDictionary[nn.Module, list[_Seen]] = WeakKeyDictionary()
"""For each model, what is known of it with each user's `forward`."""


_BY_PARTS: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Whether a model has a part of torchvision's detectors; any other is recognised by what it returns."""


def _user_of(forward: Forward | None) -> Forward | None:
    """The user's `forward` inside of all others."""
    while isinstance(forward, WrappedForward):
        forward = forward.forward
    return forward


def _entry(model: nn.Module, forward: Forward | None) -> _Seen | None:
    """What is known of a model and a user's `forward`; None where it was never seen."""
    user = _user_of(forward)
    return next((each for each in _KNOWN.get(model, []) if each.is_of(user)), None)


def may_detect(model: nn.Module, forward: Forward | None) -> bool:
    """Whether a model is known to return detections, or was not seen yet and may by its parts."""
    seen = _entry(model, forward)
    if seen is not None:
        return seen.num_classes is not None
    if model not in _BY_PARTS:
        _BY_PARTS[model] = any(map(_is_of_torchvision, model.modules()))
    return _BY_PARTS[model]


def _see(model: nn.Module, images: Tensor, forward: Forward | None) -> _Seen:
    """Run a model on one image, and keep whether it returns detections, and of how many classes."""
    with untouched(model), eager_without_graph():
        output = call_model(model, images[:1].clone(), forward_at(forward, [0]))
    user, of_head = _user_of(forward), _classes_of_head(model)
    seen = _Seen(ref(user) if user is not None else None, None)
    if are_detections(output):
        labels = {label for each in output for label in each["labels"].tolist()}
        seen.num_classes = max([of_head, 1, *(int(label) + 1 for label in labels)])
        seen.counts_from_zero = not of_head and 0 in labels
    alive = [each for each in _KNOWN.get(model, []) if each.user is None or each.user() is not None]
    _KNOWN[model] = [*alive, seen]
    return seen


def _is_of_torchvision(module: nn.Module) -> bool:
    """Whether a module is a part of torchvision's detectors, or derived from one."""
    return any(each.__module__.startswith("torchvision.models.detection") for each in type(module).__mro__)


def _classes_of_head(model: nn.Module) -> int:
    """The number of classes by the head that gives their scores; 0 where it is not known."""
    for name, each in model.named_modules():
        last = name.rpartition(".")[2]
        if last == "cls_score":
            return int(each.out_features)
        if last == "classification_head":
            return int(getattr(each, "num_classes", 0) or getattr(each, "num_columns", 0))
    return 0


# ------------------------------------------------------------------------------------------- the parts of a detector


def backbone_of(model: nn.Module) -> nn.Module | None:
    """The part that a detector computes its feature maps with; None where it has none of that name.

    Example:
        >>> backbone_of(nn.ModuleDict({"backbone": nn.Conv2d(3, 4, 3), "head": nn.Linear(4, 2)}))
        Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1))
    """
    return next((each for name, each in model.named_modules() if name.rpartition(".")[2] == "backbone"), None)


def _pads(module: nn.Module) -> bool:
    """Whether a module is the part of torchvision's detectors that resizes and pads images."""
    return any(each.__name__ == "GeneralizedRCNNTransform" for each in type(module).__mro__)
