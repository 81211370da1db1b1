"""One forward, one gradient: the right tensors, from the right call, whatever the forward does around the layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_gcam.cam.capture import Captured, capture
from tests.support.nets import CLASSES, GRID, cnn, pictures, seeded


def textbook(model: nn.Module, layer: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Activations and gradients as a textbook takes them: a full backward, one sample after the other."""
    kept: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, args, output: kept.append(output))
    gradients = []
    for image, label in zip(images, labels, strict=True):
        score = model(image[None])[0, label]
        gradients.append(torch.autograd.grad(score, kept[-1])[0])
    handle.remove()
    return torch.cat(kept).detach(), torch.cat(gradients)


def same(captured: Captured, activations: Tensor, gradients: Tensor) -> None:
    torch.testing.assert_close(captured.activations, activations)
    torch.testing.assert_close(captured.gradients, gradients)


LABELS = torch.tensor([0, 3, 1, 1])


@pytest.mark.parametrize(
    "layer", ["features.0", "features.1", "features.2", "features.3", "features.4", "features"]
)
@pytest.mark.parametrize("head", ["pooled", "max", "flat"])
def test_activations_and_gradients_are_those_of_a_full_backward(head: str, layer: str) -> None:
    model, images = cnn(head), pictures()
    module = model.get_submodule(layer)
    captured = capture(model, images, module, LABELS)
    same(captured, *textbook(model, module, images, LABELS))
    torch.testing.assert_close(captured.logits, model(images).detach())
    assert captured.targets is not None
    assert captured.targets.tolist() == LABELS.tolist()
    assert captured.gradients.abs().max() > 0


@pytest.mark.parametrize("layer", ["features.1", "features.3"])
def test_an_in_place_relu_behind_the_layer_changes_nothing(layer: str) -> None:
    images = pictures()
    plain, inplace = (cnn("flat", inplace=each) for each in (False, True))
    expected = capture(plain, images, plain.get_submodule(layer), LABELS)
    found = capture(inplace, images, inplace.get_submodule(layer), LABELS)
    assert torch.equal(found.activations, expected.activations)
    assert torch.equal(found.gradients, expected.gradients)
    assert (found.activations < 0).any()  # before the ReLU, not after it


def test_an_in_place_layer_is_captured_behind_itself() -> None:
    model, images = cnn("flat", inplace=True), pictures()
    captured = capture(model, images, model.features[4], LABELS)
    twin = cnn("flat")
    same(captured, *textbook(twin, twin.features[4], images, LABELS))


def test_nothing_keeps_a_graph() -> None:
    model = cnn()
    captured = capture(model, pictures(), model.features[3])
    tensors = (captured.activations, captured.gradients, captured.logits)
    assert not any(each.requires_grad or each.grad_fn is not None for each in tensors)


def test_the_graph_starts_at_the_layer() -> None:
    model = cnn()
    seen: dict[str, bool] = {}
    for name, module in model.features.named_children():
        module.register_forward_hook(
            lambda m, args, output, name=name: seen.update({name: output.requires_grad})
        )
    capture(model, pictures(), model.features[3], forward=lambda model, images: model(images))
    assert seen == {
        "0": False,
        "1": False,
        "2": False,
        "3": False,
        "4": True,
    }  # "3" is seen before our own hook


def test_half_precision_is_widened() -> None:
    model = cnn().to(torch.bfloat16)
    captured = capture(model, pictures().to(torch.bfloat16), model.features[3], LABELS)
    assert captured.activations.dtype == captured.gradients.dtype == torch.float32
    assert captured.logits.dtype == torch.bfloat16


# --------------------------------------------------------------------------------- a layer called several times


