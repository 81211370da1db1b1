"""`attribute` and `record_saliency` for every kind of head: values by hand, and chunks that agree with the whole."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_gcam import Attribution, SaliencyBatch, attribute
from lightning_gcam.cam import available_methods
from lightning_gcam.metrics import functional
from lightning_gcam.pipeline.run import record_saliency
from lightning_gcam.utils.errors import InputError
from tests.support.nets import bits, cnn, pictures, seeded, state_of

SIX = available_methods()[:6]


def same_maps(found: Attribution, expected: Attribution) -> None:
    assert list(found.maps) == list(expected.maps)
    for name, maps in expected.maps.items():
        torch.testing.assert_close(found.maps[name], maps, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.peaks[name], expected.peaks[name], rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------------------------------------- a regression


@pytest.mark.parametrize(
    "targets", ["output", torch.tensor([3.2, -0.4, 1.0, 0.0]), torch.tensor([[3.2], [-0.4], [1.0], [0.0]])]
)
def test_a_regression_is_explained_by_its_output(targets: Any) -> None:
    model = cnn("flat", classes=1)
    nn.init.constant_(model.head[3].bias, -8.0)
    found = attribute(model, pictures(), targets, methods=SIX)
    same_maps(found, attribute(model, pictures(), lambda logits: logits[:, 0], methods=SIX))
    assert (found.explains, found.targets) == ("output", None)
    assert torch.equal(found.values, found.logits[:, 0])
    assert (found.logits < 0).any()  # where a binary head would have been explained by its negative
    negative = attribute(model, pictures(), None, methods=SIX)
    assert negative.explains == "classes"
    assert (negative.maps["layer_cam"] - found.maps["layer_cam"]).abs().max() > 0.05


AGES = torch.tensor([1.0, 0.0, 1.0, 0.0, 2.5])  # only the last of them is no class


@pytest.mark.parametrize("chunk_size", [1, 2, 5])
def test_a_piece_of_a_regression_is_not_taken_for_two_classes(chunk_size: int) -> None:
    model, batch = cnn("flat", classes=1), SaliencyBatch(pictures(5), labels=AGES)
    record = record_saliency(model, batch, methods=list(SIX), chunk_size=chunk_size)
    same_maps(record.attribution, attribute(model, batch.images, "output", methods=SIX))
    assert record.attribution.explains == "output"
    assert record.correct == [None] * 5
    outputs = model(batch.images)[:, 0].tolist()
    assert record.captions[4] == f"true 2.50 · predicted {outputs[4]:.2f}"
    assert "maps of the output" in record.title


def test_measurements_given_as_targets_are_kept_together_too() -> None:
    model, batch = cnn("flat", classes=1), SaliencyBatch(pictures(5))
    record = record_saliency(model, batch, targets=AGES, chunk_size=1)
    assert record.attribution.explains == "output"


@pytest.mark.parametrize("targets", ["label", AGES])
def test_measurements_beside_several_outputs_are_refused(targets: Any) -> None:
    with pytest.raises(
        InputError, match="`targets` holds 2.5, which is no class, and the model gives 5 numbers"
    ):
        record_saliency(cnn("flat"), SaliencyBatch(pictures(5), labels=AGES), targets=targets)


def test_float_classes_stay_classes() -> None:
    batch = SaliencyBatch(pictures(), labels=torch.tensor([0.0, 3.0, 1.0, 1.0]))
    record = record_saliency(cnn("flat"), batch, chunk_size=3)
    assert record.attribution.targets.tolist() == [0, 3, 1, 1]
    assert record.captions[1].startswith("true 3 · predicted")


# ------------------------------------------------------------------------------------------------- an embedding


def test_an_embedding_is_explained_by_a_callable_and_gets_no_class() -> None:
    prototype = torch.randn(5, generator=torch.Generator().manual_seed(0))

    def likeness(embedding: Tensor) -> Tensor:
        return nn.functional.cosine_similarity(embedding, prototype[None])

    model, batch = cnn("flat"), SaliencyBatch(pictures(), names=["a", "b", "c", "d"])
    record = record_saliency(model, batch, targets=likeness, chunk_size=3)
    expected = likeness(model(pictures())).tolist()
    assert record.captions == [
        f"{name} · score {value:.2f}" for name, value in zip("abcd", expected, strict=True)
    ]
    assert record.correct == [None] * 4
    assert record.overlay.ndim == 3


# ------------------------------------------------------------------------------------------------- a dense head


class Pointwise(nn.Module):
    """A 1 x 1 convolution of one channel, and logits `weights * A` at every position."""

    def __init__(
        self, weights: tuple[float, ...], wrap: Callable[[Tensor], Any] = lambda logits: logits
    ) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 1, 1, bias=False)
        self.head = nn.Conv2d(1, len(weights), 1, bias=False)
        nn.init.ones_(self.features.weight)
        self.head.weight.data = torch.tensor(weights).view(-1, 1, 1, 1)
        self.wrap = wrap

    def forward(self, images: Tensor) -> Any:
        return self.wrap(self.head(self.features(images)))


IMAGE = torch.tensor([[[[1.0, 3.0], [2.0, -4.0]]]])
TOP = torch.tensor([[[True, True], [False, False]]])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda logits: logits,
        lambda logits: {"out": logits, "aux": logits * 0},
        lambda logits: (logits, logits * 0),
    ],
)
def test_a_dense_look_by_hand(wrap: Callable[[Tensor], Any]) -> None:
    """Class 1 has the weight 2: g is 2 in the mask and 0 elsewhere."""
    found = attribute(Pointwise((1.0, 2.0), wrap), IMAGE, 1, methods=SIX, target_layer="features", masks=TOP)
    assert found.values.tolist() == [2.0 * (1 + 3)]
    assert found.logits.tolist() == [[2.0, 4.0]]
    assert found.in_mask.tolist() == [True]
    maps = {name: found.maps[name] * found.peaks[name][:, None, None] for name in SIX}
    assert maps["grad_cam"].tolist() == [[[1.0, 3.0], [2.0, 0.0]]]  # w = (2 + 2 + 0 + 0) / 4
    assert maps["hires_cam"].tolist() == [[[2.0, 6.0], [0.0, 0.0]]]
    assert maps["guidance_cam"].tolist() == [[[2.0, 18.0], [0.0, 0.0]]]
    torch.testing.assert_close(maps["xgrad_cam"], 4 * torch.tensor([[[1.0, 3.0], [2.0, 0.0]]]))  # w = 8 / 2


def test_without_a_mask_the_class_is_summed_where_it_is_predicted() -> None:
    model = Pointwise((1.0, 2.0))  # class 1 where A > 0, class 0 where A < 0
    found = attribute(model, IMAGE, 1, target_layer="features", methods="hires_cam")
    assert found.values.tolist() == [2.0 * (1 + 3 + 2)]
    assert found.in_mask.tolist() == [False]
    assert (found.maps["hires_cam"] * found.peaks["hires_cam"]).tolist() == [[[2.0, 6.0], [4.0, 0.0]]]
    other = attribute(model, IMAGE, 0, target_layer="features")
    assert other.values.tolist() == [-4.0]
    assert attribute(model, IMAGE, target_layer="features").targets.tolist() == [1]


def test_a_class_that_is_nowhere_predicted_is_blank_and_counted() -> None:
    batch = SaliencyBatch(IMAGE.repeat(2, 1, 1, 1), labels=torch.tensor([2, 1]))
    record = record_saliency(Pointwise((1.0, 2.0, 0.5)), batch, target_layer="features")
    assert record.attribution.peaks["guidance_cam"].tolist() == [0.0, 1.5 * 3 * 2 * 3]  # w A * g A at A = 3
    assert record.scores["blank_rate"] == 0.5
    assert record.correct == [None, None]


class Segmenter(nn.Module):
    """Down by four, a mixing layer, up again: five classes at every pixel."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.deep = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.mix = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Conv2d(8, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.mix(self.deep(self.down(images).relu()).relu()).relu()
        return nn.functional.interpolate(self.head(features), size=images.shape[2:], mode="bilinear")


