"""`attribute()`: from a model and images to saliency maps, without a Trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_gcam.cam.calling import forward_at, single_image_refused
from lightning_gcam.cam.capture import capture_layers
from lightning_gcam.cam.context import maps_of_model_methods
from lightning_gcam.cam.detection import is_of_detections, predicted_boxes, with_detection
from lightning_gcam.cam.heads import HeadForward, check_head, first_head
from lightning_gcam.cam.invocation import Forward
from lightning_gcam.cam.layers import (
    Fuse,
    TargetLayers,
    check_fuse,
    find_target_layer,
    format_layer_names,
    fuse_maps,
    map_name,
    resolve_target_layers,
)
from lightning_gcam.cam.layouts import Reshape, is_even
from lightning_gcam.cam.maps import ScaledMaps, full_precision, scale_map, scaled_maps
from lightning_gcam.cam.outputs import DetectionsError, SeveralHeadsError
from lightning_gcam.cam.registry import AnyMethod, Methods, ModelMethod, resolve_methods, uses_layer
from lightning_gcam.cam.squashing import Squash, squashed
from lightning_gcam.cam.targets import Explains, Targets
from lightning_gcam.data import SaliencyBatch
from lightning_gcam.data.checks import check_images, check_masks
from lightning_gcam.pipeline.captions import MapSource
from lightning_gcam.pipeline.labels import forward_for, labels_for, labels_of, targets_of_chunk
from lightning_gcam.pipeline.rendering import Style, draw
from lightning_gcam.utils.chunking import run_in_chunks
from lightning_gcam.utils.dimensions import size_of
from lightning_gcam.utils.errors import InputError
from lightning_gcam.utils.isolation import untouched
from lightning_gcam.visual import Figure, Normalize, check_scale


@dataclass(frozen=True)
class Attribution:
    """Saliency maps of one batch, and what they were computed from.

    Args:
        maps: for each method `(N, *S)` float32 in [0, 1], each map scaled to its own maximum; where several layers
            are not fused, for each method at each layer, under "<method>@<layer>" (under "<method>" where the layer
            plays no part).
        logits: `(N, K)`, before any sigmoid or softmax at the end of the model's forward (see `squash`); those of a
            dense head are the mean over each sample's region. Where they are not of classes: the outputs as they are.
        targets: `(N,)` classes or `(N, K)` multi-hot that the maps explain; None where they explain no class.
        target_layer: the layer's name; several names are joined by ", ", fused ones by " × " (product) or " + " (mean).
        peaks: for each map `(N,)` float32, its maximum before scaling: 0 where the map is blank, NaN where
            activations or gradients were not finite (such a map is drawn blank). A fused map is made of scaled ones,
            so its peak is 1 where all layers peak at one pixel, and less where they do not.
        even_gradients: whether the gradients were constant over space (at every layer), as they are at the last layer
            under a global-average-pooled linear head. Then Grad-CAM, XGrad-CAM and HiResCAM are one and the same map,
            and guidance is its square.
        explains: what the maps explain: "classes", the "output" of a regression, the "score" of a callable; and of a
            model that gives no classes its "norm", "error", "peaks" or "similarity" (`lightning_gcam.cam.whole`).
        values: `(N,)`, the number that they explain, before any softmax (but for a number that all classes of a sample
            share, which a softmax takes away).
        in_mask: `(N,)` bool for a dense head: whether its logits were summed over the mask that was given, and not over
            the positions that the network itself gives to the class; None for any other head.
        images: `(N, C, *S)`, the very tensor that `attribute` was given and not a copy, for `show()`; None where the
            maps belong to a batch that is kept elsewhere, as those of a `SaliencyRecord` do.
        squash: what the model's forward ends with beyond its logits: "sigmoid", "softmax", "log_sigmoid" or
            "log_softmax", which is undone; None where it gives logits.
        sources: the method and the layer of each map; read them with `source_of`.
        predicted_boxes: of a detector `(N, 8, 4)`, for the explained class, see `lightning_gcam.cam.detection`.
    """

    maps: dict[str, Tensor]
    logits: Tensor
    targets: Tensor | None
    target_layer: str
    peaks: dict[str, Tensor]
    even_gradients: bool
    explains: Explains = "classes"
    values: Tensor | None = None
    in_mask: Tensor | None = None
    images: Tensor | None = field(default=None, repr=False)
    squash: Squash | None = None
    sources: dict[str, MapSource] = field(default_factory=dict)
    predicted_boxes: Tensor | None = None

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def outputs(self) -> Tensor:
        """`(N, K)`, what the logits are in the model's own terms: probabilities, where its forward gives these."""
        return squashed(self.logits, self.squash)

    def source_of(self, name: str) -> MapSource:
        """The method and the layer of the map `name`: "input" where the target layer plays no part.

        A map that was added under its own name is its own method.
        """
        return self.sources.get(name, MapSource(name, self.target_layer))

    def show(
        self,
        samples: Tensor | SaliencyBatch | None = None,
        *,
        captions: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        normalize: Normalize | None = None,
        scale: Literal["own", "shared"] = "own",
    ) -> Figure:
        """Draw the maps over their images, as a `SaliencyMonitor` does; a notebook shows what is returned by itself.

        Args:
            samples: the images `(N, C, *S)`, or a `SaliencyBatch` whose labels, masks, boxes and suspect region are
                drawn too; the images that `attribute` was given where it is left out.
            captions: a line for each sample, instead of what it is taken for.
            class_names: for captions; the class's number where there is none.
            normalize: `(mean, std)` of the input normalization, undone for display.
            scale: what is drawn the brightest: "own", each map's own maximum, or "shared", the highest peak of all
                samples.

        Raises:
            InputError: where there are no images, or an argument does not fit them.

        Example:
            >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            >>> figure = attribute(model, torch.rand(2, 3, 8, 8)).show(class_names=["cat", "dog", "cow", "hen"])
            >>> figure.save("look.png")  # doctest: +SKIP
        """
        check_scale(scale, allowed=("own", "shared"))
        batch = _batch_of(samples if samples is not None else self.images, len(self))
        style = Style(class_names, normalize, scale)
        return Figure(draw(batch, self, style, texts=captions))

    def to(self, device: torch.device | str) -> Attribution:
        """The same attribution on `device`."""
        return self.map_tensors(lambda tensor: tensor.to(device))

    def select(self, rows: Sequence[int]) -> Attribution:
        """The samples at `rows`, in that order."""
        return self.map_tensors(lambda tensor: tensor[list(rows)])

    def map_tensors(self, function: Callable[[Tensor], Tensor]) -> Attribution:
        """The same attribution with `function` applied to each of its tensors, whose first dimension is N."""
        there = [name for name in _OPTIONAL if getattr(self, name) is not None]
        optional: dict[str, Any] = {name: function(getattr(self, name)) for name in there}
        return replace(
            self,
            maps={name: function(map_) for name, map_ in self.maps.items()},
            logits=function(self.logits),
            peaks={name: function(peak) for name, peak in self.peaks.items()},
            **optional,
        )

    @staticmethod
    def cat(parts: Sequence[Attribution]) -> Attribution:
        """Several batches as one, in order."""
        if len(parts) == 1:
            return parts[0]
        optional: dict[str, Any] = {
            name: _cat_or_none([getattr(part, name) for part in parts]) for name in _OPTIONAL
        }
        return replace(
            parts[0],
            maps={name: torch.cat([part.maps[name] for part in parts]) for name in parts[0].maps},
            logits=torch.cat([part.logits for part in parts]),
            peaks={name: torch.cat([part.peaks[name] for part in parts]) for name in parts[0].peaks},
            even_gradients=all(part.even_gradients for part in parts),
            **optional,
        )


