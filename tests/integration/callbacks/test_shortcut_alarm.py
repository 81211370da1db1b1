"""`ShortcutAlarm` in real trainings: networks that read one known thing, and what is said of them."""

from __future__ import annotations

import csv
import json
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_gcam import SaliencyBatch, SaliencyMonitor, ShortcutAlarm
from lightning_gcam.callbacks.shortcut_alarm import RecentLooks
from lightning_gcam.loggers import log_alert
from lightning_gcam.metrics import Measurement
from lightning_gcam.shortcuts import Evidence, Reliance, Thresholds
from lightning_gcam.shortcuts.message import markdown_of
from lightning_gcam.shortcuts.shares import wilson_interval
from tests.support.toys import LIGHTNING_SAYS, PACKAGES, LightningToy, Toy, toy_trainer

pytestmark = LIGHTNING_SAYS

CLASSES, SIZE, N = 4, 16, 32
CORNER = torch.zeros(SIZE, SIZE, dtype=torch.bool)
CORNER[:4, :4] = True
OBJECT = torch.zeros(SIZE, SIZE, dtype=torch.bool)
OBJECT[8:12, 8:12] = True
READS = {"corner": CORNER, "object": OBJECT, "tint": OBJECT}
"""Which places each toy network reads."""
WITH_ANNOTATION = ["background_only_accuracy", "object_only_accuracy", "background", "suspect"]
SPOKEN = "ShortcutAlarm \\(saliency\\): "


def samples() -> tuple[Tensor, Tensor, Tensor]:
    """A channel a class, three times: in the corner, on the object, and all over the image (a tint)."""
    labels = torch.arange(N) % CLASSES
    marks = nn.functional.one_hot(labels, CLASSES).float()[:, :, None, None]
    images = torch.cat([marks * CORNER, marks * OBJECT, marks.expand(-1, -1, SIZE, SIZE)], dim=1)
    images = images + 0.01 * torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    return images, labels, OBJECT.expand(N, -1, -1).clone()


def loader(*fields: Tensor) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*(fields or samples())), batch_size=8)


def network(reads: str) -> nn.Sequential:
    """It takes one of the three marks, and counts it at certain places only."""
    pick = nn.Conv2d(3 * CLASSES, CLASSES, 1, bias=False)
    head = nn.Linear(CLASSES * SIZE * SIZE, CLASSES)
    with torch.no_grad():
        first = list(READS).index(reads) * CLASSES
        pick.weight.zero_()
        pick.weight[:, first : first + CLASSES, 0, 0] = torch.eye(CLASSES)
        head.weight.copy_(torch.einsum("kc,hw->kchw", torch.eye(CLASSES), READS[reads].float()).flatten(1))
        head.bias.zero_()
    return nn.Sequential(pick, nn.ReLU(), nn.Flatten(), head)


def toy(reads: str, kind: Any = Toy) -> Any:
    """It never learns: what it reads is known."""
    return kind(network(reads), learning_rate=0.0)


def given(**fields: Any) -> SaliencyBatch:
    images, labels, masks = samples()
    return SaliencyBatch(**{"images": images, "labels": labels, "masks": masks, "suspect": CORNER, **fields})


def watching(**options: Any) -> SaliencyMonitor:
    """A monitor whose checks are those with annotation: in these images the class is a colour, which is followed."""
    return SaliencyMonitor(**{"batch": given(), "checks": WITH_ANNOTATION, "max_overhead": None, **options})


def fit(root: Path, module: Any, *callbacks: Any, resume: Any = None, **options: Any) -> Any:
    trainer = toy_trainer(root, *callbacks, **{"max_epochs": 4, **options})
    trainer.fit(module, loader(), loader(), ckpt_path=resume)
    return trainer


