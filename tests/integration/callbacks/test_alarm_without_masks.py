"""`ShortcutAlarm` on batches of images and labels: what it names, what it waits for, and what it cannot judge."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_gcam import SaliencyMonitor, ShortcutAlarm
from lightning_gcam.shortcuts import Evidence, available_properties, register_property
from lightning_gcam.shortcuts.exchange import unregister_property
from tests.support.toys import LIGHTNING_SAYS, Toy, listening, toy_trainer

pytestmark = LIGHTNING_SAYS

SIZE, N = 16, 32
CORNER, MIDDLE = torch.zeros(2, SIZE, SIZE, dtype=torch.bool)
CORNER[:2, :2] = MIDDLE[6:10, 6:10] = True
SPOKEN = "ignore:ShortcutAlarm .saliency.: "
"""Its alerts; what it cannot judge would be an error."""


def images_of(labels: Tensor, classes: int = 4) -> Tensor:
    """A channel a class, lit in the corner and in the middle; and a last one with a number of each sample in both."""
    marks = nn.functional.one_hot(labels, classes).float()[:, :, None, None] * (CORNER | MIDDLE)
    numbers = (torch.arange(len(labels)) / 100)[:, None, None, None] * (CORNER | MIDDLE)
    noise = 0.01 * torch.rand(
        len(labels), classes + 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)
    )
    return torch.cat([marks, numbers], dim=1) + noise * ~(CORNER | MIDDLE)


class Reads(nn.Module):
    """Takes the class from one place. Sealed: where the sample's numbers differ, it takes the class to be another."""

    def __init__(self, place: Tensor, classes: int = 4, *, sealed: bool = False) -> None:
        super().__init__()
        self.pick, self.head = (
            nn.Conv2d(classes + 1, classes, 1, bias=False),
            nn.Linear(classes * SIZE**2, classes),
        )
        self.sealed = sealed
        with torch.no_grad():
            self.pick.weight.copy_(torch.eye(classes, classes + 1)[:, :, None, None])
            self.head.weight.copy_(torch.einsum("kc,hw->kchw", torch.eye(classes), place.float()).flatten(1))
            self.head.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        logits = self.head(self.pick(images).flatten(1))
        if not self.sealed:
            return logits
        is_whole = (images[:, -1, 0, 0] - images[:, -1, 8, 8]).abs() < 1e-4
        return torch.where(is_whole[:, None], logits, -logits)


class Late(Toy):
    """It takes every sample for class 0 before its third epoch."""

    def forward(self, images: Tensor) -> Tensor:
        if self.trainer.current_epoch >= 2:
            return self.network(images)
        return 0.001 * self.network(images) + torch.eye(4)[0]


def watching(*checks: str, **options: Any) -> SaliencyMonitor:
    return SaliencyMonitor(
        **{
            "num_samples": N,
            "checks": list(checks) or None,
            "max_overhead": None,
            "on_error": "raise",
            **options,
        }
    )


def fit(root: Path, network: nn.Module, *callbacks: Any, kind: Any = Toy, **options: Any) -> Any:
    """Weights never move: what the network reads is known."""
    classes, resume = network.head.out_features, options.pop("ckpt_path", None)
    labels = torch.arange(N) % classes
    masks = [labels[:, None, None] * MIDDLE] if options.pop("ill_have_masks", False) else []
    loader = DataLoader(TensorDataset(images_of(labels, classes), labels, *masks), batch_size=8)
    trainer = toy_trainer(root, *callbacks, **{"max_epochs": 3, **options})
    trainer.fit(kind(network, learning_rate=0.0), loader, loader, ckpt_path=resume)
    return trainer


# -------------------------------------------------------------------------------------- what it says, and when


@pytest.mark.filterwarnings(SPOKEN)
def test_it_names_the_property_that_is_followed(tmp_path: Path) -> None:
    monitor, alarm = watching("border", "texture"), ShortcutAlarm(on_error="raise")
    with listening() as heard:
        fit(tmp_path, Reads(CORNER), monitor, alarm)

    (alert,) = alarm.alerts
    assert (alert["epoch"], alert["kinds"], alert["properties"]) == (1, ["follows the border"], ["border"])
    for name, value in {"follow_rate": 1, "follow_chance": 0, "same_class_follow_rate": 0}.items():
        assert (alert[f"border_{name}"], alert[f"border_{name}_n"]) == (value, N)
        low, high = alert[f"border_{name}_interval"]
        assert low <= value <= high
    assert alert["headline"] == "predictions follow the border"
    (table,) = tmp_path.rglob("alerts.csv")
    with table.open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["message"], row["headline"]) == (alert["message"], alert["headline"])
    assert [json.loads(row[name]) for name in ("evidence", "advice")] == [alert["evidence"], alert["advice"]]
    told = [each for each in heard if each.startswith("ShortcutAlarm (saliency)") and "alert" not in each]
    assert told[0] == (
        "ShortcutAlarm (saliency) judges: texture, border. Not checked: the background, and marks at any place: they "
        "take masks or boxes; the properties color, spectrum, salient_region; cues on the object itself beyond its "
        "texture."
    )
    assert not any("samples count for" in each for each in told), f"{N} are not few"