_OPTIONAL = ("targets", "values", "in_mask", "images", "predicted_boxes")
"""Fields with one row a sample that may be None."""


def _cat_or_none(values: Sequence[Tensor | None]) -> Tensor | None:
    there = [each for each in values if each is not None]
    return torch.cat(there) if there else None


def _batch_of(samples: Tensor | SaliencyBatch | None, n: int) -> SaliencyBatch:
    if samples is None:
        raise InputError(
            "`samples` is needed: this attribution holds no images. Give them, or use `record.figure()`."
        )
    batch = samples if isinstance(samples, SaliencyBatch) else SaliencyBatch(samples)
    if len(batch) != n:
        raise InputError(f"`samples` must be the {n} images that were attributed; got {len(batch)}.")
    return batch


def attribute(
    model: nn.Module,
    images: Tensor | SaliencyBatch,
    targets: Targets = None,
    *,
    methods: Methods = "guidance_cam",
    target_layer: TargetLayers | None = None,
    reshape_transform: Reshape | None = None,
    forward: Forward | None = None,
    fuse: Fuse | None = None,
    masks: Tensor | None = None,
    head: str | None = None,
) -> Attribution:
    """Compute saliency maps: one forward and one gradient, whatever the number of methods and layers.

    Methods that need the model again (see `docs/method.md`) run it beyond that, in chunks that fit memory.

    The model is run in eval mode and left exactly as it was: its mode, its buffers, its gradients, its hooks and the
    random streams. It works under `no_grad` and `inference_mode`, with frozen parameters, and with compiled modules.

    Args:
        model: any `nn.Module`.
        images: `(N, C, *S)` on the model's device, as its forward takes them: signals `(N, C, L)`, images
            `(N, C, H, W)`, volumes and videos `(N, C, D, H, W)`, floating point, or whole numbers such as uint8; or a
            `SaliencyBatch`, whose object masks are used where `masks` is left out.
        targets: whose score is explained: None or "predicted" for each sample's predicted class; "label" for the labels
            of a `SaliencyBatch`, as `SaliencyMonitor` explains them; an int for one class; `(N,)` classes (a negative
            one stands for the predicted class); `(N, K)` multi-hot; "output" for the output of a regression itself,
            which float targets of a single output that are not all 0 or 1 mean, too; or a callable `outputs -> (N,)`
            of what the model gave, for an embedding, say. Left out, an output that shows by its form that it holds no
            classes is explained as a whole: rows of norm 1 by their norm before that, a reconstruction by its error.
        methods: a name (see `lightning_gcam.cam.available_methods`), a callable
            `(activations, gradients) -> (N, *grid)`, a `lightning_gcam.cam.ModelMethod`, several of them, or a mapping
            from the maps' names to callables.
        target_layer: a name from `model.named_modules()`, or the module; found where it is left out. Several layers
            give a map each, "<method>@<layer>", all from the same forward and gradient. A method for which the layer
            plays no part, such as "full_grad", has one map, "<method>", that is not fused.
        reshape_transform: from the layer's output to `(N, C, *grid)`, for a layout that is not recognised.
        forward: `(model, images) -> output`, for a model that is not simply called with the images.
        fuse: makes one map of several layers' maps, by the "product" or the "mean" of the scaled maps.
        masks: `(N, *S)` bool, for a model that gives logits at every position (segmentation): the region over which
            the class's logits are summed. Without one these are the positions that the network gives to the class.
        head: which of several heads is explained, by its name or its place ("1"); the first that fits if left out.

    Returns:
        An `Attribution`: maps `(N, *S)` float32 in [0, 1] on the model's device; its `show()` draws them.

    Raises:
        InputError: naming the argument, what came, and what to do.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> attribution = attribute(model, torch.rand(5, 3, 8, 8), methods=["guidance_cam", "grad_cam"])
        >>> attribution.maps["guidance_cam"].shape, attribution.target_layer
        (torch.Size([5, 8, 8]), '1')
    """
    if isinstance(targets, str) and targets == "label":
        targets = labels_for(images)
    if isinstance(images, SaliencyBatch):
        masks = masks if masks is not None else images.object_masks
        forward = forward_for(model, images, forward)
        images = images.images
    check_images(images)
    table = resolve_methods(methods)
    check_masks(masks, (len(images), *size_of(images)))
    check_fuse(fuse, target_layer)
    how = (table, target_layer, reshape_transform, fuse, masks)
    forward = HeadForward(forward, check_head(head)) if head is not None else forward
    try:
        with single_image_refused(model, images):
            return _attribute(model, images, targets, forward, *how)
    except SeveralHeadsError as several:
        shapes = several.shapes
    except DetectionsError:
        return _attribute(model, images, targets, with_detection(model, images, forward, at_once=True), *how)
    return _attribute(model, images, targets, HeadForward(forward, first_head(shapes, targets)), *how)


