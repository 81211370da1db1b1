"""`SaliencyRecord`: all that one look produced; and `record_saliency()`: from a model and a batch to a record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torchmetrics import Metric
from tqdm.auto import tqdm

from lightning_gcam import captions
from lightning_gcam._errors import InputError
from lightning_gcam.attribution import Attribution, attribute
from lightning_gcam.batch import SaliencyBatch
from lightning_gcam.cam.capture import Forward
from lightning_gcam.cam.methods import Method
from lightning_gcam.cam.reshape import Reshape
from lightning_gcam.cam.several import Fuse, TargetLayers
from lightning_gcam.cam.targets import Labels, Targets, are_measurements, predict
from lightning_gcam.metrics import needs, resolve_scores
from lightning_gcam.visual import Normalize, render_grid, shown_channels, to_display

Scores = str | Metric | Sequence[str | Metric] | Mapping[str, Metric] | None
"""Names, metrics `update(saliency, mask)`, or a mapping from names to metrics; None for the default ones."""


@dataclass(frozen=True)
class Stamp:
    """When a look was taken, and under which names it is shown.

    Args:
        step: on the x-axis of the loggers.
        epoch: of the training.
        log_prefix: what stands before the slash in every tag.
        class_names: for captions; the class's number where there is none.
        normalize: `(mean, std)` of the input normalization, undone for display.
    """

    step: int = 0
    epoch: int = 0
    log_prefix: str = "saliency"
    class_names: Sequence[str] | None = None
    normalize: Normalize | None = None


@dataclass(frozen=True)
class SaliencyRecord:
    """One look: the samples, the maps, the scores and the picture.

    Args:
        batch: the fixed samples.
        attribution: their maps, logits and targets.
        scores: plain numbers by name: `energy` for the first method, `<method>/energy` for each further one. A score
            that does not exist (no mask, every map blank) is not in it.
        stamp: when, and under which names.
    """

    batch: SaliencyBatch
    attribution: Attribution
    scores: dict[str, float]
    stamp: Stamp = field(default_factory=Stamp)

    @property
    def step(self) -> int:
        """The step on the loggers' x-axis."""
        return self.stamp.step

    @property
    def epoch(self) -> int:
        """The epoch of the training."""
        return self.stamp.epoch

    @property
    def tag(self) -> str:
        """The tag of the overlay: the same at every look."""
        return f"{self.stamp.log_prefix}/overlay"

    @property
    def metrics(self) -> dict[str, float]:
        """The scores under the names they are logged by."""
        return {f"{self.stamp.log_prefix}/{name}": value for name, value in self.scores.items()}

    @property
    def row(self) -> dict[str, float]:
        """Step, epoch and every score, as plain numbers: one line of a history."""
        return {"step": self.step, "epoch": self.epoch, **self.scores}

    @property
    def predictions(self) -> Tensor:
        """The predicted class of each sample, `(N,)`."""
        return predict(self.attribution.logits)

    @property
    def probabilities(self) -> Tensor:
        """The predicted class's probability, `(N,)`: softmax, or sigmoid for one logit and for multi-hot labels."""
        return captions.probabilities(self.batch, self.attribution.logits)

    @property
    def correct(self) -> list[bool | None]:
        """Whether each prediction is right; None where there is no label, or the output is not of classes."""
        return captions.correct(self.batch, self.attribution, self.stamp.class_names)

    @property
    def captions(self) -> list[str]:
        """One line a sample: true and predicted class with its probability, true and predicted value, or the score."""
        return captions.captions(self.batch, self.attribution, self.stamp.class_names)

    @cached_property
    def overlay(self) -> npt.NDArray[np.uint8]:
        """The picture `(height, width, 3)` uint8: a row a sample, the image with its mask, a heatmap a method."""
        maps = self.attribution.maps
        return render_grid(
            to_display(self.batch.images, self.stamp.normalize),
            maps,
            captions=self.captions,
            correct=self.correct,
            headings=[_heading(name) for name in maps],
            notes={name: [_peak_note(peak) for peak in peaks.tolist()] for name, peaks in self._peaks()},
            masks=self.batch.masks,
            boxes=self.batch.boxes,
            suspect=self.batch.suspect,
            title=self._title(),
        )

    def _peaks(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.attribution.peaks.items()

    def _title(self) -> str:
        channels = shown_channels(self.batch.images.shape[1])
        words = [
            f"step {self.step}",
            f"epoch {self.epoch}",
            self.attribution.target_layer,
            captions.explained(self.batch, self.attribution, self.stamp.class_names),
            channels,
        ]
        return " · ".join(word for word in words if word)


def _heading(name: str) -> str:
    """A map's name above its column: "grad cam · layer2_1" for "grad_cam@layer2_1"."""
    method, at, layer = name.partition("@")
    return method.replace("_", " ") + (f" · {layer}" if at else "")


def _peak_note(peak: float) -> str:
    return f"peak {peak:.2g}" if np.isfinite(peak) else "not finite"


def record_saliency(
    model: nn.Module,
    batch: SaliencyBatch,
    *,
    methods: str | Method | Sequence[str | Method] = "guidance_cam",
    target_layer: TargetLayers | None = None,
    targets: Targets = "label",
    scores: Scores = None,
    reshape_transform: Reshape | None = None,
    forward: Forward | None = None,
    chunk_size: int | None = None,
    stamp: Stamp | None = None,
    fuse: Fuse | None = None,
) -> SaliencyRecord:
    """Look once: compute the maps of a batch and score them.

    Args:
        model: any `nn.Module`; it is left exactly as it was.
        batch: the samples, on the model's device.
        methods: as in `attribute`.
        target_layer: as in `attribute`.
        targets: "label" for each sample's label (float labels of a single output that are not all 0 or 1 explain the
            output itself; without labels the predicted class is explained, as None does in `attribute`), or as in
            `attribute`. Logits at every position are summed over the object's mask or boxes.
        scores: names, metrics, or a mapping from names to metrics; None for those that are on by default.
        reshape_transform: as in `attribute`.
        forward: as in `attribute`.
        chunk_size: how many samples to run at once; all where it is left out.
        stamp: when the look was taken, and under which names it is shown.
        fuse: as in `attribute`.

    Returns:
        A `SaliencyRecord`.

    Raises:
        InputError: naming the argument, what came, and what to do.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> masks = torch.zeros(2, 8, 8, dtype=torch.bool)
        >>> masks[:, :4] = True
        >>> batch = SaliencyBatch(torch.rand(2, 1, 8, 8), labels=torch.tensor([0, 1]), masks=masks)
        >>> record = record_saliency(model, batch)
        >>> sorted(record.scores)[:2]
        ['blank_rate', 'energy']
    """
    with torch.inference_mode(False):
        attribution, _ = attribute_in_chunks(
            model,
            batch,
            targets,
            chunk_size=chunk_size,
            methods=methods,
            target_layer=target_layer,
            reshape_transform=reshape_transform,
            forward=forward,
            fuse=fuse,
        )
        return SaliencyRecord(batch, attribution, score_maps(attribution, batch, scores), stamp or Stamp())


def attribute_in_chunks(
    model: nn.Module,
    batch: SaliencyBatch,
    targets: Targets = "label",
    *,
    chunk_size: int | None = None,
    **options: Any,
) -> tuple[Attribution, int]:
    """Attribute a batch piece by piece; where memory runs out, go on with pieces half as large.

    Args:
        model: any `nn.Module`.
        batch: the samples, on the model's device.
        targets: as in `record_saliency`.
        chunk_size: how many samples to run at once; all where it is left out.
        options: the further arguments of `attribute`.

    Returns:
        The attribution of the whole batch, and the size of the pieces that went through.

    Raises:
        InputError: where the number of targets is not the number of samples.
        RuntimeError: where memory does not suffice for a single sample.
    """
    if isinstance(targets, str) and targets == "label":
        targets = labels_of(batch)
    masks = batch.object_masks
    size, parts, done = chunk_size or len(batch), [], 0
    with tqdm(
        total=len(batch), desc="saliency", delay=2, leave=False, disable=size >= len(batch)
    ) as progress:
        while done < len(batch):
            piece = slice(done, done + size)
            inputs = {
                "images": batch.images[piece],
                "targets": _piece(targets, piece, len(batch)),
                "masks": masks[piece] if masks is not None else None,
            }
            part = _attribute_or_none(model, size, {**inputs, **options})
            if part is None:
                size = max(size // 2, 1)
                continue
            parts.append(part)
            done += len(part)
            progress.update(len(part))
    return Attribution.cat(parts), size


def labels_of(batch: SaliencyBatch, whole: SaliencyBatch | None = None) -> Labels | None:
    """A batch's labels as targets; None where there are none.

    Args:
        batch: the samples.
        whole: the batch that they are a part of: whether labels name classes or measure something is seen in all.
    """
    if batch.labels is None:
        return None
    all_labels = whole.labels if whole is not None and whole.labels is not None else batch.labels
    return Labels(batch.labels, are_measurements(all_labels))


def _attribute_or_none(model: nn.Module, size: int, options: dict[str, Any]) -> Attribution | None:
    """The attribution, or None where memory ran out and a smaller piece may still go through.

    The caller goes on outside of the `except` block: inside it, the traceback would keep the memory alive.
    """
    try:
        return attribute(model, **options)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if size == 1 or not is_out_of_memory(error):
            raise
        return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; the CPU allocator says so in a plain RuntimeError, in other words on each system."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    said = ("not enough memory", "can't allocate memory", "out of memory")
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in said)


def _piece(targets: Targets, piece: slice, n: int) -> Targets:
    """The targets' share of a piece of the batch."""
    if targets is None or isinstance(targets, (str, int)) or callable(targets):
        return targets
    given = targets if isinstance(targets, Labels) else Labels.of(torch.as_tensor(targets))
    if len(given) != n:
        raise InputError(f"`targets` must hold {n} classes, one a sample; got {len(given)}.")
    return given[piece]


def scores_of_a_look(scores: Scores) -> dict[str, Metric]:
    """The metrics that were asked for, by name; one that takes more than the maps and a region is refused.

    Raises:
        InputError: naming the score and what it needs.

    Example:
        >>> list(scores_of_a_look(["iou", "gini"]))
        ['iou', 'gini']
    """
    metrics = resolve_scores(scores)
    for name, metric in metrics.items():
        if beyond := needs(metric) - {"mask", "suspect"}:
            raise InputError(
                f'`scores` "{name}" needs {" and ".join(sorted(beyond))}, which a look does not compute. Leave it '
                "out, and compute it by itself from `monitor.last_record` (see docs/scores.md)."
            )
    return metrics


def score_maps(
    attribution: Attribution,
    batch: SaliencyBatch,
    scores: Scores = None,
    on_failure: Callable[[str, Exception], None] | None = None,
) -> dict[str, float]:
    """Every score of every method that exists, as plain numbers.

    Args:
        attribution: the maps.
        batch: the samples they belong to.
        scores: names, metrics, or a mapping from names to metrics; None for those that are on by default.
        on_failure: told the name and the error of a score that raises, which is then left out; it raises where this
            is left out.

    Returns:
        `{name: value}` for the first method, `{method/name: value}` for each further one.
    """
    masks, suspect = batch.object_masks, batch.suspect
    if suspect is not None:
        suspect = suspect.expand(len(batch), -1, -1)
    found: dict[str, float] = {}
    for index, (method, maps) in enumerate(attribution.maps.items()):
        for name, metric in scores_of_a_look(scores).items():
            region = suspect if "suspect" in needs(metric) else masks
            if region is None and needs(metric):
                continue
            try:
                value = _value(metric, maps, region)
            except Exception as error:
                if on_failure is None:
                    raise
                on_failure(name, error)
                continue
            if np.isfinite(value):
                found[name if index == 0 else f"{method}/{name}"] = value
    return found


def _value(metric: Metric, maps: Tensor, region: Tensor | None) -> float:
    metric._to_sync = False  # every process scores the same maps; torchmetrics would add them up
    metric.update(maps, region)
    return float(metric.compute())
