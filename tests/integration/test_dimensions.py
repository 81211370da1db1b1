"""Trainings on signals, volumes and videos, with nothing but `SaliencyMonitor()` and `ShortcutAlarm()` attached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from lightning_gcam import SaliencyBatch, SaliencyEvaluation, SaliencyMonitor, ShortcutAlarm
from lightning_gcam.loggers import ReportLogger
from lightning_gcam.pipeline.run import record_saliency
from tests.support.dimensions import (
    BEATS,
    FRAMES,
    LENGTH,
    SIDE,
    VOLUME,
    Classifier,
    Samples,
    TakesFramesFirst,
    boxes_of,
    loader,
    signals,
    videos,
    volumes,
)
from tests.support.toys import LIGHTNING_SAYS, toy_trainer

pytestmark = [
    *LIGHTNING_SAYS,
    pytest.mark.filterwarnings(r"ignore:ShortcutAlarm .saliency.: "),
    pytest.mark.filterwarnings(
        r"ignore:\d+ of 16 guidance_cam maps are blank"
    ),  # a small network's rectified ones
]
"""Every other warning is an error, so that nothing was left out for a failure."""


@dataclass(frozen=True)
class Kind:
    """What is trained on.

    Args:
        name: of the test.
        make: the samples.
        module: the LightningModule.
        size: of the images.
        kind: as in `SaliencyBatch.kind`.
        epochs: until it has learned.
        cast: from the samples to the rows of a dataset.
    """

    name: str
    make: Callable[..., Samples]
    module: Callable[[], Classifier]
    size: tuple[int, ...]
    kind: str
    epochs: int
    cast: Callable[[Samples], Any] = lambda samples: samples

    def __str__(self) -> str:
        return self.name

    def loader(self, *, planted: bool, seed: int = 0, shuffle: bool = False) -> DataLoader[Any]:
        made = self.cast(self.make(planted=planted, seed=seed))
        if isinstance(made, list):
            return DataLoader(made, batch_size=16, shuffle=shuffle)  # type: ignore[arg-type]
        return loader(made, shuffle=shuffle)


def with_boxes(samples: Samples) -> list[dict[str, Any]]:
    """The samples as dicts, with a box `(1, 2 * d)` each in the place of a mask."""
    images, labels, masks = samples
    name = "signal" if images.ndim == 3 else "image"
    rows = zip(images, labels, boxes_of(masks), strict=True)
    return [{name: image, "label": label, "boxes": boxes} for image, label, boxes in rows]


def frames_first(samples: Samples) -> Samples:
    images, labels, masks = samples
    return images.transpose(1, 2).contiguous(), labels, masks


KINDS = [
    Kind("signals", signals, lambda: Classifier(1, 1, BEATS), (LENGTH,), "signal", 8),
    Kind("intervals", signals, lambda: Classifier(1, 1, BEATS), (LENGTH,), "signal", 8, with_boxes),
    Kind("volumes", volumes, lambda: Classifier(3), VOLUME, "volume", 5),
    Kind("volumes with boxes", volumes, lambda: Classifier(3), VOLUME, "volume", 5, with_boxes),
    Kind("videos", videos, lambda: Classifier(3, 3), (FRAMES, SIDE, SIDE), "video", 5),
    Kind(
        "frames first", videos, lambda: TakesFramesFirst(3, 3), (FRAMES, SIDE, SIDE), "video", 5, frames_first
    ),
]


@dataclass
class Run:
    """One training that has ended."""

    kind: Kind
    root: Path
    monitor: SaliencyMonitor
    alarm: ShortcutAlarm
    checkpoint: Path


def fit(
    kind: Kind, root: Path, *callbacks: Any, planted: bool = True, resume: Any = None, **options: Any
) -> None:
    torch.manual_seed(0)
    trainer = toy_trainer(root, *callbacks, **{"max_epochs": kind.epochs, "log_every_n_steps": 1, **options})
    training, validation = kind.loader(planted=planted, shuffle=True), kind.loader(planted=planted, seed=1)
    trainer.fit(kind.module(), training, validation, ckpt_path=resume)


def train(kind: Kind, root: Path, **options: Any) -> Run:
    """A training that TensorBoard logs, with the callbacks as they are without arguments."""
    monitor, alarm = SaliencyMonitor(), ShortcutAlarm()
    saves = ModelCheckpoint(root / "checkpoints", filename="last")
    logger = TensorBoardLogger(root, name="")
    fit(kind, root, monitor, alarm, saves, enable_checkpointing=True, logger=logger, **options)
    return Run(kind, root, monitor, alarm, Path(saves.best_model_path))


@pytest.fixture(scope="module", params=KINDS, ids=str)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A training with a planted cue."""
    return train(request.param, tmp_path_factory.mktemp("run"))


