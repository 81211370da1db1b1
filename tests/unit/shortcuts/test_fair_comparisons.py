"""A check is compared with the accuracy of just the samples that it speaks of."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lightning_gcam import SaliencyBatch
from lightning_gcam.shortcuts import Evidence, Exchanges, Reliance, judge, measure_reliance
from lightning_gcam.shortcuts.detector import judged_by, kinds_of, share_left
from lightning_gcam.shortcuts.regions import classes_of_labels


def batch_with_some_suspects(n: int = 64) -> tuple[SaliencyBatch, Tensor]:
    """Half of the samples have a suspect region, and these are the harder ones: a third of them is named rightly."""
    labels = torch.arange(n) % 4
    suspect = torch.zeros(n, 16, 16, dtype=torch.bool)
    suspect[: n // 2, :3, :3] = True
    masks = torch.zeros(n, 16, 16, dtype=torch.bool)
    masks[:, 7:10, 7:10] = True
    guesses = torch.where((torch.arange(n) < n // 2) & (torch.arange(n) % 3 > 0), (labels + 1) % 4, labels)
    logits = torch.nn.functional.one_hot(guesses, 4).float()
    return SaliencyBatch(torch.rand(n, 1, 16, 16), labels, masks, suspect=suspect), logits


def with_exchanges(batch: SaliencyBatch, logits: Tensor, answers: dict[str, Tensor], name: str) -> Reliance:
    """The checks, and the exchange of one property, after which the logits are what they were."""
    exchanges = Exchanges.of(batch, [name])
    assert exchanges is not None
    measured = exchanges.measure(logits, dict.fromkeys(exchanges.versions(), logits))
    reliance = measure_reliance(batch, logits, answers)
    return replace(reliance, measurements={**reliance.measurements, **measured})


def test_an_exchange_that_changes_nothing_is_no_evidence() -> None:
    batch, logits = batch_with_some_suspects()
    reliance = with_exchanges(batch, logits, {}, "suspect")
    check, before = (reliance.measurements[f"suspect_swap_accuracy{suffix}"] for suffix in ("", "_before"))
    assert (check.value, check.n) == (before.value, before.n) == (pytest.approx(11 / 32), 32)
    assert reliance.measurements["accuracy"].value > 0.6
    assert share_left("suspect_swap_accuracy", reliance) == pytest.approx(1)
    assert kinds_of(reliance) == ()
    looks = [Evidence(step, step, reliance, {}) for step in (1, 2)]
    assert judge(looks) is None


def test_where_all_samples_are_asked_nothing_stands_beside() -> None:
    batch, logits = batch_with_some_suspects()
    reliance = with_exchanges(batch, logits, {"background_only": logits}, "background")
    assert [name for name in reliance.measurements if name.endswith(("accuracy", "_before"))] == [
        "accuracy",
        "background_only_accuracy",
        "background_swap_accuracy",
        "background_same_class_accuracy",
    ]


def test_soft_labels_name_no_class() -> None:
    soft = torch.tensor([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1]])
    assert classes_of_labels(SaliencyBatch(torch.rand(2, 1, 8, 8), soft)) is None
    hard = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    assert classes_of_labels(SaliencyBatch(torch.rand(2, 1, 8, 8), hard)).tolist() == hard.bool().tolist()  # type: ignore[union-attr]


def test_samples_without_saliency_outside_of_the_object_have_no_flips() -> None:
    batch, logits = batch_with_some_suspects(8)
    maps = batch.masks.float()  # type: ignore[union-attr]
    maps[0, 0, 0] = 0.5  # one sample has something outside
    answers = {"salient_outside": logits, "random_outside": logits}
    flips = measure_reliance(batch, logits, answers, maps).measurements["salient_flips"]
    assert (flips.n, flips.blank) == (1, 7)


def test_what_is_no_accuracy_has_none_beside_it() -> None:
    """Of a single class no sample has another one's region; the share of flips then speaks of none."""
    batch, logits = batch_with_some_suspects(8)
    alike = SaliencyBatch(batch.images, torch.zeros(8, dtype=torch.long), batch.masks)
    answers = {"salient_outside": logits, "random_outside": logits}
    reliance = measure_reliance(alike, logits, answers, torch.ones(8, 16, 16))
    assert list(reliance.measurements) == ["accuracy", "salient_flips"]
    assert reliance.measurements["salient_flips"].n == 0


