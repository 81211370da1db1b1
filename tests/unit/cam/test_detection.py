"""Detectors: the score of each class, the layer, where the maps lie; on torchvision's own, with few channels."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from lightning_gcam import SaliencyBatch, attribute
from lightning_gcam.cam import find_target_layer
from lightning_gcam.cam.calling import covered_size, forward_at
from lightning_gcam.cam.detection import (
    _KNOWN,
    DetectionForward,
    every_detection,
    is_of_detections,
    log_odds,
    predicted_boxes,
    with_detection,
)
from lightning_gcam.cam.forward import logits_of
from lightning_gcam.pipeline.run import record_saliency
from tests.support.detectors import (
    DETECTORS,
    SIDE,
    Squares,
    small_faster_rcnn,
    small_mask_rcnn,
    small_retinanet,
)

LEFT, RIGHT, BELOW = [0.0, 0, 10, 10], [20.0, 0, 30, 10], [0.0, 20, 10, 30]


class Found(nn.Module):
    """Returns the same detections for every image: boxes, labels, and scores that are a parameter."""

    def __init__(self, *detections: tuple[list[float], int, float]) -> None:
        super().__init__()
        boxes, labels, scores = zip(*detections, strict=True) if detections else ([], [], [])
        self.boxes, self.labels = torch.tensor(boxes).reshape(-1, 4), torch.tensor(labels).long()
        self.scores = nn.Parameter(torch.tensor(scores))

    def forward(self, images: Any) -> list[dict[str, Tensor]]:
        found = {"boxes": self.boxes, "labels": self.labels, "scores": self.scores * 1}
        return [found] * len(images)


def scores(model: nn.Module, **options: Any) -> list[float]:
    found = DetectionForward(None, 4, **options)(model, torch.zeros(1, 3, 32, 32))
    return [round(each, 3) for each in found[0].tolist()]


THREE = Found((LEFT, 1, 0.6), (RIGHT, 1, 0.8), (BELOW, 2, 0.3), (LEFT, 2, 0.1))


# ------------------------------------------------------------------------------------------ the scores of classes


def test_it_is_that_of_the_best_detection_and_zero_where_there_is_none() -> None:
    assert scores(THREE) == [0.0, 0.8, 0.3, 0.0]


def test_of_the_target_class_only_what_matches_a_target_box_counts() -> None:
    target = {"boxes": [torch.tensor([LEFT])], "labels": torch.tensor([1])}
    assert scores(THREE, **target) == [0.0, 0.6, 0.3, 0.0]
    assert scores(THREE, boxes=target["boxes"], labels=torch.tensor([2])) == [0.0, 0.8, 0.1, 0.0]


@pytest.mark.parametrize(("right", "score"), [(20.0, 0.6), (20.1, 0.8)])
def test_a_match_has_an_intersection_over_union_of_a_half(right: float, score: float) -> None:
    boxes = [torch.tensor([[0.0, 0, right, 10]])]
    assert scores(THREE, boxes=boxes, labels=torch.tensor([1]))[1] == score


def test_of_several_target_boxes_it_is_the_mean_log_odds_of_the_found_ones() -> None:
    boxes = [torch.tensor([LEFT, RIGHT, BELOW])]  # nothing of class 1 is below
    expected = (log_odds(torch.tensor(0.6)) + log_odds(torch.tensor(0.8))) / 2
    found = scores(THREE, boxes=boxes, labels=torch.tensor([1]))[1]
    assert found == pytest.approx(float(expected.sigmoid()), abs=1e-3)


@pytest.mark.parametrize("boxes", [torch.tensor([[20.0, 20, 30, 30]]), torch.zeros(0, 4)])
def test_without_a_match_it_is_the_best_of_the_class(boxes: Tensor) -> None:
    assert scores(THREE, boxes=[boxes], labels=torch.tensor([1])) == [0.0, 0.8, 0.3, 0.0]


def test_the_background_has_one_half_so_that_the_prediction_is_what_was_found() -> None:
    assert scores(THREE, has_background=True) == [0.5, 0.8, 0.3, 0.0]


def test_the_gradient_is_that_of_the_log_odds_of_the_explained_detection() -> None:
    model = Found((LEFT, 1, 0.6), (RIGHT, 1, 0.8))
    forward = DetectionForward(None, 2, [torch.tensor([LEFT])], torch.tensor([1]))
    (gradient,) = torch.autograd.grad(forward(model, torch.zeros(1, 3, 32, 32)).logit()[0, 1], model.scores)
    assert gradient.tolist() == pytest.approx([1 / (0.6 * 0.4), 0.0], rel=1e-4)


def test_what_has_no_detection_is_in_the_graph_with_a_gradient_of_zero() -> None:
    model = Found((LEFT, 1, 0.6))
    found = DetectionForward(None, 3)(model, torch.zeros(1, 3, 32, 32))
    (gradient,) = torch.autograd.grad(found[0, 2], model.scores)
    assert gradient.tolist() == [0.0]


def test_rows_take_their_boxes_along() -> None:
    boxes = [torch.tensor([each]) for each in (LEFT, RIGHT, LEFT)]
    forward = DetectionForward(None, 2, boxes, torch.tensor([1, 1, 0]))
    images = torch.zeros(2, 3, 32, 32)
    assert [round(each, 2) for each in forward_at(forward, [1, 0])(THREE, images)[:, 1].tolist()] == [
        0.8,
        0.6,
    ]
    assert [round(each, 2) for each in forward_at(forward, slice(0, 2))(THREE, images)[:, 1].tolist()] == [
        0.6,
        0.8,
    ]
    rows = torch.tensor([2, 0])
    assert [round(each, 2) for each in forward_at(forward, rows)(THREE, images)[:, 1].tolist()] == [0.8, 0.6]


def test_images_of_other_samples_match_no_box() -> None:
    forward = DetectionForward(None, 2, [torch.tensor([LEFT])], torch.tensor([1]))
    assert forward(THREE, torch.zeros(5, 3, 32, 32))[:, 1].tolist() == pytest.approx([0.8] * 5)


def test_the_predicted_boxes_are_those_above_a_half_or_the_best() -> None:
    model, images = (
        Found((LEFT, 1, 0.6), (RIGHT, 1, 0.8), (BELOW, 1, 0.4), (BELOW, 2, 0.1)),
        torch.zeros(1, 3, 32, 32),
    )
    forward = DetectionForward(None, 4)
    for classes, expected in (([1], [RIGHT, LEFT]), ([2], [BELOW]), ([3], [])):
        found = predicted_boxes(model, images, forward, torch.tensor(classes))
        assert found.shape == (1, 8, 4)
        assert found[found.isfinite().all(dim=2)].tolist() == expected
    marked = predicted_boxes(model, images, forward, torch.tensor([[0, 1, 1, 0]]))
    assert marked[0, :2].tolist() == [RIGHT, LEFT]
    beyond = predicted_boxes(
        Found((LEFT, 1, 0.6), (RIGHT, 5, 0.8)), images, forward, torch.tensor([[0, 1, 0, 1]])
    )
    assert beyond[0, :1].tolist() == [LEFT] and beyond[0, 1:].isnan().all(), "class 5 is not the last of four"
    assert predicted_boxes(model, images, None, torch.tensor([1])) is None


# ------------------------------------------------------------------------------------------ torchvision's detectors


@pytest.fixture(scope="module")
def batch() -> SaliencyBatch:
    data = Squares(4)
    return SaliencyBatch(data.images, data.labels, boxes=[each[None] for each in data.boxes])


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    return DETECTORS[name]()


def thresholds(model: nn.Module) -> list[Any]:
    return [
        (each.score_thresh, each.detections_per_img, "has_mask" in vars(each))
        for each in model.modules()
        if hasattr(each, "detections_per_img")
    ]


@pytest.mark.parametrize("name", DETECTORS)
def test_each_is_explained_before_any_training_and_left_as_it_was(name: str, batch: SaliencyBatch) -> None:
    model = made(name).train()
    before = thresholds(model), {key: each.clone() for key, each in model.state_dict().items()}
    found = attribute(model, batch, "label", methods="hires_cam")
    assert found.target_layer == "backbone.fine"
    assert found.logits.shape == (4, 3) and found.squash == "sigmoid"
    assert (found.outputs[:, 0] == 0.5).all() and (found.outputs[:, 1:] > 1e-3).all()
    assert (found.peaks["hires_cam"] > 0).any()
    assert found.predicted_boxes[:, 0].isfinite().all()
    assert thresholds(model) == before[0] and model.training
    assert all(torch.equal(each, before[1][key]) for key, each in model.state_dict().items())


@pytest.mark.parametrize("name", DETECTORS)
def test_a_batch_equals_its_samples_one_by_one(name: str, batch: SaliencyBatch) -> None:
    model = made(name)
    together = attribute(model, batch, "label", methods="hires_cam")
    for row in range(2):
        alone = attribute(model, batch.select([row]), "label", methods="hires_cam")
        assert torch.allclose(alone.logits[0, 1:], together.logits[row, 1:], atol=1e-4)
        assert torch.allclose(alone.maps["hires_cam"][0], together.maps["hires_cam"][row], atol=1e-2)


@pytest.mark.parametrize("name", ["RetinaNet", "Faster R-CNN"])
def test_thresholds_are_back_after_an_exception(name: str) -> None:
    model = made(name)
    before = thresholds(model)
    inside = []
    with pytest.raises(KeyError, match="inside"), every_detection(model):
        inside.append(thresholds(model)) or {}["inside"]
    assert inside != [before] and thresholds(model) == before


def test_masks_are_not_computed(batch: SaliencyBatch) -> None:
    model = small_mask_rcnn().eval()
    calls = []
    model.roi_heads.mask_head.register_forward_hook(lambda *_: calls.append(1))
    forward = DetectionForward(None, 3)
    assert "masks" not in forward.detections(model, batch.images)[0] and not calls
    assert "masks" in model(list(batch.images))[0]


def test_the_number_of_classes_is_that_of_the_head(batch: SaliencyBatch) -> None:
    for name, make in DETECTORS.items():
        forward = with_detection(make(num_classes=7), batch.images, None)
        assert isinstance(forward, DetectionForward) and forward.num_classes == 7, name


def test_labels_from_zero_leave_no_background(batch: SaliencyBatch) -> None:
    model = small_retinanet()
    from_one = with_detection(model, batch.images, None, batch.boxes, torch.tensor([1, 2, 1, 2]))
    from_zero = with_detection(model, batch.images, None, batch.boxes, torch.tensor([0, 2, 1, 2]))
    assert from_one.has_background and not from_zero.has_background
    again = with_detection(model, batch.images, None, batch.boxes, torch.tensor([1, 2, 1, 2]))
    assert not again.has_background, "what class 0 is does not depend on the labels of one batch"


def test_another_detector_that_finds_class_zero_has_no_background() -> None:
    for zero, expected in ((0, [0.3, 0.8]), (1, [0.5, 0.8])):
        model = Found((LEFT, zero, 0.3), (RIGHT, 1, 0.8))
        forward = with_detection(
            model, torch.zeros(2, 3, 32, 32), None, None, torch.tensor([1, 1]), at_once=True
        )
        assert forward(model, torch.zeros(1, 3, 32, 32))[0].tolist() == pytest.approx(expected, abs=1e-4)


def test_the_classes_of_another_detector_stay_as_many() -> None:
    model, images = Found((LEFT, 1, 0.6)), torch.zeros(2, 3, 32, 32)
    found = [
        with_detection(model, images, None, None, torch.tensor(labels), at_once=True).num_classes
        for labels in ([1, 1], [1, 4], [1, 2])
    ]
    assert found == [2, 5, 5]


def test_a_wrapped_detector_is_explained_and_random_weights_too(batch: SaliencyBatch) -> None:
    record = record_saliency(small_retinanet(), batch, scores=["random_model_similarity"], checks=[])
    assert "random_model_similarity" in record.scores


@pytest.mark.parametrize("method", ["ablation_cam", "score_cam", "full_grad", "cameras"])
def test_methods_that_run_the_model_again(method: str, batch: SaliencyBatch) -> None:
    found = attribute(small_retinanet(), batch.select([0, 1]), "label", methods=method)
    assert found.maps[method].shape == (2, 48, 64) and found.peaks[method].isfinite().all()


def test_causal_checks_run_on_the_same_scores(batch: SaliencyBatch) -> None:
    record = record_saliency(
        small_faster_rcnn(), batch, checks=["salient_flips", "color"], scores=["insertion"]
    )
    assert {"accuracy", "salient_flips", "color_follow_rate", "insertion"} <= record.scores.keys()


# ------------------------------------------------------------------------------------------ the layer


@pytest.fixture(scope="module")
def pyramid() -> nn.Module:
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    return RetinaNet(backbone, 3, min_size=SIDE, max_size=2 * SIDE)


def test_it_is_the_last_that_all_feature_levels_are_computed_from(
    pyramid: nn.Module, batch: SaliencyBatch
) -> None:
    found = find_target_layer(pyramid, batch.images)
    assert found.name == "backbone.fpn.inner_blocks.3"
    assert found.earlier[:2] == ("backbone.body.layer3", "backbone.body.layer2")
    assert "all feature maps of the detector are computed from" in found.describe()


def test_all_levels_fused_are_the_level_of_the_detection(pyramid: nn.Module, batch: SaliencyBatch) -> None:
    levels = [f"backbone.fpn.layer_blocks.{level}" for level in range(4)]
    how = {"methods": "hires_cam", "target_layer": levels}
    apart, fused = (attribute(pyramid, batch, "label", **how, **fuse) for fuse in ({}, {"fuse": "mean"}))
    peaks = torch.stack(list(apart.peaks.values()))
    assert ((peaks > 0).sum(dim=0) <= 1).all() and (peaks > 0).any()
    for row in (peaks > 0).any(dim=0).nonzero()[:, 0]:
        level = [*apart.maps][int(peaks[:, row].argmax())]
        assert torch.allclose(fused.maps["hires_cam"][row], apart.maps[level][row], atol=1e-5)


def test_a_sample_without_a_detection_is_blank_and_no_error(batch: SaliencyBatch) -> None:
    class Picky(nn.Module):
        """Finds something in bright images only."""

        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())

        def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
            means = self.backbone(images).mean(dim=(1, 2, 3)).sigmoid()
            found = [image.mean() > 0.5 for image in images]
            keep = [mean[None][: int(each)] for mean, each in zip(means, found, strict=True)]
            boxes = torch.tensor([[0.0, 0, 8, 8]])
            return [
                {"boxes": boxes[: len(each)], "labels": torch.ones(len(each)).long(), "scores": each}
                for each in keep
            ]

    model, images = Picky(), torch.stack([torch.ones(3, 8, 8), torch.zeros(3, 8, 8)])
    forward = DetectionForward(None, 2)
    found = attribute(model, images, 1, forward=forward, methods="layer_cam")
    assert found.peaks["layer_cam"][0] > 0 and found.peaks["layer_cam"][1] == 0
    nothing = attribute(model, images[[1, 1]], 1, forward=forward, methods="layer_cam")
    assert nothing.peaks["layer_cam"].tolist() == [0.0, 0.0] and nothing.target_layer == "backbone"


# ------------------------------------------------------------------------------------------ other detectors


class OwnDetector(nn.Module):
    """A detector without a part of torchvision's: one box, scored by the brightest cell."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Conv2d(3, 2, 4, stride=4)

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        scores = self.net(images).flatten(2).amax(dim=2).sigmoid()
        boxes = torch.tensor([[0.0, 0, 8, 8], [8.0, 8, 16, 16]])
        return [{"boxes": boxes, "labels": torch.tensor([1, 2]), "scores": each} for each in scores]


