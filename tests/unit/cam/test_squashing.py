"""A sigmoid or a softmax at the end of a forward: the same logits, predictions and maps as without it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from lightning_gcam import attribute
from lightning_gcam.cam.capture import capture
from lightning_gcam.cam.forward import logits_of
from lightning_gcam.cam.outputs import read_head
from lightning_gcam.cam.squashing import before_normalising, squash_of, squashed, unsquashed
from lightning_gcam.utils.errors import InputError
from tests.support.nets import cnn, pictures

Way = Callable[[Tensor], Tensor]
LOGITS = torch.tensor([[1.5, -2.0, 0.25], [-0.5, 4.0, -7.0], [0.0, -3.0, 2.0]])


def softmax(logits: Tensor) -> Tensor:
    return logits.softmax(dim=1)


def log_softmax(logits: Tensor) -> Tensor:
    return functional.log_softmax(logits, dim=1)


SQUASHES: dict[str, Way] = {
    "sigmoid": torch.sigmoid,
    "softmax": softmax,
    "log_sigmoid": functional.logsigmoid,
    "log_softmax": log_softmax,
}
FORMS: dict[str, Way] = {
    "as it is": lambda p: p,
    "a view": lambda p: p.reshape(-1).view(p.shape),
    "a copy": lambda p: p.clone().unsqueeze(-1).squeeze(-1),
    "in double": lambda p: p.double(),
}


class Ends(nn.Module):
    """The small network, and what its forward ends with."""

    def __init__(self, end: Callable[[Tensor], Any], classes: int = 5, scale: float = 1.0) -> None:
        super().__init__()
        self.net, self.end, self.scale = cnn("flat", classes=classes), end, scale

    def forward(self, images: Tensor) -> Any:
        return self.end(self.net(images) * self.scale)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("squash", SQUASHES)
def test_the_logits_and_their_gradient_come_back(squash: Any, form: str) -> None:
    z = LOGITS.clone().requires_grad_()
    outputs = FORMS[form](SQUASHES[squash](z))
    found, nodes = squash_of(outputs)
    assert found == squash
    logits = unsquashed(outputs, found, nodes)
    shift = z.logsumexp(dim=1, keepdim=True) if "softmax" in squash else torch.zeros(3, 1)
    torch.testing.assert_close(logits.float(), LOGITS - shift.detach(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(squashed(logits, found).float(), outputs.float())
    weights = torch.arange(9.0).view(3, 3)
    (gradient,) = torch.autograd.grad((logits * weights).sum(), z)
    torch.testing.assert_close(gradient, weights)  # as of the logits themselves


@pytest.mark.parametrize("squash", ["sigmoid", "softmax"])
def test_saturated_probabilities_keep_their_gradient(squash: str) -> None:
    z = torch.tensor([[90.0, -90.0], [-200.0, 200.0]], requires_grad=True)
    outputs = SQUASHES[squash](z)
    assert set(outputs.flatten().tolist()) <= {0.0, 1.0} or squash == "sigmoid"
    logits = unsquashed(outputs, *squash_of(outputs))
    assert logits.isfinite().all()
    assert logits.argmax(dim=1).tolist() == [0, 1]
    (gradient,) = torch.autograd.grad(logits.gather(1, torch.tensor([[0], [1]])).sum(), z)
    assert gradient.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("end", "squash"),
    [
        (lambda z: torch.sigmoid(z[:, 0]).clamp(1e-6, 1 - 1e-6)[:, None], "sigmoid"),
        (lambda z: z[:, :2].softmax(dim=1)[:, 1:], "sigmoid"),  # z1 - z0
        (lambda z: torch.stack([1 - z[:, 0].sigmoid(), z[:, 0].sigmoid()], dim=1), "softmax"),
        (lambda z: (z.softmax(dim=1) + z.flip(1).softmax(dim=1)) / 2, "softmax"),
        (lambda z: z.softmax(dim=1).log(), "log_softmax"),
        (lambda z: z.softmax(dim=0), None),  # over the samples
        (lambda z: z.clamp(0, 1), None),
        (lambda z: z.relu() / (1 + z.relu()), None),  # in [0, 1] alone
        (lambda z: functional.linear(z, torch.zeros(2, 3), torch.tensor([1.0, 0.0])), None),  # untrained
        (lambda z: z.tanh(), None),
        (lambda z: torch.tensor([[1.0, 0.0]]), None),
    ],
)
def test_what_is_read_as_probabilities(end: Way, squash: str | None) -> None:
    outputs = end(LOGITS.clone().requires_grad_() * 1)
    head = read_head(outputs, len(outputs))
    assert head.squash == squash
    if squash is None:
        assert head.logits is head.outputs
    else:
        torch.testing.assert_close(squashed(head.logits, head.squash), outputs, atol=1e-6, rtol=1e-5)


def test_one_share_of_two_is_their_difference() -> None:
    z = LOGITS[:, :2].clone().requires_grad_()
    outputs = z.softmax(dim=1)[:, 1]
    logits = unsquashed(outputs[:, None], *squash_of(outputs[:, None]))
    torch.testing.assert_close(logits[:, 0], z[:, 1] - z[:, 0])
    (gradient,) = torch.autograd.grad(logits.sum(), z)
    torch.testing.assert_close(gradient, torch.tensor([[-1.0, 1.0]]).expand(3, 2), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("squash", SQUASHES)
@pytest.mark.parametrize("layer", [None, "net.features.3"])
def test_the_maps_are_those_of_the_logits(squash: Any, scale: float, layer: str | None) -> None:
    methods, targets = ["grad_cam", "guidance_cam", "layer_cam"], [0, 1, 2, 4]
    found = attribute(
        Ends(SQUASHES[squash], scale=scale), pictures(), targets, methods=methods, target_layer=layer
    )
    plain = attribute(
        Ends(lambda z: z, scale=scale), pictures(), targets, methods=methods, target_layer=layer
    )
    assert (found.squash, plain.squash) == (squash, None)
    assert found.target_layer == plain.target_layer
    assert torch.equal(found.logits.argmax(dim=1), SQUASHES[squash](plain.logits).argmax(dim=1))
    for name in methods:
        assert plain.peaks[name].max() > 0
        torch.testing.assert_close(found.peaks[name], plain.peaks[name])
        torch.testing.assert_close(found.maps[name], plain.maps[name])


def test_a_single_probability_has_its_threshold_at_a_half() -> None:
    middle = Ends(lambda z: z, classes=1)(pictures()).detach().median()
    found = attribute(Ends(lambda z: (z - middle).sigmoid(), classes=1), pictures(), 1, methods="grad_cam")
    plain = attribute(Ends(lambda z: z - middle, classes=1), pictures(), 1, methods="grad_cam")
    torch.testing.assert_close(found.logits, plain.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.outputs, plain.logits.sigmoid())
    assert {True, False} == set((plain.logits[:, 0] > 0).tolist())


def test_a_dense_head_is_read_position_by_position() -> None:
    def dense(end: Way) -> nn.Module:
        torch.manual_seed(0)
        head = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1), nn.Flatten(0, 0)
        )
        return nn.Sequential(head, Module(end)).eval()

    images = pictures(2)
    found = attribute(dense(torch.sigmoid), images, 1, methods="grad_cam", target_layer="0.1")
    plain = attribute(dense(lambda z: z), images, 1, methods="grad_cam", target_layer="0.1")
    torch.testing.assert_close(found.values, plain.values, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found.maps["grad_cam"], plain.maps["grad_cam"], atol=1e-5, rtol=1e-4)
    assert plain.peaks["grad_cam"].max() > 0


class Module(nn.Module):
    def __init__(self, function: Way) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def test_a_callable_and_a_regression_get_what_the_model_gave() -> None:
    model = Ends(torch.sigmoid, classes=1)
    expected = model(pictures())[:, 0].detach()
    of_own = attribute(model, pictures(), lambda outputs: outputs[:, 0], methods="grad_cam")
    torch.testing.assert_close(of_own.values, expected)
    output = attribute(model, pictures(), "output", methods="grad_cam")
    torch.testing.assert_close(output.values, expected)
    torch.testing.assert_close(output.outputs[:, 0], expected)


@pytest.mark.parametrize("squash", SQUASHES)
def test_a_callable_gets_the_gradient_of_what_the_model_gave(squash: str) -> None:
    def score(outputs: Tensor) -> Tensor:
        return outputs[:, 0] - outputs[:, 1].square()

    model = Ends(SQUASHES[squash], scale=3.0).eval()
    found = capture(model, pictures(), model.net.features[0], score)
    torch.testing.assert_close(found.gradients, by_hand(model, score))


def by_hand(model: Ends, score: Callable[[Tensor], Tensor]) -> Tensor:
    """The gradient at the first convolution, by torch's own rules."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        kept.append(output)
        return output.clone()

    with model.net.features[0].register_forward_hook(keep):
        (gradients,) = torch.autograd.grad(score(model(pictures())).sum(), kept)
    return gradients


