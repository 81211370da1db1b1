"""Rollout and relevance by naive loops over the attention weights that timm, torchvision and transformers give out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gcam import SaliencyBatch, attribute
from tests.reference.test_maps_of_others import as_maps
from tests.support.nets import OF_TRANSFORMERS

TARGETS = [3, 1]
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 5,
}

Weights = list[Tensor]


def rollout_of(weights: Weights) -> Tensor:
    """As in Abnar and Zuidema's notebook, which normalises the rows; a batch at once."""
    result = torch.eye(weights[0].shape[-1])
    for each in weights:
        residual = each.mean(dim=1) + torch.eye(each.shape[-1])
        result = residual / residual.sum(dim=-1, keepdim=True) @ result
    return result


def relevance_of(weights: Weights, gradients: Weights) -> Tensor:
    """Equations 5 and 6 of Chefer et al., as in their notebook for ViT; a batch at once."""
    result = torch.eye(weights[0].shape[-1]).expand(len(weights[0]), -1, -1)
    for each, gradient in zip(weights, gradients, strict=True):
        result = result + (gradient * each).clamp(min=0).mean(dim=1) @ result
    return result


@contextmanager
def attention_in_steps() -> Iterator[Weights]:
    """Torch's own attention written out, whose weights are kept."""
    kept: Weights = []

    def attend(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
        kept.append((query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5).softmax(dim=-1))
        return kept[-1] @ value

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", attend)
        yield kept


def in_steps(model: nn.Module, images: Tensor) -> tuple[Tensor, Weights]:
    with attention_in_steps() as kept:
        return model(images), kept


def by_transformers(model: nn.Module, images: Tensor) -> tuple[Tensor, Weights]:
    model.set_attn_implementation("eager")
    output = model(images, output_attentions=True)
    model.set_attn_implementation("sdpa")
    return output.logits, list(output.attentions)


def vit_tiny(**options: Any) -> nn.Module:
    timm = pytest.importorskip("timm")
    return timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=5, **options)


def of_timm(**options: Any) -> nn.Module:
    vit = pytest.importorskip("timm.models.vision_transformer").VisionTransformer
    how = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5}
    return vit(**how, **options)


def not_fused() -> nn.Module:
    model = vit_tiny()
    for block in model.blocks:
        block.attn.fused_attn = False
    return model


def of_torchvision() -> nn.Module:
    how = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 32}
    model = torchvision.models.VisionTransformer(**how, mlp_dim=32, num_classes=5)
    nn.init.normal_(model.heads[-1].weight)
    return model


def of_transformers(family: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{family}Config")(**SMALL)
    return getattr(transformers, f"{family}ForImageClassification")(config)


def fused_again(model: nn.Module, images: Tensor) -> tuple[Tensor, Weights]:
    for block in model.blocks:
        block.attn.fused_attn = True
    found = in_steps(model, images)
    for block in model.blocks:
        block.attn.fused_attn = False
    return found


Network = tuple[
    Callable[[], nn.Module], int, Callable[[Any, Tensor], tuple[Tensor, Weights]], tuple[int, ...], int
]
NETWORKS: dict[str, Network] = {
    "timm": (vit_tiny, 224, in_steps, (0,), 1),
    "timm, not fused": (not_fused, 224, fused_again, (0,), 1),
    "timm, a distillation token": (lambda: distilled(), 32, in_steps, (0, 1), 2),
    "timm, registers": (lambda: of_timm(reg_tokens=4), 32, in_steps, (0,), 5),
    "timm, the mean of the patches": (
        lambda: of_timm(class_token=False, global_pool="avg"),
        32,
        in_steps,
        tuple(range(16)),
        0,
    ),
    "timm, a class token beside the mean": (
        lambda: of_timm(global_pool="avg"),
        32,
        in_steps,
        tuple(range(1, 17)),
        1,
    ),
    "torchvision": (of_torchvision, 32, in_steps, (0,), 1),
    "ViT of transformers": (lambda: of_transformers("ViT"), 32, by_transformers, (0,), 1),
    "DeiT of transformers": (lambda: of_transformers("DeiT"), 32, by_transformers, (0,), 2),
}
"""How it is made, the size of its images, how its weights are seen, the tokens that the head reads, and how many tokens
stand before the patches."""


def distilled() -> nn.Module:
    deit = pytest.importorskip("timm.models.deit").VisionTransformerDistilled
    return deit(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=5)


def assert_same(found: Any, matrices: tuple[Tensor, Tensor], read: tuple[int, ...], prefix: int) -> None:
    """The maps are those of the mean of some rows of each matrix, at the patches."""
    for method, matrix in zip(OF_TRANSFORMERS, matrices, strict=True):
        row = matrix[:, list(read)].mean(dim=1).detach()[:, prefix:]
        side = round(row.shape[1] ** 0.5)
        raw = row.unflatten(1, (side, side))
        torch.testing.assert_close(found.peaks[method], raw.amax(dim=(1, 2)), rtol=1e-3, atol=1e-8)
        size = (found.images.shape[-2], found.images.shape[-1])
        torch.testing.assert_close(found.maps[method], as_maps(raw, size), rtol=1e-3, atol=1e-4)


def matrices_of(weights: Weights, score: Tensor) -> tuple[Tensor, Tensor]:
    """Rollout, and relevance without the I that it begins with."""
    gradients = list(torch.autograd.grad(score, weights))
    return rollout_of(weights), relevance_of(weights, gradients) - torch.eye(weights[0].shape[-1])


@pytest.mark.parametrize("name", NETWORKS)
def test_against_a_naive_loop(name: str) -> None:
    made, size, seen, read, prefix = NETWORKS[name]
    torch.manual_seed(0)
    model = made().eval()
    images = torch.randn(2, 3, size, size)
    logits, weights = seen(model, images)
    matrices = matrices_of(weights, logits.gather(1, torch.tensor(TARGETS)[:, None]).sum())
    assert_same(attribute(model, images, TARGETS, methods=[*OF_TRANSFORMERS]), matrices, read, prefix)


def test_of_clip_only_the_attention_over_the_image_counts() -> None:
    """The text has as many tokens as the image."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    vision = {name: value for name, value in SMALL.items() if name != "num_labels"}
    text = {**vision, "vocab_size": 99, "max_position_embeddings": 17, "eos_token_id": 98, "bos_token_id": 0}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    model = transformers.CLIPModel(config).eval()
    images, tokens = torch.randn(2, 3, 32, 32), torch.randint(0, 99, (2, 17))
    model.set_attn_implementation("eager")
    output = model(input_ids=tokens, pixel_values=images, output_attentions=True)
    model.set_attn_implementation("sdpa")
    matrices = matrices_of(
        list(output.vision_model_output.attentions), output.logits_per_image.diagonal().sum()
    )
    batch = SaliencyBatch(images, inputs={"input_ids": tokens})
    found = attribute(model, batch, "label", methods=[*OF_TRANSFORMERS])
    assert found.explains == "similarity"
    assert_same(found, matrices, (0,), 1)
