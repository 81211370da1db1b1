"""The results of the causal checks: hand cases, references, and toy networks that use one part of the image only."""

from __future__ import annotations

import json
import math

import pytest
import torch

from lightning_gcam import SaliencyBatch
from lightning_gcam.metrics import Measurement
from lightning_gcam.shortcuts import Exchanges, Reliance, changed_images, measure_reliance
from lightning_gcam.shortcuts.detector import kinds_of, unchecked_of
from lightning_gcam.shortcuts.regions import regions_of_batch
from lightning_gcam.shortcuts.shares import (
    bounds_of,
    chance_level,
    difference_interval,
    mean_share_interval,
    wilson_interval,
)

SIZE = 24


def logits_of(*predictions: int, classes: int = 3) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(predictions), classes).float()


def masked_batch(labels, n: int | None = None) -> SaliencyBatch:
    masks = torch.zeros(n or len(labels), SIZE, SIZE, dtype=torch.bool)
    masks[:, 12:18, 12:18] = True
    return SaliencyBatch(torch.zeros(len(masks), 1, SIZE, SIZE), torch.tensor(labels), masks=masks)


# ------------------------------------------------------------------------------------- chance and intervals


@pytest.mark.parametrize(
    ("labels", "num_logits", "expected"),
    [
        ([0, 1, 2, 3], 10, 0.25),
        ([0, 1, 2, 3], 3, 1 / 3),
        ([0, 0, 0, 1], 2, 0.75),
        ([0, 1], 1, 0.5),
        ([1, 1, 1], 1, 1.0),
        ([], 4, 0.25),
        ([[1, 0, 1], [0, 0, 1], [0, 1, 0]], 3, 2 / 3),
    ],
)
def test_chance_by_hand(labels, num_logits, expected):
    assert chance_level(torch.tensor(labels, dtype=torch.long), num_logits) == pytest.approx(expected)


@pytest.mark.parametrize("n", [1, 7, 16, 200])
def test_the_interval_of_a_share_is_scipys(n):
    stats = pytest.importorskip("scipy.stats")
    for successes in {0, 1, n // 2, n}:
        ours = wilson_interval(successes, n)
        theirs = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
        assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-5)
    assert wilson_interval(0, 0) is None


@pytest.mark.parametrize("beyond", [0.05, 0.05 / 20, 1e-6])
@pytest.mark.parametrize(
    ("hits", "n"), [(0, 16), (1, 16), (5, 16), (16, 16), (7.5, 12.3), (500, 1000), (3, 5000)]
)
def test_the_exact_bounds_are_scipys(hits, n, beyond):
    beta = pytest.importorskip("scipy.stats").beta
    low, high = bounds_of(hits / n, wilson_interval(hits, n), beyond)
    assert low == pytest.approx(beta.ppf(beyond, hits, n - hits + 1) if hits else 0.0, abs=1e-6)
    assert high == pytest.approx(beta.isf(beyond, hits + 1, n - hits) if hits < n else 1.0, abs=1e-6)


def test_an_interval_without_any_width_stays():
    assert bounds_of(0.5, (0.5, 0.5), 0.05) == (0.5, 0.5)
    assert bounds_of(0.5, (0.0, 1.0), 0.05) == (0.0, 1.0)


def test_the_interval_of_a_difference_by_hand():
    """Newcombe's square-and-add of 0.5 +- and 0.25 +-: of 8 and 4 out of 16."""
    (l1, u1), (l2, u2) = wilson_interval(8, 16), wilson_interval(4, 16)
    low = 0.25 - math.hypot(0.5 - l1, u2 - 0.25)
    high = 0.25 + math.hypot(u1 - 0.5, 0.25 - l2)
    assert difference_interval(8, 4, 16) == pytest.approx((low, high))
    assert difference_interval(16, 0, 16)[1] == 1.0
    assert difference_interval(0, 0, 0) is None