@pytest.mark.filterwarnings(SPOKEN)
def test_it_is_said_once_where_few_samples_count(tmp_path: Path) -> None:
    monitor = watching("border", num_samples=12)
    with listening() as heard:
        fit(tmp_path, Reads(CORNER), monitor, ShortcutAlarm(on_error="raise"))
    (words,) = [each for each in heard if "samples count for" in each]
    assert words == (
        "ShortcutAlarm (saliency): 12 samples count for border: so few show only strong reliance. Take more, such "
        "as `num_samples=64` of the monitor."
    )


HEALTHY = pytest.mark.filterwarnings("ignore:16 of 32 samples have an empty mask")


@HEALTHY
@pytest.mark.filterwarnings(SPOKEN)
def test_healthy_samples_with_an_empty_mask_count(tmp_path: Path) -> None:
    monitor, alarm = (
        watching("background_only_accuracy", "border", "texture"),
        ShortcutAlarm(on_error="raise"),
    )
    fit(tmp_path, Reads(CORNER, classes=2), monitor, alarm, ill_have_masks=True)
    (alert,) = alarm.alerts
    assert (alert["kinds"], alert["accuracy_n"], alert["accuracy_chance"]) == (["follows the border"], N, 0.5)
    assert (alert["background_only_accuracy_n"], alert["object_accuracy_chance"]) == (N // 2, 1.0)
    assert re.search(r"without the object +1\.00 \[0\.81, 1\.00\]  n = 16  chance 1\.00\n", alert["message"])


@HEALTHY
def test_what_is_ill_for_all_is_not_above_chance(tmp_path: Path) -> None:
    """It takes every sample for ill, and is right for all that have a mask."""
    network = Reads(CORNER, classes=2)
    with torch.no_grad():
        network.head.weight.mul_(0)
        network.head.bias.copy_(torch.tensor([0.0, 3.0]))
    monitor, alarm = watching("background_only_accuracy", "border", targets="label"), ShortcutAlarm()
    with pytest.warns(UserWarning, match="maps are blank"):
        fit(tmp_path, network, monitor, alarm, ill_have_masks=True)
    assert (monitor.history[-1]["accuracy"], monitor.history[-1]["accuracy_chance"]) == (0.5, 0.5)
    assert alarm.alerts == []


def test_a_property_that_is_left_out_is_not_named(tmp_path: Path) -> None:
    alarm = ShortcutAlarm(on_error="raise")
    fit(tmp_path, Reads(CORNER), watching("texture"), alarm)
    assert alarm.alerts == []


def test_it_is_silent_where_the_middle_is_read(tmp_path: Path) -> None:
    monitor, alarm = watching("border", "texture", "salient_region"), ShortcutAlarm(on_error="raise")
    fit(tmp_path, Reads(MIDDLE), monitor, alarm)
    assert alarm.alerts == []
    assert monitor.history[-1]["border_swap_accuracy"] == 1


@pytest.mark.filterwarnings(SPOKEN)
def test_the_checks_that_wait_are_no_evidence_and_no_reason_to_give_up(tmp_path: Path) -> None:
    monitor, alarm = watching(), ShortcutAlarm(on_error="raise")
    fit(tmp_path, Reads(CORNER), monitor, alarm, kind=Late, max_epochs=5)
    assert ["border_follow_rate" in row for row in monitor.history] == [True, False, True, True, True]
    (alert,) = alarm.alerts
    assert alert["epoch"] == 3
    assert {"border", "salient_region"} <= set(alert["properties"]) <= set(available_properties())


@pytest.mark.filterwarnings(SPOKEN)
def test_a_property_of_the_users_is_judged_like_the_others(tmp_path: Path) -> None:
    @register_property("top_half", remedy="flip the images at random")
    def exchange_top_half(images: Tensor, donors: Tensor) -> Tensor:
        return torch.cat([donors[..., : SIZE // 4, :], images[..., SIZE // 4 :, :]], dim=2)

    alarm = ShortcutAlarm(on_error="raise")
    try:
        fit(tmp_path, Reads(CORNER), watching("top_half"), alarm)
    finally:
        unregister_property("top_half")
    assert alarm.alerts[0]["properties"] == ["top_half"]
    assert 'try: for the property "top_half", flip the images at random\n' in alarm.alerts[0]["message"]


# ------------------------------------------------------------------------------------------------ two classes


@pytest.mark.filterwarnings(SPOKEN)
@pytest.mark.parametrize(("place", "sealed", "named"), [(CORNER, False, ["border"]), (MIDDLE, True, [])])
def test_with_two_classes_the_edit_itself_is_the_control(
    tmp_path: Path, place: Tensor, sealed: bool, named: list[str]
) -> None:
    """The sealed one takes every edited image for the other class, whoever lends."""
    monitor, alarm = watching("border"), ShortcutAlarm(on_error="raise")
    fit(tmp_path, Reads(place, 2, sealed=sealed), monitor, alarm)
    assert [name for alert in alarm.alerts for name in alert["properties"]] == named
    last = monitor.history[-1]
    assert (last["accuracy"], last["border_follow_rate"], last["border_swap_accuracy"]) == (1, 1, 0)
    assert last["border_same_class_follow_rate"] == (1 if sealed else 0)


# ---------------------------------------------------------------------------------------------------- resuming


def callbacks_of(path: Path) -> Any:
    return torch.load(path, weights_only=True)["callbacks"]["ShortcutAlarm"]


@pytest.mark.filterwarnings(SPOKEN)
@pytest.mark.parametrize("first_epochs", [1, 2])
def test_the_row_goes_on_where_a_training_is_resumed(tmp_path: Path, first_epochs: int) -> None:
    before, after = ShortcutAlarm(on_error="raise"), ShortcutAlarm(on_error="raise")
    trainer = fit(tmp_path, Reads(CORNER), before, watching("border"), max_epochs=first_epochs)
    trainer.save_checkpoint(tmp_path / "kept.ckpt")
    assert callbacks_of(tmp_path / "kept.ckpt")["alerts"] == before.alerts
    fit(tmp_path, Reads(CORNER), after, watching("border"), ckpt_path=tmp_path / "kept.ckpt")
    assert [(alert["epoch"], alert["properties"]) for alert in after.alerts] == [(1, ["border"])]


@pytest.mark.filterwarnings(SPOKEN)
def test_a_checkpoint_of_the_rule_before_and_of_a_property_that_is_gone(tmp_path: Path) -> None:
    """Its looks have no follow rates of what is there now, and it alerted of kinds that are there no more."""
    trainer = fit(tmp_path, Reads(CORNER), ShortcutAlarm(), watching("border"), max_epochs=2)
    trainer.save_checkpoint(tmp_path / "kept.ckpt")
    checkpoint = torch.load(tmp_path / "kept.ckpt", weights_only=False)
    state = checkpoint["callbacks"]["ShortcutAlarm"]
    state["alerts"] = []
    watch = state["watches"]["saliency"]
    watch["told"] = ["survives without the object", "follows the aura"]
    for look in watch["recent"]:
        assert Evidence.from_plain(look).to_plain() == look
        measured = look["reliance"]["measurements"]
        gone = [name for name in measured if name.startswith("border")]
        measured.update({name.replace("border", "aura"): measured.pop(name) for name in gone})
    torch.save(checkpoint, tmp_path / "kept.ckpt")

    alarm = ShortcutAlarm(on_error="raise")
    fit(
        tmp_path,
        Reads(CORNER),
        alarm,
        watching("border"),
        ckpt_path=tmp_path / "kept.ckpt",
        max_epochs=4,
    )
    assert [(alert["epoch"], alert["properties"]) for alert in alarm.alerts] == [(3, ["border"])]


# ------------------------------------------------------------------------------------------- learned by itself


@pytest.fixture
def digits() -> Any:
    from benchmarks.common import cues

    return cues


@pytest.mark.slow
@pytest.mark.filterwarnings(SPOKEN, "ignore:.* of 32 guidance_cam maps are blank")
@pytest.mark.parametrize(
    ("cue", "strength", "named"),
    [("corner", 0.95, {"border"}), ("tint", 0.95, {"color", "spectrum"}), ("tint", 0.0, set())],
    ids=["corner", "tint", "a tint without relation to the label"],
)
def test_what_a_small_network_learned(
    digits: Any, tmp_path: Path, cue: str, strength: float, named: set[str]
) -> None:
    """Digits of four classes on photographs, with a cue that tells the label or does not."""
    from digits_on_canvas import Scans, split_scans
    from planted_shortcut import DigitClassifier

    def drawn(scans: Any, size: int, seed: int, **options: Any) -> DataLoader[Any]:
        few = Scans(scans.pixels[scans.labels < 4], scans.labels[scans.labels < 4])
        scenes = digits.draw(few, size, digits.Plan(cue, strength), seed, **options)
        return DataLoader(TensorDataset(scenes.images, scenes.labels), batch_size=32, shuffle=seed == 1)

    torch.manual_seed(0)
    alarm = ShortcutAlarm(on_error="raise")
    monitor = SaliencyMonitor(num_samples=32, scores=[], max_overhead=None, on_error="raise")
    training, validation = split_scans(0)
    trainer = toy_trainer(tmp_path, monitor, alarm, max_epochs=4)
    trainer.fit(DigitClassifier(), drawn(training, 576, 1), drawn(validation, 128, 2, validation=True))

    assert monitor.last_record.reliance.is_above_chance
    found = {name for alert in alarm.alerts for name in alert["properties"]}
    assert named <= found if named else not found
