"""`MethodContext`: the model, the batch and the explained score, for methods that run the model on perturbed images."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gcam.cam.calling import call_model, forward_at
from lightning_gcam.cam.capture import Captured, activations_replaced, capture
from lightning_gcam.cam.forward import head_of
from lightning_gcam.cam.invocation import Forward
from lightning_gcam.cam.outputs import Head
from lightning_gcam.cam.regions import same_score
from lightning_gcam.cam.registry import AnyMethod, ModelMethod
from lightning_gcam.cam.targets import Targets, TargetScore
from lightning_gcam.utils.chunking import run_in_chunks
from lightning_gcam.utils.dimensions import Size, for_each, positions_of, resize, size_of
from lightning_gcam.utils.errors import InputError
from lightning_gcam.utils.isolation import eager_without_graph

Change = Callable[[Tensor, Tensor], Tensor]
"""`(rows, numbers) -> images (B, C, *S)`: for each pair, `(B,)` both, that perturbation of the sample in that row."""

Replace = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`(activations, rows, numbers) -> activations`, `(B, C, *grid)` each."""

LEAST_CHUNK = 16
"""How many perturbed images are run at once, or as many as there are samples where these are more."""

VOXELS_AT_ONCE = 2**20
"""How many voxels perturbed volumes may have together, or as many as the samples have."""