def test_a_detector_of_any_kind_is_recognised_by_what_it_returns() -> None:
    model, batch = OwnDetector(), SaliencyBatch(torch.rand(2, 3, 16, 16), torch.tensor([1, 2]))
    record = record_saliency(model, batch, scores=["gini"])
    assert record.attribution.target_layer == "net" and record.attribution.logits.shape == (2, 3)
    assert is_of_detections(with_detection(model, batch.images, None)), "it is known by now"


def test_it_is_recognised_where_its_layer_is_searched() -> None:
    model, images = OwnDetector(), torch.rand(2, 3, 16, 16)
    assert find_target_layer(model, images).name == "net"
    assert attribute(model, images, 1, target_layer="net").logits.shape == (2, 3)
    assert attribute(OwnDetector(), images).logits.shape == (2, 3)


def test_it_is_recognised_at_a_named_layer_too() -> None:
    assert attribute(OwnDetector(), torch.rand(2, 3, 16, 16), target_layer="net").logits.shape == (2, 3)
    found = attribute(OwnDetector(), torch.rand(2, 3, 16, 16), 1, forward=DetectionForward(None, 3))
    assert found.logits.shape == (2, 3)


def test_what_is_known_of_a_detector_keeps_neither_it_nor_a_forward_alive() -> None:
    def looked_at() -> weakref.ref[nn.Module]:
        model = OwnDetector()
        images = torch.rand(2, 3, 16, 16)
        attribute(model, images, forward=lambda _, images: model(images), target_layer="net")
        return weakref.ref(model)

    seen = looked_at()
    gc.collect()
    assert seen() is None


