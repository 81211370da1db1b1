"""What the monitor says, once each: what it looks at, what it leaves out, and how to read an even gradient."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lightning_gcam._lightning import rank_zero_info
from lightning_gcam.cam.layers import TargetLayer
from lightning_gcam.metrics import needs_mask, resolve_scores
from lightning_gcam.record import SaliencyRecord, Scores


def announce(
    record: SaliencyRecord,
    layer: TargetLayer,
    scores: Scores,
    targets: Callable[[Tensor], Tensor] | int | str,
) -> None:
    """One line: which layer, which samples, which scores; and one where scores are left out for want of masks."""
    batch = record.batch
    labels = batch.labels
    classes = f" of {len(labels.unique())} classes" if labels is not None and labels.ndim == 1 else ""
    prefix = record.stamp.log_prefix
    rank_zero_info(
        f"SaliencyMonitor: {len(batch)} fixed samples{classes}, {', '.join(record.attribution.maps)} for "
        f"{_explained(targets)} at layer {layer}; logs {record.tag} and {prefix}/{{{', '.join(record.scores)}}}."
    )
    if batch.object_masks is None:
        left_out = [name for name, metric in resolve_scores(scores).items() if needs_mask(metric)]
        rank_zero_info(
            f"The samples have no masks or boxes, so these scores are left out: {', '.join(left_out)}. Deliver "
            "(images, labels, masks) in the validation batch, or pass `adapter=` or `batch=`, to have them."
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


def _explained(targets: Callable[[Tensor], Tensor] | int | str) -> str:
    if callable(targets):
        return "a score of your own"
    if isinstance(targets, int):
        return f"class {targets}"
    return {"label": "each sample's label", "predicted": "each sample's predicted class"}[targets]
