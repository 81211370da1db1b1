"""`SaliencyRecord` and `record_saliency`: from a model and a batch to scores, words and a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_gcam import Attribution, SaliencyBatch, SaliencyMonitor, SaliencyRecord, attribute
from lightning_gcam.metrics import EnergyPointingGame, PointingGame
from lightning_gcam.pipeline.attribution import attribute_in_chunks
from lightning_gcam.pipeline.record import Stamp
from lightning_gcam.pipeline.run import record_saliency
from lightning_gcam.pipeline.scoring import score_maps
from lightning_gcam.utils.errors import InputError
from tests.support.toys import toy_network, toy_samples

LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [1.0, 1.0, 5.0]])


def record_of(
    labels: Tensor | None, logits: Tensor = LOGITS, stamp: Stamp | None = None, **fields: Any
) -> SaliencyRecord:
    """A record whose maps are all zero: for the words."""
    n = len(logits)
    batch = SaliencyBatch(torch.rand(n, 1, 8, 8), labels, **fields)
    maps, peaks = {"grad_cam": torch.zeros(n, 8, 8)}, {"grad_cam": torch.zeros(n)}
    targets = labels if labels is not None else logits.argmax(dim=1)
    return SaliencyRecord(
        batch, Attribution(maps, logits, targets, "features.3", peaks, False), {}, stamp or Stamp()
    )


# ------------------------------------------------------------------------------------------------ the words


def test_a_caption_is_true_class_predicted_class_and_probability() -> None:
    # softmax of (2, 0, 0): e^2 / (e^2 + 2) = 0.787; (0, 3, 0): 0.909; (1, 1, 5): 0.965
    record = record_of(torch.tensor([0, 2, 2]))

    assert record.captions == [
        "true 0 · predicted 0 (0.79)",
        "true 2 · predicted 1 (0.91)",
        "true 2 · predicted 2 (0.96)",
    ]
    assert record.correct == [True, False, True]
    assert record.predictions.tolist() == [0, 1, 2]
    assert record.probabilities.tolist() == pytest.approx([0.7870, 0.9094, 0.9647], abs=1e-4)


def test_class_names_and_sample_names() -> None:
    stamp = Stamp(class_names=["cat", "dog"])
    record = record_of(torch.tensor([0, 1, 2]), stamp=stamp, names=["a.png", "b.png", "c.png"])

    assert record.captions == [
        "a.png · true cat · predicted cat (0.79)",
        "b.png · true dog · predicted dog (0.91)",
        "c.png · true 2 · predicted 2 (0.96)",  # no name for it
    ]


def test_without_labels_nothing_is_right_or_wrong() -> None:
    record = record_of(None)

    assert record.captions[0] == "predicted 0 (0.79)"
    assert record.correct == [None, None, None]


def test_a_negative_label_is_none() -> None:
    record = record_of(torch.tensor([0, -1, 0]))

    assert record.captions[1] == "predicted 1 (0.91)"
    assert record.correct == [True, None, False]


def test_multi_hot_labels_are_judged_by_sigmoid() -> None:
    # sigmoid(2) = 0.881, sigmoid(3) = 0.953, sigmoid(5) = 0.993
    record = record_of(torch.tensor([[1, 0, 1], [1, 0, 0], [0, 0, 0]]))

    assert record.captions == [
        "true 0, 2 · predicted 0 (0.88)",
        "true 0 · predicted 1 (0.95)",
        "true none · predicted 2 (0.99), 0 (0.73), 1 (0.73)",
    ]
    assert record.correct == [False, False, False]  # of the first, a class was missed


def test_a_single_logit_stands_for_two_classes() -> None:
    record = record_of(torch.tensor([1, 1]), logits=torch.tensor([[2.0], [-1.0]]))

    assert record.captions == ["true 1 · predicted 1 (0.88)", "true 1 · predicted 0 (0.73)"]
    assert record.correct == [True, False]


def test_probabilities_of_half_precision_logits_are_float32() -> None:
    assert record_of(None, logits=LOGITS.half()).probabilities.dtype == torch.float32


def test_names_and_row() -> None:
    record = replace(
        record_of(None, stamp=Stamp(step=7, epoch=2, log_prefix="where")),
        scores={"energy": 0.5, "grad_cam/energy": 0.25},
    )

    assert (record.step, record.epoch, record.tag) == (7, 2, "where/overlay")
    assert record.metrics == {"where/energy": 0.5, "where/grad_cam/energy": 0.25}
    assert record.row == {"step": 7, "epoch": 2, "energy": 0.5, "grad_cam/energy": 0.25}


# ---------------------------------------------------------------------------------------------- the picture


def test_the_overlay_is_one_picture_drawn_once() -> None:
    record = record_saliency(toy_network(), SaliencyBatch(*toy_samples(4)))

    assert record.overlay.dtype == np.uint8
    assert record.overlay.ndim == 3
    assert record.overlay.shape[2] == 3
    assert record.overlay is record.overlay


def test_the_overlay_shows_masks_boxes_and_a_further_method() -> None:
    images, labels, masks = toy_samples(4)
    boxes = [torch.tensor([[1.0, 1.0, 7.0, 7.0]])] * 4
    network = toy_network()
    plain = record_saliency(network, SaliencyBatch(images, labels)).overlay
    masked = record_saliency(network, SaliencyBatch(images, labels, masks)).overlay
    boxed = record_saliency(network, SaliencyBatch(images, labels, boxes=boxes)).overlay
    two = record_saliency(network, SaliencyBatch(images, labels), methods=["grad_cam", "layer_cam"]).overlay

    assert not np.array_equal(plain, masked)
    assert not np.array_equal(plain, boxed)
    assert two.shape[1] > plain.shape[1] or two.shape[0] > plain.shape[0]


def test_normalization_is_undone_for_display() -> None:
    images, labels, masks = toy_samples(4)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    record = record_saliency(network, SaliencyBatch(images.clamp(0, 1), labels, masks))
    batch = replace(record.batch, images=(record.batch.images - 0.3) / 0.2)

    normalized = replace(record, batch=batch, stamp=Stamp(normalize=(0.3, 0.2)))

    assert np.abs(normalized.overlay.astype(int) - record.overlay.astype(int)).max() <= 2


# ------------------------------------------------------------------------------------------- record_saliency


def test_the_labels_are_what_is_explained() -> None:
    images, labels, _ = toy_samples(4)
    network = toy_network()

    record = record_saliency(network, SaliencyBatch(images, labels))
    direct = attribute(network, images, labels)

    assert torch.equal(record.attribution.targets, labels)
    assert torch.equal(record.attribution.maps["guidance_cam"], direct.maps["guidance_cam"])


@pytest.mark.parametrize(
    ("targets", "expected"),
    [(2, [2, 2, 2, 2]), ([3, 2, 1, 0], [3, 2, 1, 0]), (torch.tensor([0, 0, 1, 1]), [0, 0, 1, 1])],
)
def test_other_targets(targets: Any, expected: list[int]) -> None:
    record = record_saliency(toy_network(), SaliencyBatch(*toy_samples(4)), targets=targets)

    assert record.attribution.targets.tolist() == expected


def test_the_first_method_has_the_short_names() -> None:
    batch = SaliencyBatch(*toy_samples(4))
    network = toy_network()

    methods = ["grad_cam", "layer_cam"]
    both = record_saliency(network, batch, methods=methods, scores=["energy", "iou"], checks=[])
    other = record_saliency(network, batch, methods="layer_cam", scores=["energy", "iou"])

    assert list(both.scores) == [
        "energy",
        "energy_chance",
        "iou",
        "layer_cam/energy",
        "layer_cam/energy_chance",
        "layer_cam/iou",
        "centre/energy",
        "centre/iou",
    ]
    assert both.scores["layer_cam/energy"] == other.scores["energy"]
    assert all(type(value) is float for value in both.scores.values())


def test_scores_agree_with_the_metrics_themselves() -> None:
    batch = SaliencyBatch(*toy_samples(8))
    record = record_saliency(toy_network(), batch)
    maps = record.attribution.maps["guidance_cam"]

    for name, metric in [("energy", EnergyPointingGame()), ("pointing_game", PointingGame())]:
        metric.update(maps, batch.masks)
        assert record.scores[name] == float(metric.compute())
    assert record.scores["energy_chance"] == pytest.approx(36 / 256)


def test_metrics_of_the_callers_are_not_updated() -> None:
    metric = PointingGame(tolerance=3)

    batch = SaliencyBatch(*toy_samples(4))
    record = record_saliency(toy_network(), batch, scores={"near": metric}, checks=[])

    assert list(record.scores) == ["near", "centre/near"]
    assert metric.n == 0


def test_boxes_score_as_their_masks_do() -> None:
    images, labels, masks = toy_samples(4)
    boxes = [
        torch.tensor([[x, y, x + 6.0, y + 6.0]]) for x, y in [(1.0, 1.0), (9.0, 1.0), (1.0, 9.0), (9.0, 9.0)]
    ]
    network = toy_network()

    by_boxes = record_saliency(network, SaliencyBatch(images, labels, boxes=boxes))

    assert by_boxes.scores == record_saliency(network, SaliencyBatch(images, labels, masks)).scores


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_a_score_that_does_not_exist_is_not_there() -> None:
    dead = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)
    )
    nn.init.zeros_(dead[4].weight)
    blank = record_saliency(dead, SaliencyBatch(*toy_samples(4)), checks=[])
    unannotated = record_saliency(toy_network(), SaliencyBatch(*toy_samples(4)[:2]), checks=[])

    assert {name: each for name, each in blank.scores.items() if "/" not in name} == {"blank_rate": 1.0}
    assert unannotated.scores == {"blank_rate": 0.0}


@pytest.mark.parametrize("chunk_size", [1, 3, 5, 100])
def test_pieces_give_the_same_result(chunk_size: int) -> None:
    batch = SaliencyBatch(*toy_samples(10))
    network = toy_network()

    whole = record_saliency(network, batch, methods=["guidance_cam", "layer_cam"])
    pieces = record_saliency(network, batch, methods=["guidance_cam", "layer_cam"], chunk_size=chunk_size)

    assert torch.equal(whole.attribution.targets, pieces.attribution.targets)
    for name in whole.attribution.maps:
        torch.testing.assert_close(whole.attribution.maps[name], pieces.attribution.maps[name])
        torch.testing.assert_close(whole.attribution.peaks[name], pieces.attribution.peaks[name])
    assert pieces.scores == pytest.approx(whole.scores, abs=1e-6)


class _Narrow(nn.Module):
    """Runs out of memory for more than two samples."""

    def __init__(self, note: Callable[[int], None]) -> None:
        super().__init__()
        self.network, self.note = toy_network(), note

    def forward(self, images: Tensor) -> Tensor:
        self.note(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.network(images)


def test_pieces_become_smaller_where_memory_runs_out() -> None:
    sizes: list[int] = []  # not in the module: a look puts a module's own notes back
    narrow = _Narrow(sizes.append)
    batch = SaliencyBatch(*toy_samples(9))

    attribution, size = attribute_in_chunks(narrow, batch, target_layer="network.5")

    assert size == 2
    assert [size for size in sizes if size != 5] == [9, 4, 2, 2, 2, 2, 1]
    assert sizes.count(5) == 1  # how the layer lies would be seen with five images: that is tried once
    expected = attribute(narrow.network, batch.images, batch.labels, target_layer="5")
    torch.testing.assert_close(attribution.maps["guidance_cam"], expected.maps["guidance_cam"])


def test_a_single_sample_that_does_not_fit_is_an_error() -> None:
    def refuse(model: nn.Module, images: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        attribute_in_chunks(toy_network(), SaliencyBatch(*toy_samples(3)), forward=refuse, target_layer="5")


def test_another_error_is_not_taken_for_a_lack_of_memory() -> None:
    sizes: list[int] = []

    def broken(model: nn.Module, images: Tensor) -> Tensor:
        sizes.append(len(images))
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(InputError, match="`forward` failed on .*shapes cannot be multiplied"):
        attribute_in_chunks(toy_network(), SaliencyBatch(*toy_samples(3)), forward=broken, target_layer="5")
    assert sizes == [3]


def test_a_wrong_number_of_targets_is_refused() -> None:
    with pytest.raises(InputError, match="`targets` must hold 4 classes, one per sample; got 3"):
        record_saliency(toy_network(), SaliencyBatch(*toy_samples(4)), targets=[0, 1, 2])


def test_unlabelled_samples_among_labelled_ones_are_explained_by_their_prediction() -> None:
    images, labels, masks = toy_samples(4)
    labels[1] = -1

    record = record_saliency(toy_network(), SaliencyBatch(images, labels, masks))

    assert record.attribution.targets.tolist() == [0, int(record.predictions[1]), 2, 3]


def test_the_model_is_left_as_it_was() -> None:
    network = toy_network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()

    record_saliency(network, SaliencyBatch(*toy_samples(4)))

    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(each.training for each in network.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_it_works_under_inference_mode() -> None:
    network = toy_network()
    with torch.inference_mode():
        batch = SaliencyBatch(*(each.clone() for each in toy_samples(4)))
        inside = record_saliency(network, batch)

    assert inside.scores == record_saliency(network, SaliencyBatch(*toy_samples(4))).scores


def test_a_suspect_region_is_scored_by_itself_and_not_by_the_object() -> None:
    maps = torch.zeros(2, 4, 4)
    maps[:, 0] = 1
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[:, 3] = True
    suspect = torch.zeros(4, 4, dtype=torch.bool)
    suspect[0] = True
    attribution = Attribution(
        {"mine": maps}, torch.zeros(2, 2), None, "layer", {"mine": torch.ones(2)}, False
    )
    images = torch.rand(2, 1, 4, 4)
    both = SaliencyBatch(images, masks=masks, suspect=suspect)
    found = score_maps(attribution, both, ["suspect_lift", "object_lift"]).values
    assert (found["suspect_lift"], found["object_lift"]) == (4, 0)
    assert score_maps(attribution, SaliencyBatch(images, masks=masks), ["suspect_lift"]).values == {}


def test_a_score_that_a_look_cannot_compute_is_refused_at_the_door() -> None:
    class Clairvoyant(PointingGame):
        requires = frozenset({"mask", "future"})

    class Mute(PointingGame):
        requires = frozenset({"forwards"})

    with pytest.raises(
        InputError, match='`scores` "clairvoyant" needs future, which a look does not compute'
    ):
        SaliencyMonitor(scores=["energy", Clairvoyant()])
    with pytest.raises(InputError, match="needs answers of the model, but has no `perturbation`"):
        SaliencyMonitor(final_scores=[Mute()])
