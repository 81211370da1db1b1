"""The causal checks in a look: on by default, logged, a forward each, and never the end of a training."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn

from lightning_gcam import SaliencyBatch, SaliencyMonitor
from lightning_gcam.metrics import PositionalConcentration
from lightning_gcam.pipeline.record import Stamp
from lightning_gcam.pipeline.run import record_saliency
from tests.support.toys import (
    CLASSES,
    LIGHTNING_SAYS,
    Toy,
    listening,
    toy_loader,
    toy_network,
    toy_samples,
    toy_trainer,
)

pytestmark = LIGHTNING_SAYS

ON_MASKS = ["background_only_accuracy", "object_only_accuracy", "salient_flips", "background_swap_accuracy"]
CORNER = torch.zeros(16, 16, dtype=torch.bool)
CORNER[:3, :3] = True


def batch_of(n: int = 8, **fields: Any) -> SaliencyBatch:
    images, labels, masks = toy_samples(n)
    return SaliencyBatch(**{"images": images, "labels": labels, "masks": masks, **fields})


def checks_of(scores: dict[str, float]) -> list[str]:
    return [name for name in scores if name in ("accuracy", "suspect_swap_accuracy", *ON_MASKS)]


class Counted(nn.Module):
    """Notes how many images each forward takes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = toy_network()
        self.sizes = torch.zeros(0)

    def forward(self, images: Tensor) -> Tensor:
        SEEN.append(len(images))
        return self.net(images)


SEEN: list[int] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    SEEN.clear()


# ----------------------------------------------------------------------------------------------- in a record


def test_a_record_holds_them_with_n_interval_and_chance() -> None:
    record = record_saliency(toy_network(), batch_of(suspect=CORNER))
    assert record.reliance is not None
    names = list(record.reliance.measurements)
    assert names[:4] == ["accuracy", *ON_MASKS[:3]]
    properties = ["spectrum", "texture", "border", "salient_region", "background", "object", "suspect"]
    assert [name for name in names if name.endswith("_follow_rate") and "same_class" not in name] == [
        f"{name}_follow_rate"
        for name in properties  # a grey image has no colour
    ]
    assert "suspect_swap_accuracy_before" in names  # where the object fills the corner, nothing is exchanged
    assert record.reliance.chance == 1 / CLASSES
    assert {name: record.scores[name] for name in record.reliance.scores} == record.reliance.scores
    accuracy = record.reliance.measurements["accuracy"]
    assert accuracy.value == sum(map(bool, record.correct)) / 8
    assert accuracy.n == 8
    assert accuracy.interval is not None


def test_a_record_can_be_kept_in_a_file() -> None:
    record = record_saliency(toy_network(), batch_of(suspect=CORNER))
    back = pickle.loads(pickle.dumps(record))
    assert back.scores == record.scores
    rows, donors = torch.arange(8), record.exchanges.donors["background"].others[:, 0]  # type: ignore[union-attr]
    made = [each.exchanges.borrowed("background", donors, rows) for each in (back, record)]
    assert torch.equal(*made)


@pytest.mark.parametrize(
    ("fields", "checks", "expected"),
    [
        ({}, None, ["accuracy", *ON_MASKS]),
        ({}, "object_only_accuracy", ["accuracy", "object_only_accuracy"]),
        ({}, [], []),
        ({"masks": None}, None, ["accuracy"]),
        ({"masks": None, "suspect": CORNER}, None, ["accuracy", "suspect_swap_accuracy"]),
        ({"labels": None}, None, []),
        ({"labels": torch.rand(8)}, None, []),
        (
            {"labels": nn.functional.one_hot(torch.arange(8) % CLASSES, CLASSES)},
            None,
            ["accuracy", *ON_MASKS],
        ),
        ({"labels": nn.functional.one_hot(torch.arange(8) % 3, 3)}, None, []),
    ],
    ids=[
        "masks",
        "one",
        "none",
        "labels",
        "suspect",
        "no labels",
        "measurements",
        "marks",
        "marks of others",
    ],
)
def test_what_is_measured(fields: Any, checks: Any, expected: list[str]) -> None:
    record = record_saliency(toy_network(), batch_of(**fields), checks=checks, targets="predicted")
    assert checks_of(record.scores) == expected
    assert (record.reliance is None) == (not expected)


class Dense(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, CLASSES, 1))


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (Dense(), {}),
        (toy_network(), {"targets": lambda logits: logits[:, 0]}),
        (nn.Sequential(*toy_network()[:-1], nn.Linear(8, 1)), {"targets": "output"}),
        (nn.Sequential(*toy_network()[:-1], nn.Linear(8, 2)), {"targets": "predicted"}),
    ],
    ids=["dense", "a score", "a regression", "fewer outputs than classes"],
)
def test_an_output_that_is_not_of_classes_has_none(model: nn.Module, options: Any) -> None:
    record = record_saliency(model, batch_of(), scores=["blank_rate"], **options)
    assert record.reliance is None
    assert list(record.scores) == ["blank_rate"]


