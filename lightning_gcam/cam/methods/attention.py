"""Methods for vision transformers, made of attention weights: attention rollout, and relevance for a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from lightning_gcam.cam.context import MethodContext
from lightning_gcam.cam.layouts import find_patches
from lightning_gcam.cam.registry import register_model_method
from lightning_gcam.cam.squashing import leads_to_all, nodes_behind
from lightning_gcam.utils.dimensions import Size
from lightning_gcam.utils.errors import InputError


@register_model_method("attention_rollout", uses_layer=False)
def attention_rollout(context: MethodContext) -> Tensor:
    r"""Attention rollout: the attention weights of all layers multiplied, each averaged with the residual connection.

    $$ \hat A_l = \tfrac{1}{2} \bar A_l + \tfrac{1}{2} I, \quad R = \hat A_L \cdots \hat A_1 $$

    $\bar A$ is the mean over the heads. The map is the row of the class token, at the patches; of several tokens that
    the score is read from (all patches under a mean, a class and a distillation token) the mean of their rows. It
    tells nothing of a class. A last attention that pools the tokens has no residual connection, and is multiplied as
    it is. The target layer plays no part.

    Cost: one forward and one gradient, of the last layer.

    Args:
        context: of the samples.

    Returns:
        `(N, *grid)`, one cell a patch.

    Raises:
        InputError: where the model shows no attention weights, those of windows, or of tokens that are no grid.

    Source: Abnar and Zuidema, "Quantifying attention flow in transformers", ACL 2020, arXiv 2005.00928, section 3
    (for images: Dosovitskiy et al., arXiv 2010.11929, appendix D.8).
    """

    def work(rows: Tensor, _: Tensor) -> Tensor:
        seen = _attention_of(context, "attention_rollout", rows)
        row = seen.read_tokens(seen.gradients(seen.layers[-1:])[0])
        for layer in reversed(seen.layers):
            through = _times(row, layer.weights.float().mean(dim=1))
            row = (through + row) / 2 if layer.is_square else through
        return seen.on_grid(row)

    return context.mean(work, 1)


@register_model_method("attention_relevance", uses_layer=False)
def attention_relevance(context: MethodContext) -> Tensor:
    r"""Relevance for a class by its gradient at the attention weights, added up over the layers.

    $$ \bar A_l = \mathbb{E}_h\big[(\nabla A_l \odot A_l)^+\big], \quad
       R \leftarrow R + \bar A_l R \ (l = 1, \dots, L), \quad R = I \text{ before} $$

    $\nabla A$ is the gradient of the score, $\mathbb{E}_h$ the mean over the heads. The map is the row of the class
    token, as in `attention_rollout`, without the I that R begins with, which is the same for all patches. The authors'
    earlier method (CVPR 2021, arXiv 2012.09838, equations 13 and 14) has a layer-wise relevance in the place of the
    second A; that needs rules for every layer of the network, and is not what is computed here.

    Cost: one forward and one gradient, with the graph from the first attention on.

    Args:
        context: of the samples.

    Returns:
        `(N, *grid)`, >= 0, one cell a patch.

    Raises:
        InputError: as `attention_rollout`.

    Source: Chefer, Gur, Wolf, "Generic attention-model explainability for interpreting bi-modal and encoder-decoder
    transformers", ICCV 2021, arXiv 2103.15679, equations 5 and 6.
    """

    def work(rows: Tensor, _: Tensor) -> Tensor:
        seen = _attention_of(context, "attention_relevance", rows)
        gradients = seen.gradients(seen.layers)
        first = row = seen.read_tokens(gradients[-1])
        for layer, gradient in zip(reversed(seen.layers), reversed(gradients), strict=True):
            through = _times(row, (gradient * layer.weights.float()).relu().mean(dim=1))
            row = through + row if layer.is_square else through
        return seen.on_grid(row - first if seen.layers[-1].is_square else row)

    return context.mean(work, 1)


def _times(row: Tensor, matrix: Tensor) -> Tensor:
    """The product of a row `(N, L)` and a matrix `(N, L, S)` of each sample."""
    return torch.einsum("nl,nls->ns", row, matrix)


# --------------------------------------------------------------------------------------- what a forward shows


@dataclass(frozen=True)
class AttentionLayer:
    """The attention weights of one layer, and where the autograd graph holds them.

    Args:
        weights: `(N, heads, L, S)`: how much each of L tokens takes from each of S; every row sums to 1.
        edge: for the gradient with respect to them.
    """

    weights: Tensor
    edge: GradientEdge

    @property
    def is_square(self) -> bool:
        """Whether the tokens attend to themselves, beside a residual connection, and are not pooled."""
        return self.weights.shape[-2] == self.weights.shape[-1]


@dataclass(frozen=True)
class _Attention:
    """The attention layers between images and their score, in the order of the forward."""

    layers: Sequence[AttentionLayer]
    score: Tensor
    prefix: int
    grid: Size

    def gradients(self, layers: Sequence[AttentionLayer]) -> list[Tensor]:
        """The gradients of the score with respect to the weights of some layers, `(N, heads, L, S)` float32 each."""
        ones = torch.ones_like(self.score)
        found = torch.autograd.grad(self.score, [each.edge for each in layers], ones)
        return [one.reshape(each.weights.shape).float() for one, each in zip(found, layers, strict=True)]

    def read_tokens(self, gradient: Tensor) -> Tensor:
        """The weights `(N, L)` of the last layer's tokens that the score is read from: those with a gradient, evenly.

        Where there is no gradient at all (a head of zeros, before the training) the first token stands for the class,
        or where none is before the patches all of them.
        """
        read = gradient.abs().sum(dim=(1, 3)) > 0
        usual = torch.arange(read.shape[1], device=read.device) < (1 if self.prefix else read.shape[1])
        read = torch.where(read.any(dim=1, keepdim=True), read, usual)
        return read / read.sum(dim=1, keepdim=True)

    def on_grid(self, row: Tensor) -> Tensor:
        """The values of the patches among those of all tokens, `(N, *grid)`."""
        values: Tensor = row[:, self.prefix :].unflatten(1, self.grid)
        return values


def _attention_of(context: MethodContext, name: str, rows: Tensor) -> _Attention:
    """Run the model on samples, and collect the attention between the images and their score.

    Raises:
        InputError: naming the method, the model and what it shows, where that is not one sequence of an image's tokens.
    """
    images = context.images[rows].detach().clone()
    images.requires_grad_(images.is_floating_point())
    with torch.enable_grad(), _AttentionRecorded() as recorded:
        score = context.values(images, rows)
    before_score = set(nodes_behind(get_gradient_edge(score).node)) if score.requires_grad else set()
    layers = [each for each in recorded.layers if each.edge.node in before_score]
    if images.requires_grad:  # not those of a text beside the images
        goal = {get_gradient_edge(images).node}
        layers = [each for each in layers if leads_to_all(each.edge.node, goal)] or layers
    shapes = [tuple(each.weights.shape) for each in layers]
    problem, found = _problem(shapes, len(rows)), _patches_of(context, shapes)
    if problem or found is None:
        problem = problem or f"{shapes[0][-1]} tokens, which are no grid over an image {context.size}"
        raise InputError(
            f'`methods` "{name}" needs the attention weights of a vision transformer in which all tokens of an image '
            f"attend to each other, and {type(context.model).__name__} shows {problem}. Leave it out, and take a "
            'method of activations and gradients, such as "guidance_cam".'
        )
    return _Attention(layers, score, *found)


def _patches_of(context: MethodContext, shapes: Sequence[tuple[int, ...]]) -> tuple[int, Size] | None:
    """The number of tokens before the patches, and the patches' grid; None where they form none.

    Almost any number is that of a grid behind up to eight tokens: with more than one, the target layer has to confirm
    it.
    """
    found = find_patches(shapes[0][-1], context.size) if shapes else None
    if found is None or (found[0] > 1 and found[1] != context.activations.shape[2:]):
        return None
    return found


def _problem(shapes: Sequence[tuple[int, ...]], n: int) -> str:
    """Why the weights `(N, heads, L, S)` of all layers do not form one sequence; empty where they do."""
    if not shapes:
        return (
            "none (they are seen in `F.scaled_dot_product_attention`, in `nn.MultiheadAttention`, and in a softmax "
            "over (N, heads, L, L); not in compiled scripts and kernels of other packages)"
        )
    if any(len(shape) != 4 or shape[0] != n for shape in shapes):
        return f"those of parts of it, {_in_words(shapes)} for {n} images (windows, or frames by themselves)"
    lengths = [shapes[0][-1], *(shape[-2] for shape in shapes)]
    if any(shape[-1] != length for shape, length in zip(shapes, lengths, strict=False)):
        return f"those of different sequences, {_in_words(shapes)}"
    return ""


def _in_words(shapes: Sequence[tuple[int, ...]]) -> str:
    """Shapes without repetition, the first few of them."""
    different = list(dict.fromkeys(shapes))
    return ", ".join(map(str, different[:3])) + (", ..." if len(different) > 3 else "")


class _AttentionRecorded(TorchFunctionMode):
    """Collects the attention weights of what runs inside; no module is touched.

    Where torch would compute attention in one step, its weights are computed and multiplied with the values instead.
    The graph starts at the first attention, also in a frozen model, and in one that runs its blocks under `no_grad`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers: list[AttentionLayer] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, and collect the attention weights that it computes."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and not kwargs.get("enable_gqa"):
            return self._attend(*args, **kwargs)
        if func is F.multi_head_attention_forward and not kwargs.get("is_causal"):
            return self._attend_with_heads(*args, **kwargs)
        output = func(*args, **kwargs)
        if func in _SOFTMAX and _is_over_tokens(output, *args[1:2], **kwargs):
            self._add(output)
        return output

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, *options: Any, **named: Any) -> Tensor:
        """`F.scaled_dot_product_attention`, whose output for an identity matrix as values are its weights."""
        tokens = key.shape[-2]
        one = torch.eye(tokens, dtype=key.dtype, device=key.device).expand(*key.shape[:-1], tokens)
        with sdpa_kernel(SDPBackend.MATH):
            weights = F.scaled_dot_product_attention(query, key, one, *options, **named)
        self._add(weights)
        return weights @ value

    def _attend_with_heads(self, query: Tensor, *inputs: Any, **named: Any) -> tuple[Tensor, Tensor | None]:
        """`F.multi_head_attention_forward`, which returns a view of the weights that it goes on with."""
        torch.set_grad_enabled(True)
        query = query if query.requires_grad else query.detach().requires_grad_()
        options = {**named, "need_weights": True, "average_attn_weights": False}
        output, weights = F.multi_head_attention_forward(query, *inputs, **options)
        assert weights is not None and weights.grad_fn is not None, "asked for, and in the graph of the query"
        node, number = weights.grad_fn.next_functions[0]
        assert node is not None
        self.layers.append(AttentionLayer(weights.detach(), GradientEdge(node, number)))
        if not named.get("need_weights", True):
            return output, None
        return output, weights.mean(dim=-3) if named.get("average_attn_weights", True) else weights

    def _add(self, weights: Tensor) -> None:
        """Collect weights `(N, heads, L, S)` or `(N, L, S)` that the network goes on with."""
        torch.set_grad_enabled(True)
        if not weights.requires_grad:
            weights.requires_grad_()
        found = weights.detach()[:, None] if weights.ndim == 3 else weights.detach()
        self.layers.append(AttentionLayer(found, get_gradient_edge(weights)))


_SOFTMAX = frozenset({F.softmax, torch.softmax, torch.special.softmax, Tensor.softmax})


def _is_over_tokens(output: Tensor, dim: Any = None, **_: Any) -> bool:
    """Whether a softmax over `dim` may give the weights of tokens that attend to each other, `(N, heads, L, L)`."""
    is_last = dim in (-1, output.ndim - 1)
    return is_last and output.ndim in (3, 4) and output.shape[-2] == output.shape[-1] > 1