class MethodContext:
    """Computes the score that the maps explain for perturbed images, and activations and gradients for them.

    The score is of the same class as the maps, whatever the model predicts for a perturbed image, and of the same
    region of a dense head. In eval mode samples do not mix, so that a batch gives what its samples give one by one.

    Args:
        model: in eval mode (see `lightning_gcam.utils.isolation.untouched`).
        images: `(N, C, *S)`, as the model takes them.
        captured: activations and gradients at the target layer, of the images as they are.
        targets: as in `attribute`; only a callable is called again.
        forward: as in `attribute`.
        label: the text of the progress bar.
        at_once: how many perturbed images to run at once; half as many, and so on, where memory runs out.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        captured: Captured,
        targets: Targets = None,
        forward: Forward | None = None,
        *,
        label: str = "saliency",
        at_once: int | None = None,
    ) -> None:
        self.model = model
        self.images = images
        self.captured = captured
        self.label = label
        self._targets = targets
        self._forward = forward
        few = LEAST_CHUNK if images.ndim < 5 else VOXELS_AT_ONCE // math.prod(self.size)
        self._at_once = at_once or max(len(images), min(few, LEAST_CHUNK))
        device = images.device.type
        self._autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))

    def named(self, label: str) -> MethodContext:
        """Set the text of the progress bar, and return the context."""
        self.label = label
        return self

    def __len__(self) -> int:
        return len(self.images)

    @property
    def activations(self) -> Tensor:
        """The activations of the target layer, `(N, C, *grid)` float32."""
        return self.captured.activations

    @property
    def gradients(self) -> Tensor:
        """The gradients of the score with respect to the activations, `(N, C, *grid)` float32."""
        return self.captured.gradients

    @property
    def explained(self) -> Tensor:
        """The score of the images as they are, `(N,)` float32."""
        return self.captured.score.values.float()

    @property
    def size(self) -> Size:
        """The length of each spatial dimension of the images: height and width."""
        return size_of(self.images)

    def enlarge(self, grid: Tensor) -> Tensor:
        """Resize what lies on the grid of a layer, `(B, C, *grid)`, to the size of the images, `(B, C, *S)`."""
        return resize(grid, self.size, self.captured.covered)

    # ------------------------------------------------------------------------------- one forward

    def values(self, images: Tensor, rows: Tensor) -> Tensor:
        """The score of some images in one forward, with a graph where gradients are enabled.

        Args:
            images: `(B, C, *S)` of any floating dtype; they are cast to that of the samples.
            rows: `(B,)` int64, of which sample each is a perturbation.

        Returns:
            `(B,)` float32, before any softmax.
        """
        with self._precision():
            forward = forward_at(self._forward, rows)
            head = head_of(self.model, self._as_input(images), forward, self.captured.score.squash)
        return same_score(head, self.captured.score, rows, self._targets).float()

    def run(self, images: Tensor, rows: Tensor) -> Any:
        """The output of the model for perturbations of some rows, as it returns it, in one forward."""
        with self._precision():
            return call_model(self.model, self._as_input(images), forward_at(self._forward, rows))

    def capture(self, images: Tensor, rows: Tensor) -> Captured:
        """Activations and gradients at the target layer for some images, in one forward and one gradient.

        Args:
            images: `(B, C, *S)`, as in `values`; of another size than the samples, where the model takes that.
            rows: `(B,)` int64, of which sample each is a perturbation.
        """
        layer_call, score = self.captured.layer_call, self.captured.score
        other_grid = layer_call.is_inferred and size_of(images) != self.size
        with self._precision():
            return capture(
                self.model,
                self._as_input(images),
                layer_call.layer,
                forward=forward_at(self._forward, rows),
                reshape=None if other_grid else layer_call.reshape,
                score_fn=lambda head: _score_again(head, score, rows, self._targets),
                call=layer_call.call,
            )

    # ------------------------------------------------------------------------------- many, in chunks

    def scores(self, change: Change, count: int, where: Tensor | None = None) -> Tensor:
        """The score of each sample under `count` perturbations.

        Args:
            change: gives the perturbed images, a chunk at a time.
            count: how many perturbations there are of each sample.
            where: `(N, count)` bool, which of them are computed; all where it is left out.

        Returns:
            `(N, count)` float32, 0 where none was computed.
        """
        return self._filled(lambda rows, numbers: self.values(change(rows, numbers), rows), count, where)

    def scores_with(self, replace: Replace, count: int, where: Tensor | None = None) -> Tensor:
        """The score of each sample under `count` replacements of the target layer's activations.

        Args:
            replace: gives other activations, a chunk at a time.
            count: how many replacements there are of each sample.
            where: `(N, count)` bool, which of them are computed; all where it is left out.

        Returns:
            `(N, count)` float32, 0 where none was computed.
        """

        def compute(rows: Tensor, numbers: Tensor) -> Tensor:
            change = lambda activations: replace(activations, rows, numbers)  # noqa: E731
            with activations_replaced(self.captured.layer_call, change):
                return self.values(self.images[rows], rows)

        return self._filled(compute, count, where)

    def mean(self, work: Change, count: int) -> Tensor:
        """The mean of what `work` computes over `count` perturbations of each sample.

        Args:
            work: `(rows, numbers) -> (B, ...)`, run for at most N of them at once: it may take gradients.
            count: how many perturbations there are of each sample.

        Returns:
            `(N, ...)` float32.
        """
        pairs = self._pairs(count)
        total: list[Tensor] = []

        def add(chunk: slice) -> None:
            rows, numbers = pairs[chunk].unbind(dim=1)
            part = work(rows, numbers).float()
            if not total:
                total.append(part.new_zeros(len(self), *part.shape[1:]))
            total[0].index_add_(0, rows, part)  # last: what ran out of memory has added nothing

        most = min(self._at_once, len(self))
        _, size = run_in_chunks(len(pairs), add, most, self.label)
        if size < most:  # memory ran out
            self._at_once = size
        return total[0] / count

    def _filled(
        self, compute: Callable[[Tensor, Tensor], Tensor], count: int, where: Tensor | None
    ) -> Tensor:
        """Compute one number for each pair of a row and a number, in chunks: `(N, count)`, 0 elsewhere."""
        pairs = self._pairs(count, where)
        found = torch.zeros(len(self), count, device=self.images.device)
        if len(pairs):
            parts, self._at_once = run_in_chunks(
                len(pairs), lambda chunk: compute(*pairs[chunk].unbind(dim=1)), self._at_once, self.label
            )
            found[pairs[:, 0], pairs[:, 1]] = torch.cat(parts)
        return found

    def _pairs(self, count: int, where: Tensor | None = None) -> Tensor:
        """All pairs of a row and a number that are computed, `(M, 2)`."""
        if where is None:
            where = torch.ones(len(self), count, dtype=torch.bool, device=self.images.device)
        return where.nonzero()

    # ------------------------------------------------------------------------------- noise

    def noise(self, rows: Tensor, numbers: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Normal noise for perturbations of samples, the same at every look and in whatever batch a sample comes.

        Each is drawn by a generator of its own, seeded by the sample's pixels and the number of the perturbation.

        Args:
            rows: `(B,)` int64.
            numbers: `(B,)` int64.
            shape: of the noise of one perturbation.

        Returns:
            `(B, *shape)` float32 on the images' device, mean 0 and standard deviation 1.
        """
        drawn = [
            torch.randn(shape, generator=self._generator(row, number))
            for row, number in zip(rows.tolist(), numbers.tolist(), strict=True)
        ]
        return torch.stack(drawn).to(self.images.device)

    def noisy_images(self, rows: Tensor, numbers: Tensor, spread: float) -> Tensor:
        """Samples with normal noise added, `(B, C, *S)` float32.

        Args:
            rows: `(B,)` int64, which samples.
            numbers: `(B,)` int64, which draw of each.
            spread: the standard deviation, as a share of each sample's own range.
        """
        images = self.images[rows].float()
        least, most = images.flatten(1).aminmax(dim=1)
        sigma = spread * (most - least)
        return images + for_each(sigma, images) * self.noise(rows, numbers, tuple(images.shape[1:]))

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Uniform noise in [0, 1) for each sample, drawn as `noise` is.

        Returns:
            `(N, *shape)` float32 on the images' device.
        """
        drawn = [torch.rand(shape, generator=self._generator(row, 0)) for row in range(len(self))]
        return torch.stack(drawn).to(self.images.device)

    def _generator(self, row: int, number: int) -> torch.Generator:
        """A generator seeded by a sample's pixels and the number of a perturbation."""
        return torch.Generator().manual_seed((self._seeds[row] + number) % 2**63)

    @cached_property
    def _seeds(self) -> list[int]:
        """A seed for each sample, from its pixels."""
        raw = self.images.detach().cpu().contiguous().flatten(1).view(torch.uint8).numpy()
        digests = (hashlib.blake2b(each.tobytes(), digest_size=8).digest() for each in raw)
        return [int.from_bytes(each, "little") for each in digests]

    # ------------------------------------------------------------------------------- how the model is run

    def _as_input(self, images: Tensor) -> Tensor:
        """Convert images to the samples' dtype; whole numbers are rounded and clamped to its range."""
        kind = self.images.dtype
        if images.dtype == kind or kind.is_floating_point:
            return images.to(kind)
        range_ = torch.iinfo(kind)
        return images.round().clamp(range_.min, range_.max).to(kind)

    def _precision(self) -> AbstractContextManager[object]:
        """Autocast as it was where the context was made; the arithmetic between forwards is done without."""
        device, dtype, enabled = self._autocast
        return torch.autocast(device, dtype=dtype, enabled=enabled)


