"""Any layer's output as a grid: every value ends up at the place in the image it came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from lightning_gcam.cam.layouts import MAX_PREFIX_TOKENS, find_layout, main_tensor, with_main_tensor


def a_grid(rows: int, columns: int, channels: int = 5, n: int = 2) -> Tensor:
    """`(n, channels, rows, columns)` in which no value occurs twice."""
    return torch.arange(n * channels * rows * columns).float().view(n, channels, rows, columns)


GRIDS = [(4, 4, (64, 64)), (3, 6, (48, 96)), (7, 5, (112, 80)), (2, 2, (28, 28))]


@pytest.mark.parametrize(("rows", "columns", "image"), GRIDS)
def test_channels_first_are_left_alone(rows: int, columns: int, image: tuple[int, int]) -> None:
    grid = a_grid(rows, columns)
    layout = find_layout(grid, image)
    assert layout is not None
    assert torch.equal(layout.reshape(grid), grid)
    assert (layout.kind, layout.grid) == ("channels first", (rows, columns))


@pytest.mark.parametrize(("rows", "columns", "image"), GRIDS)
def test_channels_last_come_first(rows: int, columns: int, image: tuple[int, int]) -> None:
    grid = a_grid(rows, columns, channels=48)
    layout = find_layout(grid.permute(0, 2, 3, 1).contiguous(), image)
    assert layout is not None
    assert torch.equal(layout.reshape(grid.permute(0, 2, 3, 1)), grid)
    assert (layout.kind, layout.grid) == ("channels last", (rows, columns))


@pytest.mark.parametrize("prefix", range(MAX_PREFIX_TOKENS + 1))
@pytest.mark.parametrize(("rows", "columns", "image"), [(14, 14, (224, 224)), (12, 24, (192, 384))])
def test_tokens_are_read_row_by_row_behind_their_prefix(
    rows: int, columns: int, image: tuple[int, int], prefix: int
) -> None:
    grid = a_grid(rows, columns)
    tokens = torch.cat([torch.full((2, prefix, 5), -1.0), grid.flatten(2).transpose(1, 2)], dim=1)
    layout = find_layout(tokens, image)
    assert layout is not None
    assert torch.equal(layout.reshape(tokens), grid)
    assert layout.grid == (rows, columns)
    assert layout.kind == (f"tokens, {prefix} before the patches" if prefix else "tokens")


def test_what_is_read_is_a_view() -> None:
    tokens = torch.zeros(2, 17, 5)
    layout = find_layout(tokens, (64, 64))
    assert layout is not None
    layout.reshape(tokens)[1, 3, 2, 1] = 7
    assert tokens[1, 1 + 4 * 2 + 1, 3] == 7


@pytest.mark.parametrize(
    ("shape", "image"),
    [
        ((2, 10), (64, 64)),  # logits
        ((2, 8, 1, 1), (64, 64)),  # pooled: one cell has no "where"
        ((2, 1, 8), (64, 64)),  # the class token alone
        ((2, 8, 4, 16), (64, 64)),  # another aspect ratio
        ((2, 8, 128, 128), (64, 64)),  # finer than a pixel
        ((2, 19 * 19, 8), (16, 16)),  # more patches than pixels
        ((2, 8, 4, 4, 4), (64, 64)),  # a volume
    ],
)
def test_what_is_no_grid_over_the_image_is_not_read_as_one(
    shape: tuple[int, ...], image: tuple[int, int]
) -> None:
    assert find_layout(torch.zeros(shape), image) is None


def test_integers_are_no_activations() -> None:
    assert find_layout(torch.zeros(2, 8, 4, 4, dtype=torch.long), (64, 64)) is None


def test_strides_may_round_at_the_border() -> None:
    layout = find_layout(torch.zeros(1, 8, 4, 6), (65, 90))
    assert layout is not None
    assert layout.grid == (4, 6)


@dataclass(frozen=True)
class NotRegistered:
    """Nor is a class derived from dict known to torch's trees."""

    features: Any
    loss: Tensor | None = None


class Answers(dict):  # type: ignore[type-arg]
    pass


class Named(NamedTuple):
    pooled: Tensor
    features: Tensor


def test_the_main_tensor_is_the_first_that_can_be_a_grid() -> None:
    main, flat = torch.zeros(2, 8, 4, 4), torch.zeros(2, 8)
    assert main_tensor(main) is main
    assert main_tensor(flat) is flat
    assert main_tensor((flat, {"x": [main, torch.ones(2, 8, 4, 4)]})) is main
    assert main_tensor((torch.zeros(2, 8, 4, 4, dtype=torch.long), main)) is main
    assert main_tensor((flat, None)) is None
    assert main_tensor(NotRegistered((flat, main))) is main
    assert main_tensor(Answers(flat=flat, main=main)) is main
    assert main_tensor(Named(flat, main)) is main
    assert main_tensor(NotRegistered(flat)) is None
    assert main_tensor(NotRegistered) is None