@contextmanager
def warned(wanted: str = "ShortcutAlarm") -> Iterator[list[str]]:
    """What was warned of."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    found += [str(each.message) for each in caught if wanted in str(each.message)]


# ----------------------------------------------------------------------------------------- when it speaks


def test_it_speaks_once_where_the_network_reads_the_corner(tmp_path: Path) -> None:
    monitor, alarm = watching(on_error="raise"), ShortcutAlarm(on_error="raise")

    with warned() as said:
        fit(tmp_path, toy("corner"), monitor, alarm)

    (alert,) = alarm.alerts
    assert said == [f"ShortcutAlarm (saliency): {alert['message']}"]
    assert (alert["step"], alert["epoch"]) == (monitor.history[1]["step"], 1)
    assert alert["kinds"][:2] == ["survives without the object", "dies with the suspect region"]
    assert alert["properties"] == ["background", "suspect"]
    assert alert["saliency"] == "agrees"
    expected = {"accuracy": 1.0, "background_only_accuracy": 1.0, "suspect_swap_accuracy": 0.0, "energy": 0.0}
    assert expected.items() <= alert.items()
    assert (alert["accuracy_chance"], alert["accuracy_n"]) == (0.25, N)
    assert alert["accuracy_interval"] == pytest.approx(wilson_interval(N, N))
    assert alert["suspect_lift"] == pytest.approx(16.0)
    assert json.loads(json.dumps(alert)) == alert
    assert alert["headline"] == (
        "predictions follow the background and the suspect region; the class survives without the object"
    )
    assert alert["unchecked"][-1] == "cues on the object itself"


def test_it_is_silent_where_the_network_reads_the_object(tmp_path: Path) -> None:
    monitor, alarm = watching(on_error="raise"), ShortcutAlarm(on_error="raise")

    with warned() as said:
        fit(tmp_path, toy("object"), monitor, alarm)

    assert said == alarm.alerts == []
    assert monitor.history[-1]["object_only_accuracy"] == monitor.history[-1]["suspect_swap_accuracy"] == 1.0


def test_it_speaks_where_the_maps_are_blind(tmp_path: Path) -> None:
    """The tint is everywhere, and read on the object only: all saliency is on the object."""
    monitor, alarm = watching(on_error="raise"), ShortcutAlarm(on_error="raise")

    with pytest.warns(UserWarning, match=SPOKEN):
        fit(tmp_path, toy("tint"), monitor, alarm)

    (alert,) = alarm.alerts
    assert alert["kinds"] == ["survives without the object"]
    assert (alert["saliency"], alert["energy"]) == ("is blind", pytest.approx(1.0, abs=1e-3))
    assert "the saliency is blind to it" in alert["message"]


@pytest.mark.parametrize("looks_in_a_row", [1, 3, 5])
def test_so_many_looks_in_a_row(tmp_path: Path, looks_in_a_row: int) -> None:
    monitor, alarm = watching(), ShortcutAlarm(looks_in_a_row=looks_in_a_row)

    with warned() as said:
        fit(tmp_path, toy("corner"), monitor, alarm)

    assert [alert["epoch"] for alert in alarm.alerts] == ([looks_in_a_row - 1] if looks_in_a_row <= 4 else [])
    assert len(said) == len(alarm.alerts)


@pytest.mark.filterwarnings("ignore:ShortcutAlarm")
@pytest.mark.parametrize(
    "schedule", [{}, {"every_n_epochs": None, "every_n_train_steps": 3}, {"every_n_train_steps": 3}]
)
def test_wherever_it_stands_and_whenever_the_looks_come(tmp_path: Path, schedule: dict[str, Any]) -> None:
    found = []
    for order in (1, -1):
        monitor, alarm = watching(**schedule), ShortcutAlarm()
        fit(tmp_path, toy("corner"), *[monitor, alarm][::order])
        assert alarm.alerts[0]["step"] == monitor.history[1]["step"]
        found.append(alarm.alerts)
    assert found[0] == found[1]


@pytest.mark.filterwarnings("ignore:ShortcutAlarm")
def test_without_a_validation_and_at_the_last_step(tmp_path: Path) -> None:
    """The second look comes with the last batch of the training, after the alarm's turn."""
    monitor, alarm = (
        watching(every_n_epochs=None, every_n_train_steps=4),
        ShortcutAlarm(),
    )
    fit(tmp_path, toy("corner"), alarm, monitor, max_epochs=2, limit_val_batches=0)
    assert len(monitor.history) == 2
    assert [alert["step"] for alert in alarm.alerts] == [7]

    monitor, alarm = watching(on_error="raise"), ShortcutAlarm(on_error="raise")
    fit(tmp_path, toy("corner"), alarm, monitor, max_epochs=2, limit_val_batches=0)
    assert [alert["epoch"] for alert in alarm.alerts] == [1]