def test_the_error_of_a_reconstruction_has_its_own_gradient_behind_a_sigmoid() -> None:
    torch.manual_seed(0)
    encoder, decoder = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)
    images = pictures()
    found = capture(Module(lambda x: (decoder(encoder(x)) * 3).sigmoid()), images, encoder)
    features = encoder(images).detach().requires_grad_()
    errors = ((decoder(features) * 3).sigmoid() - images).square().flatten(1).mean(dim=1)
    assert found.score.explains == "error"
    torch.testing.assert_close(found.gradients, torch.autograd.grad(errors.sum(), features)[0])


def test_a_plain_forward_reads_them_as_the_look_did() -> None:
    model, images = Ends(torch.sigmoid), pictures()
    squash = attribute(model, images, methods="grad_cam").squash
    found = logits_of(model, images, squash=squash)
    torch.testing.assert_close(found, Ends(lambda z: z)(images).detach(), atol=1e-4, rtol=1e-4)
    assert not found.requires_grad


def test_scores_of_changed_images_are_before_the_sigmoid() -> None:
    found = attribute(
        Ends(torch.sigmoid), pictures(2), 1, methods="ablation_cam", target_layer="net.features.3"
    )
    plain = attribute(
        Ends(lambda z: z), pictures(2), 1, methods="ablation_cam", target_layer="net.features.3"
    )
    torch.testing.assert_close(found.maps["ablation_cam"], plain.maps["ablation_cam"], atol=1e-3, rtol=1e-3)