def test_a_score_of_the_users_keeps_its_name() -> None:
    model, score = toy_network(), {"accuracy": PositionalConcentration()}
    expected = record_saliency(model, batch_of(), scores=score, checks=[]).scores["accuracy"]
    record = record_saliency(model, batch_of(), scores=score)
    assert record.scores["accuracy"] == expected != record.reliance.scores["accuracy"]  # type: ignore[union-attr]
    assert "background_only_accuracy" in record.scores


def test_where_every_map_is_blank_the_accuracies_are_there_all_the_same() -> None:
    dead = nn.Sequential(*toy_network()[:-1], nn.Linear(8, CLASSES))
    nn.init.zeros_(dead[-1].weight)
    record = record_saliency(dead, batch_of())
    assert record.scores["blank_rate"] == 1
    assert checks_of(record.scores) == ["accuracy", *ON_MASKS[:2], ON_MASKS[3]]
    assert record.reliance is not None
    assert record.reliance.measurements["salient_flips"].blank == 8


def test_names_of_classes_may_say_what_a_score_is() -> None:
    stamp = Stamp(class_names=["a", "b", "c", "d"])
    record = record_saliency(toy_network(), batch_of(), targets=lambda logits: logits[:, 0], stamp=stamp)
    assert "background_only_accuracy" in record.scores


def test_one_forward_each_of_no_more_images_than_the_maps_took() -> None:
    model, batch = Counted(), batch_of(suspect=CORNER)
    record_saliency(model, batch, target_layer="net.5", checks=[])
    assert SEEN == [8, 5]  # five images show once how the layer lies
    SEEN.clear()
    record_saliency(model, batch, target_layer="net.5", checks=[])
    assert SEEN == [8]
    SEEN.clear()
    record_saliency(model, batch, target_layer="net.5")
    assert SEEN == [8] * (1 + 4 + 3 * 6)  # an object and its background are exchanged by the same images
    SEEN.clear()
    record_saliency(model, batch, target_layer="net.5", chunk_size=20)
    assert [8, *[20] * 8, 16] == SEEN


def test_chunks_change_nothing() -> None:
    model, batch = toy_network(), batch_of(suspect=CORNER)
    whole, pieces = (record_saliency(model, batch, chunk_size=size).reliance for size in (None, 3))
    assert whole is not None
    assert pieces is not None
    assert whole.to_plain() == pieces.to_plain()


# --------------------------------------------------------------------------------------------- in a training


def test_they_stand_in_the_history_and_are_logged(tmp_path: Path) -> None:
    monitor, logger = SaliencyMonitor(num_samples=8), CSVLogger(tmp_path)
    with listening() as said:
        trainer = toy_trainer(tmp_path, monitor, logger=logger)
        trainer.fit(Toy(), toy_loader(32), toy_loader())
    assert checks_of(monitor.history[0]) == ["accuracy", *ON_MASKS]
    assert monitor.history[0]["accuracy_chance"] == 0.25
    for name in ("accuracy", *ON_MASKS):
        last = [row[name] for row in monitor.history if name in row][-1]
        assert float(trainer.callback_metrics[f"saliency/{name}"]) == pytest.approx(last)
    assert "saliency/background_only_accuracy" in Path(logger.log_dir, "metrics.csv").read_text()
    assert any("background_only_accuracy" in words for words in said)


def test_without_masks_it_is_said_how_many_are_left_out(tmp_path: Path) -> None:
    images, labels, _ = toy_samples(8)
    with listening() as said:
        monitor = SaliencyMonitor(batch=(images, labels))
        toy_trainer(tmp_path, monitor).fit(Toy(), toy_loader(32), toy_loader())
    (words,) = [words for words in said if words.startswith("SaliencyMonitor (")]
    (left_out,) = [line for line in words.splitlines() if line.startswith("  left out")]
    assert "5 checks: deliver (images, labels, masks)" in left_out
    assert left_out.endswith("; color: the images have none")
    assert checks_of(monitor.history[-1]) == ["accuracy"]