@pytest.mark.filterwarnings("ignore:ShortcutAlarm", "ignore:.*maps are blank")
def test_each_monitor_for_itself(tmp_path: Path) -> None:
    with_cue = watching(log_prefix="with")
    without = watching(batch=given(images=given().images * ~CORNER), log_prefix="without")
    alarm = ShortcutAlarm()
    fit(tmp_path, toy("corner"), with_cue, without, alarm)
    assert [alert["log_prefix"] for alert in alarm.alerts] == ["with"]


def test_samples_from_the_validation_will_do(tmp_path: Path) -> None:
    alarm = ShortcutAlarm()
    with pytest.warns(UserWarning, match=SPOKEN):
        fit(tmp_path, toy("corner"), watching(batch=None), alarm)
    (alert,) = alarm.alerts
    assert alert["kinds"] == ["survives without the object", "follows the background"]
    assert alert["accuracy_n"] == 16


@pytest.mark.filterwarnings("ignore:ShortcutAlarm")
def test_validating_by_itself_is_no_look_in_a_row(tmp_path: Path) -> None:
    monitor, alarm = watching(on_error="raise"), ShortcutAlarm(on_error="raise")
    trainer = fit(tmp_path, toy("corner"), monitor, alarm, max_epochs=1)
    trainer.validate(toy("corner"), loader(), verbose=False)
    assert len(monitor.history) == 2
    assert alarm.alerts == []


@pytest.mark.filterwarnings("ignore:ShortcutAlarm")
def test_a_second_fit_of_the_same_trainer_goes_on_with_the_looks(tmp_path: Path) -> None:
    """The samples are the same, so looks of both fits count for the bounds, and what was alerted stays known."""
    alarm = ShortcutAlarm(on_error="raise")
    trainer = fit(tmp_path, toy("corner"), watching(on_error="raise"), alarm)
    trainer.fit_loop.max_epochs = 6
    trainer.fit(trainer.lightning_module, loader(), loader())
    assert [alert["epoch"] for alert in alarm.alerts] == [1]
    assert alarm.state_dict()["watches"]["saliency"]["looks"] == 6

    fit(tmp_path, toy("corner"), watching(on_error="raise"), alarm, max_epochs=3)
    assert [alert["epoch"] for alert in alarm.alerts] == [1]
    assert alarm.state_dict()["watches"]["saliency"]["looks"] == 3


# --------------------------------------------------------------------------------------- what is said when


def evidence(**accuracies: float) -> Evidence:
    names = {name: name if name == "accuracy" else f"{name}_accuracy" for name in accuracies}
    measurements = {
        names[name]: Measurement(value, 20, 0, 0, 0, wilson_interval(round(20 * value), 20))
        for name, value in accuracies.items()
    }
    return Evidence(0, 0, Reliance(measurements, 0.1), {})


SURVIVES = evidence(accuracy=1.0, background_only=1.0, suspect_swap=1.0)
DIES = evidence(accuracy=1.0, background_only=0.1, suspect_swap=0.0)
BOTH = evidence(accuracy=1.0, background_only=1.0, suspect_swap=0.0)
NOTHING = evidence(accuracy=1.0, background_only=0.1, suspect_swap=1.0)


