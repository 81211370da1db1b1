"""What the monitor's pictures show of earlier looks, in a training, resumed and refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

from lightning_gcam import SaliencyMonitor, SaliencyRecord
from lightning_gcam.pipeline.run import record_saliency
from lightning_gcam.utils.errors import InputError
from tests.support.toys import LIGHTNING_SAYS, Toy, decoded, toy_loader, toy_trainer

pytestmark = LIGHTNING_SAYS

EARLIER = {"scale": "run", "show_change": True}


class Looks(Callback):
    """Every record."""

    def __init__(self) -> None:
        self.records: list[SaliencyRecord] = []

    def on_saliency_look(self, trainer: Any, pl_module: Any, monitor: Any, record: Any) -> None:
        self.records.append(record)


def train(
    root: Path, epochs: int, resume: Path | None = None, **options: Any
) -> tuple[Looks, Path, SaliencyMonitor]:
    torch.manual_seed(0)
    looks, monitor = Looks(), SaliencyMonitor(num_samples=4, checks=[], on_error="raise", **options)
    kept = ModelCheckpoint(root / f"until_{epochs}", filename="last")
    trainer = toy_trainer(root, monitor, looks, kept, enable_checkpointing=True, max_epochs=epochs)
    trainer.fit(Toy(), toy_loader(16), toy_loader(16), ckpt_path=resume)
    return looks, Path(kept.best_model_path), monitor


def test_each_look_is_drawn_against_those_before(tmp_path: Path) -> None:
    looks, *_ = train(tmp_path, 3, **EARLIER)
    first, second, third = looks.records
    name = "guidance_cam"
    assert first.earlier.step is None and not first.earlier.maps and not first.earlier.tops
    assert (second.earlier.step, third.earlier.step) == (first.step, second.step)
    assert torch.equal(third.earlier.maps[name], second.attribution.maps[name])
    highest = [float(each.attribution.peaks[name].max()) for each in looks.records]
    assert third.earlier.tops == {name: max(highest[:2])}
    assert len({each.overlay.shape for each in looks.records}) == 1, "nothing jumps from look to look"


def test_what_is_written_is_the_picture_with_the_column(tmp_path: Path) -> None:
    looks, _, monitor = train(tmp_path, 2, **EARLIER)
    files = sorted(monitor.directory.rglob("overlay-step=*.png"))
    for file, record in zip(files, looks.records, strict=True):
        assert np.array_equal(decoded(file), record.overlay)


def test_a_resumed_run_goes_on_with_the_looks_before(tmp_path: Path) -> None:
    whole, *_ = train(tmp_path / "whole", 3, **EARLIER)
    _, path, monitor = train(tmp_path, 2, **EARLIER)
    memory = torch.load(path, weights_only=True)["callbacks"][monitor.state_key]["memory"]
    assert set(memory) >= {"maps", "step", "tops"}
    after, *_ = train(tmp_path, 3, path, **EARLIER)
    resumed, uncut = after.records[-1], whole.records[-1]
    assert (resumed.earlier.step, resumed.earlier.tops) == (uncut.earlier.step, uncut.earlier.tops)
    assert torch.equal(resumed.earlier.maps["guidance_cam"], uncut.earlier.maps["guidance_cam"])
    # dropout draws otherwise after a resume, so it is the same look that is drawn
    assert np.array_equal(replace(uncut, earlier=resumed.earlier).overlay, uncut.overlay)


@pytest.mark.parametrize("options", [{}, {"scale": "shared"}])
def test_nothing_is_kept_where_no_picture_asks_for_it(tmp_path: Path, options: dict[str, Any]) -> None:
    looks, path, monitor = train(tmp_path, 2, **options)
    assert "memory" not in torch.load(path, weights_only=True)["callbacks"][monitor.state_key]
    assert not any(each.earlier.maps or each.earlier.tops for each in looks.records)


def test_the_scores_of_the_end_are_no_look_of_their_own(tmp_path: Path) -> None:
    looks, _, monitor = train(tmp_path, 2, final_scores=["average_drop"], **EARLIER)
    assert monitor._looks.for_picture.step == looks.records[-1].step
    assert monitor.final_record is not None


def test_the_change_is_of_the_monitors_own_looks_only(tmp_path: Path) -> None:
    """A record that is made by hand has none, and says so."""
    looks, *_ = train(tmp_path, 2, show_change=True)
    record = looks.records[-1]
    alone = record_saliency(Toy(), record.batch, stamp=record.stamp, checks=[])
    assert alone.earlier.step is None
    assert alone.overlay.shape == record.overlay.shape


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"scale": "shred"}, r"`scale` 'shred' is not known here. Did you mean \"shared\"\?"),
        ({"scale": None}, r"`scale` None is not known here. Known: \"own\", \"shared\", \"run\""),
        ({"show_change": "yes"}, r"`show_change` must be True or False; got 'yes'"),
    ],
)
def test_what_is_not_known_is_refused_at_the_door(given: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        SaliencyMonitor(**given)