def test_every_epoch_has_a_look_with_scores(run: Run) -> None:
    assert [row["epoch"] for row in run.monitor.history] == list(range(run.kind.epochs))
    for row in run.monitor.history:
        assert {"energy", "object_lift", "pointing_game", "iou", "blank_rate", "accuracy"} <= row.keys()
    with_checks = [row for row in run.monitor.history if "background_only_accuracy" in row]
    assert len(with_checks) >= 3
    for name in ("border_follow_rate", "background_swap_accuracy", "salient_flips"):
        assert all(name in row for row in with_checks), name


def test_the_record_holds_maps_of_the_size_of_the_samples(run: Run) -> None:
    record = run.monitor.last_record
    assert (record.batch.kind, record.batch.image_size) == (run.kind.kind, run.kind.size)
    assert record.batch.frames_first is (run.kind.name == "frames first")
    (maps,) = record.attribution.maps.values()
    assert maps.shape == record.batch.object_masks.shape == (16, *run.kind.size)
    assert 0 <= float(maps.min()) < float(maps.max()) == 1
    assert record.overlay.dtype == np.uint8
    assert record.overlay.std() > 0


def test_the_alarm_speaks_of_the_planted_cue(run: Run) -> None:
    kinds = {kind for alert in run.alarm.alerts for kind in alert["kinds"]}
    planted = {"survives without the object", "follows the border", "follows the background"}
    assert planted & kinds, "which of them is clear enough with 16 samples differs"
    assert "\n  try: " in run.alarm.alerts[0]["message"]


@pytest.mark.parametrize("kind", KINDS[::2], ids=str)
def test_the_honest_twin_is_passed_over(kind: Kind, tmp_path: Path) -> None:
    honest = train(kind, tmp_path, planted=False)
    last = next(row for row in reversed(honest.monitor.history) if "object_only_accuracy" in row)
    assert last["accuracy"] > 0.6
    assert last["object_only_accuracy"] > last["background_only_accuracy"] + 0.3
    assert honest.alarm.alerts == []


def test_scalars_and_pictures_are_in_the_event_file(run: Run) -> None:
    events = EventAccumulator(str(next(run.root.rglob("events.*")).parent), size_guidance={"images": 0})
    events.Reload()
    looks = [int(row["step"]) for row in run.monitor.history]
    assert [each.step for each in events.Images("saliency/overlay")] == looks
    assert "saliency/exchanges" in events.Tags()["images"]
    logged = {each.step: each.value for each in events.Scalars("saliency/energy")}
    expected = [row["energy"] for row in run.monitor.history]
    assert [logged[step] for step in looks] == pytest.approx(expected)


def test_a_resumed_run_goes_on_with_its_samples(run: Run, tmp_path: Path) -> None:
    epochs = run.kind.epochs
    after = train(run.kind, tmp_path, max_epochs=epochs + 1, resume=run.checkpoint)
    assert after.monitor.history[:epochs] == run.monitor.history
    assert [row["epoch"] for row in after.monitor.history] == list(range(epochs + 1))
    before, now = run.monitor.last_record.batch, after.monitor.last_record.batch
    assert torch.equal(before.images, now.images)
    assert torch.equal(before.object_masks, now.object_masks)
    assert (before.kind, before.frames_first) == (now.kind, now.frames_first)
    assert after.alarm.alerts[: len(run.alarm.alerts)] == run.alarm.alerts