def segmenter(classes: int = 5) -> nn.Module:
    return seeded(Segmenter(classes))


def scene(n: int = 4) -> tuple[Tensor, Tensor]:
    """Images and masks `(n, 24, 20)`; the last sample has no object."""
    images = torch.randn(n, 3, 24, 20, generator=torch.Generator().manual_seed(1))
    masks = torch.zeros(n, 24, 20, dtype=torch.bool)
    for index in range(n - 1):
        masks[index, 3 * index : 3 * index + 9, 4:13] = True
    return images, masks


@pytest.mark.parametrize("method", SIX)
def test_dense_maps_are_those_of_a_callable_that_sums_the_logits(method: str) -> None:
    images, masks = scene()
    model = segmenter()
    found = attribute(model, images, 3, methods=method, masks=masks)

    def by_hand(logits: Tensor) -> Tensor:
        own = logits.argmax(dim=1) == 3
        region = torch.where(masks.any(dim=2).any(dim=1)[:, None, None], masks, own)
        return (logits[:, 3] * region).sum(dim=(1, 2))

    same_maps(found, attribute(model, images, by_hand, methods=method))
    assert found.peaks[method].max() > 0
    assert found.target_layer == "deep"


@pytest.mark.parametrize("chunk_size", [1, 3])
@pytest.mark.parametrize("targets", ["label", "predicted", 2, lambda logits: logits[:, 1].mean(dim=(1, 2))])
def test_masks_are_split_with_the_batch(chunk_size: int, targets: Any) -> None:
    images, masks = scene()
    batch = SaliencyBatch(images, torch.tensor([0, 3, 1, 2]), masks)
    whole, pieces = (
        record_saliency(segmenter(), batch, targets=targets, chunk_size=size) for size in (None, chunk_size)
    )
    same_maps(pieces.attribution, whole.attribution)
    assert pieces.attribution.in_mask.tolist() == [True, True, True, False]
    assert pieces.captions == whole.captions
    assert pieces.scores == pytest.approx(whole.scores, abs=1e-5)


