"""Each method against its paper's formula, worked out by hand; what holds for all of them; the registry."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from random import Random

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from lightning_gcam.cam import available_methods, register_method, resolve_methods
from lightning_gcam.cam import registry as registered

METHODS = (
    *("guidance_cam", "grad_cam", "grad_cam_plus_plus", "xgrad_cam", "layer_cam", "hires_cam"),
    *("hires_cam_squared", "layer_cam_squared"),
)

# The case in hand: one sample, two channels of 2 x 2, negative activations and gradients among them.
A = torch.tensor([[[[1.0, 2.0], [3.0, -2.0]], [[2.0, 0.0], [-1.0, 1.0]]]])
G = torch.tensor([[[[1.0, -1.0], [2.0, 2.0]], [[-1.0, 1.0], [0.0, -2.0]]]])


def run(name: str, activations: Tensor, gradients: Tensor) -> Tensor:
    return resolve_methods(name)[name](activations, gradients)


def by_hand(*rows: list[float]) -> Tensor:
    return torch.tensor([rows])


# ---------------------------------------------------------------------------------------------- by hand


def test_grad_cam_by_hand() -> None:
    # w_1 = (1 - 1 + 2 + 2) / 4 = 1, w_2 = (-1 + 1 + 0 - 2) / 4 = -0.5
    # w_1 A_1 + w_2 A_2 = [[1 - 1, 2 - 0], [3 + 0.5, -2 - 0.5]]
    assert torch.equal(run("grad_cam", A, G), by_hand([0.0, 2.0], [3.5, 0.0]))


def test_hires_cam_by_hand() -> None:
    # A_1 g_1 + A_2 g_2 = [[1 - 2, -2 + 0], [6 + 0, -4 - 2]]
    assert torch.equal(run("hires_cam", A, G), by_hand([0.0, 0.0], [6.0, 0.0]))


def test_hires_cam_squared_by_hand() -> None:
    # squared behind the ReLU: -1, -2 and -6 stay away, 6 becomes 36
    assert torch.equal(run("hires_cam_squared", A, G), by_hand([0.0, 0.0], [36.0, 0.0]))


def test_layer_cam_squared_by_hand() -> None:
    # ReLU(g_1) A_1 + ReLU(g_2) A_2 = [[1 + 0, 0 + 0], [6 + 0, -4 + 0]], rectified, squared
    assert torch.equal(run("layer_cam_squared", A, G), by_hand([1.0, 0.0], [36.0, 0.0]))


def test_guidance_cam_by_hand() -> None:
    # ReLU([[0, 2], [3.5, -2.5]]) * ReLU([[-1, -2], [6, -6]]): -2.5 times -6 makes no saliency
    assert torch.equal(run("guidance_cam", A, G), by_hand([0.0, 0.0], [21.0, 0.0]))


def test_layer_cam_by_hand() -> None:
    # ReLU(g_1) A_1 + ReLU(g_2) A_2 = [[1 + 0, 0 + 0], [6 + 0, -4 + 0]]
    assert torch.equal(run("layer_cam", A, G), by_hand([1.0, 0.0], [6.0, 0.0]))


def test_layer_cam_rectifies_the_gradients_and_then_the_sum() -> None:
    # [2*1 - 1*1, -3*ReLU(-1) + 5*1]: neither the products (2 and 8) nor the raw gradients (1 and 8)
    activations = torch.tensor([[[[2.0, -3.0]], [[-1.0, 5.0]]]])
    gradients = torch.tensor([[[[1.0, -1.0]], [[1.0, 1.0]]]])
    assert torch.equal(run("layer_cam", activations, gradients), by_hand([1.0, 5.0]))


def test_xgrad_cam_by_hand() -> None:
    # sum A_1 = 4, sum A_2 = 2
    # w_1 = (1*1 - 1*2 + 2*3 - 2*2) / 4 = 1/4, w_2 = (-1*2 + 1*0 + 0*-1 - 2*1) / 2 = -2
    # w_1 A_1 + w_2 A_2 = [[.25 - 4, .5 - 0], [.75 + 2, -.5 - 2]]
    assert torch.equal(run("xgrad_cam", A, G), by_hand([0.0, 0.5], [2.75, 0.0]))


def test_grad_cam_plus_plus_by_hand() -> None:
    # alpha = g^2 / (2 g^2 + (sum A) g^3) = 1 / (2 + (sum A) g), and 0 where g is 0
    # sum A_1 = 4: alpha_1 where g > 0: g = 1: 1/6; g = 2: 1/10, twice
    # sum A_2 = 2: alpha_2 where g > 0: g = 1: 1/4
    # w_1 = 1/6 * 1 + 1/10 * 2 + 1/10 * 2 = 17/30, w_2 = 1/4 * 1
    w_1, w_2 = 17 / 30, 1 / 4
    expected = by_hand([w_1 + 2 * w_2, 2 * w_1], [3 * w_1 - w_2, 0.0])  # -2 w_1 + w_2 is negative
    torch.testing.assert_close(run("grad_cam_plus_plus", A, G), expected)


def test_grad_cam_plus_plus_is_zero_where_the_gradient_is() -> None:
    # g = 0 gives 0 / 0 in the formula; only g = 1 counts: alpha = 1 / (2 + 5 * 1), w = 1/7
    activations = torch.tensor([[[[2.0, 0.0], [3.0, 0.0]]]])
    gradients = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    expected = by_hand([2 / 7, 0.0], [3 / 7, 0.0])
    torch.testing.assert_close(run("grad_cam_plus_plus", activations, gradients), expected)


def test_grad_cam_plus_plus_where_its_denominator_is_zero() -> None:
    # sum A = -2 and g = 1: 2 - 2 = 0. That position gets no weight; the other one, g = 0.5: 1 / (2 - 1) * 0.5
    activations = torch.tensor([[[[1.0, -3.0]]]])
    gradients = torch.tensor([[[[1.0, 0.5]]]])
    torch.testing.assert_close(run("grad_cam_plus_plus", activations, gradients), by_hand([0.5, 0.0]))


def test_xgrad_cam_gives_no_weight_to_a_channel_that_sums_to_zero() -> None:
    # channel 1 sums to 0 and would divide by it; channel 2 sums to 4: w_2 = (1*1 + 3*1) / 4 = 1
    activations = torch.tensor([[[[5.0, -5.0]], [[1.0, 3.0]]]])
    gradients = torch.tensor([[[[1.0, 2.0]], [[1.0, 1.0]]]])
    assert torch.equal(run("xgrad_cam", activations, gradients), by_hand([1.0, 3.0]))


def test_xgrad_cam_of_channels_that_are_all_dead_is_blank() -> None:
    assert torch.equal(run("xgrad_cam", torch.zeros_like(A), G), torch.zeros(1, 2, 2))


# --------------------------------------------------------------------------------------- what holds for all


some = settings(max_examples=40)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Activations and gradients of any sign, with exact zeros among them; whole quarters, so that sums are exact."""
    shape = tuple(draw(st.integers(1, most)) for most in (3, 4, 4, 4))
    values = arrays.arrays(np.int8, shape, elements=st.integers(-8, 8))
    first, second = draw(values), draw(values)
    return torch.from_numpy(first).float() / 4, torch.from_numpy(second).float() / 4