@pytest.mark.parametrize(
    ("looks", "spoken_at"),
    [
        ([SURVIVES] * 6, [1]),
        ([SURVIVES, SURVIVES, NOTHING, SURVIVES, SURVIVES, SURVIVES], [1, 4]),
        ([SURVIVES, SURVIVES, BOTH, BOTH, BOTH], [1, 3]),
        ([BOTH, BOTH, SURVIVES, SURVIVES, BOTH, BOTH], [1]),
        ([SURVIVES, SURVIVES, DIES, DIES, SURVIVES, SURVIVES], [1, 3, 5]),
        ([NOTHING] * 4, []),
        ([SURVIVES, NOTHING] * 3, []),
    ],
    ids=[
        "once",
        "after a silence",
        "another kind",
        "no new kind",
        "to and fro",
        "never",
        "never twice in a row",
    ],
)
def test_once_and_again_where_there_is_something_new(looks: list[Evidence], spoken_at: list[int]) -> None:
    watch = RecentLooks(Thresholds(), 2)
    assert [index for index, look in enumerate(looks) if watch.add(look) is not None] == spoken_at


def test_looks_are_counted_over_a_checkpoint_and_an_interruption() -> None:
    """What would do at the first looks does not at the last of many; a checkpoint that did not count has its looks."""
    hardly = evidence(accuracy=0.5, background_only=0.35)
    early, late = RecentLooks(Thresholds(), 2), RecentLooks(Thresholds(), 2)
    for look in [SURVIVES] * 98:
        late.add(look)
    late.interrupt()
    resumed, of_earlier_version = RecentLooks(Thresholds(), 2), RecentLooks(Thresholds(), 2)
    state = late.state_dict()
    resumed.load_state_dict(state)
    of_earlier_version.load_state_dict({name: each for name, each in state.items() if name != "looks"})
    spoken = {
        name: [watch.add(hardly) is not None for _ in range(2)]
        for name, watch in {
            "early": early,
            "late": late,
            "resumed": resumed,
            "old": of_earlier_version,
        }.items()
    }
    assert spoken["early"] == [False, True]
    assert spoken["late"] == spoken["resumed"] == [False, False]
    assert spoken["old"][0] is False


def test_looks_beside_one_that_cannot_be_judged_are_not_in_a_row() -> None:
    watch = RecentLooks(Thresholds(), 2)
    assert watch.add(SURVIVES) is None
    watch.interrupt()
    assert watch.add(SURVIVES) is None
    assert watch.add(SURVIVES) is not None


def test_a_watch_goes_on_from_its_state() -> None:
    for cut in range(5):
        looks = [SURVIVES, SURVIVES, BOTH, BOTH, NOTHING]
        whole, before, after = (RecentLooks(Thresholds(), 2) for _ in range(3))
        expected = [whole.add(look) for look in looks]
        found = [before.add(look) for look in looks[:cut]]
        after.load_state_dict(json.loads(json.dumps(before.state_dict())))
        assert found + [after.add(look) for look in looks[cut:]] == expected


# ------------------------------------------------------------------------------------ where it cannot judge


@pytest.mark.parametrize(
    ("fields", "checks", "reason"),
    [
        ({"labels": None}, None, "the fixed samples have no labels. Deliver (images, labels) in the"),
        ({"labels": torch.zeros(N).long(), "masks": None}, None, "the fixed samples are all of one class"),
        ({}, ["object_only_accuracy"], "the monitor's `checks` must not leave them out"),
        ({}, ["object"], "no check could be made that counts"),
        ({}, [], "no check could be made that counts"),
        (
            {"masks": torch.zeros(N, SIZE, SIZE, dtype=torch.bool)},
            ["background_only_accuracy"],
            "a mask or a box that leaves some background",
        ),
    ],
    ids=["no labels", "one class", "checks left out", "the object", "no checks", "empty masks"],
)
@pytest.mark.filterwarnings("ignore:32 of 32 samples have an empty mask")
def test_it_says_once_that_it_cannot_judge(tmp_path: Path, fields: Any, checks: Any, reason: str) -> None:
    alarm = ShortcutAlarm()
    monitor = SaliencyMonitor(batch=given(**fields), checks=checks, targets="predicted")
    with warned() as said:
        fit(tmp_path, toy("corner"), monitor, alarm, max_epochs=2)
    (words,) = said
    assert words.startswith("ShortcutAlarm cannot judge this run: ")
    assert reason in words
    assert alarm.alerts == []