def test_the_labels_of_a_sample_without_an_object_count_where_no_object_is_needed() -> None:
    """Of several labels a sample: the two samples with an object are right, the third one is wrong in all of them."""
    marks = torch.tensor([[1, 0, 1], [0, 1, 1], [1, 1, 0]])
    logits = torch.where(marks > 0, 4.0, -4.0)
    logits[2] *= -1
    masks = torch.zeros(3, 16, 16, dtype=torch.bool)
    masks[:2, 5:9, 5:9] = True
    batch = SaliencyBatch(torch.rand(3, 1, 16, 16), marks, masks)
    reliance = measure_reliance(batch, logits, {"background_only": logits})
    of_each = {name: (each.value, each.n, each.no_mask) for name, each in reliance.measurements.items()}
    assert of_each == {
        "accuracy": (pytest.approx(2 / 3), 3, 0),
        "exact_match": (pytest.approx(2 / 3), 3, 0),
        "background_only_accuracy": (1.0, 2, 1),
        "background_only_accuracy_before": (1.0, 2, 1),
        "background_share": (1 - 36 / 256, 2, 1),  # a square of four with its margin
    }
    # each label is marked in two of the three; of the two with an object the first two labels in one, the third in both
    assert reliance.chance == pytest.approx(2 / 3)
    assert reliance.object_chance == pytest.approx((0.5 + 0.5 + 1) / 3)


def diagnosis(*objects: int) -> tuple[SaliencyBatch, Tensor]:
    """Eight samples, healthy and ill in turn, all taken for what they are; the named ones have an object."""
    masks = torch.zeros(8, 16, 16, dtype=torch.bool)
    masks[list(objects), 5:9, 5:9] = True
    labels = torch.arange(8) % 2
    return SaliencyBatch(torch.rand(8, 1, 16, 16), labels, masks), torch.eye(2)[labels]


def test_healthy_samples_without_an_object_count_where_no_object_is_needed() -> None:
    """Only the four ill ones have a mask: all count but for the object, without which a guess is always right."""
    batch, logits = diagnosis(1, 3, 5, 7)
    reliance = measure_reliance(batch, logits, {"background_only": logits})
    accuracy = reliance.measurements["accuracy"]
    assert (accuracy.value, accuracy.n, accuracy.no_mask, reliance.chance) == (1.0, 8, 0, 0.5)
    assert reliance.is_above_chance
    without = reliance.measurements["background_only_accuracy"]
    assert (without.value, without.n, without.no_mask, reliance.object_chance) == (1.0, 4, 4, 1.0)
    assert reliance.scores["object_accuracy_chance"] == 1.0
    assert (kinds_of(reliance), judged_by(reliance)) == ((), ())
    assert Reliance.from_plain(reliance.to_plain()) == reliance


def test_the_rule_without_the_object_compares_the_samples_with_one() -> None:
    """Two of the six masks belong to healthy samples: a guess is right in two thirds of these, not in one half."""
    batch, logits = diagnosis(0, 1, 2, 3, 5, 7)
    wrong = logits.clone()
    wrong[1] = wrong[1].flip(0)
    reliance = measure_reliance(batch, logits, {"background_only": wrong})
    before = reliance.measurements["background_only_accuracy_before"]
    assert (before.value, before.n, reliance.chance) == (1.0, 6, 0.5)
    assert reliance.object_chance == pytest.approx(2 / 3)
    assert share_left("background_only_accuracy", reliance) == pytest.approx((5 / 6 - 2 / 3) / (1 - 2 / 3))
    assert kinds_of(reliance) == ()  # five of six could be a guess of two thirds


def test_of_the_exchanges_only_the_background_needs_an_object() -> None:
    batch, logits = diagnosis(0, 1, 2, 3, 5, 7)
    exchanges = Exchanges.of(batch, ["border", "background"])
    found = exchanges.measure(logits, dict.fromkeys(exchanges.versions(), logits))  # type: ignore[union-attr]
    assert found["border_swap_accuracy"].n == 8
    assert "border_swap_accuracy_before" not in found
    assert found["background_swap_accuracy"].n == found["background_swap_accuracy_before"].n == 6