def test_a_forward_that_was_collected_is_not_taken_for_none(batch: SaliencyBatch) -> None:
    model = small_retinanet()
    for _ in range(3):
        own = lambda module, images: images.mean(dim=(2, 3))  # noqa: E731
        assert with_detection(model, batch.images, own) is own
        del own
        gc.collect()
    assert is_of_detections(with_detection(model, batch.images, None))
    assert [each.num_classes for each in _KNOWN[model]] == [3], "the dead ones are dropped"


def test_with_named_layers_the_first_look_knows_the_target_boxes() -> None:
    batch = SaliencyBatch(
        torch.rand(2, 3, 16, 16), torch.tensor([1, 2]), boxes=[torch.tensor([[0.0, 0, 8, 8]])] * 2
    )
    first, second = (
        record_saliency(model, batch, target_layer="net", scores=["gini"]) for model in [OwnDetector()] * 2
    )
    assert torch.equal(first.attribution.logits, second.attribution.logits)


def test_other_models_and_forwards_are_left_as_they_are(batch: SaliencyBatch) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    forward = lambda module, images: module(images)  # noqa: E731
    assert with_detection(model, batch.images, None) is None
    assert with_detection(model, batch.images, forward) is forward
    detector = small_retinanet()
    own = lambda module, images: images.mean(dim=(2, 3))  # noqa: E731
    assert with_detection(detector, batch.images, own) is own
    assert is_of_detections(with_detection(detector, batch.images, None))