def test_boxes_stand_in_for_masks() -> None:
    images, _ = scene(2)
    boxes = [torch.tensor([[4.0, 2.0, 12.0, 9.0]]), torch.zeros(0, 4)]
    batch = SaliencyBatch(images, torch.tensor([1, 2]), boxes=boxes)
    record = record_saliency(segmenter(), batch)
    same_maps(record.attribution, attribute(segmenter(), images, [1, 2], masks=batch.object_masks))
    assert record.attribution.in_mask.tolist() == [True, False]


def test_a_prediction_in_the_mask_is_right_or_wrong() -> None:
    images, masks = scene()
    labels = torch.tensor([0, 3, 1, 2])
    record = record_saliency(segmenter(), SaliencyBatch(images, labels, masks))
    logits = segmenter()(images).detach()
    means = torch.stack([logits[i, :, masks[i]].mean(dim=1) for i in range(3)])
    torch.testing.assert_close(record.attribution.logits[:3], means)
    guesses = means.argmax(dim=1)
    assert record.correct == [
        bool(guess == label) for guess, label in zip(guesses, labels[:3], strict=True)
    ] + [None]
    share = means.softmax(dim=1).amax(dim=1)
    assert record.captions[0] == f"true 0 · predicted {int(guesses[0])} ({float(share[0]):.2f})"


def test_a_drop_is_read_in_the_mask_too() -> None:
    images, masks = scene(3)
    images, masks, labels = images[:2], masks[:2], torch.tensor([0, 3])
    model = segmenter()
    record = record_saliency(model, SaliencyBatch(images, labels, masks), scores="average_drop")
    kept = functional.keep_salient(images, record.attribution.maps["guidance_cam"])

    def probabilities(pictures: Tensor) -> Tensor:
        logits = model(pictures).detach()
        means = torch.stack([logits[i, :, masks[i]].mean(dim=1) for i in range(2)])
        return means.softmax(dim=1)[torch.arange(2), labels]

    blank = record.attribution.peaks["guidance_cam"] == 0
    expected = float(functional.average_drop(probabilities(images), probabilities(kept), blank))
    assert record.scores["average_drop"] == pytest.approx(expected, rel=1e-4)
    assert expected > 0


def test_a_single_dense_logit_is_the_object() -> None:
    images, masks = scene()
    model = segmenter(1)
    record = record_saliency(model, SaliencyBatch(images, masks=masks))
    assert record.attribution.targets.tolist() == [1, 1, 1, 1]
    same_maps(record.attribution, attribute(model, images, 1, masks=masks))
    assert "maps of class 1 over the object or where it is predicted" in record.title
    assert record.overlay.ndim == 3