# --------------------------------------------------------------------------------------------- measurements


def test_accuracies_by_hand():
    batch = masked_batch([0, 1, 2, 1])
    found = measure_reliance(
        batch,
        logits_of(0, 1, 2, 0),
        {"background_only": logits_of(0, 0, 0, 0), "object_only": logits_of(0, 1, 2, 1)},
    )
    names = ["accuracy", "background_only_accuracy", "object_only_accuracy", "background_share"]
    room = 1 - (8 / SIZE) ** 2  # a square of six with its margin
    assert list(found.measurements) == names
    assert [each.value for each in found.measurements.values()] == [0.75, 0.25, 1.0, room]
    assert all(each.n == 4 and each.left_out == 0 for each in found.measurements.values())
    assert found.measurements["object_only_accuracy"].interval == wilson_interval(4, 4)
    assert found.chance == 0.5
    assert found.scores == {
        "accuracy": 0.75,
        "background_only_accuracy": 0.25,
        "object_only_accuracy": 1.0,
        "background_share": room,
        "accuracy_chance": 0.5,
    }


def test_flips_by_hand():
    """Three of four predictions change with the salient region, one with a random one."""
    batch, logits = masked_batch([0, 1, 2, 1]), logits_of(0, 1, 2, 0)
    answers = {"salient_outside": logits_of(1, 2, 0, 0), "random_outside": logits_of(0, 1, 2, 1)}
    flips = measure_reliance(batch, logits, answers).measurements["salient_flips"]
    assert flips == Measurement(0.5, 4, 0, 0, 0, difference_interval(3, 1, 4))
    maps = torch.ones(4, SIZE, SIZE)
    maps[0], maps[1] = 0.0, torch.nan
    of_two = measure_reliance(batch, logits, answers, maps).measurements["salient_flips"]
    assert of_two == Measurement(0.0, 2, 2, 0, 0, difference_interval(1, 1, 2))


def test_a_check_whose_answers_are_not_there_is_not_measured():
    batch, logits = masked_batch([0, 1, 2, 1]), logits_of(0, 1, 2, 0)
    assert list(measure_reliance(batch, logits, {"salient_outside": logits}).measurements) == ["accuracy"]


def test_all_that_need_the_object_speak_of_the_same_samples():
    """Of five samples one has no class, one no object, one nothing but the object."""
    batch = masked_batch([0, 1, 2, 1, -1])
    batch.masks[0], batch.masks[1] = False, True
    logits = logits_of(0, 1, 2, 0, 0)
    found = measure_reliance(batch, logits, {"background_only": logits})
    exchanges = Exchanges.of(batch, ["background"])
    exchanged = exchanges.measure(logits, dict.fromkeys(exchanges.versions(), logits))
    for name in ("background_only_accuracy", "background_only_accuracy_before", "background_swap_accuracy"):
        each = {**found.measurements, **exchanged}[name]
        assert (each.value, each.n, each.no_mask, each.no_room, each.undefined) == (0.5, 2, 1, 1, 1)
    assert found.measurements["background_share"].n == 3  # all that have an object and a class
    assert found.object_chance == 0.5
    accuracy = found.measurements["accuracy"]
    assert (accuracy.value, accuracy.n, accuracy.no_mask, accuracy.undefined) == (0.75, 4, 0, 1)