# ------------------------------------------------------------------------------------------ where maps lie


class BrightestCell(nn.Module):
    """Torchvision's resizing and padding around one convolution that measures brightness, cell by cell."""

    def __init__(self, size_divisible: int) -> None:
        super().__init__()
        self.transform = GeneralizedRCNNTransform(48, 200, [0.0] * 3, [1.0] * 3, size_divisible)
        self.backbone = nn.Conv2d(3, 1, 4, stride=4, bias=False)
        nn.init.constant_(self.backbone.weight, 1 / 48)

    def forward(self, images: Any) -> list[dict[str, Tensor]]:
        prepared, _ = self.transform(list(images))
        found = self.backbone(prepared.tensors).flatten(1).amax(dim=1)
        boxes = torch.zeros(1, 4)
        return [
            {"boxes": boxes, "labels": torch.tensor([1]), "scores": (3 * each[None]).sigmoid()}
            for each in found
        ]


@pytest.mark.parametrize("corner", [(4, 6), (4, 86), (26, 6), (26, 86)])
@pytest.mark.parametrize("size_divisible", [1, 32, 128])
def test_maps_lie_on_the_object_in_a_corner_however_images_are_padded(
    corner: tuple[int, int], size_divisible: int
) -> None:
    model, images = BrightestCell(size_divisible), torch.zeros(1, 3, 40, 100)
    top, left = corner
    images[:, :, top : top + 10, left : left + 10] = 1
    forward = with_detection(model, images, None)
    covered = covered_size(model, images, forward)
    assert covered == {1: None, 32: (53, 107), 128: (107, 107)}[size_divisible]  # of 48 x 120, padded
    found = attribute(model, images, 1, methods="hires_cam").maps["hires_cam"][0]
    rows, columns = torch.meshgrid(torch.arange(40) + 0.5, torch.arange(100) + 0.5, indexing="ij")
    place = (found * rows).sum() / found.sum(), (found * columns).sum() / found.sum()
    assert place[0] == pytest.approx(top + 5, abs=3.5) and place[1] == pytest.approx(left + 5, abs=3.5)


def test_logits_of_a_detector_are_log_odds(batch: SaliencyBatch) -> None:
    forward = with_detection(THREE, batch.images, None, at_once=True)
    assert logits_of(THREE, batch.images, forward=forward, squash="sigmoid")[0, 1:].tolist() == pytest.approx(
        [log_odds(torch.tensor(0.8)).item(), log_odds(torch.tensor(0.3)).item()], abs=1e-4
    )
