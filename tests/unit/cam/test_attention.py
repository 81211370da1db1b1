"""The methods of attention weights: by hand on two layers, what must not change them, and where they are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gcam import attribute
from lightning_gcam.utils.errors import InputError
from tests.support.nets import CLASSES, OF_TRANSFORMERS, bits, cnn, pictures, seeded, state_of
from tests.unit.cam.test_layers import Attention, ClassToken, square

ROLLOUT, RELEVANCE = OF_TRANSFORMERS


# ------------------------------------------------------------------------------------------------- by hand


class ByHand(nn.Module):
    """A class token and two patches of one number each, and two layers whose attention weights are given.

    Args:
        weights: `(2, 1, 3, 3)` or `(2, heads, 3, 3)`; the values of all heads are the tokens themselves.
        read: the tokens that the score is the sum of.
    """

    def __init__(self, weights: Any, read: tuple[int, ...] = (0,)) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(weights).log())
        self.read = list(read)
        self.patches = nn.AvgPool2d(2)
        self.blocks = nn.ModuleList(nn.Identity() for _ in range(2))

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([torch.ones(len(tokens), 1, 1), tokens], dim=1)
        for block, logits in zip(self.blocks, self.logits, strict=True):
            weights = logits.expand(len(tokens), -1, -1, -1).softmax(dim=-1)
            tokens = tokens + (weights @ block(tokens)[:, None]).mean(dim=1)
        return tokens[:, self.read].sum(dim=1)


A1 = [[0.5, 0.25, 0.25], [0.2, 0.6, 0.2], [0.1, 0.1, 0.8]]
A2 = [[0.2, 0.3, 0.5], [0.3, 0.3, 0.4], [0.25, 0.5, 0.25]]
PATCHES = (2.0, -4.0)
IMAGE = torch.tensor(PATCHES).repeat_interleave(2).expand(1, 1, 2, 4).clone()


def patches_of(model: nn.Module, method: str) -> list[float]:
    """The raw values of the two patches."""
    found = attribute(model, IMAGE, 1, methods=method, target_layer="blocks.0")
    peak, row = found.peaks[method], found.maps[method][0, 0]
    return [float(peak * row[0]), float(peak * row[-1])]


def test_rollout_by_hand() -> None:
    """The first row of (A2 + I) / 2 is (0.6, 0.15, 0.25); it times the rows of (A1 + I) / 2."""
    first = 0.6 * 0.125 + 0.15 * 0.8 + 0.25 * 0.05
    second = 0.6 * 0.125 + 0.15 * 0.1 + 0.25 * 0.9
    assert patches_of(ByHand([[A1], [A2]]), ROLLOUT) == pytest.approx([first, second], rel=1e-5)


def test_rollout_is_of_the_mean_over_the_heads() -> None:
    assert patches_of(ByHand([[A1, A2], [A2, A1]]), ROLLOUT) == pytest.approx(
        [0.675 * 0.1375 + 0.1375 * 0.725 + 0.1875 * 0.15, 0.675 * 0.1875 + 0.1375 * 0.15 + 0.1875 * 0.7625]
    )


def test_rollout_is_of_the_tokens_that_the_score_is_read_from() -> None:
    """The mean of the second and third row of (A2 + I) / 2 is (0.1375, 0.45, 0.4125)."""
    first = 0.1375 * 0.125 + 0.45 * 0.8 + 0.4125 * 0.05
    second = 0.1375 * 0.125 + 0.45 * 0.1 + 0.4125 * 0.9
    assert patches_of(ByHand([[A1], [A2]], read=(1, 2)), ROLLOUT) == pytest.approx([first, second], rel=1e-5)


@pytest.mark.parametrize("heads", [1, 2])
def test_relevance_by_hand(heads: int) -> None:
    """The tokens are (1, 2, -4), and y is the first token behind both layers.

    Behind the first layer: (1 + 0.5 + 0.5 - 1, 2 + 0.2 + 1.2 - 0.8, -4 + 0.1 + 0.2 - 3.2) = (1, 2.6, -6.9). These
    are the gradient at the first row of A2; at A1 it is (1.2, 0.3, 0.5), that of y by each token there, times
    (1, 2, -4). Of two equal heads each has half of the gradient.
    """
    second = torch.tensor([0.2 * 1, 0.3 * 2.6, 0.0]) / heads  # of A2, the first row; the others do not matter
    first = [
        [1.2 * 0.5 * 1, 1.2 * 0.25 * 2, 0.0],
        [0.3 * 0.2 * 1, 0.3 * 0.6 * 2, 0.0],
        [0.5 * 0.1 * 1, 0.5 * 0.1 * 2, 0.0],
    ]
    row = torch.tensor([1.0, 0.0, 0.0]) + second
    by_hand = row + row @ (torch.tensor(first) / heads)
    found = patches_of(ByHand([[A1] * heads, [A2] * heads]), RELEVANCE)
    assert found == pytest.approx(by_hand[1:].tolist(), rel=1e-5)


def test_relevance_is_of_the_class_and_rollout_of_none() -> None:
    model, images = seeded(ClassToken()), square()
    of = {
        target: attribute(model, images, target, methods=[*OF_TRANSFORMERS], target_layer="norms.1").maps
        for target in (0, 1)
    }
    assert torch.equal(of[0][ROLLOUT], of[1][ROLLOUT])
    assert (of[0][RELEVANCE] - of[1][RELEVANCE]).abs().max() > 0.1


def test_a_head_of_zeros_has_the_class_tokens_rollout_and_no_relevance() -> None:
    model, images = seeded(ClassToken()), square()
    expected = look(model, images).maps[ROLLOUT]
    nn.init.zeros_(model.head.weight)
    found = look(model, images)
    assert torch.equal(found.maps[ROLLOUT], expected)
    assert found.peaks[RELEVANCE].tolist() == [0, 0]


# ---------------------------------------------------------------------------------- what changes nothing


def look(model: nn.Module, images: Tensor, target: Any = 1, **options: Any) -> Any:
    return attribute(
        model, images, target, methods=[*OF_TRANSFORMERS], **{"target_layer": "norms.1", **options}
    )


def assert_same(found: Any, expected: Any) -> None:
    for name in OF_TRANSFORMERS:
        torch.testing.assert_close(found.maps[name], expected.maps[name], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.peaks[name], expected.peaks[name], rtol=1e-4, atol=1e-7)


class Fused(Attention):
    """The same in one step."""

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = (each[:, None] for each in self.qkv(tokens).chunk(3, dim=-1))
        return self.proj(F.scaled_dot_product_attention(query, key, value, scale=1.0)[:, 0])


class Multi(Attention):
    """The same by torch's module."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 1, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        with torch.no_grad():
            self.attention.in_proj_weight.copy_(self.qkv.weight)
            self.attention.in_proj_weight[:12] *= 12**0.5
            self.attention.in_proj_bias.copy_(self.qkv.bias)
            self.attention.in_proj_bias[:12] *= 12**0.5
            self.attention.out_proj.load_state_dict(self.proj.state_dict())
        return self.attention(tokens, tokens, tokens, need_weights=False)[0]


