"""The methods that ask the model again: against other packages where those are right, by hand, and where they meet."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_gcam import attribute
from lightning_gcam.cam import methods, registry
from lightning_gcam.cam.capture import capture
from lightning_gcam.cam.context import MethodContext
from lightning_gcam.cam.methods import grad_cam, grad_cam_plus_plus
from lightning_gcam.cam.methods.aggregation import bias_of, contributions
from lightning_gcam.cam.methods.perturbation import masks_of
from lightning_gcam.cam.registry import ModelMethod
from lightning_gcam.metrics.functional import centre_map
from lightning_gcam.utils.errors import InputError
from tests.reference.test_maps_of_others import LABELS, as_maps, by_grad_cam, imported
from tests.support.nets import CLASSES, SIZE, cnn, pictures, seeded

LAYER = "features.4"
HEADS = ["pooled", "max", "flat"]


def context_of(model: Any, layer: str = LAYER, **options: Any) -> MethodContext:
    images = pictures()
    captured = capture(model, images, model.get_submodule(layer), LABELS)
    return MethodContext(model, images, captured, torch.tensor(LABELS), **options)


def maps_of(method: str, head: str, layer: str = LAYER) -> Tensor:
    return attribute(cnn(head), pictures(), LABELS, methods=method, target_layer=layer).maps[method]


def assert_same(found: Tensor, raw: Tensor) -> None:
    assert (raw > 0).flatten(1).any(dim=1).all()
    torch.testing.assert_close(found, as_maps(raw), rtol=1e-3, atol=1e-4)


# ------------------------------------------------------------------------------------- other packages


@pytest.mark.parametrize("head", HEADS)
def test_score_cam_against_torchcam_and_grad_cam(head: str) -> None:
    """At a layer as large as the image: torchcam scales before it enlarges, grad-cam enlarges with aligned corners."""
    model, images, layer = cnn(head), pictures(), "features.2"
    explainer = imported("torchcam.methods").ScoreCAM(model, target_layer=layer, input_shape=(3, *SIZE))
    with explainer:
        theirs = explainer(LABELS, model(images), normalized=False)[0].detach()
    assert_same(maps_of("score_cam", head, layer), theirs)
    weights = _raw_weights("ScoreCAM", model, images, layer)
    activations = capture(model, images, model.features[2], LABELS).activations
    expected = torch.einsum("nc,nchw->nhw", weights, activations).relu()
    assert_same(maps_of("score_cam", head, layer), expected)


@pytest.mark.parametrize("head", HEADS)
def test_ablation_cam_against_grad_cam(head: str) -> None:
    """It divides by the score, which turns the map around where that is negative."""
    model, images = cnn(head), pictures()
    captured = capture(model, images, model.features[4], LABELS)
    theirs = _raw_weights("AblationCAM", model, images) * captured.score.values.sign()[:, None]
    expected = torch.einsum("nc,nchw->nhw", theirs, captured.activations).relu()
    assert_same(maps_of("ablation_cam", head), expected)


def _raw_weights(method: str, model: Any, images: Tensor, layer: str = LAYER) -> Tensor:
    package = imported("pytorch_grad_cam")
    target = imported("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget
    targets = [target(label) for label in LABELS]
    module = model.get_submodule(layer)
    with getattr(package, method)(model=model, target_layers=[module]) as explainer:
        explainer(images, targets)
        hooks = explainer.activations_and_grads
        activations = hooks.activations[0].numpy()
        return torch.from_numpy(explainer.get_cam_weights(images, module, targets, activations, None))


@pytest.mark.parametrize("layer", ["features.2", LAYER])
@pytest.mark.parametrize(("theirs", "ours"), [("EigenCAM", "eigen_cam"), ("EigenGradCAM", "eigen_grad_cam")])
def test_principal_components_against_grad_cam(theirs: str, ours: str, layer: str) -> None:
    """It leaves the sign to the decomposition, so that ours is one of its two."""
    model, images = cnn("flat"), pictures()
    found = attribute(model, images, LABELS, methods=ours, target_layer=layer)
    captured = capture(model, images, model.get_submodule(layer), LABELS)
    product = captured.activations * (captured.gradients if ours == "eigen_grad_cam" else 1)
    project = imported("pytorch_grad_cam.utils.svd_on_activations").get_2d_projection
    raw = torch.from_numpy(project(product.detach().numpy()))
    for map_, one, summed in zip(found.maps[ours], raw, product.sum(dim=1), strict=True):
        agrees = float(np.corrcoef(one.flatten(), summed.flatten())[0, 1]) > 0
        assert_same(map_[None], (one if agrees else -one).relu()[None])
    assert getattr(imported("pytorch_grad_cam"), theirs).__name__ == theirs


@pytest.mark.parametrize("head", HEADS)
def test_element_wise_against_grad_cam(head: str) -> None:
    theirs = by_grad_cam("GradCAMElementWise", cnn(head), LAYER, pictures())
    assert_same(maps_of("element_wise_grad_cam", head), theirs)


def _captum(name: str) -> Any:
    return getattr(imported("captum.attr"), name)


@pytest.mark.parametrize("head", HEADS)
def test_integrated_gradients_against_captum_and_complete(head: str) -> None:
    model, images = cnn(head), pictures()
    theirs = _captum("IntegratedGradients")(model).attribute(images, target=LABELS, n_steps=50).sum(dim=1)
    found = attribute(model, images, LABELS, methods="integrated_gradients", target_layer=LAYER)
    torch.testing.assert_close(
        found.peaks["integrated_gradients"], theirs.relu().amax(dim=(1, 2)).float(), rtol=1e-3, atol=1e-5
    )
    expected = theirs.relu().float() / theirs.relu().amax(dim=(1, 2), keepdim=True).float()
    torch.testing.assert_close(found.maps["integrated_gradients"], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU:UserWarning")
@pytest.mark.parametrize("head", HEADS)
def test_guided_grad_cam_against_captum(head: str) -> None:
    """Captum multiplies each colour; ours sums the colours up and rectifies, as the other maps are."""
    model, images = cnn(head), pictures()
    guided = _captum("GuidedBackprop")(model).attribute(images.clone().requires_grad_(), target=LABELS)
    coarse = _captum("LayerGradCam")(model, model.features[4]).attribute(
        images, target=LABELS, relu_attributions=True
    )
    coarse = nn.functional.interpolate(coarse, SIZE, mode="bilinear", align_corners=False)[:, 0].detach()
    expected = guided.detach().sum(dim=1).relu() * coarse
    largest = expected.amax(dim=(1, 2), keepdim=True)
    expected = expected / torch.where(largest > 0, largest, 1.0)
    torch.testing.assert_close(maps_of("guided_grad_cam", head), expected, rtol=1e-3, atol=1e-4)


def test_occlusion_by_hand() -> None:
    """The model sums one pixel's colours: a square takes all of it away where it covers the pixel."""

    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Identity()

        def forward(self, images: Tensor) -> Tensor:
            return torch.stack(
                [self.stem(images)[:, :, 3, 8].sum(dim=1), images.mean(dim=(1, 2, 3)) * 0], dim=1
            )

    images = torch.rand(1, 3, 14, 14) + 0.5
    found = attribute(Reads(), images, 0, methods="occlusion", target_layer="stem").maps["occlusion"][0]
    assert found[3, 8] == 1.0  # every 2 x 2 square over it takes the whole score
    assert found[3, 7] == found[3, 9] == pytest.approx(0.5)  # half of those over a neighbour do
    assert found[2, 7] == pytest.approx(0.25)
    assert found[6, :].max() == 0