class Calls(nn.Module):
    """Calls one convolution as `how` says."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.block = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        first = self.block(self.stem(images).relu())
        if self.how == "again":
            features = self.block(first.relu())
        elif self.how == "unused":
            self.block(first.relu())
            features = first
        elif self.how == "teacher":
            features = self.block(self.stem(-images).relu()) + 0 * first.detach()
        else:
            features = first
        return self.head(features.tanh().mean(dim=(2, 3)))


def calls(how: str) -> Calls:
    model = Calls(how)
    seeded(model)
    return model


def outputs_of_block(model: Calls, images: Tensor) -> list[Tensor]:
    kept: list[Tensor] = []
    handle = model.block.register_forward_hook(lambda module, args, output: kept.append(output.detach()))
    model(images)
    handle.remove()
    return kept


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(("how", "which"), [("once", 0), ("again", 1), ("unused", 0), ("teacher", 1)])
def test_the_last_call_that_the_score_depends_on_counts(how: str, which: int, frozen: bool) -> None:
    model, images = calls(how).requires_grad_(not frozen), pictures()
    captured = capture(model, images, model.block, LABELS)
    torch.testing.assert_close(captured.activations, outputs_of_block(model, images)[which])

    # d tanh-mean-linear / dA, by hand
    slope = 1 - captured.activations.tanh().square()
    expected = model.head.weight[LABELS][:, :, None, None] * slope / slope[0, 0].numel()
    torch.testing.assert_close(captured.gradients, expected.detach())


# ------------------------------------------------------------------------------------- what a layer may return


class Returning(nn.Module):
    """A block that returns its features inside something else."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv = nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, images: Tensor) -> Any:
        features = self.conv(images)
        pooled = features.mean(dim=(2, 3))
        return {"tuple": (pooled, features, "text"), "dict": {"pooled": pooled, "features": features}}[
            self.kind
        ]


class AroundReturning(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.block = Returning(kind)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        output = self.block(images)
        features = output[1] if isinstance(output, tuple) else output["features"]
        return self.head(features.tanh().mean(dim=(2, 3)))


@pytest.mark.parametrize("kind", ["tuple", "dict"])
def test_a_layer_that_returns_several_things_is_read_at_its_grid(kind: str) -> None:
    model, images = AroundReturning(kind), pictures()
    seeded(model)
    captured = capture(model, images, model.block, LABELS)
    same(captured, *textbook(model, model.block.conv, images, LABELS))


# -------------------------------------------------------------------------------- what a forward may do around it


class Frozen(nn.Module):
    """A user's own `no_grad` (or `inference_mode`) around the backbone, the target layer inside it."""

    def __init__(self, how: Any) -> None:
        super().__init__()
        self.how = how
        self.net = cnn("flat")

    def forward(self, images: Tensor) -> Tensor:
        with self.how():
            features = self.net.features(images)
        return self.net.head(features.clone())


@pytest.mark.parametrize("layer", ["0", "3", "4"])
def test_a_frozen_backbone_under_its_own_no_grad(layer: str) -> None:
    model, images = Frozen(torch.no_grad).eval(), pictures()
    captured = capture(model, images, model.net.features.get_submodule(layer), LABELS)
    twin = cnn("flat")
    same(captured, *textbook(twin, twin.features.get_submodule(layer), images, LABELS))


@pytest.mark.parametrize("frozen", [False, True])
def test_a_backbone_under_inference_mode_is_said_to_have_no_gradient(frozen: bool) -> None:
    model = Frozen(torch.inference_mode).eval().requires_grad_(not frozen)
    with pytest.raises(ValueError, match=r"The score does not depend on `target_layer`.*Name a"):
        capture(model, pictures(), model.net.features[3], LABELS)


class Checkpointed(nn.Module):
    """Activation checkpointing, as it is switched on where memory is short."""

    def __init__(self) -> None:
        super().__init__()
        self.net = cnn("flat")

    def forward(self, images: Tensor) -> Tensor:
        return self.net.head(checkpoint(self.net.features, images, use_reentrant=False))


@pytest.mark.parametrize("layer", ["0", "3"])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_layer_inside_a_checkpointed_block(layer: str, frozen: bool) -> None:
    model, images = Checkpointed().eval().requires_grad_(not frozen), pictures()
    captured = capture(model, images, model.net.features.get_submodule(layer), LABELS)
    twin = cnn("flat")
    same(captured, *textbook(twin, twin.features.get_submodule(layer), images, LABELS))


class Normalizing(nn.Module):
    """Writes on the images it is given."""

    def __init__(self, frozen: bool) -> None:
        super().__init__()
        self.frozen = frozen
        self.net = cnn("flat")

    def forward(self, images: Tensor) -> Tensor:
        images.sub_(0.5).mul_(2)
        with torch.set_grad_enabled(not self.frozen and torch.is_grad_enabled()):
            features = self.net.features(images)
        return self.net.head(features.clone())


@pytest.mark.parametrize("frozen", [False, True])
def test_images_are_kept_where_the_forward_writes_on_them(frozen: bool) -> None:
    model, images = Normalizing(frozen).eval(), pictures()
    before = images.clone()
    captured = capture(model, images, model.net.features[3], LABELS)
    assert torch.equal(images, before)
    twin = cnn("flat")  # and what was written once is not written twice
    same(captured, *textbook(twin, twin.features[3], (before - 0.5) * 2, LABELS))


# --------------------------------------------------------------------------------------------------- clear errors


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = cnn()
        self.spare = nn.Conv2d(3, 4, 1)
        self.aside = nn.Conv2d(3, 4, 1)
        self.counts = Counts()

    def forward(self, images: Tensor) -> Tensor:
        self.aside(images)
        self.counts(images)
        return self.net(images)


class Counts(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return (images > 0).long()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            "spare",
            r'`target_layer` Conv2d "spare" was not called by the forward of Unused.*Name one that runs, or leave',
        ),
        ("counts", r'`target_layer` Counts "counts" was not called .*, or gave no tensor of floating point'),
        (
            "aside",
            r'score does not depend on `target_layer` Conv2d "aside": it runs, .*Name a layer that leads',
        ),
        (
            "net.head.3",
            r"`target_layer` gives \(4, 5\) for images \(4, 3, 12, 10\): not a grid.*`reshape_transform=`",
        ),
        ("net.head.0", r"`target_layer` gives \(4, 9, 1, 1\)"),
    ],
)
def test_a_layer_that_cannot_be_looked_at(layer: str, message: str) -> None:
    model = Unused().eval()
    with pytest.raises(ValueError, match=message):
        capture(model, pictures(), model.get_submodule(layer), LABELS)


