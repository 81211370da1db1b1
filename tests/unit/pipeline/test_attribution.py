"""`attribute()`: what comes out, for whatever goes in; one forward and one gradient; the model as it was."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_gcam import Attribution, SaliencyBatch, attribute
from lightning_gcam.cam import available_methods, resolve_methods
from lightning_gcam.cam.capture import capture
from lightning_gcam.pipeline.config import LookConfig
from lightning_gcam.pipeline.run import analyze
from lightning_gcam.utils.errors import InputError
from tests.support.nets import CLASSES, SIZE, bits, cnn, pictures, seeded, state_of

SIX = available_methods()[:6]
LAYER = "features.3"
LABELS = torch.tensor([0, 3, 1, 1])


def look(model: nn.Module | None = None, images: Tensor | None = None, targets: Any = LABELS, **options: Any):
    """All six methods at the second convolution, unless told otherwise."""
    options = {"methods": SIX, "target_layer": LAYER, **options}
    return attribute(
        cnn("flat") if model is None else model, pictures() if images is None else images, targets, **options
    )


def assert_same(found: Attribution, expected: Attribution, **tolerance: float) -> None:
    assert list(found.maps) == list(expected.maps)
    for name in expected.maps:
        torch.testing.assert_close(found.maps[name], expected.maps[name], **tolerance)
        torch.testing.assert_close(found.peaks[name], expected.peaks[name], **tolerance)
    torch.testing.assert_close(found.logits, expected.logits, check_dtype=False, **tolerance)
    assert found.target_layer == expected.target_layer
    if expected.targets is not None:
        assert found.targets is not None
        assert found.targets.tolist() == expected.targets.tolist()


# -------------------------------------------------------------------------------------------------- what comes out


def bilinear(grid: list[list[float]], size: int) -> Tensor:
    """A square map enlarged by hand: positions are the middles of the pixels, and the border is held."""
    rows = len(grid)
    result = torch.zeros(size, size)
    for y in range(size):
        for x in range(size):
            position = [min(max((each + 0.5) * rows / size - 0.5, 0), rows - 1) for each in (y, x)]
            low = [int(each) for each in position]
            high = [min(each + 1, rows - 1) for each in low]
            part = [each - base for each, base in zip(position, low, strict=True)]
            result[y, x] = (
                grid[low[0]][low[1]] * (1 - part[0]) * (1 - part[1])
                + grid[low[0]][high[1]] * (1 - part[0]) * part[1]
                + grid[high[0]][low[1]] * part[0] * (1 - part[1])
                + grid[high[0]][high[1]] * part[0] * part[1]
            )
    return result


def test_a_whole_look_by_hand() -> None:
    """One 2 x 2 channel A = image at every second pixel; logit 1 = 2 A_00 + A_11, so g = [[2, 0], [0, 1]]."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1, stride=2, bias=False), nn.Flatten(), nn.Linear(4, 2, bias=False))
    nn.init.ones_(model[0].weight)
    with torch.no_grad():
        model[2].weight.copy_(torch.tensor([[9.0, 9.0, 9.0, 9.0], [2.0, 0.0, 0.0, 1.0]]))
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, ::2, ::2] = torch.tensor([[3.0, 1.0], [-2.0, 4.0]])

    found = attribute(model, image, 1, methods=SIX, target_layer="0")

    # sum A = 6; alpha_00 = 4 / (8 + 6 * 8) = 1/14, alpha_11 = 1 / (2 + 6) = 1/8; w++ = 2/14 + 1/8 = 15/56
    raw = {
        "grad_cam": [[2.25, 0.75], [0, 3]],  # w = (2 + 0 + 0 + 1) / 4
        "hires_cam": [[6, 0], [0, 4]],
        "guidance_cam": [[13.5, 0], [0, 12]],
        "layer_cam": [[6, 0], [0, 4]],
        "xgrad_cam": [[5, 5 / 3], [0, 20 / 3]],  # w = (3 * 2 + 4 * 1) / 6
        "grad_cam_plus_plus": [[45 / 56, 15 / 56], [0, 60 / 56]],
    }
    for name, grid in raw.items():
        peak = max(max(row) for row in grid)
        assert found.peaks[name].tolist() == pytest.approx([peak]), name
        expected = bilinear([[value / peak for value in row] for row in grid], 4)
        torch.testing.assert_close(found.maps[name][0], expected)
    assert found.logits.tolist() == [[54, 10]]
    assert found.targets is not None
    assert found.targets.tolist() == [1]
    assert not found.even_gradients


