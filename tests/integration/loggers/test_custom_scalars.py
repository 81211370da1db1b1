"""The layout of TensorBoard's Custom Scalars, as its plugin reads it from the event files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.custom_scalar import layout_pb2, metadata
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import custom_scalars

from lightning_gcam import SaliencyMonitor
from lightning_gcam.loggers.tensorboard import add_charts, charts
from tests.support.backends import TensorBoard
from tests.support.toys import LIGHTNING_SAYS, Toy, listening, toy_loader, toy_trainer

pytestmark = [*LIGHTNING_SAYS, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


class Board:
    """What TensorBoard's server answers about a directory of runs."""

    def __init__(self, directory: Path) -> None:
        # they bring html5lib, which warns where it is imported
        from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin
        from tensorboard.plugins.scalar.scalars_plugin import ScalarsPlugin

        multiplexer = EventMultiplexer().AddRunsFromDirectory(str(directory)).Reload()
        provider = MultiplexerDataProvider(multiplexer, str(directory))
        (self.run,) = multiplexer.Runs()
        plugins: dict[str, Any] = {}
        context = TBContext(logdir=str(directory), data_provider=provider, plugin_name_to_instance=plugins)
        plugins["scalars"] = ScalarsPlugin(context)
        self._plugin = CustomScalarsPlugin(context)

    def layout(self) -> dict[str, dict[str, list[str]]]:
        """Expressions by category and chart."""
        import json

        found = self._plugin.layout_impl(RequestContext(), "")
        plain = json.loads(found) if isinstance(found, str) else found
        return {
            category["title"]: {chart["title"]: chart["multiline"]["tag"] for chart in category["chart"]}
            for category in plain.get("category", [])
        }

    def on_chart(self, category: str, chart: str) -> list[str]:
        """The names of the numbers that a chart shows: the page joins its expressions into one."""
        joined = "|".join(f"({each})" for each in self.layout()[category][chart])
        answer = self._plugin.scalars_impl(RequestContext(), self.run, joined, "")
        assert answer["regex_valid"]
        return sorted(answer["tag_to_events"])


class Judged(Toy):
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        super().validation_step(batch, batch_idx)
        right = (self(batch[0]).argmax(dim=1) == batch[1]).float().mean()
        self.log_dict({"val_acc": right, "val/MulticlassAccuracy": right, "val_f1": right})


def fit(root: Path, *callbacks: Any) -> Board:
    logger = TensorBoardLogger(root, version=0)
    toy_trainer(root, *callbacks, logger=logger).fit(Judged(), toy_loader(32), toy_loader())
    return Board(root)


def monitor(prefix: str = "saliency") -> SaliencyMonitor:
    return SaliencyMonitor(num_samples=4, log_prefix=prefix, on_error="raise")


def test_accuracy_stands_beside_energy(tmp_path: Path) -> None:
    board = fit(tmp_path, monitor())

    assert list(board.layout()) == ["saliency"]
    assert list(board.layout()["saliency"])[:2] == ["accuracy", "energy in the object"]
    assert board.on_chart("saliency", "accuracy") == [
        "saliency/accuracy",
        "val/MulticlassAccuracy",
        "val_acc",
    ]
    assert board.on_chart("saliency", "energy in the object") == ["saliency/energy", "saliency/energy_chance"]
    assert board.on_chart("saliency", "accuracy without the object, or with the object alone") == [
        "saliency/background_only_accuracy",
        "saliency/background_swap_accuracy",
        "saliency/object_only_accuracy",
    ]


def test_two_monitors_have_their_own_charts(tmp_path: Path) -> None:
    board = fit(tmp_path, monitor(), monitor("where (else)"))

    assert list(board.layout()) == ["saliency", "where (else)"]
    assert board.on_chart("where (else)", "energy in the object") == [
        "where (else)/energy",
        "where (else)/energy_chance",
    ]
    for prefix in board.layout():
        own = ["val/MulticlassAccuracy", "val_acc"]
        assert board.on_chart(prefix, "accuracy") == sorted([f"{prefix}/accuracy", *own])


class Draws(pytorch_lightning.Callback):
    """A user with a layout of their own."""

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        trainer.logger.experiment.add_custom_scalars({"mine": {"losses": ["Multiline", ["val_loss"]]}})


def test_a_layout_of_the_users_stays(tmp_path: Path) -> None:
    board = fit(tmp_path, Draws(), monitor())

    assert list(board.layout()) == ["mine", "saliency"]
    assert board.on_chart("mine", "losses") == ["val_loss"]


def layouts(directory: Path) -> list[Any]:
    """The values of a run's event file that hold a layout, in order."""
    (path,) = directory.rglob("events.out.*")
    events = LegacyEventFileLoader(str(path)).Load()
    values = (value for event in events for value in event.summary.value)
    return [value for value in values if value.tag == metadata.CONFIG_SUMMARY_TAG]


def layout_of(value: Any) -> Any:
    return layout_pb2.Layout.FromString(value.tensor.string_val[0])


def test_the_event_is_what_add_custom_scalars_writes(tmp_path: Path) -> None:
    """With a layout of the user's too: one by the writer's own method, with their charts before ours."""
    mine = {"mine": {"losses": ["Multiline", ["val_loss"]], "spread": ["Margin", ["mean", "low", "high"]]}}
    ours = {"a": {title: ["Multiline", tags] for title, tags in charts("a", ["a"]).items()}}
    for name, before, after in (("alone", {}, ours), ("beside", mine, {**mine, **ours})):
        written, expected = SummaryWriter(tmp_path / name), SummaryWriter(tmp_path / f"{name} expected")
        if before:
            written.add_custom_scalars(before)
        add_charts(written, "a")
        expected.add_custom_scalars(after)
        for each in (written, expected):
            each.close()
        (only,) = layouts(tmp_path / f"{name} expected")
        assert layouts(tmp_path / name)[-1] == only
        assert [each.title for each in layout_of(only).category] == list(after)


