"""How many files one look passes through: the length of the road that somebody follows who debugs it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from pytorch_lightning.loggers import TensorBoardLogger

import lightning_gcam
from lightning_gcam import SaliencyMonitor
from tests.support.toys import LIGHTNING_SAYS, Toy, toy_loader, toy_trainer

pytestmark = LIGHTNING_SAYS

OF_EACH_OPERATION = ("snapshots.py", "transfer.py", "dimensions.py")
"""What is called at each operation of a forward, for each tensor that is copied, or for its sides, is no step."""

PACKAGE = str(Path(lightning_gcam.__file__).parent)

MOST_FILES, MOST_CHANGES = 65, 495
"""What one look may need; the aim was 40 and 300.

A file is entered for an idea of its own, and a look with default settings has about that many: 13 files of `cam`
compute the maps, 7 of `metrics` the scores, 7 of `shortcuts` the checks, 5 of `visual` the picture, 9 of `pipeline` put
these together, 10 of `callbacks`, `data` and `utils` connect them with the Trainer and keep the model untouched, and 2
of `loggers` write it all. Fewer files would be longer ones of several ideas. Most changes of file are in two loops: a
score goes through its base class, its own file and the checks of its arguments (30 for seven scores, and 18 for their
intervals); and a causal check makes its images and runs the model (6 files each, four times). An exchanged property is
three further versions and five shares (92 changes). Eight changes are for shrinking what is shown before it is drawn,
and two for counting each forward. Eight files and a hundred changes came with volumes, several heads, detectors and
other inputs: each of five forwards is bound to its samples, called, and its output searched for logits (15 changes).
"""


ON_MASKS = ["background_only_accuracy", "object_only_accuracy", "salient_flips"]
"""By name, for the toy has learnt nothing at its second look: then the default ones wait. Four changed versions."""


class Road:
    """The files of this package in the order in which a call enters them."""

    def __init__(self) -> None:
        self.files: list[str] = []

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(PACKAGE) and not file.endswith(OF_EACH_OPERATION):
            self.files.append(file)

    @property
    def changes(self) -> int:
        """How often a call enters another file than the call before it."""
        return sum(one != two for one, two in zip(self.files, self.files[1:], strict=False))


class Traced(SaliencyMonitor):
    """A monitor whose second look is followed, from the hook to the logger and back."""

    road: Road | None = None

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1 and not trainer.sanity_checking:
            self.road = Road()
            sys.setprofile(self.road)
        try:
            super().on_validation_epoch_end(trainer, pl_module)
        finally:
            sys.setprofile(None)


@pytest.mark.parametrize(
    ("checks", "most_files", "most_changes"),
    [(ON_MASKS, MOST_FILES, MOST_CHANGES), ([*ON_MASKS, "border"], MOST_FILES, MOST_CHANGES + 130)],
    ids=["checks with masks", "and an exchange"],
)
def test_one_look_passes_through_few_files(
    tmp_path: Path, checks: list[str], most_files: int, most_changes: int
) -> None:
    torch.manual_seed(0)
    monitor = Traced(num_samples=8, checks=checks, on_error="raise")
    trainer = toy_trainer(tmp_path, monitor, logger=TensorBoardLogger(tmp_path))
    trainer.fit(Toy(), toy_loader(), toy_loader(seed=1))
    assert monitor.road is not None and len(monitor.history) == 2

    files, changes = len(set(monitor.road.files)), monitor.road.changes

    assert 10 < files <= most_files, sorted(set(monitor.road.files))
    assert 50 < changes <= most_changes, changes
