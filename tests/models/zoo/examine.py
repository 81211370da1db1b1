"""What every network of the zoo is put through: its layer found, its maps drawn, and a pasted patch looked for.

The patch: nine pictures (a plain one; a light patch in each of four places; a dark one in each) go through the network,
whose weights are random, and only its head is fitted, by least squares: class 0 speaks for what the layer holds under a
light patch, class 1 for what it holds under a dark one, neither for what they do around themselves. Then the map of
class 0 must peak at the light patch, wherever it is pasted, and the map of class 1 at the dark one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gcam import attribute
from lightning_gcam.cam import TargetLayer, find_target_layer
from lightning_gcam.cam.layouts import find_layout, main_tensor, with_main_tensor

CLASSES = 11
"""A number that no network has as a width of its own."""


@dataclass
class Finding:
    """What one network showed; `failures` is empty where all is well."""

    layer: str = ""
    grid: tuple[int, int] = (0, 0)
    kind: str = ""
    size: int = 0
    seconds: float = 0.0
    found_patches: int = 0
    even: bool = False
    failures: list[str] = field(default_factory=list)

    def expect(self, fact: bool, failure: str) -> None:
        if not fact:
            self.failures.append(failure)


def examine(model: nn.Module, size: int) -> Finding:
    """Put a network with `CLASSES` logits and random weights through everything, on images of `size` x `size`."""
    torch.manual_seed(0)
    pictures = lessons(size)
    fresh = find_target_layer(model, pictures[1:])  # as a training would start
    settle(model, size)
    start = time.perf_counter()
    layer = find_target_layer(model, pictures[1:])
    seconds = time.perf_counter() - start
    finding = Finding(layer.name, layer.grid or (0, 0), layer.kind, size, round(seconds, 3))
    finding.expect(
        fresh.name == layer.name, f"before the first forward {fresh.name} was found, not {layer.name}"
    )
    heads = find_heads(model, pictures)
    for head in heads.values():  # some start at zero
        nn.init.normal_(head.weight, std=0.1)
    _with_random_heads(finding, model, layer, pictures)
    _with_heads_at_zero(finding, model, layer, heads, pictures)
    _with_fitted_heads(finding, model, layer, heads, size)
    return finding


def settle(model: nn.Module, size: int) -> None:
    """One forward in training mode, for the statistics of BatchNorm: without, signals fade or explode."""
    norms = [each for each in model.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
    for each in norms:
        each.reset_running_stats()
        each.momentum, each.training = 1.0, True
    if norms:
        with torch.no_grad():
            model(lessons(size))
    model.eval()


# ------------------------------------------------------------------------------------------------- the heads


def find_heads(model: nn.Module, pictures: Tensor) -> dict[str, nn.Module]:
    """The layers with `CLASSES` outputs that run: one, or one for each token or branch that has its own."""
    heads: dict[str, nn.Module] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda module, *_: heads.setdefault(name, module) and None

    handles = [
        module.register_forward_hook(note(name))
        for name, module in model.named_modules()
        if isinstance(getattr(module, "weight", None), Tensor)
        and module.weight.ndim > 1
        and len(module.weight) == CLASSES
    ]
    with torch.no_grad():
        model(pictures[:1])
    for handle in handles:
        handle.remove()
    return heads


@contextmanager
def _weights_of(heads: dict[str, nn.Module]) -> Iterator[None]:
    """Inside, the heads may be written on."""
    kept = {
        name: {key: each.clone() for key, each in head.state_dict().items()} for name, head in heads.items()
    }
    try:
        yield
    finally:
        for name, head in heads.items():
            head.load_state_dict(kept[name])


def fit(model: nn.Module, heads: dict[str, nn.Module], layer: TargetLayer, pictures: Tensor) -> None:
    """Least squares from what each head is fed to `ANSWERS`; the other classes get none.

    Each head is fed what the network makes of the plain picture, but for the layer's grid, which is that of the
    lesson: the head learns what this layer says of a patch, not what a class token has gathered from earlier ones.
    A head that is applied to each position is fed the lesson's grids itself: the layer may be its own map of classes.
    """
    with torch.no_grad():
        grids = _lesson_grids(_output_of(model, layer.module, pictures), pictures.shape[-1])
        lessons_of = {name: _own_lessons(model, head, pictures) for name, head in heads.items()}
        fed = {
            name: torch.cat([_fed(model, layer, head, pictures[:1], each) for each in grids.split(9)])
            for name, head in heads.items()
        }
        for name, head in heads.items():
            own = lessons_of[name]
            weights = _least_squares(_rows(fed[name] if own is None else own, head), ANSWERS)
            for parameter in head.parameters():
                parameter.zero_()
            head.weight[: ANSWERS.shape[1]] = weights.T.reshape(-1, *head.weight.shape[1:])


def _fed(model: nn.Module, layer: TargetLayer, head: nn.Module, plain: Tensor, grids: Tensor) -> Tensor:
    """What the head is given for the plain picture, with the layer's grid replaced."""
    with _replaced(layer, grids):
        return _input_of(model, head, plain.expand(len(grids), -1, -1, -1))


