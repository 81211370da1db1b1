"""Several target layers: one forward and one gradient; each layer's maps are what they are alone; and fused maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_gcam import Attribution, SaliencyBatch, attribute
from lightning_gcam.cam import ModelMethod, available_methods
from lightning_gcam.cam.capture import capture, capture_layers
from lightning_gcam.pipeline.record import Stamp
from lightning_gcam.pipeline.run import record_saliency
from lightning_gcam.utils.errors import InputError
from tests.support.nets import CLASSES, bits, cnn, pictures, seeded, state_of
from tests.support.toys import toy_network, toy_samples

SIX = available_methods()[:6]
LABELS = torch.tensor([0, 3, 1, 1])
LAYERS = ["features.0", "features.3", "features.4"]


def look(layers: Any = LAYERS, model: nn.Module | None = None, **options: Any) -> Attribution:
    options = {"methods": SIX, "target_layer": layers, **options}
    return attribute(model if model is not None else cnn("flat"), pictures(), LABELS, **options)


# ---------------------------------------------------------------------------------------------- each by itself


@pytest.mark.parametrize("head", ["pooled", "max", "flat"])
@pytest.mark.parametrize(
    "layers", [LAYERS, LAYERS[::-1], ["features", "features.1"], ["features.4", "features"]]
)
def test_every_layers_maps_are_bit_for_bit_those_of_the_layer_alone(head: str, layers: list[str]) -> None:
    together = look(layers, cnn(head))
    assert (
        list(together.maps)
        == list(together.peaks)
        == [f"{method}@{name}" for name in layers for method in SIX]
    )
    for name in layers:
        alone = look(name, cnn(head))
        for method in SIX:
            assert bits(together.maps[f"{method}@{name}"]) == bits(alone.maps[method])
            assert bits(together.peaks[f"{method}@{name}"]) == bits(alone.peaks[method])
        assert torch.equal(together.logits, alone.logits)
    assert together.target_layer == ", ".join(layers)


@pytest.mark.parametrize("layers", [["features.3"], ("features.3",)])
def test_a_list_of_one_is_one_layer(layers: Any) -> None:
    found, expected = look(layers), look("features.3")
    assert list(found.maps) == list(SIX)
    assert found.target_layer == "features.3"
    assert all(bits(found.maps[name]) == bits(expected.maps[name]) for name in SIX)


def test_names_and_modules_may_be_mixed() -> None:
    model = cnn("flat")
    found = look(["features.3", model.features[0]], model)
    assert found.target_layer == "features.3, features.0"


def test_one_forward_and_one_gradient_that_starts_at_the_earliest_layer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, sizes, wanted = cnn("flat"), [], []
    model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    seen: dict[str, bool] = {}
    for name, module in model.features.named_children():
        module.register_forward_hook(
            lambda m, a, output, name=name: seen.update({name: output.requires_grad})
        )
    grad = torch.autograd.grad

    def counted(outputs: Tensor, inputs: list[Tensor], *args: Any, **options: Any) -> Any:
        wanted.append(len(inputs))
        return grad(outputs, inputs, *args, **options)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    look(["features.3", "features.1"], model)
    assert sizes == [4]
    assert wanted == [2]
    assert seen == {
        "0": False,
        "1": False,
        "2": True,
        "3": True,
        "4": True,
    }  # "1" is seen before our own hook


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_in_place_relus_and_frozen_parameters_change_nothing(inplace: bool, frozen: bool) -> None:
    found, expected = look(model=cnn("flat", inplace=inplace).requires_grad_(not frozen)), look()
    assert all(bits(found.maps[name]) == bits(expected.maps[name]) for name in expected.maps)


def test_the_model_is_left_as_it_was() -> None:
    model = cnn("flat").train()
    before = state_of(model)
    look(model=model)
    look(model=model, fuse="product")
    assert state_of(model) == before


def test_hooks_are_gone_after_an_error() -> None:
    model = cnn("flat")

    def forward(net: Any, images: Tensor) -> Tensor:
        net(images)
        raise ArithmeticError("in the user's forward")

    with pytest.raises(ArithmeticError, match="in the user's forward"):
        look(model=model, forward=forward)
    assert not any(each._forward_hooks for each in model.modules())


class Branches(nn.Module):
    """Two towers side by side, a layer that is called twice, one behind a `no_grad`, and one that leads nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 6, 3, padding=1)
        self.shared = nn.Conv2d(6, 6, 3, padding=1)
        self.aside, self.spare = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 6, 1)
        self.head = nn.Linear(6, CLASSES)
        self.freeze = False

    def forward(self, images: Tensor) -> Tensor:
        self.aside(images)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            left = self.left(images)
        features = left.tanh() + self.right(images).relu()
        features = self.shared(self.shared(features).relu())
        return self.head(features.tanh().mean(dim=(2, 3)))