# ------------------------------------------------------------------------------------- by hand, and where they meet


def test_score_cam_by_hand() -> None:
    model, context = cnn("flat"), context_of(cnn("flat"))
    n, channels = context.activations.shape[:2]
    expected = torch.zeros_like(context.activations[:, 0])
    for row in range(n):
        scores = []
        for channel in range(channels):
            map_ = context.activations[row, channel]
            large = nn.functional.interpolate(map_[None, None], SIZE, mode="bilinear")[0, 0]
            spread = large.max() - large.min()
            if spread > 0:
                masked = pictures()[row] * (large - large.min()) / spread
                with torch.no_grad():
                    scores.append(float(model(masked[None])[0, LABELS[row]]))
            else:
                scores.append(-np.inf)
        weights = torch.tensor(scores).softmax(dim=0)
        expected[row] = (weights[:, None, None] * context.activations[row]).sum(dim=0).relu()
    assert_same(maps_of("score_cam", "flat"), expected.detach())


def test_masks_lie_between_zero_and_one_and_a_flat_channel_is_none() -> None:
    context = context_of(cnn())
    context.activations[0, 2] = 0.7
    rows, channels = torch.zeros(9, dtype=torch.long), torch.arange(9)
    masks = masks_of(context, rows, channels)
    assert masks.shape == (9, 1, *SIZE)
    assert masks[2].abs().max() == 0
    alive = [each for each in range(9) if masks[each].max() > 0]
    assert len(alive) > 4
    assert all(masks[each].min() == 0 and masks[each].max() == 1 for each in alive)