def with_attention(kind: type[nn.Module]) -> ClassToken:
    model = ClassToken()
    seeded(model)
    for index, old in enumerate(model.attentions):
        model.attentions[index] = kind()
        model.attentions[index].load_state_dict(old.state_dict(), strict=False)
    return model.eval()


@pytest.mark.parametrize("kind", [Fused, Multi])
def test_they_are_the_same_however_attention_is_computed(kind: type[nn.Module]) -> None:
    assert_same(look(with_attention(kind), square()), look(with_attention(Attention), square()))


@pytest.mark.parametrize("kind", [Attention, Fused, Multi])
def test_of_frozen_weights_and_under_no_grad_of_the_models_own(kind: type[nn.Module]) -> None:
    class UnderNoGrad(ClassToken):
        def forward(self, images: Tensor) -> Tensor:
            with torch.no_grad():
                return super().forward(images)

    expected = look(with_attention(kind), square())
    assert_same(look(with_attention(kind).requires_grad_(False), square()), expected)
    model = UnderNoGrad()
    model.__dict__.update(with_attention(kind).__dict__)
    assert_same(look(model, square()), expected)


@pytest.mark.parametrize("kind", [Attention, Fused, Multi])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_nothing_is_touched_and_two_looks_are_the_same(kind: type[nn.Module], mode: Any) -> None:
    model = with_attention(kind).train()
    model.head.weight.grad = torch.full_like(model.head.weight, 0.25)
    first = look(model, square())  # `Multi` writes on its weights
    before = state_of(model)
    with mode():
        second = look(model, square())
    assert state_of(model) == before
    for name in OF_TRANSFORMERS:
        assert bits(first.maps[name]) == bits(second.maps[name])
        assert not second.maps[name].requires_grad