def branches(*, freeze: bool = False) -> nn.Module:
    model = Branches()
    seeded(model)
    model.freeze = freeze
    return model


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("layers", [["left", "right", "shared"], ["shared", "right"], ["right", "left"]])
def test_branches_and_layers_called_twice(layers: list[str], freeze: bool, frozen: bool) -> None:
    model = branches(freeze=freeze).requires_grad_(not frozen)
    together = look(layers, model)
    for name in layers:
        alone = look(name, branches())
        for method in SIX:
            torch.testing.assert_close(together.maps[f"{method}@{name}"], alone.maps[method])
            torch.testing.assert_close(together.peaks[f"{method}@{name}"], alone.peaks[method])
            assert alone.peaks["layer_cam"].max() > 0


def test_the_last_call_counts_at_each_of_several_layers() -> None:
    model, images = branches(), pictures()
    kept: list[Tensor] = []
    handle = model.shared.register_forward_hook(lambda m, a, output: kept.append(output.detach()))
    model(images)
    handle.remove()
    for_two = capture_layers(model, images, [model.left, model.shared], LABELS)
    torch.testing.assert_close(for_two[1].activations, kept[1])
    alone = capture(model, images, model.shared, LABELS)
    torch.testing.assert_close(for_two[1].gradients, alone.gradients)