def test_the_main_tensor_is_replaced_in_place_of_the_old_one() -> None:
    main, flat, new = torch.zeros(2, 8, 4, 4), torch.zeros(2, 8), torch.ones(2, 8, 4, 4)
    assert with_main_tensor(main, new) is new
    replaced = with_main_tensor((flat, {"x": [main], "n": 3}), new)
    assert isinstance(replaced, tuple)
    assert replaced[0] is flat
    assert replaced[1]["x"][0] is new
    assert replaced[1]["n"] == 3


@pytest.mark.parametrize("kind", ["dataclass", "named tuple", "dict of our own", "all of them"])
def test_containers_are_copied_and_keep_their_type(kind: str) -> None:
    main, flat, new = torch.zeros(2, 8, 4, 4), torch.zeros(2, 8), torch.ones(2, 8, 4, 4)
    make: dict[str, Callable[[Tensor], Any]] = {
        "dataclass": lambda each: NotRegistered(each, flat),
        "named tuple": lambda each: Named(flat, each),
        "dict of our own": lambda each: Answers(flat=flat, main=each),
        "all of them": lambda each: (NotRegistered(Answers(a=[flat, Named(flat, each)])), "text", None),
    }
    before = make[kind](main)
    replaced = with_main_tensor(before, new)
    assert repr(replaced) == repr(make[kind](new))
    assert type(replaced) is type(before)
    assert main_tensor(replaced) is new
    assert main_tensor(before) is main


def test_a_model_output_of_transformers_is_replaced_by_key_by_name_and_by_place() -> None:
    outputs = pytest.importorskip("transformers.modeling_outputs")
    main, new = torch.zeros(2, 8, 4, 4), torch.ones(2, 8, 4, 4)
    output = outputs.BaseModelOutputWithPooling(last_hidden_state=main, pooler_output=torch.zeros(2, 8))
    replaced = with_main_tensor(output, new)
    assert type(replaced) is type(output)
    assert main_tensor(output) is main
    assert replaced.last_hidden_state is replaced["last_hidden_state"] is replaced[0] is new


SIZES = [(rows, columns) for rows in range(4, 33) for columns in range(4, 33) if 1 / 4 <= rows / columns <= 4]


@pytest.mark.parametrize("prefix", range(MAX_PREFIX_TOKENS + 1))
def test_patches_of_any_grid_are_told_from_the_tokens_before_them(prefix: int) -> None:
    """4 x 5 patches behind 4 tokens are as many as 4 x 6 patches: the image's sides tell which they are."""
    for rows, columns in SIZES:
        layout = find_layout(torch.zeros(1, prefix + rows * columns, 1), (16 * rows, 16 * columns))
        assert layout is not None
        assert (layout.grid, layout.kind.count(f"{prefix} before")) == ((rows, columns), int(prefix > 0))


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize("left_over", [(9, 9), (0, 5)])
def test_pixels_left_over_at_the_border_change_nothing(prefix: int, left_over: tuple[int, int]) -> None:
    for rows, columns in (each for each in SIZES if 1 / 2 <= each[0] / each[1] <= 2):
        image = (16 * rows + left_over[0], 16 * columns + left_over[1])
        layout = find_layout(torch.zeros(1, prefix + rows * columns, 1), image)
        assert layout is not None
        assert layout.grid == (rows, columns)


def test_tokens_may_stand_before_the_samples() -> None:
    grid = a_grid(4, 8, n=3)
    tokens = torch.cat([torch.full((1, 3, 5), -1.0), grid.flatten(2).permute(2, 0, 1)])
    layout = find_layout(tokens, (64, 128), batch_size=3)
    assert layout is not None
    assert torch.equal(layout.reshape(tokens), grid)
    assert layout.kind == "tokens, 1 before the patches, (L, N, C)"


@pytest.mark.parametrize("shape", [(8, 4, 4, 16), (8, 16, 16), (8, 16, 4, 4)])
def test_windows_of_an_image_are_no_images(shape: tuple[int, ...]) -> None:
    assert find_layout(torch.zeros(shape), (64, 64)) is not None
    assert find_layout(torch.zeros(shape), (64, 64), batch_size=2) is None