@some
@given(case=cases())
def test_a_map_is_finite_and_never_negative(case: tuple[Tensor, Tensor]) -> None:
    for name in METHODS:
        result = run(name, *case)
        assert torch.isfinite(result).all(), name
        assert (result >= 0).all(), name
        assert result.shape == (len(case[0]), *case[0].shape[2:]), name


@some
@given(case=cases(), order=st.randoms(use_true_random=False))
def test_the_order_of_the_channels_changes_nothing(case: tuple[Tensor, Tensor], order: Random) -> None:
    activations, gradients = case
    shuffled = list(range(activations.shape[1]))
    order.shuffle(shuffled)
    for name in METHODS:
        expected = run(name, activations, gradients)
        torch.testing.assert_close(run(name, activations[:, shuffled], gradients[:, shuffled]), expected)


@some
@given(case=cases())
def test_a_batch_is_its_samples_one_by_one(case: tuple[Tensor, Tensor]) -> None:
    for name in METHODS:
        alone = [run(name, a[None], g[None]) for a, g in zip(*case, strict=True)]
        torch.testing.assert_close(run(name, *case), torch.cat(alone))


@some
@given(case=cases())
def test_no_gradient_no_saliency(case: tuple[Tensor, Tensor]) -> None:
    for name in METHODS:
        result = run(name, case[0], torch.zeros_like(case[1]))
        assert torch.equal(result, torch.zeros_like(result)), name


@some
@given(case=cases(), scale=st.sampled_from([0.125, 0.5, 3.0, 64.0]))
def test_scaled_gradients_scale_the_map(case: tuple[Tensor, Tensor], scale: float) -> None:
    activations, gradients = case
    power = {
        "guidance_cam": 2,
        "hires_cam_squared": 2,
        "layer_cam_squared": 2,
        "grad_cam": 1,
        "xgrad_cam": 1,
        "layer_cam": 1,
        "hires_cam": 1,
    }
    for name, exponent in power.items():  # not Grad-CAM++: its alpha depends on the gradients' scale
        expected = scale**exponent * run(name, activations, gradients)
        torch.testing.assert_close(run(name, activations, scale * gradients), expected)


@some
@given(case=cases())
def test_guidance_is_grad_cam_times_its_guidance_map(case: tuple[Tensor, Tensor]) -> None:
    expected = run("grad_cam", *case) * run("hires_cam", *case)
    assert torch.equal(run("guidance_cam", *case), expected)


