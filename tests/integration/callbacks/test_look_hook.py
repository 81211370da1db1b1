"""Every look calls the hook of each callback that has it at once, wherever it stands in the list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning

from lightning_gcam import SaliencyMonitor, SaliencyRecord
from tests.support.toys import LIGHTNING_SAYS, Toy, toy_loader, toy_trainer

pytestmark = LIGHTNING_SAYS


class Reader(pytorch_lightning.Callback):
    """A callback of the user's own."""

    def __init__(self) -> None:
        self.read: list[tuple[str, SaliencyRecord | None]] = []

    def on_saliency_look(
        self, trainer: Any, pl_module: Any, monitor: SaliencyMonitor, record: SaliencyRecord | None
    ) -> None:
        assert record is None or monitor.last_record is record
        self.read.append((monitor.log_prefix, record))


def fit(root: Path, *callbacks: Any) -> None:
    toy_trainer(root, *callbacks).fit(Toy(), toy_loader(32), toy_loader())


def test_before_and_behind_the_monitors(tmp_path: Path) -> None:
    first, last = Reader(), Reader()
    monitors = [SaliencyMonitor(num_samples=4, log_prefix=name, every_n_train_steps=3) for name in "ab"]

    fit(tmp_path, first, *monitors, last)

    assert first.read == last.read
    for monitor in monitors:
        records = [record for prefix, record in first.read if prefix == monitor.log_prefix]
        assert [record.row for record in records if record is not None] == monitor.history
        assert len(records) == len(monitor.history) >= 3


def test_a_look_in_vain_is_told_too(tmp_path: Path) -> None:
    reader, calls = Reader(), []

    def forward(module: Any, images: Any) -> Any:
        calls.append(1)
        if len(calls) > 5:
            raise RuntimeError("bug")
        return module(images)

    with pytest.warns(UserWarning, match="The look failed.*bug"):
        fit(tmp_path, SaliencyMonitor(num_samples=4, checks=[], forward=forward), reader)

    assert [record is None for _, record in reader.read] in ([False, True], [True, True])


def test_an_exception_of_theirs_is_one_warning_and_ends_no_training(tmp_path: Path) -> None:
    class Broken(pytorch_lightning.Callback):
        def on_saliency_look(self, *_: Any) -> None:
            raise ZeroDivisionError("mine")

    monitor, behind = SaliencyMonitor(num_samples=4), Reader()
    with pytest.warns(
        UserWarning, match="`on_saliency_look` of Broken failed.*ZeroDivisionError: mine"
    ) as told:
        fit(tmp_path, Broken(), monitor, behind)

    assert len([each for each in told if "Broken" in str(each.message)]) == 1
    assert [record for _, record in behind.read if record is not None] and len(monitor.history) == 2