class Recurrent(nn.Module):
    """One cell, called step after step."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.cell = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        state = self.stem(images)
        for _ in range(self.steps):
            state = self.cell(state).tanh()
        return self.head(state.mean(dim=(2, 3)))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_last_step_of_a_recurrent_network(steps: int) -> None:
    model = seeded(Recurrent(steps))
    captured = capture(model, pictures(), model.cell, LABELS)
    slope = 1 - captured.activations.tanh().square()  # d mean(tanh A) / dA
    expected = model.head.weight[LABELS][:, :, None, None] * slope / slope[0, 0].numel()
    torch.testing.assert_close(captured.gradients, expected.detach())
    assert look(["cell", "stem"], model).peaks["layer_cam@stem"].max() > 0


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["left", "spare"], '`target_layer` Conv2d "spare" was not called by the forward'),
        (
            ["aside", "left"],
            'The score does not depend on `target_layer` Conv2d "aside": it runs, but the logits of',
        ),
        (["shared", "head"], r"`target_layer` gives \(4, 5\) for images"),
    ],
)
def test_the_layer_that_cannot_be_looked_at_is_named(layers: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        look(layers, branches())


def test_even_gradients_are_those_of_all_layers() -> None:
    assert look(["features.4", "features"], cnn("pooled")).even_gradients
    assert not look(
        ["features.4", "features.1"], cnn("pooled")
    ).even_gradients  # here the methods differ already


def test_samples_are_selected_and_joined_at_all_layers() -> None:
    whole = look()
    again = Attribution.cat([whole.select([0, 1]), whole.select([2, 3])])
    assert all(torch.equal(again.maps[name], whole.maps[name]) for name in whole.maps)


# ------------------------------------------------------------------------------------------------------ fused


@pytest.mark.parametrize("method", SIX)
def test_a_product_and_a_mean_of_the_scaled_maps(method: str) -> None:
    apart = [look().maps[f"{method}@{name}"] for name in LAYERS]
    for fuse, raw in (("product", apart[0] * apart[1] * apart[2]), ("mean", sum(apart) / 3)):
        found = look(fuse=fuse)
        peaks = raw.amax(dim=(1, 2))
        assert (peaks > 0).all()
        torch.testing.assert_close(found.peaks[method], peaks)
        torch.testing.assert_close(found.maps[method], raw / peaks[:, None, None])
        assert (peaks < 1).any()  # the layers do not all peak at one pixel
        assert list(found.maps) == list(SIX)
    assert look(fuse="product").target_layer == "features.0 × features.3 × features.4"
    assert look(fuse="mean").target_layer == "features.0 + features.3 + features.4"


def test_a_layer_without_evidence_blanks_the_product_and_not_the_mean() -> None:
    def first_layer_only(activations: Tensor, gradients: Tensor) -> Tensor:
        return activations.square().mean(dim=1) * (activations.shape[1] == 8)  # "features.0" has 8 channels

    layers = ["features.0", "features.3"]
    product = look(layers, methods=first_layer_only, fuse="product")
    assert product.peaks["first_layer_only"].tolist() == [0, 0, 0, 0]
    assert not product.maps["first_layer_only"].any()
    mean = look(layers, methods=first_layer_only, fuse="mean")
    assert mean.peaks["first_layer_only"].tolist() == [0.5] * 4
    assert mean.maps["first_layer_only"].amax(dim=(1, 2)).tolist() == [1.0] * 4


@pytest.mark.parametrize("fuse", ["product", "mean"])
def test_what_is_not_finite_at_one_layer_is_blank_in_the_fused_map(fuse: str) -> None:
    def broken(activations: Tensor, gradients: Tensor) -> Tensor:
        maps = activations.square().mean(dim=1)
        maps[1] += torch.nan if activations.shape[1] == 8 else 0
        return maps

    found = look(["features.0", "features.3"], methods=broken, fuse=fuse)
    assert found.peaks["broken"].isnan().tolist() == [False, True, False, False]
    assert not found.maps["broken"][1].any()
    assert torch.isfinite(found.maps["broken"]).all()


def test_one_layer_cannot_be_fused() -> None:
    for layers in (None, "features.3", ["features.3"]):
        with pytest.raises(InputError, match='`fuse="mean"` makes one map of several layers'):
            look(layers, fuse="mean")


# ------------------------------------------------------------------------------------------------------ a record


def record(**options: Any) -> Any:
    batch = SaliencyBatch(*toy_samples(4))
    options = {"target_layer": ["2", "5"], "scores": ["energy", "iou"], **options}
    return record_saliency(toy_network(), batch, stamp=Stamp(log_prefix="where"), **options)


def test_the_first_method_at_the_first_layer_has_the_plain_scores() -> None:
    torch.manual_seed(0)
    found = record(methods=["grad_cam", "layer_cam"])
    names = [name for name in found.scores if name.endswith("iou")]
    assert names == ["iou", "layer_cam@2/iou", "grad_cam@5/iou", "layer_cam@5/iou", "centre/iou"]
    torch.manual_seed(0)
    assert found.scores["iou"] == record(methods="grad_cam", target_layer="2").scores["iou"]
    torch.manual_seed(0)
    assert found.scores["layer_cam@5/iou"] == record(methods="layer_cam", target_layer="5").scores["iou"]
    assert "where/layer_cam@5/iou" in found.metrics


def test_a_fused_record_has_the_methods_scores() -> None:
    found = record(methods=["grad_cam", "layer_cam"], fuse="product")
    assert [name for name in found.scores if name.endswith("iou")] == ["iou", "layer_cam/iou", "centre/iou"]
    assert "2 × 5" in found.title


def test_each_layer_is_a_column_under_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def draw(sheets: Any, layout: Any, texts: Any, *others: Any) -> Any:
        seen.update(
            headings=[each.heading for each in sheets if each.saliency is not None], notes=texts.notes
        )
        return original(sheets, layout, texts, *others)

    from lightning_gcam.pipeline import rendering as room

    original = room.render_sheets
    monkeypatch.setattr(room, "render_sheets", draw)
    both, one = record(methods="grad_cam"), record(methods="grad_cam", target_layer="2")
    assert one.overlay.ndim == 3
    assert seen["headings"] == ["grad cam"]
    assert both.overlay.ndim == 3
    assert seen["headings"] == ["grad cam · 2", "grad cam · 5"]
    assert list(seen["notes"]) == ["grad_cam@2", "grad_cam@5"]


# -------------------------------------------------------------------------------- methods without a layer

WITHOUT_LAYER = ["full_grad", "smooth_full_grad", "integrated_gradients", "occlusion", "centre"]


def beyond_grad_cam(layers: Any, method: str) -> tuple[Attribution, int]:
    """The maps of Grad-CAM and of a method, and how many forwards the method takes beyond Grad-CAM's."""
    model, sizes = cnn("flat"), list[int]()
    look(layers, model, methods="grad_cam")  # which measures the layouts
    look(layers, model, methods=method)
    model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    look(layers, model, methods="grad_cam")
    alone = len(sizes)
    found = look(layers, model, methods=["grad_cam", method])
    return found, len(sizes) - 2 * alone