def test_what_leaves_less_than_a_quarter_of_the_image_is_left_out():
    """Squares of 6, 14 and 20 pixels a side in an image of 24: with their margins they leave 0.89, 0.44 and nothing."""
    batch = masked_batch([0, 1, 2])
    for row, (start, side) in enumerate([(12, 6), (3, 14), (2, 20)]):
        batch.masks[row] = False
        batch.masks[row, start : start + side, start : start + side] = True
    regions = regions_of_batch(batch)
    assert regions.room.tolist() == pytest.approx([1 - 64 / 576, 1 - 18**2 / 576, 1 - 24**2 / 576])
    assert (regions.masked.tolist(), regions.crowded.tolist()) == ([True, True, False], [False, False, True])
    logits = logits_of(0, 1, 0)
    found = measure_reliance(batch, logits, {"background_only": logits, "object_only": logits}).measurements
    for name in ("background_only_accuracy", "object_only_accuracy"):
        assert (found[name].value, found[name].n, found[name].no_room, found[name].no_mask) == (1.0, 2, 1, 0)
    assert "left out 1 (1 without room beside the object)" in str(found["background_only_accuracy"])
    assert found["background_share"].value == pytest.approx(regions.room.mean().item())


def test_where_no_object_leaves_room_the_background_is_said_to_be_unchecked_for_that():
    """Of four samples one has no object, one no class; the other two are all object."""
    batch = masked_batch([0, 1, 1, -1])
    batch.masks[:], batch.masks[2] = True, False
    assert changed_images(batch) == {}
    found = measure_reliance(batch, logits_of(0, 1, 1, 0), {})
    each = found.measurements["background_only_accuracy"]
    assert (each.n, each.no_room, each.no_mask, each.undefined, each.interval) == (0, 2, 1, 1, None)
    assert list(found.scores) == ["accuracy", "accuracy_chance"] and kinds_of(found) == ()
    assert unchecked_of(found)[0] == "the background: no object leaves enough of the picture"


def test_without_masks_all_labelled_samples_count():
    batch = SaliencyBatch(
        torch.zeros(3, 1, SIZE, SIZE),
        torch.tensor([0, 1, -1]),
        suspect=torch.ones(SIZE, SIZE, dtype=torch.bool),
    )
    found = measure_reliance(batch, logits_of(0, 1, 0), {}).measurements["accuracy"]
    exchanges = Exchanges.of(batch, ["suspect"])
    answers = dict.fromkeys(exchanges.versions(), logits_of(1, 0, 0))
    swapped = exchanges.measure(logits_of(0, 1, 0), answers)["suspect_swap_accuracy"]
    assert (found.value, found.n, found.undefined) == (1.0, 2, 1)
    assert (swapped.value, swapped.n, swapped.undefined) == (0.0, 2, 1)


def test_a_donor_of_another_class_is_needed_for_an_exchange():
    batch = masked_batch([1, 1, 1, 1])
    assert Exchanges.of(batch, ["background", "border"]) is None
    lonely = masked_batch([1, 1, 0, 0])
    lonely.masks[2:] = False
    assert Exchanges.of(lonely, ["background", "border"]).names == ("border",)  # the others have no object


def test_answers_that_are_not_finite_are_left_out():
    batch, broken = masked_batch([0, 1, 2, 1]), logits_of(0, 1, 2, 1)
    broken[0] = torch.nan
    each = measure_reliance(batch, logits_of(0, 1, 2, 1), {"background_only": broken}).measurements
    assert (each["background_only_accuracy"].n, each["background_only_accuracy"].undefined) == (3, 1)


def test_a_single_logit_and_marks():
    single = measure_reliance(masked_batch([0, 1, 1, 0]), torch.tensor([[-1.0], [1.0], [2.0], [3.0]]), {})
    assert (single.scores["accuracy"], single.chance) == (0.75, 0.5)
    marks = masked_batch([[1, 0, 1], [0, 1, 0], [0, 0, 0], [0, 0, 1]], 4)
    logits = torch.tensor([[-1.0, -1.0, 2.0], [3.0, -1.0, -1.0], [-1.0, -1.0, -1.0], [-2.0, -2.0, 1.0]])
    found = measure_reliance(marks, logits, {})
    assert found.measurements["accuracy"].value == pytest.approx((2 + 1 + 3 + 3) / 12)
    assert found.measurements["accuracy"].n == 4  # none of the classes is an answer, too
    assert found.chance == pytest.approx((0.75 + 0.75 + 0.5) / 3)  # no, no, and either
    assert found.scores["exact_match"] == 0.5
    assert found.scores["exact_match_chance"] == 0.25  # four different rows
    again = type(found).from_plain(found.to_plain())
    assert again == found