@some
@given(case=cases())
def test_guidance_is_the_geometric_mean_of_two_squares(case: tuple[Tensor, Tensor]) -> None:
    expected = (run("grad_cam", *case).square() * run("hires_cam_squared", *case)).sqrt()
    torch.testing.assert_close(run("guidance_cam", *case), expected)


@some
@given(case=cases())
def test_even_gradients_make_four_methods_one(case: tuple[Tensor, Tensor]) -> None:
    activations, gradients = case
    even = gradients.mean(dim=(2, 3), keepdim=True).expand_as(gradients)
    grad_cam = run("grad_cam", activations, even)
    torch.testing.assert_close(run("hires_cam", activations, even), grad_cam)
    torch.testing.assert_close(run("guidance_cam", activations, even), grad_cam.square())
    positive = activations.abs() + 1  # XGrad-CAM leaves out a channel that sums to zero
    torch.testing.assert_close(run("xgrad_cam", positive, even), run("grad_cam", positive, even))


@pytest.mark.parametrize("name", METHODS)
def test_the_inputs_stay_as_they_are(name: str) -> None:
    activations, gradients = A.clone(), G.clone()
    run(name, activations, gradients)
    assert torch.equal(activations, A)
    assert torch.equal(gradients, G)


# ------------------------------------------------------------------------------------------- the registry


@pytest.fixture
def registry() -> Iterator[None]:
    """Take out again what a test registers."""
    before = dict(registered._METHODS)
    yield
    registered._METHODS.clear()
    registered._METHODS.update(before)


def test_these_come_first_and_in_this_order() -> None:
    assert available_methods()[: len(METHODS)] == METHODS


@pytest.mark.usefixtures("registry")
def test_a_registered_method_is_known_by_its_name() -> None:
    @register_method("largest_activation")
    def largest(activations: Tensor, gradients: Tensor) -> Tensor:
        return activations.amax(dim=1)

    assert available_methods()[-1] == "largest_activation"
    assert resolve_methods("largest_activation") == {"largest_activation": largest}
    assert torch.equal(run("largest_activation", A, G), by_hand([2.0, 2.0], [3.0, 1.0]))


@pytest.mark.usefixtures("registry")
def test_a_name_is_taken_only_once() -> None:
    with pytest.raises(ValueError, match=r'`name` "grad_cam" is taken by another method'):
        register_method("grad_cam")(lambda activations, gradients: activations.mean(dim=1))
    assert torch.equal(run("grad_cam", A, G), by_hand([0.0, 2.0], [3.5, 0.0]))


@pytest.mark.usefixtures("registry")
def test_the_same_function_defined_again_replaces_itself() -> None:
    def cell(value: float):
        def mine(activations: Tensor, gradients: Tensor) -> Tensor:
            return torch.full_like(activations[:, 0], value)

        return mine

    register_method("mine")(cell(1.0))
    register_method("mine")(cell(2.0))
    assert (run("mine", A, G) == 2).all()


def test_methods_are_resolved_in_the_order_they_are_asked_for() -> None:
    def mine(activations: Tensor, gradients: Tensor) -> Tensor:
        return activations[:, 0]

    asked = ["layer_cam", mine, "guidance_cam"]
    assert list(resolve_methods(asked)) == ["layer_cam", "mine", "guidance_cam"]
    assert resolve_methods(mine) == {"mine": mine}
    assert resolve_methods(tuple(asked)) == resolve_methods(asked)


def test_a_callable_without_a_name_goes_by_its_type() -> None:
    class Squared:
        def __call__(self, activations: Tensor, gradients: Tensor) -> Tensor:
            return gradients.square().sum(1)

    assert list(resolve_methods([Squared(), lambda a, g: a[:, 0]])) == ["Squared", "lambda"]
    assert list(resolve_methods(functools.partial(run, "grad_cam"))) == ["partial"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("grad_can", r'`methods` "grad_can" is not a method. Did you mean "grad_cam"'),
        ("saliency", r'`methods` "saliency" is not a method. Known: "guidance_cam", "grad_cam"'),
        (["grad_cam", "laier_cam"], r'`methods` "laier_cam" is not a method. Did you mean "layer_cam"'),
        ([], r"`methods` is empty. Name at least one of guidance_cam, grad_cam"),
        (["grad_cam", "grad_cam"], r'`methods` has two entries named "grad_cam"'),
        (
            [lambda a, g: a, lambda a, g: g],
            r'`methods` has two entries named "lambda".*Name it once, or rename one: a callable goes by its',
        ),
        (["grad_cam", 3], r"`methods` takes names or callables .* got 3. Name one of guidance_cam, "),
        (None, r"`methods` takes names or callables .* got None"),
    ],
)
def test_what_is_no_method_is_refused(asked, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_methods(asked)