def test_after_an_error_attention_is_as_before() -> None:
    model, calls = with_attention(Fused), []

    def breaks(module: nn.Module, images: Tensor) -> Tensor:
        logits = module(images)
        calls.append(1)
        if len(calls) > 1:
            raise ArithmeticError("in the user's forward")
        return logits

    before = state_of(model)
    with pytest.raises(ArithmeticError, match="in the user's forward"):
        look(model, square(), forward=breaks)
    assert state_of(model) == before
    assert not torch.overrides._get_current_function_mode_stack()


def test_in_half_precision_nearly_the_same() -> None:
    exact = look(with_attention(Fused), square())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = look(with_attention(Fused), square())
    for name in OF_TRANSFORMERS:
        assert rounded.maps[name].dtype == torch.float32
        assert F.cosine_similarity(rounded.maps[name].flatten(1), exact.maps[name].flatten(1)).min() > 0.99


def test_images_of_whole_numbers() -> None:
    images = (255 * torch.rand(2, 3, 32, 32)).to(torch.uint8)
    floats = look(with_attention(Fused), images.float() / 255)
    assert_same(
        look(with_attention(Fused), images, forward=lambda model, images: model(images.float() / 255)), floats
    )


def test_attention_that_the_score_does_not_depend_on_does_not_count() -> None:
    class Auxiliary(ClassToken):
        """A third block behind the head."""

        def __init__(self) -> None:
            super().__init__()
            self.third = Attention()

        def forward(self, images: Tensor) -> Tensor:
            seen: list[Tensor] = []
            hook = self.attentions[1].register_forward_hook(lambda _, __, output: seen.append(output))
            logits = super().forward(images)
            hook.remove()
            self.third(seen[0])
            return logits

    model = Auxiliary()
    seeded(model)
    model.load_state_dict(with_attention(Attention).state_dict(), strict=False)
    assert_same(look(model, square()), look(with_attention(Attention), square()))


def test_attention_over_something_beside_the_images_does_not_count() -> None:
    class WithText(ClassToken):
        """A text of 17 tokens, as many as the image has, that is compared with it."""

        def __init__(self) -> None:
            super().__init__()
            self.text, self.block = nn.Parameter(torch.ones(17, 12)), Attention()

        def forward(self, images: Tensor) -> Tensor:
            text = self.block(self.text.expand(len(images), -1, -1)).mean(dim=(1, 2))
            return super().forward(images) * text[:, None]

    model = WithText()
    seeded(model)
    model.load_state_dict(with_attention(Attention).state_dict(), strict=False)
    found, expected = (look(each, square()) for each in (model, with_attention(Attention)))
    torch.testing.assert_close(found.maps[ROLLOUT], expected.maps[ROLLOUT])


def test_a_last_attention_that_pools_the_tokens_is_multiplied_as_it_is() -> None:
    class Pooled(nn.Module):
        """One block, and a query of its own that reads its tokens."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm, self.block = nn.Conv2d(3, 12, 8, stride=8), nn.LayerNorm(12), Fused()
            self.query, self.head = nn.Parameter(torch.ones(1, 1, 12)), nn.Linear(12, CLASSES)

        def forward(self, images: Tensor) -> Tensor:
            x = self.norm(self.stem(images).flatten(2).transpose(1, 2))
            x = x + self.block(x)
            return self.head(F.scaled_dot_product_attention(self.query.expand(len(x), -1, -1), x, x)[:, 0])

    model, images = seeded(Pooled()), square()
    with torch.no_grad():
        x = model.norm(model.stem(images).flatten(2).transpose(1, 2))
        query, key, _ = model.block.qkv(x).chunk(3, dim=-1)
        within = (query @ key.transpose(1, 2)).softmax(dim=-1)
        x = x + model.block(x)
        row = (model.query.expand(2, -1, -1) @ x.transpose(1, 2) / 12**0.5).softmax(dim=-1)
        expected = ((row @ within + row) / 2)[:, 0]
    found = look(model, images, target_layer="norm")
    torch.testing.assert_close(found.peaks[ROLLOUT], expected.amax(dim=1))
    scaled = expected.view(2, 1, 4, 4) / expected.amax(dim=1)[:, None, None, None]
    resized = F.interpolate(scaled, (32, 32), mode="bilinear")[:, 0]
    torch.testing.assert_close(found.maps[ROLLOUT], resized / resized.amax(dim=(1, 2), keepdim=True))
    assert (found.peaks[RELEVANCE] > 0).all()


class OfAnySize(nn.Module):
    """Two layers of torch's encoder over the patches of a signal, an image or a volume, and their mean."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        convolution = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
        self.stem, self.position = convolution(1, 12, 4, stride=4), nn.Parameter(torch.ones(16, 12))
        layers = (nn.TransformerEncoderLayer(12, 2, 24, dropout=0.0, batch_first=True) for _ in range(2))
        self.blocks, self.head = nn.ModuleList(layers), nn.Linear(12, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).flatten(2).transpose(1, 2)
        x = x + self.position[: x.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(dim=1))


