"""The warnings about samples, classes and maps that a reader of a look's scores needs."""

from __future__ import annotations

from collections.abc import Iterator

from lightning_gcam.callbacks.error_policy import FailurePolicy
from lightning_gcam.data.fixed_samples import FixedBatch
from lightning_gcam.data.unreadable import LABELS_TWICE
from lightning_gcam.pipeline.record import SaliencyRecord


def warn_of_unclear(failures: FailurePolicy, have_heads: bool, message: str) -> None:
    """Warn of annotation that could not be read.

    Args:
        failures: warns once.
        have_heads: whether several heads are looked at: several labels are theirs then, and nothing is unclear.
        message: about the annotation.
    """
    if not (have_heads and LABELS_TWICE in message):
        failures.warn_once("unclear annotation", message)


def reading_notes(record: SaliencyRecord, fixed: FixedBatch) -> Iterator[tuple[str, str]]:
    """The warnings about samples, classes and maps that a reader of the scores needs, each as a kind and a sentence."""
    yield from _about_samples(record, fixed)
    yield from _about_classes(record)
    for name, peaks in record.attribution.peaks.items():
        n = len(peaks)
        broken, blank = int((~peaks.isfinite()).sum()), int((peaks == 0).sum())
        if not broken and not blank:
            continue
        method, layer = record.attribution.source_of(name)
        if broken:
            yield (
                "not finite",
                f"{broken} of {n} {method} maps are not finite: the activations or gradients at "
                f'"{layer}" hold NaN or infinity. They are drawn blank and not scored. '
                "If the loss is not finite either, try a lower learning rate or a precision of wider range.",
            )
        if blank:
            # of a detector, too, a mean of the gradients over the image often speaks against the class
            is_detector = record.attribution.predicted_boxes is not None
            others = '`methods="hires_cam"`' if is_detector else "other `methods`"
            yield (
                "blank",
                f'{blank} of {n} {method} maps are blank: nothing at "{layer}" speaks for the class. They count in '
                f"{record.stamp.log_prefix}/blank_rate alone. If it stays so, try another `target_layer` or {others}.",
            )


def notes_of_parts(record: SaliencyRecord, fixed: FixedBatch) -> Iterator[tuple[str, str]]:
    """The notes of each head: a kind of their own, but for what all samples share."""
    for part in record.parts:
        head = part.stamp.head
        for kind, message in reading_notes(part, fixed):
            yield (
                (kind, message)
                if not head or kind in _OF_SAMPLES
                else (f"{kind} of {head}", f'Head "{head}": {message}')
            )


_OF_SAMPLES = ("unlabelled", "other sizes", "mixed", "few", "empty masks")

_NO_CLASSES = {
    "norm": ("an embedding, or coordinates", "its norm"),
    "error": ("a reconstruction of the image", "its mean squared error"),
    "peaks": ("heat maps", "the sum of their peaks"),
    "similarity": ("the similarity of an image to a text", "that of each sample to its own"),
    "output": ("a number of its own, whatever the labels name", "that number"),
}


def _about_classes(record: SaliencyRecord) -> Iterator[tuple[str, str]]:
    """The warning about an output that holds no classes."""
    explains = record.attribution.explains
    is_known = record.batch.no_classes or (explains == "similarity" and record.batch.labels is None)
    if explains not in _NO_CLASSES or record.subject != "score" or is_known:
        return
    kind, what = _NO_CLASSES[explains]
    yield (
        "no classes",
        f"The model seems to be no classifier: its output {tuple(record.attribution.outputs.shape)} looks like {kind}. "
        f"No class is read into it and no accuracy is logged; the maps explain {what}. If it does hold a score of each "
        'class, pass `targets="predicted"`; if it is something else, pass what is to be explained, for example:\n'
        "    targets=lambda outputs: outputs.flatten(1).amax(dim=1)",
    )


def _about_samples(record: SaliencyRecord, fixed: FixedBatch) -> Iterator[tuple[str, str]]:
    n, masks = len(record.batch), record.batch.object_masks
    if fixed.unlabelled:
        or_empty = "" if masks is None else ", or their segmentation is empty, or they have no box"
        yield (
            "unlabelled",
            f"{fixed.unlabelled} validation samples were not considered for the fixed batch: they have no label (it is "
            f"negative or NaN{or_empty}). Check them if that is not meant.",
        )
    if fixed.of_other_sizes:
        yield "other sizes", _about_sizes(record, fixed)
    if fixed.mixed:
        yield (
            "mixed",
            f"Only some of the fixed samples came with {' and '.join(fixed.mixed)}, so these are kept for none of "
            "them. Deliver them with every batch, to have the scores that need them.",
        )
    if n < fixed.num_samples:
        kind = " of one size" if fixed.of_other_sizes else ""
        yield (
            "few",
            f"The fixed batch has {n} samples, not `num_samples={fixed.num_samples}`: "
            f"the validation delivered no more{kind}{' with a label' if fixed.unlabelled else ''}. Lower it, or "
            "validate on more, if that is not meant.",
        )
    names, classes = record.stamp.class_names, max(record.attribution.logits.shape[1], 2)
    if names is not None and len(names) < classes and record.attribution.explains == "classes":
        yield (
            "class names",
            f"`class_names` holds {len(names)} names for {classes} classes; the others are shown by their number. Give "
            "one name per class.",
        )
    faults = record.batch.faults or [""] * n  # of these it was said before
    empty = 0
    if masks is not None:
        empty = sum(
            not (there or fault) for there, fault in zip(masks.flatten(1).any(dim=1), faults, strict=True)
        )
    if empty:
        yield (
            "empty masks",
            f"{empty} of {n} samples have an empty mask or no box; they are left out of the localization scores. Check "
            "the annotation if that is not meant.",
        )


def _about_sizes(record: SaliencyRecord, fixed: FixedBatch) -> str:
    """The warning about images of other sizes, with the adapter that resizes them."""
    size = record.batch.image_size
    names = "" if record.stamp.class_names is None else f", class_names={list(record.stamp.class_names)!r}"
    return (
        f"{fixed.of_other_sizes} validation samples were not considered for the fixed batch: it holds images of one "
        f"size, and theirs is another one than {' x '.join(map(str, size))}, the commonest. To choose among all of "
        "them, resize them:\n"
        "    from lightning_gcam.data import as_saliency_batch\n"
        f"    adapter=lambda batch: as_saliency_batch(batch{names}).resized({size})\n"
        "With an adapter of your own: as_saliency_batch(batch, own_adapter)."
    )
