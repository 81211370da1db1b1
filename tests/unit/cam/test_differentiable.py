"""Checkpoints and recurrent layers have the gradients of a plain network, and are as they were behind a look."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import checkpoint as of_torch
from torch.utils.checkpoint import checkpoint

from lightning_gcam import attribute
from lightning_gcam.cam import find_target_layer
from tests.support.nets import CLASSES, bits, cnn, pictures, seeded, state_of


class Checkpointed(nn.Module):
    """Each half of the network behind a checkpoint, in eval mode too, as timm does it."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.net = cnn("flat")

    def forward(self, images: Tensor) -> Tensor:
        first = checkpoint(self.net.features[:2], images, use_reentrant=self.reentrant)
        rest = checkpoint(self.net.features[2:], first, use_reentrant=self.reentrant)
        return self.net.head(rest)


@pytest.mark.parametrize("layer", ["0", "1", "3", "4"])
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_the_maps_are_those_of_the_network_without_checkpoints(
    layer: str, reentrant: bool, frozen: bool
) -> None:
    model, plain = Checkpointed(reentrant).requires_grad_(not frozen), cnn("flat")
    found = attribute(model, pictures(), 1, target_layer=f"net.features.{layer}").maps["guidance_cam"]
    expected = attribute(plain, pictures(), 1, target_layer=f"features.{layer}").maps["guidance_cam"]
    assert torch.equal(found, expected)
    assert found.amax() == 1


@pytest.mark.parametrize("reentrant", [True, False])
def test_the_layer_is_found_before_training_where_a_part_starts_at_zero(reentrant: bool) -> None:
    """In the backward pass of a checkpoint the zeros would be back, and hide what lies before them."""
    model = Checkpointed(reentrant)
    nn.init.zeros_(model.net.features[3].weight)
    assert find_target_layer(model, pictures()).name == "net.features.4"
    assert "net.features.2" in find_target_layer(model, pictures()).earlier


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_are_those_of_torch_again(reentrant: bool) -> None:
    model = Checkpointed(reentrant).train()
    names = ("_checkpoint_without_reentrant_generator", "_checkpoint_without_reentrant_generator_impl")
    before = [getattr(of_torch, name, None) for name in names]
    attribute(model, pictures(), methods=["grad_cam", "ablation_cam"])
    assert [getattr(of_torch, name, None) for name in names] == before
    assert "apply" not in vars(of_torch.CheckpointFunction)
    inside = checkpoint(torch.sin, pictures().requires_grad_(), use_reentrant=True)
    assert inside.grad_fn.name() == "CheckpointFunctionBackward"
    model(pictures().requires_grad_()).sum().backward()
    assert model.net.features[0].weight.grad.abs().max() > 0


# ----------------------------------------------------------------------------------------------- recurrent layers


class OnCudnn(torch.autograd.Function):
    """An operation as cuDNN's recurrent layers are: with a backward in training mode only, with cuDNN on."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, is_refused: bool) -> Tensor:
        ctx.is_refused = is_refused
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        if ctx.is_refused:
            raise RuntimeError("cudnn RNN backward can only be called in training mode")
        return gradient, None


class Lstm(nn.LSTM):
    """Stands in for one on a CUDA device."""

    def forward(self, inputs: Tensor, state: Any = None) -> Any:
        output, state = super().forward(inputs, state)
        return OnCudnn.apply(output, torch.backends.cudnn.enabled and not self.training), state


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.LSTM]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.rnn = kind(4, 5, batch_first=True)
        self.head = nn.Linear(5, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        output, _ = self.rnn(self.conv(images).relu().flatten(2).transpose(1, 2))
        return self.head(output[:, -1])


def test_a_recurrent_layer_on_cudnn_gives_the_gradients_of_one_that_is_not() -> None:
    model, plain = seeded(Recurrent(Lstm)), seeded(Recurrent(nn.LSTM))
    before = state_of(model)
    found = attribute(model, pictures(), 1, target_layer="conv", methods="grad_cam")
    expected = attribute(plain, pictures(), 1, target_layer="conv", methods="grad_cam")
    assert bits(found.maps["grad_cam"]) == bits(expected.maps["grad_cam"])
    assert found.peaks["grad_cam"].min() > 0
    assert torch.backends.cudnn.enabled
    assert state_of(model) == before


def test_only_the_recurrent_layer_runs_without_cudnn() -> None:
    model, seen = seeded(Recurrent(Lstm)), list[bool]()
    model.conv.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.enabled))
    model.head.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.enabled))
    model.rnn.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.enabled))
    attribute(model, pictures(), 1, target_layer="conv", methods="grad_cam")
    assert seen == [True, True, True]  # a hook of the user's comes before ours

    class Broken(Lstm):
        def forward(self, inputs: Tensor, state: Any = None) -> Any:
            assert not torch.backends.cudnn.enabled
            raise ArithmeticError("in the layer")

    with pytest.raises(ArithmeticError, match="in the layer"):
        attribute(Recurrent(Broken), pictures(), 1, target_layer="conv")
    assert torch.backends.cudnn.enabled