@pytest.mark.parametrize("head", HEADS)
def test_without_noise_ss_cam_is_score_cam_and_in_one_step_is_cam_is(head: str) -> None:
    expected = methods.score_cam(context_of(cnn(head)))
    torch.testing.assert_close(methods.ss_cam(context_of(cnn(head)), draws=2, sigma=0.0), expected)
    torch.testing.assert_close(methods.is_cam(context_of(cnn(head)), steps=1), expected)


def test_is_cam_averages_over_the_steps_of_a_growing_mask() -> None:
    context, asked = context_of(cnn("flat"), at_once=10_000), []
    values = context.values
    context.values = lambda images, rows: asked.append(images) or values(images, rows)  # type: ignore[method-assign]
    methods.is_cam(context, steps=2)
    (images,) = asked
    half, whole = images[0], images[1]
    torch.testing.assert_close(2 * half, whole)
    assert not torch.equal(half, whole)


def test_ss_cam_adds_noise_to_the_mask_not_to_the_image() -> None:
    context, asked = context_of(cnn("flat"), at_once=10_000), []
    context.images[:, :, 0, 0] = 0
    values = context.values
    context.values = lambda images, rows: asked.append(images) or values(images, rows)  # type: ignore[method-assign]
    methods.ss_cam(context, draws=3, sigma=1.0)
    (images,) = asked
    assert images[:, :, 0, 0].abs().max() == 0
    ratio = images[0] / context.images[0].where(context.images[0] != 0, torch.nan)
    torch.testing.assert_close(ratio[0], ratio[1], equal_nan=True)  # one mask for all colours
    assert not torch.equal(images[0], images[1])


@pytest.mark.parametrize("head", HEADS)
def test_without_noise_smooth_grad_cam_plus_plus_is_grad_cam_plus_plus(head: str) -> None:
    context = context_of(cnn(head))
    expected = grad_cam_plus_plus(context.activations, context.gradients)
    assert expected.max() > 0
    torch.testing.assert_close(methods.smooth_grad_cam_plus_plus(context, draws=3, spread=0.0), expected)