@pytest.mark.parametrize("size", [(64,), (16, 16), (8, 8, 16)])
def test_signals_and_volumes(size: tuple[int, ...]) -> None:
    model = seeded(OfAnySize(len(size)))
    images = torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(0))
    weights: list[Tensor] = []
    for block in model.blocks:
        block.self_attn.register_forward_pre_hook(
            lambda module, inputs: weights.append(
                module.forward(*inputs)[1]
            )  # need_weights, the mean of the heads
        )
    model(images)
    grid = tuple(side // 4 for side in size)
    first, second = ((each + torch.eye(each.shape[-1])) / 2 for each in weights)
    expected = (second @ first).mean(dim=1).unflatten(1, grid)
    for block in model.blocks:
        block.self_attn._forward_pre_hooks.clear()
    found = look(model, images, target_layer="blocks.0")
    torch.testing.assert_close(found.peaks[ROLLOUT], expected.flatten(1).amax(dim=1))
    assert found.maps[RELEVANCE].shape == (2, *size)
    peak = expected[0].flatten().argmax()
    cells = tuple(slice(4 * int(each), 4 * int(each) + 4) for each in torch.unravel_index(peak, grid))
    assert found.maps[ROLLOUT][0][cells].max() == 1


# ------------------------------------------------------------------------------------- where one cannot


class Windows(nn.Module):
    """Attention inside of four windows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.head = nn.Conv2d(3, 12, 4, stride=4), Fused(), nn.Linear(12, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).unflatten(3, (2, 4)).unflatten(2, (2, 4)).permute(0, 2, 4, 3, 5, 1)
        windows = self.block(x.flatten(0, 2).flatten(1, 2))
        return self.head(windows.unflatten(0, (len(images), 4)).square().mean(dim=(1, 2)))


class Pyramid(nn.Module):
    """Attention over 16 tokens, then over the 4 that are left."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pool = nn.Conv2d(3, 12, 8, stride=8), nn.AvgPool2d(2)
        self.blocks, self.head = nn.ModuleList([Fused(), Fused()]), nn.Linear(12, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for block in self.blocks:
            x = x + block(x.flatten(2).transpose(1, 2)).transpose(1, 2).view_as(x)
            x = self.pool(x)
        return self.head(x.square().mean(dim=(2, 3)))


class NoGrid(ClassToken):
    """Some of the patches, and some of them again; 35 tokens are no grid, 14 would be one behind five others."""

    tokens = 35

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).flatten(2).transpose(1, 2)
        x = torch.cat([x, x, x], dim=1)[:, : self.tokens]
        for norm, attention in zip(self.norms, self.attentions, strict=True):
            x = x + attention(norm(x))
        return self.head(x.mean(dim=1))


class Pruned(NoGrid):
    tokens = 14


@pytest.mark.parametrize("method", OF_TRANSFORMERS)
@pytest.mark.parametrize(
    ("model", "layer", "problem"),
    [
        (cnn, "features.3", r"and Cnn shows none \(they are seen in `F.scaled_dot_product_attention`"),
        (Windows, "stem", r"and Windows shows those of parts of it, \(8, 1, 16, 16\) for 2 images \(windows"),
        (Pyramid, "stem", r"those of different sequences, \(2, 1, 16, 16\), \(2, 1, 4, 4\)\. Leave it out"),
        (NoGrid, "stem", r"and NoGrid shows 35 tokens, which are no grid over an image \(32, 32\)"),
        (Pruned, "stem", r"and Pruned shows 14 tokens, which are no grid over an image \(32, 32\)"),
    ],
)
def test_a_model_without_attention_over_all_tokens_is_refused(
    method: str, model: Any, layer: str, problem: str
) -> None:
    images = pictures(2) if model is cnn else square()
    with pytest.raises(InputError, match=f'`methods` "{method}" needs the attention weights .* {problem}'):
        attribute(seeded(model()), images, 0, methods=method, target_layer=layer)