@pytest.mark.parametrize("head", ["pooled", "max", "flat"])
@pytest.mark.parametrize("layer", ["features.0", "features.1", "features.4"])
def test_maps_are_in_range_at_the_images_size(head: str, layer: str) -> None:
    found = look(cnn(head), target_layer=layer)
    for name in SIX:
        map_, peak = found.maps[name], found.peaks[name]
        assert torch.isfinite(map_).all()
        assert (map_ >= 0).all()
        assert map_.amax(dim=(1, 2)).tolist() == [float(each > 0) for each in peak], name
        assert (peak >= 0).all()
        assert map_.dtype == peak.dtype == torch.float32
        assert map_.shape == (4, *SIZE)
        assert not map_.requires_grad
    assert any(peak.max() > 0 for peak in found.peaks.values())
    assert found.logits.shape == (4, CLASSES)
    assert len(found) == 4


def test_peaks_are_the_raw_maxima() -> None:
    model, images = cnn("flat"), pictures()
    captured = capture(model, images, model.features[3], LABELS)
    found = look(model, images)
    for name, method in resolve_methods(SIX).items():
        expected = method(captured.activations, captured.gradients).amax(dim=(1, 2))
        torch.testing.assert_close(found.peaks[name], expected)


def test_inference_mode_leaves_ordinary_tensors() -> None:
    model = cnn("flat")
    with torch.inference_mode():
        found = look(model)
    assert not any(
        each.is_inference() for each in (*found.maps.values(), *found.peaks.values(), found.logits)
    )


def test_the_target_layer_is_named() -> None:
    model = cnn()
    assert look(model).target_layer == LAYER
    assert look(model, target_layer=model.features[3]).target_layer == LAYER
    assert attribute(model, pictures()).target_layer == "features"


def test_the_defaults_are_guidance_and_the_prediction() -> None:
    model = cnn()
    found = attribute(model, pictures())
    assert list(found.maps) == list(found.peaks) == ["guidance_cam"]
    assert found.targets is not None
    assert found.targets.tolist() == model(pictures()).argmax(dim=1).tolist()


# -------------------------------------------------------------------------------------------------- what holds for all


def test_guidance_is_grad_cam_times_hires_cam() -> None:
    found = look(methods=["guidance_cam", raw("grad_cam"), raw("hires_cam")])
    product = found.maps["raw_grad_cam"] * found.maps["raw_hires_cam"]
    assert product.max() > 0
    model = cnn("flat")
    captured = capture(model, pictures(), model.features[3], LABELS)
    table = resolve_methods(SIX)
    both = [table[name](captured.activations, captured.gradients) for name in ("grad_cam", "hires_cam")]
    assert torch.equal(found.peaks["guidance_cam"], (both[0] * both[1]).amax(dim=(1, 2)))