def test_what_the_writers_own_method_cannot_say_stays(tmp_path: Path) -> None:
    """A closed category, and a chart of two margins, by TensorBoard's own messages."""
    margin = layout_pb2.MarginChartContent.Series(value="mean", lower="low", upper="high")
    two = layout_pb2.Chart(title="both", margin=layout_pb2.MarginChartContent(series=[margin, margin]))
    theirs = layout_pb2.Category(title="mine", chart=[two], closed=True)
    writer = SummaryWriter(tmp_path)
    summary = custom_scalars({})
    summary.value[0].tensor.string_val[0] = layout_pb2.Layout(category=[theirs]).SerializeToString()
    writer._get_file_writer().add_summary(summary)

    add_charts(writer, "saliency")
    writer.close()

    first, second = layout_of(layouts(tmp_path)[-1]).category
    assert first == theirs and second.title == "saliency"


def test_it_is_written_once_a_run(tmp_path: Path) -> None:
    fit(tmp_path, monitor())

    (events,) = tmp_path.rglob("events.out.*")
    assert events.read_bytes().count(b"custom_scalars__config__") == 1


def test_how_all_looks_are_shown_is_said_once_a_monitor(tmp_path: Path) -> None:
    """Without the option TensorBoard's page shows 10 pictures of a tag."""
    with listening() as said:
        fit(tmp_path, monitor(), monitor("other"))
    commands = [each.partition("TensorBoard: ")[2] for each in said if "TensorBoard: " in each]
    (events,) = tmp_path.rglob("events.out.*")
    assert commands == [f"tensorboard --logdir {events.parent} --samples_per_plugin images=0"] * 2


@pytest.mark.parametrize("prefix", ["saliency", "a.b", "(?i)", "a/b"])
def test_a_prefix_is_no_expression(prefix: str) -> None:
    for expressions in charts(prefix).values():
        assert all(re.compile(each) for each in expressions)
    assert re.match(charts(prefix)["accuracy"][0], f"{prefix}/accuracy")
    assert not re.match(charts("a.b")["accuracy"][0], "aXb/accuracy")


def exchanging(prefix: str = "saliency", **options: Any) -> SaliencyMonitor:
    checks = ["border", "histogram", "background_only_accuracy"]
    return SaliencyMonitor(num_samples=8, log_prefix=prefix, checks=checks, on_error="raise", **options)


FOLLOWS, SWAPPED = "what the prediction follows", "accuracy with a property of another class"


class Logs(Judged):
    """Metrics of the user's own with names that are nearly ours."""

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        super().validation_step(batch, batch_idx, dataloader_idx)
        names = ("border_follow_rate", "val/border_follow_rate", "saliency/my_follow_rate")
        self.log_dict(dict.fromkeys(names, 0.5))
        self.log_dict({"border_swap_accuracy": 0.5, "saliency/border_swap_accuracy_of_mine": 0.5})


def test_what_the_prediction_follows_has_a_chart_of_our_properties_alone(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, version=0)
    trainer = toy_trainer(tmp_path, exchanging(), exchanging("where (else)"), logger=logger)
    trainer.fit(Logs(), toy_loader(32), toy_loader())
    board = Board(tmp_path)

    for prefix in ("saliency", "where (else)"):
        follows, swapped = (board.on_chart(prefix, each) for each in (FOLLOWS, SWAPPED))
        assert follows == [f"{prefix}/border_follow_rate", f"{prefix}/histogram_follow_rate"]
        assert swapped == [
            f"{prefix}/{name}" for name in ("accuracy", "border_swap_accuracy", "histogram_swap_accuracy")
        ]
    assert board.on_chart("saliency", "accuracy without the object, or with the object alone") == [
        "saliency/background_only_accuracy"
    ]


def test_the_numbers_on_the_charts_are_the_looks(tmp_path: Path) -> None:
    looks = exchanging()
    fit(tmp_path, looks)
    numbers = TensorBoard(tmp_path).numbers()
    for name in ("border_follow_rate", "histogram_swap_accuracy"):
        assert numbers[f"saliency/{name}"] == pytest.approx({row["step"]: row[name] for row in looks.history})


def test_a_property_of_the_users_is_on_the_chart() -> None:
    from lightning_gcam.shortcuts import register_property
    from lightning_gcam.shortcuts.exchange import unregister_property

    register_property("brightness")(lambda images, donors: images)
    try:
        found = charts("saliency")
    finally:
        unregister_property("brightness")
    assert "^saliency/brightness_follow_rate$" in found[FOLLOWS]
    assert "^saliency/brightness_swap_accuracy$" in found[SWAPPED]


def test_the_control_is_not_among_what_is_followed() -> None:
    joined = re.compile("|".join(charts("saliency")[FOLLOWS]))
    assert joined.match("saliency/border_follow_rate")
    others = ("border_same_class_follow_rate", "border_follow_chance", "grad_cam/border_follow_rate")
    assert not any(joined.match(f"saliency/{each}") for each in others)


def test_each_accuracy_stands_once_on_its_chart() -> None:
    for tags in charts("saliency").values():
        assert len(set(tags)) == len(tags)
    assert "^saliency/background_swap_accuracy$" in charts("saliency")[SWAPPED]