def test_marks_are_predicted_as_the_model_squashes_its_logits():
    """A softmax gives two marks 0.45 each: none is more likely than not; of its own sigmoids both are."""
    marks = masked_batch([[1, 1, 0], [0, 1, 0]], 2)
    logits = torch.tensor([[4.0, 4.0, 1.0], [-4.0, 4.0, -1.0]])
    own = measure_reliance(marks, logits, {})
    one = measure_reliance(marks, logits, {}, own_sigmoids=False)
    assert own.scores["accuracy"] == pytest.approx(5 / 6)
    assert one.scores["accuracy"] == pytest.approx(4 / 6)


def test_flips_of_marks_are_changes_of_any_of_them():
    batch = masked_batch([[1, 0], [0, 1], [1, 1], [0, 0]], 4)
    logits = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [1.0, 1.0], [-1.0, -1.0]])
    second = logits * torch.tensor([1.0, -1.0])  # argmax changes in two rows only
    found = measure_reliance(batch, logits, {"salient_outside": second, "random_outside": logits})
    assert found.scores["salient_flips"] == 1.0


def test_the_interval_of_a_mean_over_labels_lies_between_those_of_samples_and_of_labels():
    together = mean_share_interval(torch.tensor([1.0, 1.0, 0.0, 0.0]), 5)
    assert together == wilson_interval(2, 4)  # a sample's labels go together
    assert mean_share_interval(torch.ones(4), 5) == wilson_interval(20, 20)
    apart = mean_share_interval(torch.tensor([0.6, 0.4, 0.6, 0.4]), 5)
    assert apart == pytest.approx(wilson_interval(10, 20))
    assert mean_share_interval(torch.ones(1), 5) == wilson_interval(1, 1)
    assert mean_share_interval(torch.ones(0), 5) is None


def test_where_labels_are_no_classes_nothing_is_measured():
    batch = SaliencyBatch(torch.zeros(2, 1, 8, 8), torch.tensor([0.5, 1.5]))
    assert measure_reliance(batch, torch.zeros(2, 1), {}).measurements == {}
    assert measure_reliance(batch, torch.zeros(2, 1), {}).scores == {}


def test_answers_of_another_shape_are_refused():
    batch = masked_batch([0, 1])
    with pytest.raises(ValueError, match=r"`logits` must be \(2, K\), one row a sample; got \(2, 3, 4\)"):
        measure_reliance(batch, torch.zeros(2, 3, 4), {})
    with pytest.raises(
        ValueError, match=r'`changed_logits` "object_only" must be as the logits, \(2, 3\); got \(2, 4\)'
    ):
        measure_reliance(batch, torch.zeros(2, 3), {"object_only": torch.zeros(2, 4)})


def test_a_reliance_comes_back_from_json():
    measurements = {
        "accuracy": Measurement(0.75, 4, 0, 1, 0, (0.3, 0.95)),
        "salient_flips": Measurement(math.nan, 0, 4, 0, 0, None),
    }
    plain = json.loads(json.dumps(Reliance(measurements, 0.1, num_classes=7).to_plain(), allow_nan=False))
    back = Reliance.from_plain(plain)
    assert back.measurements["accuracy"] == measurements["accuracy"]
    assert back.measurements["salient_flips"][1:] == measurements["salient_flips"][1:]
    assert math.isnan(back.measurements["salient_flips"].value)
    assert (back.chance, back.exact_chance, back.num_classes) == (0.1, None, 7)
    del plain["num_classes"]  # of an older checkpoint
    assert Reliance.from_plain(plain).num_classes is None


# ------------------------------------------------------------------------------- toys that read one thing only