def _attribute(
    model: nn.Module,
    images: Tensor,
    targets: Targets,
    forward: Forward | None,
    table: dict[str, AnyMethod],
    target_layer: TargetLayers | None,
    reshape_transform: Reshape | None,
    fuse: Fuse | None,
    masks: Tensor | None,
) -> Attribution:
    """As `attribute`, of arguments that were checked."""
    if target_layer is None:
        target_layer = find_target_layer(
            model, images, forward=forward, reshape_transform=reshape_transform
        ).module
    forward = with_detection(model, images, forward)
    layers = resolve_target_layers(model, target_layer)
    with untouched(model):
        captured = capture_layers(
            model,
            images,
            [*layers.values()],
            targets,
            forward=forward,
            reshape=reshape_transform,
            masks=masks,
        )
        of_layer = {name: method for name, method in table.items() if uses_layer(method)}
        tables = [table, *[of_layer] * (len(captured) - 1)]  # where the layer plays no part once is enough
        again = [
            maps_of_model_methods(methods, model, images, each, targets, forward)
            if any(isinstance(method, ModelMethod) for method in methods.values())
            else {}
            for methods, each in zip(tables, captured, strict=True)
        ]
        boxes = predicted_boxes(model, images, forward, captured[0].targets)
    with torch.inference_mode(False), torch.no_grad(), full_precision(images):
        size, score = size_of(images), captured[0].score
        at_layers = [scaled_maps(*each, size) for each in zip(tables, captured, again, strict=True)]
        names = list(layers)
        scaled, sources = (
            _fused(at_layers, fuse, names) if fuse is not None else _named(at_layers, names, list(of_layer))
        )
        sources.update({name: MapSource(name, "input") for name in table if name not in of_layer})
        return Attribution(
            maps={name: map_ for name, (map_, _) in scaled.items()},
            logits=score.logits,
            targets=score.targets,
            target_layer=format_layer_names(names, fuse),
            peaks={name: peak for name, (_, peak) in scaled.items()},
            even_gradients=all(is_even(each.gradients) for each in captured),
            explains=score.explains,
            values=score.values,
            in_mask=score.in_mask,
            images=images,
            squash=score.squash,
            sources=sources,
            predicted_boxes=boxes,
        )