def raw(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """A method under another name."""

    def method(activations: Tensor, gradients: Tensor) -> Tensor:
        return resolve_methods(name)[name](activations, gradients)

    method.__name__ = f"raw_{name}"
    return method


def test_under_a_pooled_linear_head_guidance_is_grad_cam_squared() -> None:
    found = look(cnn("pooled"), target_layer="features.4")
    assert found.even_gradients
    torch.testing.assert_close(found.peaks["guidance_cam"], found.peaks["grad_cam"].square())
    torch.testing.assert_close(found.maps["hires_cam"], found.maps["grad_cam"])
    torch.testing.assert_close(found.maps["xgrad_cam"], found.maps["grad_cam"])
    assert found.peaks["grad_cam"].max() > 0


@pytest.mark.parametrize(
    ("head", "layer"), [("flat", "features.4"), ("max", "features.4"), ("pooled", "features.1")]
)
def test_other_heads_and_earlier_layers_have_uneven_gradients(head: str, layer: str) -> None:
    found = look(cnn(head), target_layer=layer)
    assert not found.even_gradients
    squared = found.maps["grad_cam"].square()
    assert (found.maps["guidance_cam"] - squared).abs().max() > 0.05


def test_no_gradient_is_not_an_even_gradient() -> None:
    model = cnn("pooled")
    nn.init.zeros_(model.head[3].weight)
    assert not look(model, target_layer="features.4").even_gradients


@pytest.mark.parametrize("scale", [1e-3, 8.0, 1e4])
def test_a_scaled_score_keeps_the_maps(scale: float) -> None:
    methods = [each for each in SIX if each != "grad_cam_plus_plus"]  # its alpha knows the scale
    plain = look(targets=lambda logits: logits[:, 2], methods=methods)
    scaled = look(targets=lambda logits: scale * logits[:, 2], methods=methods)
    for name in methods:
        torch.testing.assert_close(scaled.maps[name], plain.maps[name], rtol=1e-4, atol=1e-5)
        factor = scale**2 if name == "guidance_cam" else scale
        torch.testing.assert_close(scaled.peaks[name], factor * plain.peaks[name], rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("head", ["pooled", "max", "flat"])
def test_a_batch_is_its_samples_one_by_one(head: str) -> None:
    model, images = cnn(head).train(), pictures(5)  # in train mode BatchNorm would mix the samples
    labels = torch.tensor([0, 3, 1, 1, 4])
    alone = [look(model, images[i : i + 1], labels[i : i + 1]) for i in range(5)]
    assert_same(look(model, images, labels), Attribution.cat(alone), rtol=1e-4, atol=1e-5)


def test_several_batches_are_one() -> None:
    whole, images = look(), pictures()
    parts = Attribution.cat([look(None, images[:1], LABELS[:1]), look(None, images[1:], LABELS[1:])])
    assert_same(parts, whole, rtol=1e-4, atol=1e-5)
    assert Attribution.cat([whole]) is whole
    assert len(parts) == 4


def test_gradients_are_even_where_they_are_in_every_piece() -> None:
    even, uneven = (look(cnn(head), target_layer="features.4") for head in ("pooled", "flat"))
    assert even.even_gradients and not uneven.even_gradients
    found = [
        Attribution.cat(parts).even_gradients for parts in ([even, even], [even, uneven], [uneven, even])
    ]
    assert found == [True, False, False]


def test_samples_are_selected_in_the_order_asked_for() -> None:
    whole = look()
    part = whole.select([2, 0])
    assert torch.equal(part.maps["layer_cam"], whole.maps["layer_cam"][[2, 0]])
    assert torch.equal(part.peaks["layer_cam"], whole.peaks["layer_cam"][[2, 0]])
    assert torch.equal(part.logits, whole.logits[[2, 0]])
    assert part.targets is not None
    assert part.targets.tolist() == [1, 0]
    assert look(targets=lambda logits: logits[:, 0]).select([1]).targets is None
    assert_same(whole.to("cpu"), whole)


def test_each_target_has_its_own_map() -> None:
    per_class = [look(targets=each) for each in range(CLASSES)]
    mixed = look(targets=LABELS)
    for index, label in enumerate(LABELS.tolist()):
        torch.testing.assert_close(mixed.maps["layer_cam"][index], per_class[label].maps["layer_cam"][index])
    assert (per_class[0].maps["layer_cam"] - per_class[1].maps["layer_cam"]).abs().max() > 0.05


# -------------------------------------------------------------------------------------- one forward, one gradient


@pytest.fixture
def gradients_taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many samples each call of `torch.autograd.grad` was for; `backward` is refused."""
    taken: list[int] = []
    grad = torch.autograd.grad

    def counted(outputs: Tensor, *args: Any, **options: Any) -> Any:
        taken.append(outputs.numel())
        return grad(outputs, *args, **options)

    def refused(*args: Any, **options: Any) -> None:
        raise AssertionError("`backward` writes gradients")

    monkeypatch.setattr(torch.autograd, "grad", counted)
    monkeypatch.setattr(torch.autograd, "backward", refused)
    monkeypatch.setattr(Tensor, "backward", refused)
    return taken


def batches_through(model: nn.Module) -> list[int]:
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    return sizes


@pytest.mark.parametrize(
    "methods", ["guidance_cam", SIX, [*SIX, raw("grad_cam")]], ids=["one", "six", "seven"]
)
def test_one_forward_and_one_gradient_whatever_the_methods(methods: Any, gradients_taken: list[int]) -> None:
    model = cnn()
    sizes = batches_through(model)
    found = look(model, methods=methods)
    assert sizes == [4]
    assert gradients_taken == [4]
    assert len(found.maps) == (1 if methods == "guidance_cam" else len(methods))


def test_finding_the_layer_costs_one_sample_more(gradients_taken: list[int]) -> None:
    model = cnn()
    sizes = batches_through(model)
    attribute(model, pictures(), methods=SIX)
    assert sizes == [
        1,
        5,
        4,
    ]  # the ReLU's nine channels might be columns: five images show that they are not, once
    assert gradients_taken == [1, 4]
    attribute(model, pictures(), methods=SIX, target_layer="features.4")
    assert sizes == [1, 5, 4, 4]


# ------------------------------------------------------------------------------------------------------ methods


def test_a_method_may_be_a_callable() -> None:
    def largest(activations: Tensor, gradients: Tensor) -> Tensor:
        assert activations.dtype == gradients.dtype == torch.float32
        assert not activations.requires_grad
        return activations.amax(dim=1)

    found = look(methods=[largest, "grad_cam"])
    assert list(found.maps) == ["largest", "grad_cam"]
    model = cnn("flat")
    expected = model.features[:4](pictures()).amax(dim=1).amax(dim=(1, 2)).detach()
    torch.testing.assert_close(found.peaks["largest"], expected.relu())


def test_what_a_callable_makes_negative_is_no_saliency() -> None:
    found = look(methods=lambda activations, gradients: activations.mean(1) * 0 - 1)
    assert found.peaks["lambda"].tolist() == [0, 0, 0, 0]
    assert not found.maps["lambda"].any()


def test_each_method_alone_is_what_it_is_among_others() -> None:
    together = look()
    for name in SIX:
        assert torch.equal(look(methods=name).maps[name], together.maps[name])


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ("gradcam", r'`methods` "gradcam" is not a method. Did you mean "grad_cam"'),
        (["grad_cam", "grad_cam"], r'`methods` has two entries named "grad_cam"'),
        ([], r"`methods` is empty"),
        (lambda a, g: a, r'`methods` "lambda" must give \(N, h, w\) = \(4, 6, 5\); got \(4, 9, 6, 5\)'),
        (lambda a, g: a.sum(), r'`methods` "lambda" must give .* got \(\)'),
        (lambda a, g: a[:, 0].numpy(), r'`methods` "lambda" must give .* got ndarray'),
    ],
)
def test_what_is_no_method_is_refused(methods: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        look(methods=methods)


def test_an_unknown_method_is_refused_before_the_model_runs() -> None:
    model = cnn()
    sizes = batches_through(model)
    with pytest.raises(ValueError, match="is not a method"):
        attribute(model, pictures(), methods="gradcam")
    assert sizes == []


# ------------------------------------------------------------------------------------------------------ targets


def in_inference_mode(make: Callable[[], Tensor]) -> Tensor:
    with torch.inference_mode():
        return make()


MARKED = nn.functional.one_hot(LABELS, CLASSES)


@pytest.mark.parametrize(
    "targets",
    [
        LABELS,
        LABELS.tolist(),
        LABELS.numpy(),
        LABELS.float(),
        LABELS.to(torch.uint8),
        in_inference_mode(LABELS.clone),
        lambda logits: logits[torch.arange(4), LABELS],
    ],
    ids=["labels", "list", "numpy", "float", "uint8", "inference tensor", "callable"],
)
def test_labels_in_every_form_give_the_same_maps(targets: Any) -> None:
    expected = look()
    found = look(targets=targets)
    for name in SIX:
        assert torch.equal(found.maps[name], expected.maps[name])
    assert (found.targets is None) == callable(targets)


@pytest.mark.parametrize(
    "targets",
    [MARKED, MARKED.bool(), MARKED.float(), in_inference_mode(MARKED.clone)],
    ids=["int", "bool", "float", "inference tensor"],
)
def test_one_marked_class_is_that_class(targets: Tensor) -> None:
    expected, found = look(), look(targets=targets)
    for name in SIX:
        torch.testing.assert_close(found.maps[name], expected.maps[name])
    assert found.targets is not None
    assert found.targets.tolist() == MARKED.tolist()


def test_several_marked_classes_are_explained_by_the_sum_of_their_logits() -> None:
    marked = torch.tensor([[1, 1, 0, 0, 0], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    found = look(targets=marked)
    explained = marked.clone()
    explained[2, look().logits[2].argmax()] = 1  # without a mark, the predicted class
    expected = look(targets=lambda logits: (logits * explained).sum(dim=1))
    assert torch.equal(found.targets.long(), explained)
    for name in SIX:
        torch.testing.assert_close(found.maps[name], expected.maps[name])
        assert found.peaks[name][2] > 0


def test_none_and_predicted_are_the_same() -> None:
    model = cnn("flat")
    expected = look(model, targets=model(pictures()).argmax(dim=1))
    assert_same(look(model, targets=None), expected)
    assert_same(look(model, targets="predicted"), expected)


def test_a_single_logit_speaks_for_both_classes() -> None:
    model = cnn("flat", classes=1)
    positive, negative = look(model, targets=1), look(model, targets=0)
    for found, sign in ((positive, 1), (negative, -1)):
        expected = look(model, targets=lambda logits, sign=sign: sign * logits[:, 0])
        for name in SIX:
            assert torch.equal(found.maps[name], expected.maps[name])
    assert (positive.maps["layer_cam"] - negative.maps["layer_cam"]).abs().max() > 0.05
    predicted = look(model, targets=None)
    assert predicted.targets is not None
    assert predicted.targets.tolist() == (model(pictures())[:, 0] > 0).long().tolist()


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (CLASSES, r"`targets` holds class 5, but the logits have 5 \(classes 0 to 4\)"),
        (-1, r"`targets` holds class -1, but the logits have 5"),
        ([0, 1], r"`targets` must be \(4,\) classes or \(4, 5\) multi-hot; got \(2,\)"),
        (torch.zeros(4, 4), r"`targets` must be \(4,\) classes or \(4, 5\) multi-hot; got \(4, 4\)"),
        ("label", r'`targets` "label" explains the labels of a `SaliencyBatch`'),
        (lambda logits: logits.max(), r"`targets` as a callable must give one score per sample"),
    ],
)
def test_what_is_no_target_is_refused(targets: Any, message: str) -> None:
    model = cnn()
    before = state_of(model)
    with pytest.raises(ValueError, match=message):
        look(model, targets=targets)
    assert state_of(model) == before


# ------------------------------------------------------------------------------------------- blank, and not finite


def test_a_head_at_zero_gives_blank_maps() -> None:
    model = cnn("flat")
    nn.init.zeros_(model.head[3].weight)
    found = look(model)
    for name in SIX:
        assert found.peaks[name].tolist() == [0, 0, 0, 0]
        assert not found.maps[name].any()


def test_one_blank_map_among_others_stays_blank() -> None:
    found = look(targets=lambda logits: logits[:, 0] * torch.tensor([1.0, 0.0, 1.0, 1.0]))
    assert found.peaks["layer_cam"][1] == 0
    assert not found.maps["layer_cam"][1].any()
    assert found.maps["layer_cam"][0].max() == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_activations_that_are_not_finite_have_no_peak(value: float) -> None:
    images = pictures()
    images[1, 2, 4, 5] = value
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), Bounded(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )
    found = look(seeded(model), images, target_layer="0")
    for name in SIX:
        assert found.peaks[name].isnan().tolist() == [False, True, False, False], name
        assert not found.maps[name][1].any()
        assert torch.isfinite(found.maps[name]).all()


@pytest.mark.parametrize("value", [float("inf"), -float("inf")])
def test_a_relu_does_not_hide_an_activation_that_is_not_finite(value: float) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 1, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2)
    )
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    images = torch.ones(2, 1, 4, 4)
    images[1, 0, 1, 2] = value  # times a gradient of 1/16: -inf, which a ReLU would turn into a plain 0
    found = look(model, images, 0, target_layer="0")
    for name in SIX:
        assert found.peaks[name].isnan().tolist() == [False, True], name
        assert not found.maps[name][1].any()


class Bounded(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.nan_to_num(0, 1, -1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_gradients_that_are_not_finite_have_no_peak(value: float) -> None:
    found = look(targets=lambda logits: logits[:, 0] * torch.tensor([1.0, 1.0, value, 1.0]))
    for name in SIX:
        assert found.peaks[name].isnan().tolist() == [False, False, True, False], name
        assert not found.maps[name][2].any()


def test_maps_of_tiny_and_of_huge_gradients_are_scaled_alike() -> None:
    methods = ["guidance_cam", "grad_cam", "layer_cam"]
    plain = look(targets=lambda logits: logits[:, 2], methods=methods)
    for scale in (1e-15, 1e15):
        scaled = look(targets=lambda logits, scale=scale: scale * logits[:, 2], methods=methods)
        for name in methods:
            torch.testing.assert_close(scaled.maps[name], plain.maps[name], rtol=1e-3, atol=1e-3)


# -------------------------------------------------------------------------------------------------- bad images


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            torch.zeros(3, 12, 10),
            r"`images` \(3, 12, 10\) look like one, and Cnn takes a batch.*`image\[None\]`",
        ),
        (
            torch.zeros(2, 3, 12, 10, dtype=torch.uint8),
            r"got torch.uint8 \(N, 3, 12, 10\) \(Input type.*Convert",
        ),
        (torch.zeros(3, 12), r"`images` must be \(N, C, H, W\), .*got \(3, 12\) float32"),
        (np.zeros((2, 3, 12, 10)), r"got ndarray"),
        (torch.zeros(0, 3, 12, 10), r"`images` holds no sample"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(images: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attribute(cnn(), images)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("feature.3", r'`target_layer` "feature.3" is not a module of Cnn. Did you mean "features.3"'),
        ("head.3", r"`target_layer` gives \(4, 5\) .* not a grid over the image"),
        (3, r"`target_layer` must be one layer, a name or a module; got 3"),
        ([["features.3"]], r"`target_layer` must be one layer, a name or a module; got \['features.3'\]"),
        ([], r"`target_layer` is empty. Name at least one layer"),
    ],
)
def test_what_is_no_layer_is_refused(layer: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        look(cnn(), target_layer=layer)


def test_a_network_without_a_spatial_layer_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(360, 16), nn.ReLU(), nn.Linear(16, CLASSES))
    with pytest.raises(ValueError, match="Sequential has no spatial layer that influences its output"):
        attribute(model, pictures())


# ------------------------------------------------------------------------------------------------- precision


def test_a_model_in_bfloat16() -> None:
    found = look(cnn("flat").to(torch.bfloat16), pictures().to(torch.bfloat16))
    assert found.logits.dtype == torch.bfloat16
    expected = look()
    for name in SIX:
        assert found.maps[name].dtype == torch.float32
        torch.testing.assert_close(found.maps[name], expected.maps[name], rtol=0.0, atol=0.15)


def test_a_model_in_float64() -> None:
    found = look(cnn("flat").double(), pictures().double())
    assert found.logits.dtype == torch.float64
    assert_same(found, look(), rtol=1e-3, atol=1e-4)
    assert all(each.dtype == torch.float32 for each in found.maps.values())


def test_autocast_reaches_the_model_and_not_the_maps() -> None:
    model, images = cnn("flat"), pictures()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = look(model, images)
        captured = capture(model, images, model.features[3], LABELS)
    assert found.logits.dtype == torch.bfloat16
    assert captured.logits.dtype == torch.bfloat16
    for name, method in resolve_methods(SIX).items():
        expected = method(captured.activations, captured.gradients).amax(dim=(1, 2))
        torch.testing.assert_close(found.peaks[name], expected, rtol=1e-6, atol=0.0)


def test_a_look_inside_an_autocast_region_leaves_its_weights_trainable() -> None:
    model = cnn("flat")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        look(model)
        model(pictures()).float().sum().backward()
    assert all(each.grad is not None for each in model.parameters())


# -------------------------------------------------------------------------------------------- whatever the mode


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("made_in_inference_mode", [False, True])
@pytest.mark.parametrize("layer", [None, LAYER])
def test_under_any_grad_mode(mode: Any, made_in_inference_mode: bool, layer: str | None) -> None:
    expected = look(target_layer=layer)
    model = cnn("flat")
    with torch.inference_mode(made_in_inference_mode):
        images, labels = pictures(), LABELS.clone()
    with mode():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        found = look(model, images, labels, target_layer=layer)
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before
    assert_same(found, expected)


def test_frozen_parameters_change_nothing() -> None:
    assert_same(look(cnn("flat").requires_grad_(False)), look())


def test_images_that_require_a_gradient_get_none() -> None:
    images = pictures().requires_grad_()
    found = look(images=images)
    assert images.grad is None
    assert not any(each.requires_grad for each in (*found.maps.values(), found.logits))


# ------------------------------------------------------------------------------------------- the model as it was


class Untidy(nn.Module):
    """Draws random numbers, counts in a buffer and writes on its images, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.net = cnn("flat")
        self.register_buffer("count", torch.tensor([0.0, float("nan")]))

    def forward(self, images: Tensor) -> Any:
        self.count += 1
        images += 0.01 * random.random() + 0.01 * float(np.random.rand()) + 0.01 * torch.rand(1)
        return self.net(images)


@pytest.fixture
def untidy() -> Untidy:
    """In training, with a frozen BatchNorm, one gradient of NaNs, one of zeros and the others None."""
    model = Untidy().train()
    model.net.features[1].eval()
    model.net.features[0].weight.requires_grad_(False)
    model.net.head[3].weight.grad = torch.full_like(model.net.head[3].weight, float("nan"))
    model.net.head[3].bias.grad = torch.zeros_like(model.net.head[3].bias)
    return model


@pytest.mark.parametrize("layer", [None, "net.features.3"])
def test_the_model_and_its_images_are_left_as_they_were(untidy: Untidy, layer: str | None) -> None:
    images = pictures()
    before, pixels = state_of(untidy), bits(images)
    found = attribute(untidy, images, LABELS, methods=SIX, target_layer=layer)
    assert state_of(untidy) == before
    assert bits(images) == pixels
    assert found.peaks["layer_cam"].max() > 0

    untidy(images)  # and all of it would have been seen
    after = state_of(untidy)
    assert [key for key in before if after[key] != before[key]] == ["buffers", "python", "numpy", "torch"]


@pytest.mark.parametrize("layer", [None, "net.features.3"])
@pytest.mark.parametrize("error", [ArithmeticError, KeyboardInterrupt])
def test_the_model_is_left_as_it_was_by_an_error(untidy: Untidy, layer: str | None, error: Any) -> None:
    before = state_of(untidy)

    def forward(model: nn.Module, images: Tensor) -> Tensor:
        model(images)
        raise error("in the user's forward")

    with pytest.raises(error, match="in the user's forward"):
        attribute(untidy, pictures(), target_layer=layer, forward=forward)
    assert state_of(untidy) == before


def test_accumulated_gradients_are_kept_bit_for_bit(untidy: Untidy) -> None:
    untidy.net.head[3].weight.grad = None
    untidy(pictures()).sum().backward()
    before = state_of(untidy)["gradients"]
    attribute(untidy, pictures(), LABELS, methods=SIX)
    assert state_of(untidy)["gradients"] == before
    assert {each is None for each in before.values()} == {True, False}


def test_a_pending_backward_still_runs() -> None:
    model = cnn("flat").train()
    torch.manual_seed(0)
    loss = model(pictures()).sum()
    look(model)
    loss.backward()
    found = [bits(each.grad) for each in model.parameters()]

    twin = cnn("flat").train()
    torch.manual_seed(0)
    twin(pictures()).sum().backward()
    assert found == [bits(each.grad) for each in twin.parameters()]


def test_a_look_in_eval_mode_is_the_same_from_train_mode() -> None:
    assert_same(look(cnn("flat").train()), look(cnn("flat").eval()))


# ---------------------------------------------------------------------------------- whatever the model is like


@pytest.mark.parametrize("layer", [None, "features.1", "features.3"])
def test_in_place_relus_change_nothing(layer: str | None) -> None:
    assert_same(
        look(cnn("flat", inplace=True), target_layer=layer),
        look(cnn("flat", inplace=False), target_layer=layer),
    )


class Outputs(nn.Module):
    """Wraps the logits in something else."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net = cnn("flat")
        self.wrap = wrap

    def forward(self, images: Tensor) -> Any:
        return self.wrap(self.net(images))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda logits: (logits, None),
        lambda logits: [None, logits],
        lambda logits: {"logits": logits},
        lambda logits: {"out": logits, "aux": logits * 0},
        lambda logits: SimpleNamespace(loss=None, logits=logits),
    ],
    ids=["tuple", "list", "dict", "out", "object"],
)
@pytest.mark.parametrize("layer", [None, "net.features"])
def test_logits_are_found_in_what_the_model_returns(wrap: Callable[[Tensor], Any], layer: str | None) -> None:
    found = look(Outputs(wrap), target_layer=layer)
    expected = look(target_layer="features")
    assert found.target_layer == "net.features"
    for name in SIX:
        assert torch.equal(found.maps[name], expected.maps[name])


@pytest.mark.parametrize("n", [1, 3])
def test_a_binary_head_that_squeezes(n: int) -> None:
    model = Outputs(lambda logits: logits[:, 2:3].squeeze())
    found = attribute(model, pictures(n), 1, methods="layer_cam")
    expected = look(None, pictures(n), 2, methods="layer_cam", target_layer="features")
    assert found.target_layer == "net.features"
    torch.testing.assert_close(found.maps["layer_cam"], expected.maps["layer_cam"])


def test_an_output_without_logits_is_refused_and_forward_helps() -> None:
    model = Outputs(lambda logits: {"scores": logits[:, :, None]})
    with pytest.raises(
        ValueError, match=r"The model's output holds no logits \(4, K\): got dict.*Pass `forward=`"
    ):
        look(model, target_layer="net.features")
    found = look(
        model, target_layer="net.features", forward=lambda model, images: model(images)["scores"].squeeze(2)
    )
    assert torch.equal(found.maps["layer_cam"], look(target_layer="features").maps["layer_cam"])


class NoForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = cnn("flat")
        self.teacher = cnn("flat")


@pytest.mark.parametrize("layer", [None, "net.features"])
def test_a_module_without_a_forward_is_refused_and_forward_helps(layer: str | None) -> None:
    model = NoForward()
    before = state_of(model)
    with pytest.raises(
        ValueError,
        match=r"NoForward has no `forward` of its own, and 2 parts with parameters .*: pass `forward=`",
    ):
        look(model, target_layer=layer)
    assert state_of(model) == before
    found = look(model, target_layer=layer, forward=lambda module, images: module.net(images))
    assert torch.equal(found.maps["layer_cam"], look(target_layer="features").maps["layer_cam"])


class FrozenBackbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = cnn("flat")

    def forward(self, images: Tensor) -> Any:
        with torch.no_grad():
            features = self.net.features(images)
        return self.net.head(features)


@pytest.mark.parametrize("layer", [None, "net.features.1", "net.features.3"])
def test_a_users_no_grad_around_the_backbone_changes_nothing(layer: str | None) -> None:
    model = FrozenBackbone().train()
    before = state_of(model)
    found = look(model, target_layer=layer)
    assert state_of(model) == before
    expected = look(target_layer=found.target_layer.removeprefix("net."))
    for name in SIX:
        torch.testing.assert_close(found.maps[name], expected.maps[name])


def test_a_reshape_transform_reads_the_layer() -> None:
    found = look(reshape_transform=lambda output: output.transpose(2, 3), methods="layer_cam")
    turned = nn.functional.interpolate(found.maps["layer_cam"][:, None], size=SIZE[::-1])[:, 0].transpose(
        1, 2
    )
    assert turned.shape == (4, *SIZE)
    plain = look(methods="layer_cam")
    torch.testing.assert_close(found.peaks["layer_cam"], plain.peaks["layer_cam"])
    assert (found.maps["layer_cam"] - plain.maps["layer_cam"]).abs().max() > 0.05


@pytest.fixture
def no_compiled_code_left() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("no_compiled_code_left")
@pytest.mark.parametrize(
    ("warm", "layer"), [(False, None), (True, "_orig_mod.features")], ids=["cold", "warm"]
)
def test_a_compiled_model(warm: bool, layer: str | None) -> None:
    model = torch.compile(cnn("flat").train(), backend="aot_eager")
    if warm:
        model(pictures())
        seeded(model._orig_mod)  # the BatchNorm has moved
        model.train()
    found = look(model, target_layer=layer)
    assert found.target_layer == "_orig_mod.features"
    expected = look(target_layer="features")
    for name in SIX:
        torch.testing.assert_close(found.maps[name], expected.maps[name])
    assert model.training


def test_a_data_parallel_wrapper_on_the_cpu() -> None:
    model = nn.DataParallel(cnn("flat"))
    found = look(model, target_layer=None)
    assert found.target_layer == "module.features"
    assert torch.equal(found.maps["layer_cam"], look(target_layer="features").maps["layer_cam"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_maps_lie_on_the_models_device() -> None:
    found = look(cnn("flat").cuda(), pictures().cuda(), target_layer=None)
    assert all(
        each.is_cuda for each in (*found.maps.values(), *found.peaks.values(), found.logits, found.targets)
    )
    expected = look(target_layer="features")
    for name in SIX:
        torch.testing.assert_close(found.maps[name].cpu(), expected.maps[name], rtol=0.0, atol=0.02)


def test_everything_behind_the_targets_is_given_by_name() -> None:
    kinds = {name: each.kind for name, each in inspect.signature(attribute).parameters.items()}
    assert [name for name, kind in kinds.items() if kind is inspect.Parameter.KEYWORD_ONLY] == [
        "methods",
        "target_layer",
        "reshape_transform",
        "forward",
        "fuse",
        "masks",
        "head",
    ]


def test_the_labels_of_a_batch_are_explained_as_in_a_look() -> None:
    """`targets="label"` means in `attribute` what it means in `SaliencyMonitor`, also for samples without a label."""
    model, images = cnn(), pictures(4)
    labels = torch.tensor([2, 0, -1, 4])
    batch = SaliencyBatch(images, labels)

    found = attribute(model, batch, "label")
    look = analyze(model, batch, LookConfig(checks=[])).attribution

    assert found.targets is not None and look.targets is not None
    assert found.targets[[0, 1, 3]].tolist() == [2, 0, 4]
    assert torch.equal(found.targets, look.targets)
    torch.testing.assert_close(found.maps["guidance_cam"], look.maps["guidance_cam"])
    unlabelled = attribute(model, SaliencyBatch(images), "label").targets
    assert unlabelled is not None and torch.equal(unlabelled, found.logits.argmax(dim=1))


def test_the_masks_of_a_batch_are_those_of_its_objects() -> None:
    dense, images = nn.Conv2d(1, 2, 3, padding=1), torch.rand(2, 1, 8, 8)
    boxes = [torch.tensor([[1.0, 1.0, 4.0, 4.0]]), torch.tensor([[2.0, 3.0, 7.0, 8.0]])]
    batch = SaliencyBatch(images, torch.tensor([0, 1]), boxes=boxes)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1), dense)

    found = attribute(model, batch, "label", target_layer="0")
    given = attribute(model, images, batch.labels, target_layer="0", masks=batch.object_masks)

    torch.testing.assert_close(found.values, given.values)
    assert found.in_mask is not None and bool(found.in_mask.all())


class AddsAChannel(nn.Module):
    """A network of one channel more than its batch has dimensions for, as those of spectra and of EEG are."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        images = images[:, None].expand(-1, self.features[0].in_channels, -1, -1)
        return self.head(self.features(images).mean(dim=(2, 3)))


@pytest.mark.parametrize("n", [1, 3])
def test_a_network_that_adds_a_channel_is_run_with_any_number_of_samples(n: int) -> None:
    model, signals = AddsAChannel(n).eval(), torch.rand(n, 22, 16)
    found = attribute(
        model, signals, target_layer="features", reshape_transform=lambda output: output.mean(dim=2)
    )
    assert torch.equal(found.logits, model(signals))
    with pytest.raises(InputError, match="look like one"):
        attribute(model.features, signals, target_layer="1")