def test_rows_of_norm_one_are_seen_before_they_were_divided() -> None:
    z = LOGITS.clone().requires_grad_() * 1
    for ways in (
        functional.normalize,
        lambda z: z / z.norm(dim=1, keepdim=True),
        lambda z: z * z.square().sum(1, True).rsqrt(),
    ):
        before = before_normalising(ways(z))
        assert before is not None
        torch.testing.assert_close(before, LOGITS)
    assert before_normalising(z / 2) is None
    assert before_normalising(z[:1] / z[:1].norm().item()) is None  # by a number: the norm is 1 by chance
    assert before_normalising(z) is None


# ------------------------------------------------------------------------------- random outputs through the reader

WRAPS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "bare": lambda found, _: found,
    "named": lambda found, other: {"embedding": other, "logits": found},
    "behind an embedding": lambda found, other: (other, found),
    "object": lambda found, other: SimpleNamespace(loss=other.mean(), out=found),
    "first of two": lambda found, _: [None, found, "text"],
}


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    squash=st.sampled_from([None, *SQUASHES]),
    form=st.sampled_from(list(FORMS)),
    wrap=st.sampled_from(list(WRAPS)),
    n=st.integers(1, 5),
    k=st.integers(1, 7),
    dense=st.booleans(),
    scale=st.sampled_from([0.01, 1.0, 30.0]),
    seed=st.integers(0, 10**6),
)
def test_any_output_is_read_as_the_logits_it_was_made_of(
    squash: Any, form: str, wrap: str, n: int, k: int, dense: bool, scale: float, seed: int
) -> None:
    """Predictions and probabilities are the module's own, and the gradient is that of the logits."""
    assume(not (k == 1 and squash in ("softmax", "log_softmax")))  # always 1
    assume(not (dense and wrap == "behind an embedding"))  # one number a class goes before a map a class
    generator = torch.Generator().manual_seed(seed)
    shape = (n, k, 2, 3) if dense else (n, k)
    hidden = torch.randn(shape, generator=generator).requires_grad_()
    other = hidden.flatten(1).tanh() * 2
    z = (hidden + 0 * other.sum()) * scale
    outputs = FORMS[form](SQUASHES[squash](z) if squash else z)
    head = read_head(WRAPS[wrap](outputs, other), n)
    assert head.squash == squash
    torch.testing.assert_close(
        squashed(head.logits, head.squash).to(outputs.dtype), outputs, atol=1e-5, rtol=1e-3
    )
    assert torch.equal(head.logits.argmax(dim=1), outputs.argmax(dim=1))
    weights = torch.randn(head.logits.shape, generator=generator)
    (gradient,) = torch.autograd.grad((head.logits * weights).sum(), hidden)
    torch.testing.assert_close(gradient, weights * scale, rtol=1e-4, atol=1e-5)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.lists(st.integers(1, 4), min_size=0, max_size=5), min_size=0, max_size=3),
    kind=st.sampled_from([tuple, list, lambda found: dict(zip("abc", found, strict=False))]),
    whole=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_an_output_of_any_form_is_read_or_refused_with_a_way_out(
    sizes: list[list[int]], kind: Any, whole: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(size, generator=generator).requires_grad_() for size in sizes]
    found = kind([each.detach().long() if whole else each for each in tensors])
    try:
        head = read_head(found, 2)
    except InputError as error:
        if "`forward=`" not in str(error):
            raise
    else:
        assert len(head.outputs) == 2
        assert head.outputs.ndim in (2, 4)
        assert any(head.outputs.flatten().equal(each.flatten()) for each in tensors)