def test_without_a_monitor_it_is_refused_before_the_training(tmp_path: Path) -> None:
    expected = re.escape("Trainer(callbacks=[SaliencyMonitor(), ShortcutAlarm()])")
    with pytest.raises(ValueError, match=expected):
        fit(tmp_path, toy("corner"), ShortcutAlarm())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"looks_in_a_row": 0}, "`looks_in_a_row` must be a whole number from 1; got 0"),
        ({"thresholds": 0.5}, "`thresholds` must be lightning_gcam.shortcuts.Thresholds"),
        ({"on_error": "ignore"}, '`on_error` "ignore" is not known'),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShortcutAlarm(**arguments)


def test_a_failure_of_its_own_is_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr("lightning_gcam.callbacks.shortcut_alarm.evidence_of", broken)
    monitor = watching()
    with warned("out of order") as said:
        trainer = fit(tmp_path, toy("corner"), monitor, ShortcutAlarm())
    assert len(said) == 1
    assert trainer.current_epoch == 4
    with pytest.raises(RuntimeError, match="out of order"):
        fit(tmp_path, toy("corner"), watching(), ShortcutAlarm(on_error="raise"))


# ------------------------------------------------------------------------------------------- stop, and resume


@pytest.mark.filterwarnings("ignore:ShortcutAlarm")
@pytest.mark.parametrize(("min_epochs", "expected"), [(None, 2), (3, 3)])
def test_it_ends_the_training_where_that_is_asked_for(tmp_path: Path, min_epochs: Any, expected: int) -> None:
    alarm = ShortcutAlarm(stop=True)
    trainer = fit(tmp_path, toy("corner"), watching(), alarm, max_epochs=6, min_epochs=min_epochs)
    assert trainer.current_epoch == expected
    assert len(alarm.alerts) == 1


def test_it_ends_no_training_that_it_says_nothing_of(tmp_path: Path) -> None:
    trainer = fit(tmp_path, toy("object"), watching(), ShortcutAlarm(stop=True))
    assert trainer.current_epoch == 4


@pytest.mark.filterwarnings("ignore:ShortcutAlarm")
@pytest.mark.parametrize("first_epochs", [1, 2, 3])
def test_a_run_that_is_resumed_goes_on_with_its_looks(tmp_path: Path, first_epochs: int) -> None:
    checkpoint = ModelCheckpoint(tmp_path / "kept", filename="last")
    before = ShortcutAlarm()
    fit(
        tmp_path,
        toy("corner"),
        before,
        watching(),
        checkpoint,
        max_epochs=first_epochs,
        enable_checkpointing=True,
    )
    path = Path(checkpoint.best_model_path)
    assert torch.load(path, weights_only=True)["callbacks"]["ShortcutAlarm"]["alerts"] == before.alerts

    after, monitor = ShortcutAlarm(), watching()
    fit(
        tmp_path,
        toy("corner"),
        after,
        monitor,
        ModelCheckpoint(tmp_path / "kept"),
        resume=path,
        enable_checkpointing=True,
    )

    assert [alert["epoch"] for alert in after.alerts] == [1]
    if first_epochs > 1:
        assert after.alerts == before.alerts


# ----------------------------------------------------------------------------------------------- the loggers