SCORES = [
    "energy",
    "insertion",
    "deletion",
    "average_drop",
    "adcc",
    "drift",
    "drift_from_first",
    "max_box_accuracy",
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_perturbation_curves_and_drift(kind: Kind, tmp_path: Path) -> None:
    monitor = SaliencyMonitor(scores=SCORES, num_samples=4, checks=[], on_error="raise")
    fit(kind, tmp_path, monitor, max_epochs=2)
    first, second = monitor.history
    for name in ("insertion", "deletion", "average_drop", "adcc", "max_box_accuracy"):
        assert 0 <= second[name] <= 1, name
    assert "drift" not in first
    assert 0 <= second["drift"] <= 1
    assert second["drift"] == second["drift_from_first"]


@pytest.mark.parametrize("kind", KINDS[1::2], ids=str)
def test_an_evaluation_of_a_whole_dataset(kind: Kind, tmp_path: Path) -> None:
    def evaluate() -> SaliencyEvaluation:
        torch.manual_seed(0)
        evaluation = SaliencyEvaluation(
            methods=["guidance_cam", "grad_cam"],
            scores=["energy", "deletion"],
            checks=["background_only_accuracy", "border"],
            check_samples=16,
            directory=tmp_path,
            on_error="raise",
            resamples=50,
        )
        data = kind.loader(planted=True)
        toy_trainer(tmp_path, evaluation, limit_test_batches=2).test(kind.module(), data, verbose=False)
        return evaluation

    evaluation = evaluate()
    rows = {(row.method, row.score): row for row in evaluation.result.rows}
    assert rows["grad_cam", "energy"].n + rows["grad_cam", "energy"].left_out == 32
    assert {score for _, score in rows} >= {"energy", "deletion"}
    assert evaluation.result.checks["border_follow_rate"].n == 16
    assert evaluation.result.checks["background_only_accuracy"].n == 16
    again = {(row.method, row.score): row.value for row in evaluate().result.rows}
    assert again == {key: row.value for key, row in rows.items()}


@pytest.mark.parametrize("kind", KINDS[::2], ids=str)
def test_the_report_is_written(kind: Kind, tmp_path: Path) -> None:
    logger = ReportLogger(tmp_path)
    fit(kind, tmp_path, SaliencyMonitor(), logger=logger, max_epochs=2)
    page = Path(logger.report_path).read_text(encoding="utf-8")
    assert "data:image/" in page or "images/" in page


def test_videos_give_the_same_whichever_dimension_the_module_takes_first() -> None:
    torch.manual_seed(0)
    images, labels, masks = videos(6)
    module, other = Classifier(3, 3).eval(), TakesFramesFirst(3, 3).eval()
    other.load_state_dict(module.state_dict())
    scores = ["energy", "insertion", "adcc", "random_model_similarity"]
    one, two = (
        record_saliency(each, SaliencyBatch(images, labels, masks, frames_first=each is other), scores=scores)
        for each in (module, other)
    )
    assert one.scores == pytest.approx(two.scores, abs=1e-5)
    assert {"insertion", "adcc", "random_model_similarity", "color_follow_rate"} <= one.scores.keys()
    torch.testing.assert_close(one.attribution.maps, two.attribution.maps)


def test_a_property_that_signals_do_not_have_is_refused_before_training(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(checks=["spectrum", "border"], on_error="raise")
    with pytest.raises(Exception, match='"spectrum" is one of images with 2 sides or more'):
        fit(KINDS[0], tmp_path, monitor, max_epochs=1)
    assert monitor.history == []
