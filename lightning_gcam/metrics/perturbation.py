"""Images perturbed by their maps (salient pixels kept, inserted or deleted), and what the model gives for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from lightning_gcam.metrics.samples import PerSample, check_maps, check_saliency
from lightning_gcam.utils.dimensions import for_each
from lightning_gcam.utils.errors import InputError, check_whole

Fill = Literal["zero", "blur", "mean"] | Callable[[Tensor], Tensor]
"""What stands where pixels are taken away: a name, or a callable from images to images of the same shape."""

BLUR_SIGMA = 1 / 10
"""The standard deviation of the blur, as a share of the shorter side of the image, of a slice or of a frame."""


def keep_salient(images: Tensor, maps: Tensor, fill: Fill = "zero") -> Tensor:
    """Keep of each image what is salient: x * S + fill * (1 - S), each map S scaled by its peak.

    Args:
        images: ``(N, C, *spatial)`` floating, as the model takes them.
        maps: ``(N, *spatial)`` floating, at least 0. A blank map (all zero, or not finite) keeps nothing; pass
            such samples to the scores as ``blank``.
        fill: "zero" (what the papers take: 0 in the model's input, which is the mean colour where images are
            normalized), "blur" (Gaussian, sigma a tenth of the shorter side of the image, of a slice or
            of a frame), "mean" (each channel's mean over the image), or a callable from images to images.

    Returns:
        ``(N, C, *spatial)``, of the dtype and on the device of ``images``.

    Raises:
        TypeError: If ``maps`` is not floating.
        ValueError: If the shapes do not fit, a map has negative values, or ``fill`` is not known.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import keep_salient
        >>> images = torch.tensor([[[[8.0, 6.0]]]])
        >>> keep_salient(images, torch.tensor([[[2.0, 1.0]]]))
        tensor([[[[8., 3.]]]])
        >>> keep_salient(images, torch.tensor([[[2.0, 1.0]]]), fill="mean")
        tensor([[[[8.0000, 6.5000]]]])

    Source:
        Chattopadhyay et al., "Grad-CAM++", 2018, arXiv 1710.11063 (section 4.1, there with zero).
    """
    _check_pair(images, maps)
    checked = check_maps(maps)
    scaled = torch.where(for_each(checked.blank, maps), 0.0, checked.unit)[:, None].to(images)
    return images * scaled + filled(images, fill) * (1 - scaled)


def insertion_steps(
    images: Tensor, maps: Tensor, steps: int = 20, fill: Fill = "blur", chunk_size: int = 64
) -> Iterator[tuple[Tensor, Tensor]]:
    """Show each image's pixels in the order of their saliency, on a fill: from none to all in even steps.

    After step k, the k/steps most salient pixels are shown (rounded down to a whole pixel). Pixels of equal
    saliency come row by row, as in RISE and torch-cam.

    Args:
        images: ``(N, C, *spatial)`` floating, as the model takes them.
        maps: ``(N, *spatial)`` floating, at least 0.
        steps: How many steps; the model is run on steps + 1 images per sample.
        fill: As in `keep_salient`. RISE starts insertion from a blurred image, since a grey one with
            sharp holes is unlike any image.
        chunk_size: How many images to give at once, at most.

    Yields:
        Pairs ``(index, images)``: ``(K, 2)`` int64, the sample and the step of each, and ``(K, C, *spatial)``.
        With p their probabilities, ``curves[index[:, 0], index[:, 1]] = p`` fills ``(N, steps + 1)`` curves.

    Raises:
        TypeError: If ``maps`` is not floating.
        ValueError: If the shapes do not fit, a map has negative values, ``fill`` is not known, or ``steps`` or
            ``chunk_size`` is not a positive integer.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import insertion_steps
        >>> images, maps = torch.tensor([[[[5.0, 6.0, 7.0, 8.0]]]]), torch.tensor([[[0.0, 3.0, 1.0, 2.0]]])
        >>> for index, shown in insertion_steps(images, maps, steps=2, fill="zero"):
        ...     print(index.tolist(), shown.flatten(1).tolist())
        [[0, 0], [0, 1], [0, 2]] [[0.0, 0.0, 0.0, 0.0], [0.0, 6.0, 0.0, 8.0], [5.0, 6.0, 7.0, 8.0]]

    Source:
        Petsiuk et al., "RISE", 2018, arXiv 1806.07421 (section 4.1).
    """
    _check_steps(images, maps, steps, chunk_size)
    return _steps(filled(images, fill), images, maps, steps, chunk_size)


def deletion_steps(
    images: Tensor, maps: Tensor, steps: int = 20, fill: Fill = "zero", chunk_size: int = 64
) -> Iterator[tuple[Tensor, Tensor]]:
    """Take each image's pixels away in the order of their saliency: from none to all in even steps.

    After step k, the k/steps most salient pixels are gone (rounded down to a whole pixel). Pixels of equal
    saliency go row by row, as in RISE and torch-cam.

    Args:
        images: ``(N, C, *spatial)`` floating, as the model takes them.
        maps: ``(N, *spatial)`` floating, at least 0.
        steps: How many steps; the model is run on steps + 1 images per sample.
        fill: As in `keep_salient`; RISE deletes to zero.
        chunk_size: How many images to give at once, at most.

    Yields:
        Pairs ``(index, images)``: ``(K, 2)`` int64, the sample and the step of each, and ``(K, C, *spatial)``.

    Raises:
        TypeError: If ``maps`` is not floating.
        ValueError: If the shapes do not fit, a map has negative values, ``fill`` is not known, or ``steps`` or
            ``chunk_size`` is not a positive integer.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.functional import deletion_steps
        >>> images, maps = torch.tensor([[[[5.0, 6.0, 7.0, 8.0]]]]), torch.tensor([[[0.0, 3.0, 1.0, 2.0]]])
        >>> for index, left in deletion_steps(images, maps, steps=2):
        ...     print(index.tolist(), left.flatten(1).tolist())
        [[0, 0], [0, 1], [0, 2]] [[5.0, 6.0, 7.0, 8.0], [5.0, 0.0, 7.0, 0.0], [0.0, 0.0, 0.0, 0.0]]

    Source:
        Petsiuk et al., "RISE", 2018, arXiv 1806.07421 (section 4.1).
    """
    _check_steps(images, maps, steps, chunk_size)
    return _steps(images, filled(images, fill), maps, steps, chunk_size)


def filled(images: Tensor, fill: Fill) -> Tensor:
    """Return the pixels that replace those taken away, of the shape of ``images``.

    Raises:
        InputError: If ``fill`` is not known, or a callable gives another shape.
    """
    check_fill(fill)
    if callable(fill):
        made = fill(images)
        if not isinstance(made, Tensor) or made.shape != images.shape:
            raise InputError(
                f"`fill` must give images of the shape {tuple(images.shape)}. Check your callable."
            )
        return made.to(images)
    if fill == "zero":
        return torch.zeros_like(images)
    if fill == "mean":
        return images.mean(dim=tuple(range(2, images.ndim)), keepdim=True).expand_as(images)
    return _blur(images, BLUR_SIGMA * min(images.shape[2:][-2:]))


def check_fill(fill: Fill) -> None:
    """Refuse a fill that is neither one of the names nor a callable.

    Raises:
        InputError: If it is neither one of the names nor a callable.
    """
    if not callable(fill) and fill not in ("zero", "blur", "mean"):
        raise InputError(
            f'`fill` must be "zero", "blur", "mean" or a callable from images to images, got {fill!r}.'
        )


def _steps(
    start: Tensor, end: Tensor, maps: Tensor, steps: int, chunk_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Change images from ``start`` to ``end``, the most salient pixels first."""
    n, pixels = len(maps), maps[0].numel() if len(maps) else 0
    order = check_maps(maps).pixels.argsort(dim=1, descending=True, stable=True)
    ranks = order.argsort(dim=1).reshape(maps.shape).to(start.device)
    every = torch.cartesian_prod(torch.arange(n), torch.arange(steps + 1))
    for index in every.split(chunk_size) if n else ():
        index = index.to(start.device)
        sample, changed = index[:, 0], index[:, 1] * pixels // steps
        there = (ranks[sample] < for_each(changed, maps))[:, None]
        yield index, torch.where(there, end[sample], start[sample])


def _blur(images: Tensor, sigma: float) -> Tensor:
    """Blur with a Gaussian along each axis, the border repeated."""
    radius = max(round(3 * sigma), 1)
    offset = torch.arange(-radius, radius + 1, device=images.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(images.dtype)
    for axis in range(images.ndim - 1, 1, -1):
        along = images.movedim(axis, -1)
        rows = pad(along.reshape(-1, 1, along.shape[-1]), (radius, radius), mode="replicate")
        images = conv1d(rows, kernel[None, None]).reshape(along.shape).movedim(-1, axis)
    return images


def _check_pair(images: Tensor, maps: Tensor) -> None:
    """Refuse images and maps that do not belong together."""
    if not isinstance(images, Tensor) or not images.is_floating_point() or not 3 <= images.ndim <= 5:
        came = (
            f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        )
        raise InputError(f"`images` must be floating (N, C, *spatial), as the model takes them, got {came}.")
    check_saliency(maps)
    if maps.shape != (len(images), *images.shape[2:]):
        raise InputError(
            f"`maps` must be (N, *spatial) of the images' {(len(images), *images.shape[2:])}, got {tuple(maps.shape)}. "
            "One map per sample, at the size of the image."
        )


def _check_steps(images: Tensor, maps: Tensor, steps: int, chunk_size: int) -> None:
    """Refuse wrong arguments before the first image is made: a generator would wait until then."""
    _check_pair(images, maps)
    check_whole("steps", steps)
    check_whole("chunk_size", chunk_size)


@dataclass(frozen=True)
class Perturbation:
    """A way to change images by their maps; scores with equal perturbations share the model's outputs.

    Args:
        kind: "keep" only the salient pixels, "insert" them one step after the other, or "delete" them.
        fill: What stands where pixels are taken away.
        steps: Of an insertion or a deletion.

    Example:
        >>> from lightning_gcam.metrics import AverageDrop, AverageGain, InsertionAUC
        >>> AverageDrop().perturbation == AverageGain().perturbation
        True
        >>> InsertionAUC(steps=5).perturbation.num_images
        6
    """

    kind: Literal["keep", "insert", "delete"]
    fill: Fill
    steps: int = 0

    @property
    def num_images(self) -> int:
        """How many images a sample becomes."""
        return self.steps + 1

    def images(self, images: Tensor, maps: Tensor, chunk_size: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
        """Change the images, at most ``chunk_size`` at once.

        Args:
            images: ``(N, C, *spatial)`` floating, as the model takes them.
            maps: ``(N, *spatial)`` floating, at least 0.
            chunk_size: How many images to give at once.

        Yields:
            Pairs ``(index, images)``: ``(K, 2)`` int64, the sample and the step of each, and ``(K, C, *spatial)``.
        """
        if self.kind == "insert":
            yield from insertion_steps(images, maps, self.steps, self.fill, chunk_size)
        elif self.kind == "delete":
            yield from deletion_steps(images, maps, self.steps, self.fill, chunk_size)
        else:
            for rows in torch.arange(len(images), device=images.device).split(chunk_size):
                index = torch.stack([rows, torch.zeros_like(rows)], dim=1)
                yield index, keep_salient(images[rows], maps[rows], self.fill)


class PerturbedKey(NamedTuple):
    """Which images an output belongs to: the map that they were perturbed by, and how.

    The perturbation is given by number and not by itself: a ``fill`` of the user's own may be a lambda, which
    cannot be sent to another process.
    """

    map: str
    """The name of the map."""
    perturbation: int
    """The position among the perturbations that the scores need."""


@dataclass(frozen=True)
class PerturbedOutputs:
    """The model's outputs for perturbed images, one row a sample; empty where no score needs any.

    Args:
        probabilities: The explained class's probability for each image of a perturbation, ``(N, steps + 1)``.
        maps: The maps of the images of a perturbation, ``(N, *spatial)``.
        random_maps: The maps of the same model with random weights, ``(N, *spatial)`` by the map's name.
        logits: The logits of changed versions of the images, ``(N, K)`` by the version's name.

    Example:
        >>> import torch
        >>> from lightning_gcam.metrics.perturbation import PerturbedKey, PerturbedOutputs
        >>> first = PerturbedOutputs({PerturbedKey("grad_cam", 0): torch.tensor([[0.9], [0.6]])})
        >>> second = PerturbedOutputs({PerturbedKey("grad_cam", 0): torch.tensor([[0.3]])})
        >>> both = PerturbedOutputs.cat([first, second])
        >>> len(both), both.select([2, 0]).probabilities[PerturbedKey("grad_cam", 0)]
        (3, tensor([[0.3000],
                [0.9000]]))
    """

    probabilities: dict[PerturbedKey, Tensor] = field(default_factory=dict)
    maps: dict[PerturbedKey, Tensor] = field(default_factory=dict)
    random_maps: dict[str, Tensor] = field(default_factory=dict)
    logits: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        groups = (self.probabilities, self.maps, self.random_maps, self.logits)
        every = [rows for group in groups for rows in group.values()]
        return len(every[0]) if every else 0

    def to(self, device: torch.device | str) -> PerturbedOutputs:
        """Return the same outputs on ``device``."""
        return self._map_tensors(lambda rows: rows.to(device))

    def select(self, rows: Sequence[int]) -> PerturbedOutputs:
        """Return the outputs of the samples at ``rows``, in that order."""
        return self._map_tensors(lambda every: every[list(rows)])

    @staticmethod
    def cat(parts: Sequence[PerturbedOutputs]) -> PerturbedOutputs:
        """Join several batches with the same keys, in order."""
        first = parts[0]
        return PerturbedOutputs(
            {key: torch.cat([part.probabilities[key] for part in parts]) for key in first.probabilities},
            {key: torch.cat([part.maps[key] for part in parts]) for key in first.maps},
            {name: torch.cat([part.random_maps[name] for part in parts]) for name in first.random_maps},
            {name: torch.cat([part.logits[name] for part in parts]) for name in first.logits},
        )

    @staticmethod
    def merged(parts: Iterable[PerturbedOutputs]) -> PerturbedOutputs:
        """Join different outputs of the same samples; of two with one key the later stays."""
        merged = PerturbedOutputs()
        for outputs in parts:
            merged.probabilities.update(outputs.probabilities)
            merged.maps.update(outputs.maps)
            merged.random_maps.update(outputs.random_maps)
            merged.logits.update(outputs.logits)
        return merged

    def _map_tensors(self, change: Callable[[Tensor], Tensor]) -> PerturbedOutputs:
        """Change every tensor alike."""
        return PerturbedOutputs(
            {key: change(rows) for key, rows in self.probabilities.items()},
            {key: change(rows) for key, rows in self.maps.items()},
            {name: change(rows) for name, rows in self.random_maps.items()},
            {name: change(rows) for name, rows in self.logits.items()},
        )


def check_probabilities(name: str, values: Tensor, like: Tensor | None = None, ndim: int = 1) -> Tensor:
    """Refuse what is not a floating tensor of probabilities, and give it as float32, without its graph.

    Args:
        name: The argument, for the message.
        values: ``(N,)``, or ``(N, K)`` where ``ndim`` is 2; NaN where there is none.
        like: Another one that it must be as long as.
        ndim: How many axes it has.

    Raises:
        InputError: Naming the argument.
    """
    shape = ("(N,)", "(N, K)")[ndim - 1]
    if not isinstance(values, Tensor) or not values.is_floating_point() or values.ndim != ndim:
        came = (
            f"{values.dtype} {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        )
        raise InputError(
            f"`{name}` must be floating probabilities {shape}, one of the explained class a sample, got {came}. "
            "They come from forwards; this score cannot be taken from maps and masks."
        )
    if like is not None and len(values) != len(like):
        raise InputError(f"`{name}` must hold {len(like)} samples, as many as the others, got {len(values)}.")
    values = values.detach().to(torch.float32)
    if ((values < 0) | (values > 1)).any():
        low, high = values.nan_to_num(0).aminmax()
        raise InputError(
            f"`{name}` must be probabilities in [0, 1], got values from {low:.3g} to {high:.3g}. "
            "Give a softmax or a sigmoid of the logits."
        )
    return values


def scored(values: Tensor, defined: Tensor, blank: Tensor | None) -> PerSample:
    """Combine numbers with which samples count: those that are defined, and whose map is not blank.

    Args:
        values: ``(N, *shape)`` float32.
        defined: ``(N,)`` bool.
        blank: ``(N,)`` bool, or ``None`` where no map is.

    Raises:
        InputError: If ``blank`` is not ``(N,)`` bool.
    """
    if blank is None:
        blank = torch.zeros_like(defined)
    if not isinstance(blank, Tensor) or blank.dtype != torch.bool or blank.shape != defined.shape:
        came = f"{blank.dtype} {tuple(blank.shape)}" if isinstance(blank, Tensor) else type(blank).__name__
        raise InputError(
            f"`blank` must be bool {tuple(defined.shape)}, True where a map is blank, got {came}."
        )
    blank = blank.to(defined.device)
    return PerSample(values, defined & ~blank, blank)
