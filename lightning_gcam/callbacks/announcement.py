"""What the monitor says, once each: what it looks at, what is left out and why, and how to read an even gradient."""

from __future__ import annotations

from collections.abc import Iterator

from lightning_gcam._lightning import rank_zero_info
from lightning_gcam.cam.layers import TargetLayer
from lightning_gcam.cam.targets import Targets
from lightning_gcam.fixed_batch import FixedBatch
from lightning_gcam.metrics import needs_mask, resolve_scores
from lightning_gcam.record import SaliencyRecord, Scores


def announce(
    record: SaliencyRecord,
    layer: TargetLayer,
    scores: Scores,
    targets: Targets,
) -> None:
    """One line: which layer, which samples, which scores; and one where scores are left out for want of masks."""
    batch = record.batch
    labels = batch.labels
    classes = f" of {len(set(labels.tolist()))} classes" if labels is not None and labels.ndim == 1 else ""
    prefix = record.stamp.log_prefix
    rank_zero_info(
        f"SaliencyMonitor: {len(batch)} fixed samples{classes}, {', '.join(record.attribution.maps)} for "
        f"{_explained(targets)} at layer {layer}; logs {record.tag} and {prefix}/{{{', '.join(record.scores)}}}."
    )
    if batch.object_masks is None:
        left_out = [name for name, metric in resolve_scores(scores).items() if needs_mask(metric)]
    else:
        left_out = []
    if left_out:
        rank_zero_info(
            f"The samples have no masks or boxes, so these scores are left out: {', '.join(left_out)}. Deliver "
            "(images, labels, masks) in the validation batch, or pass `adapter=` or `batch=`, to have them."
        )


def description(layer: TargetLayer | None, named: str | None) -> str:
    """Which layer is looked at, why, and which others would do, as a text of a few lines."""
    if layer is not None:
        return f"SaliencyMonitor looks at layer {layer.describe()}"
    if named is not None:
        return f'SaliencyMonitor looks at layer "{named}", which was named.'
    return (
        "SaliencyMonitor has no layer yet: it is found with the first batch, before the first training step. To find "
        "it now: lightning_gcam.cam.find_target_layer(model, images).describe()."
    )


def say_what_even_gradients_mean(layer: TargetLayer) -> None:
    """Why several methods give one and the same map here, and which earlier layer tells them apart."""
    earlier = (
        f' An earlier layer tells them apart: target_layer="{layer.earlier[0]}".' if layer.earlier else ""
    )
    rank_zero_info(
        f'At layer "{layer.name}" the gradients are constant over space (a global-average-pooled linear head): '
        "Grad-CAM, XGrad-CAM and HiResCAM coincide there, and guidance_cam is Grad-CAM squared: sharper, with the "
        f"same order of pixels.{earlier}"
    )


def what_is_left_out(record: SaliencyRecord, fixed: FixedBatch) -> Iterator[tuple[str, str]]:
    """What a person should know before reading the scores, each as a kind and a sentence to be said once."""
    yield from _about_samples(record, fixed)
    n = len(record.batch)
    for method, peaks in record.attribution.peaks.items():
        broken, blank = int((~peaks.isfinite()).sum()), int((peaks == 0).sum())
        if broken:
            yield (
                "not finite",
                f"{broken} of {n} {method} maps are not finite: the activations or gradients at "
                f'"{record.attribution.target_layer}" hold NaN or infinity. They are drawn blank and not scored. '
                "If the loss is not finite either, try a lower learning rate or a precision of wider range.",
            )
        if blank:
            yield (
                "blank",
                f"{blank} of {n} {method} maps are blank (nothing at "
                f'"{record.attribution.target_layer}" speaks for the class). They are counted in '
                f"{record.stamp.log_prefix}/blank_rate and left out of the other scores. If it stays so, try another "
                "`target_layer` or `method`.",
            )


def _about_samples(record: SaliencyRecord, fixed: FixedBatch) -> Iterator[tuple[str, str]]:
    n, masks = len(record.batch), record.batch.object_masks
    if fixed.skipped:
        yield (
            "skipped",
            f"{fixed.skipped} validation samples were not considered for the fixed batch: their label is negative, or "
            "their image has another size than the first one's. Check them if that is not meant.",
        )
    if fixed.mixed:
        yield (
            "mixed",
            f"Only some of the fixed samples came with {' and '.join(fixed.mixed)}, so these are kept for none of "
            "them. Deliver them with every batch, to have the scores that need them.",
        )
    if n < fixed.num_samples:
        yield (
            "few",
            f"The fixed batch has {n} samples, not `num_samples={fixed.num_samples}`: "
            "the validation delivered no more. Lower it, or validate on more, if that is not meant.",
        )
    names, classes = record.stamp.class_names, max(record.attribution.logits.shape[1], 2)
    if names is not None and len(names) < classes:
        yield (
            "class names",
            f"`class_names` holds {len(names)} names for {classes} classes; the others are shown by their number. Give "
            "one name a class.",
        )
    empty = int((~masks.flatten(1).any(dim=1)).sum()) if masks is not None else 0
    if empty:
        yield (
            "empty masks",
            f"{empty} of {n} samples have an empty mask or no box; they are left out of the localization scores. Check "
            "the annotation if that is not meant.",
        )


def _explained(targets: Targets) -> str:
    if callable(targets):
        return "a score of your own"
    if isinstance(targets, int):
        return f"class {targets}"
    return "each sample's label" if targets == "label" else "each sample's predicted class"