@pytest.mark.parametrize("method", WITHOUT_LAYER)
def test_a_method_without_a_layer_is_run_once_for_all_layers(method: str) -> None:
    (one, beyond_one), (three, beyond_three) = (
        beyond_grad_cam(layers, method) for layers in (LAYERS[0], LAYERS)
    )

    assert beyond_one == beyond_three
    assert list(three.maps) == [f"grad_cam@{LAYERS[0]}", method, *(f"grad_cam@{each}" for each in LAYERS[1:])]
    assert bits(three.maps[method]) == bits(one.maps[method])
    assert bits(three.peaks[method]) == bits(one.peaks[method])
    assert one.source_of(method) == three.source_of(method) == (method, "input")
    assert three.source_of(f"grad_cam@{LAYERS[1]}") == ("grad_cam", LAYERS[1])


@pytest.mark.parametrize("fuse", ["product", "mean"])
@pytest.mark.parametrize("method", WITHOUT_LAYER)
def test_a_method_without_a_layer_is_not_fused(method: str, fuse: Any) -> None:
    alone, fused = look(LAYERS[0], methods=method), look(methods=["grad_cam", method], fuse=fuse)

    assert list(fused.maps) == ["grad_cam", method]
    assert bits(fused.maps[method]) == bits(alone.maps[method])
    assert bits(fused.peaks[method]) == bits(alone.peaks[method])
    assert fused.source_of(method) == (method, "input")


def test_your_own_method_may_be_without_a_layer() -> None:
    calls: list[int] = []

    def brightness(context: Any) -> Tensor:
        calls.append(len(context))
        return context.images.mean(dim=1).abs()

    found = look(methods={"mine": ModelMethod(brightness, uses_layer=False), "grad_cam": "grad_cam"})

    assert calls == [4]
    assert [name for name in found.maps if "@" not in name] == ["mine"]


def test_scores_of_a_map_without_a_layer_go_by_its_methods_name() -> None:
    torch.manual_seed(0)
    batch = SaliencyBatch(*toy_samples(4))
    record = record_saliency(
        toy_network().eval(),
        batch,
        methods=["grad_cam", "full_grad"],
        target_layer=["2", "5"],
        scores=["gini", "coherency", "random_model_similarity"],
    )

    assert list(record.attribution.maps) == ["grad_cam@2", "full_grad", "grad_cam@5"]
    assert {"gini", "full_grad/gini", "grad_cam@5/gini"} < set(record.scores)
    assert {"full_grad/coherency", "full_grad/random_model_similarity"} < set(record.scores)