def test_smooth_grad_cam_plus_plus_averages_powers_of_the_gradient() -> None:
    """Two draws by hand, with the gradients at the very images that the context makes."""
    context, seen = context_of(cnn("max")), []
    capture_ = context.capture

    def listen(images: Tensor, rows: Tensor) -> Any:
        found = capture_(images, rows)
        seen.extend(zip(rows.tolist(), found.gradients, strict=True))
        return found

    context.capture = listen  # type: ignore[method-assign]
    found = methods.smooth_grad_cam_plus_plus(context, draws=2, spread=0.3)
    for row in range(len(context)):
        one, two = (gradient for each, gradient in seen if each == row)
        first, second, third = ((one**p + two**p) / 2 for p in (1, 2, 3))
        bottom = 2 * second + context.activations[row].sum(dim=(1, 2), keepdim=True) * third
        alpha = torch.where((second != 0) & (bottom != 0), second / bottom, 0.0)
        weights = (alpha * first.relu()).sum(dim=(1, 2))
        expected = (weights[:, None, None] * context.activations[row]).sum(dim=0).relu()
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-6)


class Rectifier(nn.Module):
    """Convolutions, a batch normalization and ReLUs, without a bias behind the last grid."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 7, 3),
            nn.ReLU(),
        )
        self.head = nn.Linear(7, CLASSES, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).mean(dim=(2, 3)))


def test_contributions_of_full_grad_add_up_to_the_score() -> None:
    model: Any = seeded(Rectifier())
    context = context_of(model, "features.5")
    parts = contributions(context, "full_grad", context.images, torch.arange(len(context)))
    assert len(parts) == 4  # the input, two convolutions, the normalization
    total = sum(part.flatten(1).sum(dim=1) for part in parts)
    torch.testing.assert_close(total, context.explained, rtol=1e-4, atol=1e-5)
    assert (parts[0].flatten(1).sum(dim=1) - context.explained).abs().max() > 0.1


def test_full_grad_by_hand() -> None:
    """One convolution of one pixel: y = mean(ReLU(w x + b)), all active."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.load_state_dict({"0.weight": torch.full((1, 1, 1, 1), 2.0), "0.bias": torch.tensor([3.0])})
    images = torch.tensor([[[[1.0, 2.0, 3.0, 5.0]] * 4]])
    found = attribute(model.eval(), images, "output", methods="full_grad", target_layer="1")
    # the input's part is 2 x / 16, which rescaled is (x - 1) / 4; the bias's part is the same everywhere: 0
    expected = (images[0, 0] - 1) / 4
    torch.testing.assert_close(found.maps["full_grad"][0], expected)
    assert found.peaks["full_grad"].item() == pytest.approx(1.0)


def test_the_bias_of_a_normalization_is_what_it_adds() -> None:
    model: Any = seeded(Rectifier())
    norm = model.features[1]
    zeros = torch.zeros(1, 6, 2, 2)
    torch.testing.assert_close(bias_of(norm), norm(zeros)[0, :, 0, 0])
    assert bias_of(nn.BatchNorm2d(6, track_running_stats=False).eval()) is not None
    assert bias_of(nn.ReLU()) is None


def test_without_noise_smooth_full_grad_is_full_grad() -> None:
    model: Any = seeded(Rectifier())
    plain = methods.full_grad(context_of(model, "features.5"))
    smooth = methods.smooth_full_grad(context_of(model, "features.5"), draws=2, spread=0.0)
    torch.testing.assert_close(smooth, plain)
    noisy = methods.smooth_full_grad(context_of(model, "features.5"), draws=2, spread=0.5)
    assert (noisy - plain).abs().max() > 1e-3


@pytest.mark.parametrize("head", HEADS[:2])
def test_at_its_own_size_alone_cameras_is_hires_cam_of_the_layer_enlarged(head: str) -> None:
    context = context_of(cnn(head))
    both = (context.activations, context.gradients)
    enlarged = [nn.functional.interpolate(each, SIZE, mode="bilinear") for each in both]
    expected = (enlarged[0] * enlarged[1]).sum(dim=1).relu()
    torch.testing.assert_close(methods.cameras(context, steps=1), expected, rtol=1e-4, atol=1e-6)