def _score_again(head: Head, score: TargetScore, rows: Tensor, targets: Targets) -> TargetScore:
    """The score of perturbed images as a `TargetScore`."""
    values, logits = same_score(head, score, rows, targets), head.logits
    mean = logits if logits.ndim == 2 else logits.mean(dim=positions_of(logits))
    return TargetScore(values, None, mean, score.explains)


def gradients_from(
    context: MethodContext,
    name: str,
    images: Tensor,
    rows: Tensor,
    others: Callable[[], Sequence[Tensor]] = tuple,
) -> list[Tensor | None]:
    """The gradients of the score with respect to the images and to other tensors of the same forward.

    Args:
        context: of the samples.
        name: of the method, for messages.
        images: `(B, C, *S)`.
        rows: `(B,)`, of which sample each is a perturbation.
        others: called after the forward, gives the other tensors.

    Returns:
        One a tensor, the images' first; None where the score does not depend on it.

    Raises:
        InputError: where no gradient reaches the images.
    """
    check_takes_gradients(context, name)
    leaf = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        values = context.values(leaf, rows)
        check_graph(context, name, values)
        inputs = [leaf, *others()]
        found = torch.autograd.grad(values, inputs, torch.ones_like(values), allow_unused=True)
    if found[0] is None:
        raise InputError(no_gradient_at_images(context, name))
    return list(found)


def check_takes_gradients(context: MethodContext, name: str) -> None:
    """Refuse images of whole numbers: they have no gradient.

    Raises:
        InputError: naming the method.
    """
    if not context.images.is_floating_point():
        raise InputError(
            f'`methods` "{name}" takes the gradient at the images, and images of {context.images.dtype} have none. '
            "Leave it out, or convert the images before the model, as with `images.float() / 255`."
        )


def check_graph(context: MethodContext, name: str, values: Tensor) -> None:
    """Refuse a score that no graph connects with the images.

    Raises:
        InputError: naming the method.
    """
    if not values.requires_grad:
        raise InputError(no_gradient_at_images(context, name))


def no_gradient_at_images(context: MethodContext, name: str) -> str:
    """The message for a model in which no gradient reaches the images."""
    return (
        f'`methods` "{name}" takes the gradient at the images, and none reaches them: does the forward of '
        f"{type(context.model).__name__} run a part under `no_grad`, or detach its features? Leave the method out."
    )


def maps_of_model_methods(
    methods: dict[str, AnyMethod],
    model: nn.Module,
    images: Tensor,
    captured: Captured,
    targets: Targets,
    forward: Forward | None,
) -> dict[str, Tensor]:
    """The raw maps `(N, *grid)` of the methods that run the model again, by name; the other methods are left out."""
    again = {name: method for name, method in methods.items() if isinstance(method, ModelMethod)}
    with eager_without_graph():
        images = images.clone()  # one made in inference mode has no gradient
        context = MethodContext(model, images, captured, targets, forward)
        with torch.autocast(images.device.type, enabled=False):  # it would round the weighted sums
            return {name: method(context.named(name)) for name, method in again.items()}