Sources = dict[str, MapSource]


def _named(
    at_layers: Sequence[ScaledMaps], layers: Sequence[str], of_layer: Sequence[str]
) -> tuple[ScaledMaps, Sources]:
    """All maps by name, and the method and layer of each; those of methods without a layer by the method's name."""
    named: ScaledMaps = {}
    sources: Sources = {}
    for layer, maps in zip(layers, at_layers, strict=True):
        for method, scaled in maps.items():
            name = map_name(method, layer, layers) if method in of_layer else method
            named[name], sources[name] = scaled, MapSource(method, layer)
    return named, sources


def _fused(at_layers: Sequence[ScaledMaps], fuse: Fuse, layers: Sequence[str]) -> tuple[ScaledMaps, Sources]:
    """Each method's maps of all layers as one, scaled again; what is not finite at one layer is blank."""
    fused: ScaledMaps = {}
    for method, scaled in at_layers[0].items():
        if method not in at_layers[-1]:  # there is one map of it
            fused[method] = scaled
            continue
        maps, peaks = zip(*(maps[method] for maps in at_layers), strict=True)
        one = fuse_maps(maps, fuse)
        finite = torch.isfinite(torch.stack(peaks)).all(dim=0)
        fused[method] = scale_map(one, tuple(one.shape[1:]), finite)
    where = format_layer_names(layers, fuse)
    return fused, {method: MapSource(method, where) for method in fused}


def attribute_in_chunks(
    model: nn.Module,
    batch: SaliencyBatch,
    targets: Targets = "label",
    *,
    forward: Forward | None = None,
    chunk_size: int | None = None,
    **options: Any,
) -> tuple[Attribution, int]:
    """Attribute a batch chunk by chunk; where memory runs out, in chunks half as large.

    Args:
        model: any `nn.Module`.
        batch: the samples, on the model's device.
        targets: as in `analyze`.
        forward: as in `attribute`.
        chunk_size: how many samples to run at once; all where it is left out.
        options: the further arguments of `attribute`.

    Returns:
        The attribution of the whole batch, and the size of the chunks that went through.

    Raises:
        InputError: where the number of targets is not the number of samples.
        RuntimeError: where memory does not suffice for a single sample.
    """
    if isinstance(targets, str) and targets == "label":
        targets = labels_of(batch)
    n, masks = len(batch), batch.object_masks
    forward = forward_for(model, batch, forward)

    def work(chunk: slice) -> Attribution:
        part = attribute(
            model,
            batch.images[chunk],
            targets_of_chunk(targets, chunk, n),
            masks=masks[chunk] if masks is not None else None,
            forward=forward_at(forward, chunk),
            **options,
        )
        return replace(part, images=None)  # the batch has them

    parts, size = run_in_chunks(n, work, chunk_size)
    if is_of_detections(now := forward_for(model, batch, forward)) and not is_of_detections(forward):
        forward = now  # what it returns was not known before: again, with the target boxes
        parts, size = run_in_chunks(n, work, size)
    return Attribution.cat(parts), size