def test_cameras_shows_the_image_at_every_size_and_averages() -> None:
    context, seen = context_of(cnn()), []
    capture_ = context.capture

    def listen(images: Tensor, rows: Tensor) -> Any:
        found = capture_(images, rows)
        seen.append((tuple(images.shape[-2:]), found))
        return found

    context.capture = listen  # type: ignore[method-assign]
    found = methods.cameras(context, steps=3, largest=2.0)
    assert [size for size, _ in seen] == [(12, 10), (18, 15), (24, 20)]
    means = []
    for name in ("activations", "gradients"):
        large = [nn.functional.interpolate(getattr(each, name), SIZE, mode="bilinear") for _, each in seen]
        means.append(torch.stack(large).mean(dim=0))
    torch.testing.assert_close(found, (means[0] * means[1]).sum(dim=1).relu(), rtol=1e-4, atol=1e-6)


def test_guided_grad_cam_is_blank_where_grad_cam_is() -> None:
    context = context_of(cnn("max"))
    coarse = grad_cam(context.activations, context.gradients)
    large = nn.functional.interpolate(coarse[:, None], SIZE, mode="bilinear")[:, 0]
    found = methods.guided_grad_cam(context)
    assert (large == 0).any()
    assert found[large == 0].abs().max() == 0


def test_the_blind_maps() -> None:
    context = context_of(cnn())
    grid = context.activations.shape[2:]
    noise = methods.random(context)
    assert noise.shape == (4, *grid) and noise.min() >= 0 and noise.max() < 1
    assert len({float(each) for each in noise.flatten()}) > 100, "each sample's own"
    torch.testing.assert_close(
        methods.centre(context)[2], centre_map(grid, noise.device), rtol=1e-4, atol=1e-5
    )


# ------------------------------------------------------------------------------------- how they are run


def test_channels_are_a_batch_and_not_a_loop() -> None:
    calls: list[int] = []

    def forward(module: nn.Module, images: Tensor) -> Tensor:
        calls.append(len(images))
        return module(images)

    # a convolution: how its output lies needs no forward to be seen
    attribute(
        cnn("flat"), pictures(), LABELS, methods="score_cam", target_layer="features.3", forward=forward
    )
    assert calls[0] == 4 and max(calls) == 16
    asked = sum(calls[1:])
    assert asked <= 4 * 9 and len(calls) - 1 == -(-asked // 16)


def test_where_memory_runs_out_smaller_pieces_go_through() -> None:
    sizes: list[int] = []

    def forward(module: nn.Module, images: Tensor) -> Tensor:
        sizes.append(len(images))
        if len(images) > 5:
            raise torch.OutOfMemoryError("there is no more")
        return module(images)

    options: dict[str, Any] = {"methods": ["score_cam", "ablation_cam"], "target_layer": LAYER}
    found = attribute(cnn("flat"), pictures(), LABELS, forward=forward, **options)
    plain = attribute(cnn("flat"), pictures(), LABELS, **options)
    for name, maps in plain.maps.items():
        torch.testing.assert_close(found.maps[name], maps, rtol=1e-4, atol=1e-5)
    assert sizes.count(16) == 1, "the second method begins with what went through"


def test_another_setting_goes_by_a_name_of_its_own() -> None:
    quick = ModelMethod(partial(methods.ss_cam, draws=2), "ss_cam_2")
    found = attribute(cnn(), pictures(), LABELS, methods=[quick, "grad_cam"], target_layer=LAYER)
    assert list(found.maps) == ["ss_cam_2", "grad_cam"]
    by_key = attribute(cnn(), pictures(), LABELS, methods={"mine": quick}, target_layer=LAYER)
    torch.testing.assert_close(by_key.maps["mine"], found.maps["ss_cam_2"])


def test_without_captum_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"`methods` \"occlusion\" .*not installed(.|\n)*lightning-gcam\[captum\]"
    ):
        attribute(cnn(), pictures(), LABELS, methods="occlusion", target_layer=LAYER)