def _own_lessons(model: nn.Module, head: nn.Module, pictures: Tensor) -> Tensor | None:
    """The lessons on what the head is fed, where that is a grid."""
    fed, size = _input_of(model, head, pictures), pictures.shape[-1]
    return _lesson_grids(fed, size) if find_layout(fed, (size, size), len(pictures)) is not None else None


def _lesson_grids(outputs: Tensor, size: int) -> Tensor:
    """An empty one; the plain one, whole and each ninth of it; each patch alone; and what each does around itself."""
    plain, patched = outputs[:1], outputs[1:].split(1)
    empty = torch.zeros_like(plain)
    layout = find_layout(plain, (size, size), 1)
    assert layout is not None

    def mixed(ground: Tensor, other: Tensor, place: tuple[int, int], side: int) -> Tensor:
        mixture = ground.clone()
        rows, columns = (
            slice(start * cells // size, -(-(start + side) * cells // size))  # the cells that it touches
            for start, cells in zip(place, layout.grid, strict=True)
        )
        layout.reshape(mixture)[:, :, rows, columns] = layout.reshape(other)[:, :, rows, columns]
        return mixture

    thirds = [(row * size // 3, column * size // 3) for row in range(3) for column in range(3)]
    ninths = [mixed(empty, plain, place, size // 3) for place in thirds]
    pairs = list(zip(patched, corners(size) * 2, strict=True))
    alone = [mixed(plain, output, place, _patch_side(size)) for output, place in pairs]
    around = [mixed(output, plain, place, _patch_side(size)) for output, place in pairs]
    return torch.cat([empty, plain, *ninths, *alone, *around])


def _output_of(model: nn.Module, module: nn.Module, pictures: Tensor) -> Tensor:
    """What the module's last call returns for the pictures."""
    seen: list[Tensor] = []
    handle = module.register_forward_hook(lambda *call: seen.append(main_tensor(call[2]).clone()))
    model(pictures)
    handle.remove()
    return seen[-1].contiguous()


def _input_of(model: nn.Module, module: nn.Module, pictures: Tensor) -> Tensor:
    """What the module's last call is given."""
    seen: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    model(pictures)
    handle.remove()
    return seen[-1].contiguous()


@contextmanager
def _replaced(layer: TargetLayer, output: Tensor) -> Iterator[None]:
    """Inside, the layer returns `output`, but for the tokens before the patches."""
    prefix = int(layer.kind.split()[1]) if "before" in layer.kind else 0

    def replace(module: nn.Module, args: Any, own: Any) -> Any:
        if not prefix:
            return with_main_tensor(own, output.clone())
        return with_main_tensor(own, torch.cat([main_tensor(own)[:, :prefix], output[:, prefix:]], dim=1))

    handle = layer.module.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def _rows(features: Tensor, head: nn.Module) -> Tensor:
    """`(N, C)`, the mean over positions where the head is a convolution or is applied to each token."""
    if isinstance(head, nn.Conv2d):
        return features.mean(dim=(2, 3))
    return features.flatten(1, -2).mean(dim=1) if features.ndim > 2 else features


def _least_squares(features: Tensor, answers: Tensor, ridge: float = 1.0) -> Tensor:
    """The weights `(C, classes)` that give `answers` of all features but the first.

    What an empty layer (the first) and the plain picture (the second) have in common with the others speaks for no
    class.
    """
    features, answers = features.double(), answers.double()
    common, _ = torch.linalg.qr(features[:2].T)
    inside = features[1:] - (features[1:] @ common) @ common.T
    kernel = inside @ inside.T
    kernel += (ridge * kernel.diagonal().mean() + 1e-30) * torch.eye(len(kernel), dtype=kernel.dtype)
    return (inside.T @ torch.linalg.solve(kernel, answers)).float()


# ------------------------------------------------------------------------------------------------ the pictures


def _patch_side(size: int) -> int:
    return size // 4


def corners(size: int) -> list[tuple[int, int]]:
    """The upper left pixel of a patch, off the border by a little, for four places."""
    near, far = size // 8, size - size // 8 - _patch_side(size)
    return [(near, near), (near, far), (far, far), (far, near)]


def _ground(size: int) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return 0.05 * torch.randn(1, 3, size, size, generator=generator)


def light(picture: Tensor, place: tuple[int, int]) -> Tensor:
    """A light patch of reddish stripes."""
    side, (top, left) = _patch_side(picture.shape[-1]), place
    stripes = ((torch.arange(side) // 4) % 2).float().expand(side, side)
    picture = picture.clone()
    picture[..., top : top + side, left : left + side] = torch.stack([1.5 + stripes, 0.5 + stripes, stripes])
    return picture


def dark(picture: Tensor, place: tuple[int, int]) -> Tensor:
    """A dark patch of bluish checks."""
    side, (top, left) = _patch_side(picture.shape[-1]), place
    rows = (torch.arange(side) // 4) % 2
    checks = (rows[:, None] ^ rows[None, :]).float()
    picture = picture.clone()
    picture[..., top : top + side, left : left + side] = torch.stack([-1.5 - checks, -1.5 + checks, -checks])
    return picture


def lessons(size: int) -> Tensor:
    """`(9, 3, size, size)`: a plain picture, four with a light patch, four with a dark one."""
    ground, places = _ground(size), corners(size)
    return torch.cat(
        [ground, *(light(ground, each) for each in places), *(dark(ground, each) for each in places)]
    )


ANSWERS = torch.tensor([*[[0.0, 0.0]] * 10, *[[1.0, -1.0]] * 4, *[[-1.0, 1.0]] * 4, *[[0.0, 0.0]] * 8])
"""What classes 0 and 1 say of `_lesson_grids`."""


# -------------------------------------------------------------------------------------------------- the facts


def _maps(
    model: nn.Module, layer: TargetLayer, pictures: Tensor, targets: Any
) -> tuple[Tensor, Tensor, bool]:
    """The maps of the default method, their peaks, and whether the gradients are constant over space."""
    drawn = attribute(model, pictures, targets, target_layer=layer.name)
    return drawn.maps["guidance_cam"], drawn.peaks["guidance_cam"], drawn.even_gradients


def _with_random_heads(finding: Finding, model: nn.Module, layer: TargetLayer, pictures: Tensor) -> None:
    maps, peaks, finding.even = _maps(model, layer, pictures[1:2].expand(CLASSES, -1, -1, -1), range(CLASSES))
    drawn = maps[peaks > 0]
    finding.expect(maps.shape[1:] == pictures.shape[2:], f"the maps have the size {tuple(maps.shape[1:])}")
    finding.expect(bool(peaks.isfinite().all() and maps.isfinite().all()), "the maps are not finite")
    finding.expect(len(drawn) >= 2, f"{CLASSES - len(drawn)} of {CLASSES} maps are blank under a random head")
    moved = len(drawn) > 1 and float((drawn - drawn[:1]).abs().max()) > 1e-2
    finding.expect(moved, "the map does not move with the class")


def _with_heads_at_zero(
    finding: Finding, model: nn.Module, layer: TargetLayer, heads: dict[str, nn.Module], pictures: Tensor
) -> None:
    with _weights_of(heads), torch.no_grad():
        for head in heads.values():
            for parameter in head.parameters():
                parameter.zero_()
        found = find_target_layer(model, pictures[1:])
    finding.expect(bool(heads), "no head was found")
    finding.expect(
        found.name == layer.name, f"with the head at zero {found.name} was found, not {layer.name}"
    )


def _with_fitted_heads(
    finding: Finding, model: nn.Module, layer: TargetLayer, heads: dict[str, nn.Module], size: int
) -> None:
    pictures, places = lessons(size), corners(size)
    with _weights_of(heads):
        fit(model, heads, layer, pictures)
        drawn = [_maps(model, layer, pictures[1:5], 0), _maps(model, layer, pictures[5:9], 1)]
    blank = sum(int((peaks <= 0).sum()) for _, peaks, _ in drawn)
    finding.expect(not blank, f"{blank} of 8 maps are blank under a fitted head")
    hits = [_peaks_at(maps[i], places[i], finding.grid) for maps, *_ in drawn for i in range(4)]
    finding.found_patches = sum(hits)
    finding.expect(all(hits), f"{len(hits) - sum(hits)} of 8 patches are not where the map peaks")


def _peaks_at(map_: Tensor, place: tuple[int, int], grid: tuple[int, int]) -> bool:
    """Whether the peak lies in the patch, or next to it by at most one cell."""
    size, side = map_.shape[-1], _patch_side(map_.shape[-1])
    row, column = divmod(int(map_.flatten().argmax()), size)
    slack_rows, slack_columns = math.ceil(size / grid[0]), math.ceil(size / grid[1])
    return (
        place[0] - slack_rows <= row < place[0] + side + slack_rows
        and place[1] - slack_columns <= column < place[1] + side + slack_columns
    )
