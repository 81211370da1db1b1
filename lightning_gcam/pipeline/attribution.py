"""`attribute()`: from a model and images to saliency maps, without a Trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_gcam.cam.calling import Forward
from lightning_gcam.cam.capture import Captured, capture_layers
from lightning_gcam.cam.context import MethodContext
from lightning_gcam.cam.layer_search import is_even
from lightning_gcam.cam.layers import (
    Fuse,
    TargetLayers,
    check_fuse,
    find_target_layer,
    fuse_maps,
    layers_in_words,
    map_name,
    resolve_target_layers,
)
from lightning_gcam.cam.layouts import Reshape
from lightning_gcam.cam.registry import AnyMethod, Methods, ModelMethod, resolve_methods
from lightning_gcam.cam.squashing import Squash, squashed
from lightning_gcam.cam.targets import Explains, Targets
from lightning_gcam.data import SaliencyBatch
from lightning_gcam.data import saliency_batch as checks
from lightning_gcam.pipeline.rendering import Style, draw
from lightning_gcam.utils.errors import InputError, of_the_users
from lightning_gcam.utils.isolation import plain_eager, untouched
from lightning_gcam.visual import Figure, Normalize, check_scale


@dataclass(frozen=True)
class Attribution:
    """Saliency maps of one batch, and what they were computed from.

    Args:
        maps: for each method `(N, H, W)` float32 in [0, 1], each map scaled to its own maximum; where several layers
            are not fused, for each method at each layer, under "<method>@<layer>".
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
            model that gives no classes the "norm" of an embedding or the "error" of a reconstruction.
        values: `(N,)`, the number that they explain, before any softmax (but for a number that all classes of a sample
            share, which a softmax takes away).
        in_mask: `(N,)` bool for a dense head: whether its logits were summed over the mask that was given, and not over
            the positions that the network itself gives to the class; None for any other head.
        images: `(N, C, H, W)`, the very tensor that `attribute` was given and not a copy, for `show()`; None where the
            maps belong to a batch that is kept elsewhere, as those of a `SaliencyRecord` do.
        squash: what the model's forward ends with beyond its logits: "sigmoid", "softmax", "log_sigmoid" or
            "log_softmax", which is undone; None where it gives logits.
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

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def outputs(self) -> Tensor:
        """`(N, K)`, what the logits are in the model's own terms: probabilities, where its forward gives these."""
        return squashed(self.logits, self.squash)

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
            samples: the images `(N, C, H, W)`, or a `SaliencyBatch` whose labels, masks, boxes and suspect region are
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
        return Figure(draw(batch, self, style, words=captions))

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


_OPTIONAL = ("targets", "values", "in_mask", "images")
"""Fields with one row a sample that may be None."""


def _cat_or_none(values: Sequence[Tensor | None]) -> Tensor | None:
    there = [each for each in values if each is not None]
    return torch.cat(there) if there else None


def _batch_of(samples: Tensor | SaliencyBatch | None, n: int) -> SaliencyBatch:
    if samples is None:
        raise InputError(
            "`samples` is needed: this attribution holds no images. Give them, or show the record it belongs to with "
            "`record.figure()`."
        )
    batch = samples if isinstance(samples, SaliencyBatch) else SaliencyBatch(samples)
    if len(batch) != n:
        raise InputError(
            f"`samples` must be the {n} images that were attributed, but there are {len(batch)}."
        )
    return batch