def test_a_score_that_does_not_depend_on_the_logits() -> None:
    model = cnn()
    with pytest.raises(ValueError, match=r"score does not depend on `target_layer`"):
        capture(model, pictures(), model.features[3], lambda logits: torch.ones(len(logits)))


def test_a_reshape_that_gives_no_grid() -> None:
    model = cnn()
    with pytest.raises(ValueError, match=r"`reshape_transform` must give \(N, C, h, w\); got \(4, 6, 5\)"):
        capture(model, pictures(), model.features[3], reshape=lambda output: output[:, 0])


def test_a_reshape_reads_activations_and_gradients() -> None:
    model, images = cnn("flat"), pictures()
    plain = capture(model, images, model.features[3], LABELS)
    turned = capture(model, images, model.features[3], LABELS, reshape=lambda output: output.transpose(2, 3))
    assert torch.equal(turned.activations, plain.activations.transpose(2, 3))
    assert torch.equal(turned.gradients, plain.gradients.transpose(2, 3))
    assert turned.gradients.shape[2:] == GRID[::-1]


class NoForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = cnn()


def test_a_module_without_a_forward_is_captured_at_a_layer_of_its_part() -> None:
    model = NoForward()
    for forward in (None, lambda module, images: module.net(images)):
        captured = capture(model, pictures(), model.net.features[3], forward=forward)
        same(captured, *textbook(model.net, model.net.features[3], pictures(), captured.targets))


def test_an_operation_that_is_not_implemented_keeps_its_own_error() -> None:
    def forward(model: nn.Module, images: Tensor) -> Tensor:
        raise NotImplementedError("no kernel for this device")

    model = cnn()
    with pytest.raises(NotImplementedError, match="no kernel for this device"):
        capture(model, pictures(), model.features[3], forward=forward)


@pytest.mark.parametrize("where", ["before", "after"])
def test_hooks_are_gone_after_an_error(where: str) -> None:
    model = cnn()

    def forward(net: Any, images: Tensor) -> Tensor:
        if where == "after":
            net(images)
        raise ArithmeticError("in the user's forward")

    with pytest.raises(ArithmeticError, match="in the user's forward"):
        capture(model, pictures(), model.features[3], forward=forward)
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())
    assert torch.is_grad_enabled()