def test_none_costs_nothing(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(num_samples=8, checks=[])
    toy_trainer(tmp_path, monitor).fit(Toy(), toy_loader(32), toy_loader())
    assert checks_of(monitor.history[-1]) == []
    assert monitor.last_record is not None
    assert monitor.last_record.reliance is None


def test_the_removal_is_handed_on(tmp_path: Path) -> None:
    shapes: set[Any] = set()

    def black(images: Tensor, regions: Tensor) -> Tensor:
        shapes.add((tuple(images.shape), tuple(regions.shape), regions.dtype))
        return torch.zeros_like(images)

    monitor = SaliencyMonitor(num_samples=8, removal=black, on_error="raise")
    toy_trainer(tmp_path, monitor).fit(Toy(), toy_loader(32), toy_loader())
    assert ((8, 1, 16, 16), (8, 16, 16), torch.bool) in shapes


def broken(images: Tensor, regions: Tensor) -> Tensor:
    raise RuntimeError("no such colour")


def test_a_check_that_fails_is_one_warning_and_the_look_goes_on(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(num_samples=8, removal=broken)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        toy_trainer(tmp_path, monitor, max_epochs=3).fit(Toy(), toy_loader(32), toy_loader())
    (warning,) = [str(each.message) for each in caught if "no such colour" in str(each.message)]
    assert warning.startswith("Checking what the model relies on failed, and the training goes on without it")
    assert len(monitor.history) == 3
    assert checks_of(monitor.history[-1]) == ["accuracy"]
    assert "energy" in monitor.history[-1]


def test_what_cannot_be_used_is_refused_before_the_training(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match='`checks` "background_accuracy" is not a check. Did you mean "background'
    ):
        SaliencyMonitor(checks=["background_accuracy"])
    with pytest.raises(ValueError, match='`removal` "blurred" is not known. Did you mean "blur"?'):
        SaliencyMonitor(removal="blurred")  # type: ignore[arg-type]
    monitor = SaliencyMonitor(num_samples=8, removal=lambda images, regions: images[..., 0])
    trainer = toy_trainer(tmp_path, monitor)
    with pytest.raises(ValueError, match="`removal` must give images of the shape"):
        trainer.fit(Toy(), toy_loader(32), toy_loader())
    assert trainer.global_step == 0


def test_whole_number_images_are_asked_as_whole_numbers(tmp_path: Path) -> None:
    class TakesBytes(Toy):
        def forward(self, images: Tensor) -> Tensor:
            assert images.dtype == torch.uint8
            return self.network(images.float() / 255)

    images, labels, masks = toy_samples(8)
    batch = SaliencyBatch((images * 255).to(torch.uint8), labels, masks)
    monitor = SaliencyMonitor(batch=batch, on_error="raise")
    toy_trainer(tmp_path, monitor).fit(TakesBytes(), toy_loader(32), toy_loader())
    assert checks_of(monitor.history[0]) == ["accuracy", *ON_MASKS]


def test_costly_scores_at_the_end_ask_no_check_again(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(num_samples=8, final_scores=["average_drop"])
    toy_trainer(tmp_path, monitor).fit(Toy(), toy_loader(32), toy_loader())
    assert "average_drop" in monitor.final_record.scores
    assert checks_of(monitor.final_record.scores) == []


# ------------------------------------------------------------------------------------------------ when they wait


class Guesses(Toy):
    """A toy that names every sample class 0 while `knows` is 0, and rightly from then on."""

    knows = 2

    def forward(self, images: Tensor) -> Tensor:
        brightness = images[:, 0, 0, 0, None]  # the samples below hold their label there
        right = -(brightness - torch.arange(CLASSES, device=images.device)).abs()
        is_known = self.trainer.current_epoch >= self.knows
        return self.network(images) * 0.001 + (right * 50 if is_known else 0)


def labelled_by_a_pixel(n: int = 16) -> SaliencyBatch:
    images, labels, masks = toy_samples(n)
    images[:, 0, 0, 0] = labels.float()
    return SaliencyBatch(images, labels, masks)


@pytest.mark.parametrize(("checks", "made"), [(None, [0, 2, 3]), (["border"], [0, 1, 2, 3])])
def test_behind_the_first_look_the_default_checks_wait_until_accuracy_is_above_chance(
    tmp_path: Path, checks: Any, made: list[int]
) -> None:
    monitor = SaliencyMonitor(batch=labelled_by_a_pixel(), checks=checks, on_error="raise")
    with listening() as said:
        toy_trainer(tmp_path, monitor, max_epochs=4).fit(Guesses(), toy_loader(32), toy_loader())
    assert [at for at, row in enumerate(monitor.history) if "border_follow_rate" in row] == made
    assert all("accuracy" in row and "accuracy_chance" in row for row in monitor.history)
    waiting = [words for words in said if "wait until accuracy" in words]
    assert len(waiting) == (0 if checks else 1)
    assert not monitor.last_record.checks_wait  # type: ignore[union-attr]
    last = monitor.history[-1]
    assert last["accuracy"] == 1
    assert (last["border_swap_accuracy"], last["border_follow_rate"]) == (
        0,
        1,
    )  # the pixel lies in the corner


def test_a_resumed_training_does_not_begin_with_the_checks_again(tmp_path: Path) -> None:
    class Never(Guesses):
        knows = 100

    first = SaliencyMonitor(batch=labelled_by_a_pixel())
    trainer = toy_trainer(tmp_path, first, max_epochs=1)
    trainer.fit(Never(), toy_loader(32), toy_loader())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    second = SaliencyMonitor(batch=labelled_by_a_pixel())
    again = toy_trainer(tmp_path, second, max_epochs=2)
    again.fit(Never(), toy_loader(32), toy_loader(), ckpt_path=tmp_path / "last.ckpt", weights_only=False)
    assert "border_follow_rate" in first.history[0]
    assert "border_follow_rate" not in second.history[-1] and len(second.history) == 2