def attribute(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    methods: Methods = "guidance_cam",
    target_layer: TargetLayers | None = None,
    reshape_transform: Reshape | None = None,
    forward: Forward | None = None,
    fuse: Fuse | None = None,
    masks: Tensor | None = None,
) -> Attribution:
    """Compute saliency maps: one forward and one gradient, whatever the number of methods and layers.

    Methods that need the model again (see `docs/method.md`) run it beyond that, in chunks that fit memory.

    The model is run in eval mode and left exactly as it was: its mode, its buffers, its gradients, its hooks and the
    random streams. It works under `no_grad` and `inference_mode`, with frozen parameters, and with compiled modules.

    Args:
        model: any `nn.Module`.
        images: `(N, C, H, W)` on the model's device, as its forward takes them: floating point, or whole numbers such
            as uint8.
        targets: whose score is explained: None or "predicted" for each sample's predicted class; an int for one class;
            `(N,)` classes (a negative one stands for the predicted class); `(N, K)` multi-hot; "output" for the output
            of a regression itself, which float targets of a single output that are not all 0 or 1 ask for, too; or a
            callable `outputs -> (N,)` of what the model gave, for an embedding, say. Left out, an output that shows by
            its form that it holds no classes is explained as a whole: rows of norm 1 by their norm before that, a
            reconstruction by its error.
        methods: a name (see `lightning_gcam.cam.available_methods`), a callable
            `(activations, gradients) -> (N, h, w)`, a `lightning_gcam.cam.ModelMethod`, several of them, or a mapping
            from the maps' names to callables.
        target_layer: a name from `model.named_modules()`, or the module; found where it is left out. Several layers
            give a map each, "<method>@<layer>", all from the same forward and gradient.
        reshape_transform: from the layer's output to `(N, C, h, w)`, for a layout that is not recognised.
        forward: `(model, images) -> output`, for a model that is not simply called with the images.
        fuse: makes one map of several layers' maps, by the "product" or the "mean" of the scaled maps.
        masks: `(N, H, W)` bool, for a model that gives logits at every position (segmentation): the region over which
            the class's logits are summed. Without one these are the positions that the network gives to the class.

    Returns:
        An `Attribution`: maps `(N, H, W)` float32 in [0, 1] on the model's device, and what they came from; `show()`
            draws them.

    Raises:
        InputError: naming the argument, what came, and what to do.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> attribution = attribute(model, torch.rand(5, 3, 8, 8), methods=["guidance_cam", "grad_cam"])
        >>> attribution.maps["guidance_cam"].shape, attribution.target_layer
        (torch.Size([5, 8, 8]), '1')
    """
    table = resolve_methods(methods)
    _check(images)
    checks.check_masks(masks, (len(images), images.shape[-2], images.shape[-1]))
    check_fuse(fuse, target_layer)
    if target_layer is None:
        target_layer = find_target_layer(
            model, images, forward=forward, reshape_transform=reshape_transform
        ).module
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
        asked = [_asked(table, model, images, each, targets, forward) for each in captured]
    with torch.inference_mode(False), torch.no_grad(), _full_precision(images):
        size, score = (images.shape[-2], images.shape[-1]), captured[0].score
        at_layers = [_scaled_maps(table, *each, size) for each in zip(captured, asked, strict=True)]
        scaled = _fused(at_layers, fuse) if fuse is not None else _named(at_layers, list(layers))
        return Attribution(
            maps={name: map_ for name, (map_, _) in scaled.items()},
            logits=score.logits,
            targets=score.targets,
            target_layer=layers_in_words(list(layers), fuse),
            peaks={name: peak for name, (_, peak) in scaled.items()},
            even_gradients=all(is_even(each.gradients) for each in captured),
            explains=score.explains,
            values=score.values,
            in_mask=score.in_mask,
            images=images,
            squash=score.squash,
        )


ScaledMaps = dict[str, tuple[Tensor, Tensor]]
"""Maps `(N, H, W)` in [0, 1] and their raw peaks `(N,)`, by name."""


def _asked(
    methods: dict[str, AnyMethod],
    model: nn.Module,
    images: Tensor,
    captured: Captured,
    targets: Targets,
    forward: Forward | None,
) -> dict[str, Tensor]:
    """The raw maps of those methods that run the model again."""
    scored = {name: method for name, method in methods.items() if isinstance(method, ModelMethod)}
    if not scored:
        return {}
    with plain_eager():
        images = images.clone()  # one made in inference mode has no gradient
        context = MethodContext(model, images, captured, targets, forward)
        with _full_precision(images):
            return {name: method(context.named(name)) for name, method in scored.items()}


def _full_precision(images: Tensor) -> AbstractContextManager[object]:
    """Autocast would round the weighted sums."""
    return torch.autocast(images.device.type, enabled=False)