def toy_batch(n: int = 16) -> SaliencyBatch:
    """Four classes. Each of three things tells the class: the corner's and the object's brightness, and the tint."""
    labels = torch.arange(n) % 4
    level = labels[:, None, None, None].float()
    images = (torch.rand(n, 3, SIZE, SIZE) - 0.5) * 0.2
    images[:, 2] += level[:, 0] / 4  # the third channel is tinted
    masks = torch.zeros(n, SIZE, SIZE, dtype=torch.bool)
    for row in range(n):
        masks[row, 8 + row % 4 : 14 + row % 4, 10:16] = True
    images[:, :1] = torch.where(masks[:, None], 10 + level, images[:, :1])
    suspect = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    suspect[:4, :4] = True
    images[:, 1, :4, :4] = 10 + level[:, 0]
    return SaliencyBatch(images, labels, masks=masks, suspect=suspect)


def reads_the_corner(images):
    return -(images[:, 1, :4, :4].mean(dim=(1, 2))[:, None] - 10 - torch.arange(4.0)).abs()


def reads_the_object(images):
    return -(images[:, 0].amax(dim=(1, 2))[:, None] - 10 - torch.arange(4.0)).abs()


def reads_the_tint(images):
    return -(images[:, 2].mean(dim=(1, 2))[:, None] - torch.arange(4.0) / 4).abs()


@pytest.mark.parametrize("removal", ["blur", "mean", "neighbours"])
@pytest.mark.parametrize(
    ("model", "expected", "at_chance"),
    [
        (
            reads_the_corner,
            {
                "background_only": 1,
                "background_swap": 0,
                "suspect_swap": 0,
                "salient_region_swap": 0,
                "flips": 1,
            },
            "object_only",
        ),
        (
            reads_the_object,
            {"object_only": 1, "background_swap": 1, "suspect_swap": 1, "salient_region_swap": 1, "flips": 0},
            "background_only",
        ),
        # the object has the tint as well, so the object alone still tells some of it
        (reads_the_tint, {"background_only": 1, "background_swap": 0, "suspect_swap": 1, "flips": 0}, None),
    ],
)
def test_the_numbers_tell_what_a_model_reads(model, expected, at_chance, removal):
    batch = toy_batch()
    maps = torch.where(batch.suspect, 1.0, 0.0).expand(16, -1, -1) + 0.5 * batch.masks
    made = changed_images(batch, maps, removal=removal)
    answers = {name: model(images) for name, images in made.items()}
    scores = measure_reliance(batch, model(batch.images), answers, maps).scores
    names = ["background", "object", "suspect", "salient_region"]
    exchanges, every = Exchanges.of(batch, names, maps, removal), torch.arange(len(batch))
    swapped = {name: model(make(every)) for name, make in exchanges.versions().items()}
    scores |= {name: each.value for name, each in exchanges.measure(model(batch.images), swapped).items()}
    assert scores["accuracy"] == 1
    for name in names:
        kept, followed = scores[f"{name}_swap_accuracy"], scores[f"{name}_follow_rate"]
        assert kept + followed == 1 and scores[f"{name}_follow_chance"] == 0
        if name != "object":
            assert (scores[f"{name}_same_class_accuracy"], scores[f"{name}_same_class_follow_rate"]) == (1, 0)
    assert scores["accuracy_chance"] == 0.25
    for question, share in expected.items():
        name = "salient_flips" if question == "flips" else f"{question}_accuracy"
        assert scores[name] == share, name
    assert at_chance is None or scores[f"{at_chance}_accuracy"] <= 0.25


def test_an_interval_stays_where_a_share_can_be():
    """Rounding alone would end it a little below 0, of 7 samples for one."""
    for n in range(1, 30):
        (low, _), (_, high) = wilson_interval(0, n), wilson_interval(n, n)
        assert 0 <= low < 1e-15 and 1 - 1e-15 < high <= 1