def test_a_mask_does_not_touch_a_classifier() -> None:
    masks = torch.zeros(4, 12, 10, dtype=torch.bool)
    found, expected = (attribute(cnn("flat"), pictures(), masks=each) for each in (masks, None))
    assert found.in_mask is None
    assert bits(found.maps["guidance_cam"]) == bits(expected.maps["guidance_cam"])


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (torch.zeros(4, 6, 5, dtype=torch.bool), r"`masks` must have the size of the images, \(4, 12, 10\)"),
        (torch.zeros(4, 12, 10), "`masks` must be bool"),
        ([[True]], "`masks` must have the size of the images.*got list"),
    ],
)
def test_what_is_no_mask_is_refused(masks: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        attribute(cnn("flat"), pictures(), masks=masks)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_dense_head_under_any_mode_and_untouched(mode: Any) -> None:
    images, masks = scene()
    expected = attribute(segmenter(), images, 2, masks=masks)
    model = segmenter().train()
    before = state_of(model)
    with mode():
        found = attribute(model, images.clone(), 2, masks=masks.clone())
    same_maps(found, expected)
    after = state_of(model)
    assert [key for key in before if before[key] != after[key]] == []
    assert not found.values.requires_grad and not found.logits.requires_grad


def test_select_and_cat_keep_what_belongs_to_each_sample() -> None:
    images, masks = scene()
    whole = attribute(segmenter(), images, 2, masks=masks)
    again = Attribution.cat([whole.select([0, 1]), whole.select([2]), whole.select([3])])
    assert torch.equal(again.values, whole.values)
    assert torch.equal(again.in_mask, whole.in_mask)
    assert again.explains == whole.explains
    assert whole.select([3]).in_mask.tolist() == [False]


# ------------------------------------------------------------------------------------- other people's networks


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "fcn_resnet50"])
def test_segmentation_networks_of_torchvision(name: str) -> None:
    segmentation = pytest.importorskip("torchvision.models.segmentation")
    torch.manual_seed(0)
    model = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=4)
    images, masks = torch.rand(2, 3, 64, 96), torch.zeros(2, 64, 96, dtype=torch.bool)
    masks[0, 10:30, 20:50] = True
    found = attribute(model, images, 1, masks=masks, methods="hires_cam")
    grid = {"fcn_resnet50": "backbone", "lraspp_mobilenet_v3_large": "classifier.cbr"}  # before the logits
    assert found.target_layer == grid[name]
    assert found.maps["hires_cam"].shape == (2, 64, 96)
    assert found.peaks["hires_cam"][0] > 0
    model.eval()
    with torch.no_grad():
        logits = model(images)["out"]
    torch.testing.assert_close(found.values[0], logits[0, 1][masks[0]].sum(), rtol=1e-3, atol=1e-8)


def test_segformer_of_transformers_at_several_layers_and_twice() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 16, 24, 32],
        num_attention_heads=[1, 2, 4, 8],
        depths=[1, 1, 1, 1],
        decoder_hidden_size=16,
        num_labels=4,
    )
    model = transformers.SegformerForSemanticSegmentation(config)
    images, masks = torch.rand(2, 3, 128, 128), torch.zeros(2, 128, 128, dtype=torch.bool)
    masks[:, 20:60, 30:90] = True
    first = attribute(model, images, 1, masks=masks)
    second = attribute(model, images, 1, masks=masks)
    assert bits(first.maps["guidance_cam"]) == bits(second.maps["guidance_cam"])
    assert re.match(r"segformer\.(stages|encoder\.block)\.3", first.target_layer)
    with torch.no_grad():
        logits = model.eval()(images).logits  # (2, 4, 32, 32)
    region = nn.functional.interpolate(masks[:, None].float(), size=(32, 32), mode="nearest-exact")[:, 0]
    torch.testing.assert_close(first.values, (logits[:, 1] * region).sum(dim=(1, 2)), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("layer", ["resnet.encoder", "resnet.encoder.stages.3"])
def test_layers_that_return_model_outputs(layer: str) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 12, 16], depths=[1, 1, 1, 1])
    model = transformers.ResNetForImageClassification(config)
    images = torch.rand(2, 3, 64, 64)
    found = attribute(model, images, methods="layer_cam", target_layer=layer)
    last = "resnet.encoder.stages.3.layers.0"  # a plain tensor
    expected = attribute(model, images, methods="layer_cam", target_layer=last)
    assert bits(found.maps["layer_cam"]) == bits(expected.maps["layer_cam"])
    assert expected.peaks["layer_cam"].max() > 0
    with pytest.raises(InputError, match="score does not depend on `target_layer`"):
        attribute(
            model, images, target_layer="resnet"
        )  # of what it returns, the head takes the pooled features