def _scaled_maps(
    methods: dict[str, AnyMethod], captured: Captured, asked: dict[str, Tensor], size: tuple[int, int]
) -> ScaledMaps:
    finite, explained = _finite(captured), captured.score.is_of_something[:, None, None]
    maps: ScaledMaps = {}
    for name, method in methods.items():
        if isinstance(method, ModelMethod):
            raw = _checked(name, asked[name], (len(finite), None, None))
            raw = torch.where(explained, raw, 0.0)
        else:
            expected = (len(finite), *captured.activations.shape[2:])
            with of_the_users("methods", captured.activations):
                found = method(captured.activations, captured.gradients)
            raw = _checked(name, found, expected)
        maps[name] = _scale(raw, size, finite)
    return maps


def _named(at_layers: Sequence[ScaledMaps], layers: Sequence[str]) -> ScaledMaps:
    """All maps under names that tell method and layer."""
    return {
        map_name(method, layer, layers): scaled
        for layer, maps in zip(layers, at_layers, strict=True)
        for method, scaled in maps.items()
    }


def _fused(at_layers: Sequence[ScaledMaps], fuse: Fuse) -> ScaledMaps:
    """Each method's maps of all layers as one, scaled again; what is not finite at one layer is blank."""
    fused: ScaledMaps = {}
    for method in at_layers[0]:
        maps, peaks = zip(*(maps[method] for maps in at_layers), strict=True)
        one = fuse_maps(maps, fuse)
        fused[method] = _scale(
            one, (one.shape[-2], one.shape[-1]), torch.isfinite(torch.stack(peaks)).all(dim=0)
        )
    return fused


def _check(images: Tensor) -> None:
    if not isinstance(images, Tensor) or images.ndim != 4 or images.is_complex():
        came = (
            f"{tuple(images.shape)} {images.dtype}" if isinstance(images, Tensor) else type(images).__name__
        )
        raise InputError(
            f"`images` must be (N, C, H, W) floating point or whole numbers, as the model takes them; got {came}. "
            "A single image is `image[None]`."
        )
    if not len(images):
        raise InputError(f"`images` holds no sample; got {tuple(images.shape)}. Give at least one.")


def _checked(name: str, result: Any, expected: tuple[int | None, ...]) -> Tensor:
    """A method's map, rectified (a callable of the user's may give negative values)."""
    if not isinstance(result, Tensor) or not _fits(tuple(result.shape), expected):
        came = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        rows, *grid = expected
        size = expected if None not in grid else f"({rows}, h, w)"
        raise InputError(
            f'`methods` "{name}" must give (N, h, w) = {size}; got {came}. Sum over the channels, say.'
        )
    return result.detach().float().relu()


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    """Whether a shape is the expected one; None stands for any length but 0."""
    if len(shape) != len(expected):
        return False
    return all(
        length == want if want is not None else length for length, want in zip(shape, expected, strict=True)
    )


def _finite(captured: Captured) -> Tensor:
    """Whether each sample's activations and gradients are; a map does not always show it: ReLU makes -inf a zero."""
    both = torch.isfinite(captured.activations) & torch.isfinite(captured.gradients)
    return both.flatten(1).all(dim=1)


def _scale(raw: Tensor, size: tuple[int, int], finite: Tensor) -> tuple[Tensor, Tensor]:
    """Maps at the images' size in [0, 1], and each one's maximum before scaling; what is not finite is blank."""
    peaks = raw.flatten(1).amax(dim=1)
    finite = finite & torch.isfinite(raw).flatten(1).all(dim=1)
    peaks = torch.where(finite, peaks, torch.nan)
    alive = finite & (peaks > 0)
    divisor = torch.where(alive, peaks, 1.0)[:, None, None]
    unit = torch.where(alive[:, None, None], raw, 0.0) / divisor
    resized = nn.functional.interpolate(unit[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    largest = resized.flatten(1).amax(dim=1)[:, None, None]
    return (resized / torch.where(largest > 0, largest, 1.0)).clamp(0, 1), peaks
