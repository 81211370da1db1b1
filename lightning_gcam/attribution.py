"""`attribute()`: from a model and images to saliency maps, without a Trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lightning_gcam._errors import InputError
from lightning_gcam.cam.capture import Captured, Forward, capture
from lightning_gcam.cam.layers import find_target_layer, resolve_target_layer
from lightning_gcam.cam.methods import Method, resolve_methods
from lightning_gcam.cam.reshape import Reshape
from lightning_gcam.cam.targets import Targets
from lightning_gcam.isolation import untouched


@dataclass(frozen=True)
class Attribution:
    """Saliency maps of one batch, and what they were computed from.

    Args:
        maps: for each method `(N, H, W)` float32 in [0, 1], each map scaled to its own maximum.
        logits: `(N, K)`, as the model gave them.
        targets: `(N,)` classes or `(N, K)` multi-hot that the maps explain; None for a callable target.
        target_layer: the layer's name.
        peaks: for each method `(N,)` float32, each map's maximum before scaling: 0 where the map is blank, NaN where
            activations or gradients were not finite (such a map is drawn blank).
        even_gradients: whether the gradients were constant over space, as they are at the last layer under a
            global-average-pooled linear head. Then Grad-CAM, XGrad-CAM and HiResCAM are one and the same map, and
            guidance is its square.
    """

    maps: dict[str, Tensor]
    logits: Tensor
    targets: Tensor | None
    target_layer: str
    peaks: dict[str, Tensor]
    even_gradients: bool

    def __len__(self) -> int:
        return len(self.logits)

    def to(self, device: torch.device | str) -> Attribution:
        """The same attribution on `device`."""
        return self.map_tensors(lambda tensor: tensor.to(device))

    def select(self, rows: Sequence[int]) -> Attribution:
        """The samples at `rows`, in that order."""
        return self.map_tensors(lambda tensor: tensor[list(rows)])

    def map_tensors(self, function: Callable[[Tensor], Tensor]) -> Attribution:
        """The same attribution with `function` applied to each of its tensors, whose first dimension is N."""
        return replace(
            self,
            maps={name: function(map_) for name, map_ in self.maps.items()},
            logits=function(self.logits),
            targets=function(self.targets) if self.targets is not None else None,
            peaks={name: function(peak) for name, peak in self.peaks.items()},
        )

    @staticmethod
    def cat(parts: Sequence[Attribution]) -> Attribution:
        """Several batches as one, in order."""
        if len(parts) == 1:
            return parts[0]
        targets = [part.targets for part in parts if part.targets is not None]
        return Attribution(
            maps={name: torch.cat([part.maps[name] for part in parts]) for name in parts[0].maps},
            logits=torch.cat([part.logits for part in parts]),
            targets=torch.cat(targets) if targets else None,
            target_layer=parts[0].target_layer,
            peaks={name: torch.cat([part.peaks[name] for part in parts]) for name in parts[0].peaks},
            even_gradients=all(part.even_gradients for part in parts),
        )


def attribute(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    methods: str | Method | Sequence[str | Method] = "guidance_cam",
    target_layer: str | nn.Module | None = None,
    reshape_transform: Reshape | None = None,
    forward: Forward | None = None,
) -> Attribution:
    """Compute saliency maps: one forward and one gradient, whatever the number of methods.

    The model is run in eval mode and left exactly as it was: its mode, its buffers, its gradients, its hooks and the
    random streams. It works under `no_grad` and `inference_mode`, with frozen parameters, and with compiled modules.

    Args:
        model: any `nn.Module`.
        images: `(N, C, H, W)` on the model's device, as its forward takes them: floating point, or whole numbers such
            as uint8.
        targets: whose score is explained: None or "predicted" for each sample's predicted class; an int for one class;
            `(N,)` classes (a negative one stands for the predicted class); `(N, K)` multi-hot; or a callable
            `logits -> (N,)`.
        methods: a name (see `lightning_gcam.cam.available_methods`), a callable
            `(activations, gradients) -> (N, h, w)`, or several of them.
        target_layer: a name from `model.named_modules()`, or the module; found where it is left out.
        reshape_transform: from the layer's output to `(N, C, h, w)`, for a layout that is not recognised.
        forward: `(model, images) -> output`, for a model that is not simply called with the images.

    Returns:
        An `Attribution`: maps `(N, H, W)` float32 in [0, 1] on the model's device, and what they came from.

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
    if target_layer is None:
        target_layer = find_target_layer(
            model, images, forward=forward, reshape_transform=reshape_transform
        ).module
    name, layer = resolve_target_layer(model, target_layer)
    with untouched(model):
        captured = capture(model, images, layer, targets, forward=forward, reshape=reshape_transform)
    full_precision = torch.autocast(
        images.device.type, enabled=False
    )  # autocast would round the weighted sums
    with torch.inference_mode(False), torch.no_grad(), full_precision:
        size, finite = (images.shape[-2], images.shape[-1]), _finite(captured)
        raw = {each: _raw_map(each, method, captured) for each, method in table.items()}
        scaled = {each: _scale(map_, size, finite) for each, map_ in raw.items()}
        return Attribution(
            maps={each: map_ for each, (map_, _) in scaled.items()},
            logits=captured.logits,
            targets=captured.targets,
            target_layer=name,
            peaks={each: peak for each, (_, peak) in scaled.items()},
            even_gradients=_even(captured.gradients),
        )


def _check(images: Tensor) -> None:
    if not isinstance(images, Tensor) or images.ndim != 4 or images.is_complex():
        came = (
            f"{tuple(images.shape)} {images.dtype}" if isinstance(images, Tensor) else type(images).__name__
        )
        raise InputError(
            f"`images` must be (N, C, H, W) floating point or whole numbers, as the model takes them; got {came}."
        )
    if not len(images):
        raise InputError("`images` holds no sample.")


def _raw_map(name: str, method: Method, captured: Captured) -> Tensor:
    """The method's map, rectified (a callable of the user's may give negative values)."""
    result = method(captured.activations, captured.gradients)
    expected = (len(captured.activations), *captured.activations.shape[2:])
    if not isinstance(result, Tensor) or tuple(result.shape) != expected:
        came = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise InputError(f'`methods` "{name}" must give (N, h, w) = {expected}; got {came}.')
    return result.detach().float().relu()


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


def _even(gradients: Tensor) -> bool:
    """Whether every channel's gradient is the same at all positions, and not simply zero."""
    largest = gradients.abs().amax()
    spread = (gradients - gradients.mean(dim=(2, 3), keepdim=True)).abs().amax()
    return bool((largest > 0) & (spread <= 1e-5 * largest))