@pytest.mark.filterwarnings("ignore:ShortcutAlarm")
@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_a_text_in_tensorboard(tmp_path: Path, package: Any) -> None:
    logger, alarm = package.loggers.TensorBoardLogger(tmp_path), ShortcutAlarm()
    module = toy("corner", Toy if package is PACKAGES[0] else LightningToy)
    fit(
        tmp_path,
        module,
        watching(),
        alarm,
        logger=logger,
        package=package,
        log_every_n_steps=1,
    )

    events = EventAccumulator(logger.log_dir).Reload()
    (event,) = events.Tensors("saliency/alarm/text_summary")
    assert event.step == alarm.alerts[0]["step"]
    assert event.tensor_proto.string_val[0].decode() == markdown_of(alarm.alerts[0])


@pytest.mark.filterwarnings("ignore:ShortcutAlarm", "ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_an_alert_in_wandb(tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb")
    from tests.support.wandb_reader import alerts

    logger, alarm = (
        PACKAGES[0].loggers.WandbLogger(project="toy", save_dir=tmp_path, offline=True),
        ShortcutAlarm(),
    )
    fit(tmp_path, toy("corner"), watching(), alarm, logger=logger)
    wandb.finish()

    found: list[dict[str, str]] = []
    for _ in range(40):  # on a crowded machine its service may still be writing
        if found := alerts(tmp_path):
            break
        time.sleep(0.25)
    assert found == [
        {
            "title": f"ShortcutAlarm (saliency): {alarm.alerts[0]['headline']}"[:62] + "…",
            "text": alarm.alerts[0]["message"],
            "level": "WARN",
        }
    ]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def assert_is(row: dict[str, str], alert: dict[str, Any]) -> None:
    assert row["message"] == alert["message"]
    assert int(row["step"]) == alert["step"]
    assert float(row["background_only_accuracy"]) == alert["background_only_accuracy"]
    assert json.loads(row["accuracy_interval"]) == alert["accuracy_interval"]


@pytest.mark.filterwarnings("ignore:ShortcutAlarm")
@pytest.mark.parametrize("with_logger", [True, False])
def test_a_line_in_a_file_beside_the_scores(tmp_path: Path, with_logger: bool) -> None:
    logger, alarm = CSVLogger(tmp_path, name="runs") if with_logger else False, ShortcutAlarm()
    fit(tmp_path, toy("corner"), watching(), alarm, logger=logger)

    directory = tmp_path / ("runs" if with_logger else "lightning_gcam") / "version_0" / "saliency"
    assert (directory / "scores.csv").exists()
    (row,) = rows_of(directory / "alerts.csv")
    assert_is(row, alarm.alerts[0])


@pytest.mark.filterwarnings("ignore:ShortcutAlarm")
def test_every_logger_is_told(tmp_path: Path) -> None:
    loggers = [TensorBoardLogger(tmp_path / "board"), CSVLogger(tmp_path / "table")]
    fit(
        tmp_path,
        toy("corner"),
        watching(),
        ShortcutAlarm(),
        logger=loggers,
        log_every_n_steps=1,
    )
    assert EventAccumulator(loggers[0].log_dir).Reload().Tags()["tensors"] == [
        "custom_scalars__config__",
        "saliency/measurements/text_summary",
        "saliency/alarm/text_summary",
    ]
    assert len(list((tmp_path / "table").rglob("alerts.csv"))) == 1
    assert len(list(tmp_path.rglob("alerts.csv"))) == 1


class Full(CSVLogger):
    """Its disk is full."""


@log_alert.register(Full)
def _refuse(logger: Full, alert: Any) -> None:
    raise OSError(28, "No space left on device")


def test_a_logger_that_refuses_ends_no_training(tmp_path: Path) -> None:
    alarm = ShortcutAlarm()
    with warned("Logging the alert to Full failed") as said, pytest.warns(UserWarning, match=SPOKEN):
        trainer = fit(tmp_path, toy("corner"), watching(), alarm, logger=Full(tmp_path))
    assert trainer.current_epoch == 4
    assert len(alarm.alerts) == 1
    assert said == [] or "The disk is full" in said[0]
