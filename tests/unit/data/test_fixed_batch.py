"""`FixedBatch`: which samples are kept, in which order, and that they stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_gcam import SaliencyBatch
from lightning_gcam.data.fixed_samples import Candidates, FixedBatch, Selection, check_selection
from lightning_gcam.utils.errors import InputError


def numbered(labels: Sequence[int], start: int = 0, size: int = 2) -> SaliencyBatch:
    """Samples whose pixels are their position in the stream."""
    images = torch.arange(start, start + len(labels), dtype=torch.float32)
    return SaliencyBatch(
        images[:, None, None, None].expand(-1, 1, size, size), labels=torch.tensor(labels, dtype=torch.long)
    )


def chosen(
    labels: Sequence[int], num_samples: int, selection: Selection = "balanced", batch_size: int = 3
) -> FixedBatch:
    fixed = FixedBatch(num_samples, selection)
    for start in range(0, len(labels), batch_size):
        fixed.offer(numbered(labels[start : start + batch_size], start))
    fixed.close()
    return fixed


def numbers(batch: SaliencyBatch) -> list[int]:
    return [int(value) for value in batch.images[:, 0, 0, 0]]


# --------------------------------------------------------------------------------------------- what is kept


def test_several_heads_are_balanced_over_the_first_that_has_classes() -> None:
    ages, views, sexes = torch.rand(6), torch.tensor([[2], [2], [2], [2], [0], [-1]]), torch.arange(6)
    fixed = FixedBatch(3)
    for rows in (slice(0, 3), slice(3, 6)):
        heads = {"age": ages[rows], "view": views[rows], "sex": sexes[rows]}
        fixed.offer(SaliencyBatch(torch.zeros(3, 1, 2, 2), head_labels=heads))
    fixed.close()

    assert fixed.positions == [5, 4, 0]
    assert fixed.samples.head_labels["view"].tolist() == [[-1], [0], [2]]
    assert fixed.unlabelled == 0


def test_heads_without_classes_give_the_first_samples() -> None:
    fixed = FixedBatch(2)
    fixed.offer(SaliencyBatch(torch.zeros(4, 1, 2, 2), head_labels={"age": torch.tensor([2.5, 2, 1, 0])}))
    fixed.close()

    assert fixed.positions == [0, 1]


def test_a_set_sorted_by_class_gives_every_class_its_earliest_samples() -> None:
    fixed = chosen([0] * 10 + [1] * 10 + [2] * 10, num_samples=6)

    assert numbers(fixed.samples) == [0, 1, 10, 11, 20, 21]
    assert fixed.samples.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert fixed.positions == [0, 1, 10, 11, 20, 21]


def test_a_rare_class_gives_what_it_has() -> None:
    fixed = chosen([0] * 20 + [1] + [0] * 5, num_samples=4)

    assert numbers(fixed.samples) == [0, 1, 2, 20]


def test_more_classes_than_places_gives_each_of_the_first_one() -> None:
    fixed = chosen([5, 5, 4, 4, 3, 2, 1], num_samples=3)

    assert fixed.samples.labels.tolist() == [3, 4, 5]


def test_first_takes_the_first_and_shows_them_by_class() -> None:
    fixed = chosen([1, 0, 1, 0, 0], num_samples=3, selection="first")

    assert sorted(numbers(fixed.samples)) == [0, 1, 2]
    assert fixed.samples.labels.tolist() == [0, 1, 1]


def test_positions_come_in_the_order_asked_for() -> None:
    fixed = chosen([0] * 9, num_samples=16, selection=[7, 0, 4])

    assert numbers(fixed.samples) == [7, 0, 4]
    assert fixed.num_samples == 3


def test_fewer_samples_than_asked_for() -> None:
    assert numbers(chosen([0, 1], num_samples=16).samples) == [0, 1]


def test_negative_labels_are_passed_over_and_counted() -> None:
    fixed = chosen([-1, 0, -1, 1, 0], num_samples=3)

    assert numbers(fixed.samples) == [1, 4, 3]
    assert fixed.unlabelled == 2


def test_without_labels_all_are_one_class() -> None:
    fixed = FixedBatch(2)
    fixed.offer(SaliencyBatch(torch.rand(5, 1, 2, 2)))
    fixed.close()

    assert fixed.positions == [0, 1]
    assert fixed.samples.labels is None


@pytest.mark.parametrize("dtype", [torch.bool, torch.long, torch.float32])
def test_multi_hot_samples_are_balanced_over_their_first_class(dtype: torch.dtype) -> None:
    labels = torch.tensor([[1, 0, 1], [1, 1, 0], [1, 0, 0], [0, 1, 1], [0, 0, 1]]).to(dtype)
    fixed = FixedBatch(3)
    fixed.offer(SaliencyBatch(torch.rand(5, 1, 2, 2), labels))
    fixed.close()

    assert fixed.positions == [0, 3, 4]


def test_soft_labels_are_balanced_over_the_likeliest_class() -> None:
    labels = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.9]])
    fixed = FixedBatch(2)
    fixed.offer(SaliencyBatch(torch.rand(4, 1, 2, 2), labels))
    fixed.close()

    assert fixed.positions == [0, 3]


@pytest.mark.parametrize("whole_before", [False, True])
def test_measurements_give_the_first_ones(whole_before: bool) -> None:
    """There are no classes to balance over; a batch of whole numbers may come before it shows."""
    labels = [2.0, 2.0, 1.0, 0.5, -3.25, 7.0, 0.0] if whole_before else [0.5, -3.25, 2.0, 2.0, 1.0, 7.0, 0.0]
    fixed = FixedBatch(4)
    for start in (0, 3):
        images = numbered([0] * len(labels[start : start + 3 + start]), start).images
        fixed.offer(SaliencyBatch(images, torch.tensor(labels[start : start + 3 + start])))
    fixed.close()

    assert fixed.positions == [0, 1, 2, 3]
    assert fixed.samples.labels.tolist() == labels[:4]
    assert fixed.unlabelled == 0


def test_measurements_that_only_another_process_saw() -> None:
    first, second = FixedBatch(4), FixedBatch(4)
    images = numbered([0] * 4).images
    first.offer(SaliencyBatch(images, torch.tensor([9.0, 3.0, 1.0, 1.0])), [0, 2, 4, 6])
    second.offer(SaliencyBatch(images, torch.tensor([0.5, 3.0, 1.5, -1.0])), [1, 3, 5, 7])
    first.close(first.candidates() + second.candidates())

    assert first.positions == [0, 1, 2, 3]
    assert first.samples.labels.tolist() == [9.0, 0.5, 3.0, 3.0]


def test_of_images_of_several_sizes_the_commonest_is_taken() -> None:
    fixed = FixedBatch(4)
    fixed.offer(numbered([0, 1], 0))
    fixed.offer(numbered([0, 1, 1, -1], 2, size=3))
    fixed.offer(numbered([0], 6))
    fixed.offer(numbered([2], 7, size=3))
    fixed.close()

    assert fixed.positions == [2, 3, 4, 7]
    assert fixed.samples.labels.tolist() == [0, 1, 1, 2]
    assert (fixed.of_other_sizes, fixed.unlabelled) == (3, 1)


def test_of_two_sizes_as_common_the_first_is_taken() -> None:
    fixed = FixedBatch(4)
    fixed.offer(numbered([0, 1], 0, size=3))
    fixed.offer(numbered([1, 0], 2))
    fixed.close()

    assert fixed.positions == [0, 1]
    assert fixed.of_other_sizes == 2


@given(st.lists(st.tuples(st.integers(2, 12), st.integers(0, 2)), min_size=1, max_size=80), st.integers(1, 5))
def test_images_one_by_one_of_any_sizes(stream: list[tuple[int, int]], num_samples: int) -> None:
    """Of a size that has more than half of all samples as many as there are, balanced; and memory is bounded."""
    fixed, held = FixedBatch(num_samples), 0
    for position, (size, label) in enumerate(stream):
        fixed.offer(numbered([label], position, size))
        held = max(held, len(fixed.candidates().samples))
    fixed.close()

    supply = Counter(size for size, _ in stream)
    ((commonest, count), *_) = supply.most_common()
    size = fixed.samples.images.shape[-1]
    assert held <= 4 * num_samples
    assert [stream[position] for position in fixed.positions] == [
        (size, label) for label in fixed.samples.labels.tolist()
    ]
    assert fixed.of_other_sizes == len(stream) - supply[size]
    if len(supply) <= 4:  # nothing had to be forgotten
        assert supply[size] == count
        assert len(fixed.samples) == min(num_samples, count)
        kept = Counter(fixed.samples.labels.tolist())
        of_size = Counter(label for other, label in stream if other == size)
        assert all(kept[each] >= min(of_size[each], max(kept.values()) - 1) for each in of_size)
    elif count > len(stream) / 2:
        assert size == commonest


@given(st.lists(st.integers(-1, 4), max_size=40), st.integers(1, 9), st.integers(1, 7))
def test_counts_differ_by_at_most_one_where_supply_allows(
    labels: list[int], num_samples: int, batch_size: int
) -> None:
    supply = Counter(label for label in labels if label >= 0)
    if not supply:
        return

    fixed = chosen(labels, num_samples, batch_size=batch_size)

    kept = Counter(fixed.samples.labels.tolist())
    assert sum(kept.values()) == min(num_samples, sum(supply.values()))
    assert all(kept[each] >= min(supply[each], max(kept.values()) - 1) for each in supply)
    for each in kept:  # each class's earliest
        everything = [index for index, label in enumerate(labels) if label == each]
        of_class = [p for p in fixed.positions if labels[p] == each]
        assert of_class == everything[: len(of_class)]
    assert all(labels[position] == label for position, label in _pairs(fixed))


def _pairs(fixed: FixedBatch) -> list[tuple[int, int]]:
    return list(zip(fixed.positions, fixed.samples.labels.tolist(), strict=True))


# ------------------------------------------------------------------------------------- several processes


def pooled(
    labels: Sequence[int], num_samples: int, world_size: int, selection: Selection = "balanced"
) -> FixedBatch:
    """As under DDP: sample i of process r is r + i * world_size; each offers what it would keep."""
    ranks = [FixedBatch(num_samples, selection) for _ in range(world_size)]
    offered = Candidates([], Counter())
    for rank, fixed in enumerate(ranks):
        for position in range(rank, len(labels), world_size):
            fixed.offer(numbered([labels[position]], position), [position])
        offered = offered + fixed.candidates()
    for fixed in ranks:
        fixed.close(offered)
    assert all(fixed.positions == ranks[0].positions for fixed in ranks)
    return ranks[0]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(1, 9), st.integers(2, 4))
def test_processes_together_are_balanced_too(labels: list[int], num_samples: int, world_size: int) -> None:
    fixed = pooled(labels, num_samples, world_size)

    supply, kept = Counter(labels), Counter(fixed.samples.labels.tolist())
    assert sum(kept.values()) == min(num_samples, len(labels))
    assert all(kept[each] >= min(supply[each], max(kept.values()) - 1) for each in supply)
    assert numbers(fixed.samples) == fixed.positions
    assert all(labels[position] == label for position, label in _pairs(fixed))


def test_processes_find_the_first_of_all() -> None:
    assert sorted(pooled([0] * 12, 5, world_size=3, selection="first").positions) == [0, 1, 2, 3, 4]


@given(st.lists(st.integers(0, 11), min_size=1, max_size=5, unique=True), st.integers(2, 4))
def test_positions_are_those_of_the_whole_stream(positions: list[int], world_size: int) -> None:
    fixed = pooled([0, 1] * 6, 16, world_size, selection=positions)

    assert fixed.positions == positions
    assert numbers(fixed.samples) == positions


def test_a_sample_that_is_dealt_out_a_second_time_is_passed_over() -> None:
    fixed = FixedBatch(4)
    fixed.offer(numbered([0, 1, 0]), [0, 2, -1])
    fixed.close()

    assert fixed.positions == [0, 2]


def test_processes_that_saw_other_sizes_agree_on_one() -> None:
    first, second = FixedBatch(2), FixedBatch(2)
    first.offer(numbered([0]), [0])
    second.offer(numbered([1, 1], size=3), [1, 3])
    offered = first.candidates() + second.candidates()

    for each in (first, second):
        each.close(offered)

    assert first.positions == second.positions == [1, 3]
    assert first.of_other_sizes == 1


# ------------------------------------------------------------------------------------------------ it stays


@pytest.mark.filterwarnings("ignore:The object fills each of the 2 images")
def test_samples_are_copies() -> None:
    batch = SaliencyBatch(
        torch.zeros(2, 1, 2, 2), torch.tensor([0, 1]), torch.ones(2, 2, 2, dtype=torch.bool)
    )
    fixed = FixedBatch(2)
    fixed.offer(batch)
    batch.images.fill_(9)
    batch.masks.fill_(False)
    fixed.close()

    assert fixed.samples.images.eq(0).all()
    assert fixed.samples.masks.all()


def test_a_sample_that_is_not_wanted_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[int] = []
    select = SaliencyBatch.select
    monkeypatch.setattr(
        SaliencyBatch, "select", lambda batch, rows: copied.append(len(rows)) or select(batch, rows)
    )

    chosen([0, 1] * 50, num_samples=4)

    assert sum(copied) == 4


def test_reset_forgets_the_sanity_check() -> None:
    fixed = FixedBatch(2)
    fixed.offer(numbered([-1, 0, 1]))
    fixed.reset()
    fixed.offer(numbered([3, 3], 0))
    fixed.close()

    assert fixed.samples.labels.tolist() == [3, 3]
    assert (fixed.positions, fixed.unlabelled) == ([0, 1], 0)


def test_it_is_settled_by_closing_only() -> None:
    fixed = FixedBatch(2)
    fixed.offer(numbered([0]))

    assert not fixed.is_closed
    with pytest.raises(InputError, match="not settled yet: no validation epoch has ended"):
        _ = fixed.samples


def test_no_usable_sample() -> None:
    with pytest.raises(InputError, match="No validation sample could be used.*by hand with `batch=`"):
        FixedBatch(2).close()


@pytest.mark.parametrize("world_size", [1, 2])
def test_where_no_sample_has_a_label_the_first_ones_are_used(world_size: int) -> None:
    fixed = pooled([-1, -100, -1, -1, -1], 3, world_size)

    assert (fixed.positions, fixed.unlabelled) == ([0, 1, 2], 0)
    assert fixed.samples.labels.tolist() == [-1, -100, -1]


def test_samples_without_a_label_are_forgotten_once_one_has_a_label() -> None:
    fixed = FixedBatch(3)
    fixed.offer(numbered([-1, -1]))
    assert len(fixed.candidates().samples) == 2

    fixed.offer(numbered([1], 2))

    assert [sample.group for sample in fixed.candidates().samples] == [1]


SHAPES = {"signal": (2, 9), "image": (1, 4, 4), "volume": (1, 2, 4, 4), "video": (3, 2, 4, 4)}


@pytest.mark.parametrize("kind", SHAPES)
def test_samples_of_any_dimensions_with_all_that_came_with_them(kind: str, tmp_path: Path) -> None:
    n, shape = 5, SHAPES[kind]
    ids = torch.arange(n)
    batch = SaliencyBatch(
        torch.rand(n, *shape),
        labels=ids % 2,
        kind=kind,
        frames_first=kind == "video",
        head_labels={"sex": ids},
        inputs={"tokens": ids[:, None].expand(n, 3), "words": list("abcde")},
        faults=["", "a box with NaN", "", "", ""],
    )
    fixed = FixedBatch(3)
    fixed.offer(batch)
    fixed.close()
    samples = fixed.samples

    torch.save(fixed.state_dict(), tmp_path / "state.pt")
    again = FixedBatch(3)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))

    chosen_ids = torch.tensor(fixed.positions)
    for found in (samples, again.samples):
        assert (found.kind, found.frames_first) == (kind, kind == "video")
        assert torch.equal(found.images, batch.images[chosen_ids])
        assert torch.equal(found.head_labels["sex"], chosen_ids)
        assert torch.equal(found.inputs["tokens"][:, 0], chosen_ids)
        assert found.inputs["words"] == ["abcde"[each] for each in fixed.positions]
        assert found.faults == [batch.faults[each] for each in fixed.positions]
    assert fixed.mixed == []
    assert fixed.found_in(batch) == {0, 1, 2}
    assert again.first_difference(batch, range(n)) is None


def test_inputs_of_other_shapes_in_another_batch_are_left_out() -> None:
    fixed = FixedBatch(2)
    for size in (3, 4):
        images = torch.rand(1, 1, 4, 4)
        fixed.offer(
            SaliencyBatch(images, inputs={"age": torch.ones(1), "view": torch.ones(1, 2, size, size, 2)})
        )
    fixed.close()

    assert list(fixed.samples.inputs) == ["age"]


def test_closing_under_inference_mode_gives_plain_tensors() -> None:
    fixed = FixedBatch(2)
    with torch.inference_mode():
        batch = numbered([0, 1])
        with torch.inference_mode(False):
            fixed.offer(batch)
        fixed.close()

    assert not fixed.samples.images.is_inference()
    assert not fixed.samples.labels.is_inference()


def test_the_largest_batch_is_remembered_for_chunks() -> None:
    fixed = chosen([0] * 10, num_samples=2, batch_size=4)

    assert fixed.largest_batch == 4
    assert FixedBatch.of(numbered([0] * 7)).largest_batch == 7


def test_state_survives_a_checkpoint(tmp_path: pytest.TempPathFactory) -> None:
    fixed, again = chosen([0, 0, 1, 1, 2], num_samples=3), FixedBatch(3)
    path = tmp_path / "state.pt"
    torch.save(fixed.state_dict(), path)

    again.load_state_dict(torch.load(path, weights_only=True))

    assert again.is_closed
    assert torch.equal(again.samples.images, fixed.samples.images)
    assert again.positions == fixed.positions
    assert again.largest_batch == fixed.largest_batch
    assert FixedBatch(3).state_dict() == {}
    empty = FixedBatch(3)
    empty.load_state_dict({})
    assert not empty.is_closed


# ------------------------------------------------------------------------------------------- has it changed?


def test_the_same_stream_shows_no_difference() -> None:
    fixed = chosen([0, 0, 1, 1, 2, 2], num_samples=3)  # positions 0, 2, 4

    assert fixed.first_difference(numbered([0, 0, 1], 0), [0, 1, 2]) is None
    assert fixed.first_difference(numbered([1, 2, 2], 3), [3, 4, 5]) is None
    nearly = SaliencyBatch(numbered([0, 0, 1]).images + 1e-5, torch.tensor([0, 0, 1]))
    assert fixed.first_difference(nearly, [0, 1, 2]) is None


def test_another_image_or_label_is_a_difference() -> None:
    fixed = chosen([0, 0, 1, 1, 2, 2], num_samples=3)

    assert fixed.first_difference(numbered([0, 0, 2], 0), [0, 1, 2]) == 2
    assert fixed.first_difference(numbered([1, 2, 2], 13), [3, 4, 5]) == 4
    assert fixed.first_difference(SaliencyBatch(numbered([0] * 3).images), [0, 1, 2]) == 0
    assert fixed.first_difference(numbered([0, 0, 1], 0, size=3), [0, 1, 2]) == 0


def test_the_kept_samples_are_found_wherever_they_stand() -> None:
    fixed = chosen([0, 0, 1, 1, 2, 2], num_samples=3)  # positions 0, 2, 4
    shuffled = SaliencyBatch(numbered(range(6)).images[[5, 4, 0]], torch.tensor([2, 2, 0]))

    assert fixed.found_in(shuffled) == {0, 2}
    assert fixed.found_in(SaliencyBatch(shuffled.images, shuffled.labels + 1)) == set()
    assert fixed.found_in(numbered([0, 0, 1], size=3)) == set()


def test_another_annotation_is_a_difference() -> None:
    images, masks = torch.rand(2, 1, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[:, :2] = True
    boxes = [torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 1.0, 3.0, 3.0]])]
    fixed = FixedBatch(2)
    fixed.offer(SaliencyBatch(images, masks=masks, boxes=boxes))
    fixed.close()

    assert fixed.first_difference(SaliencyBatch(images, masks=masks, boxes=boxes), [0, 1]) is None
    assert fixed.first_difference(SaliencyBatch(images, masks=~masks, boxes=boxes), [0, 1]) == 0
    assert fixed.first_difference(SaliencyBatch(images, masks=masks, boxes=boxes[:1] * 2), [0, 1]) == 1
    assert fixed.first_difference(SaliencyBatch(images, masks=masks), [0, 1]) == 0


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_each_process_compares_its_share(rank: int) -> None:
    labels = [0, 1, 2, 0, 1, 2, 0, 1]
    fixed = pooled(labels, num_samples=5, world_size=3)
    share = range(rank, len(labels), 3)
    batch = SaliencyBatch(
        torch.stack([numbered([0], position).images[0] for position in share]),
        torch.tensor([labels[position] for position in share]),
    )
    changed = SaliencyBatch(batch.images, batch.labels + 1)

    assert fixed.first_difference(batch, list(share)) is None
    assert fixed.first_difference(changed, list(share)) == rank


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ("balance", 'Did you mean "balanced"'),
        ([], "at least one"),
        ([0, 1.5], "whole numbers from 0"),
        ([3, 3], "names a position twice"),
        (4, "got 4"),
    ],
)
def test_refused_selections(selection: Selection, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_selection(selection)


def full(n: int, but: int | None = None) -> SaliencyBatch:
    masks = torch.ones(n, 4, 4, dtype=torch.bool)
    if but is not None:
        masks[but, 0, 0] = False
    return SaliencyBatch(torch.rand(n, 1, 4, 4), torch.arange(n) % 2, masks)


def test_masks_that_fill_every_image_are_warned_of() -> None:
    with pytest.warns(
        UserWarning, match="The object fills each of the 4 images, so that energy and pointing game"
    ):
        FixedBatch.of(full(4))
    fixed = FixedBatch(4)
    fixed.offer(full(4))
    with pytest.warns(UserWarning, match="The object fills each of the 4 images"):
        fixed.close()


def test_masks_of_which_one_leaves_a_pixel_free_are_not() -> None:
    FixedBatch.of(full(4, but=2))
    FixedBatch.of(full(1))


def test_the_first_ones_stay_the_first_ones_whatever_class_comes_later() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    fixed = FixedBatch(num_samples=4, selection="first")
    fixed.offer(SaliencyBatch(torch.rand(8, 1, 4, 4), labels))
    fixed.close()
    assert fixed.positions == [0, 1, 2, 3]
