"""Strips: each sample's looks side by side, and one after the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_gcam.cli import main
from lightning_gcam.report import Run, read_run
from lightning_gcam.report.page import write_strips
from lightning_gcam.utils.errors import InputError
from lightning_gcam.visual import overlay, to_display
from tests.support.pages import record_at, write_report


def test_a_row_and_an_animation_for_each_sample(tmp_path: Path) -> None:
    write_report(tmp_path / "run", n=2)
    assert main(["strip", str(tmp_path / "run"), "--most", "3"]) == 0
    files = sorted(path.name for path in (tmp_path / "run" / "strips" / "saliency").iterdir())
    assert files == ["sample-00.gif", "sample-00.png", "sample-01.gif", "sample-01.png"]
    with Image.open(tmp_path / "run/strips/saliency/sample-00.gif") as animation:
        assert animation.n_frames == 4
    with Image.open(tmp_path / "run/strips/saliency/sample-00.png") as strip:
        assert strip.size == (3 * 160 + 2 * 4, 160 + 2 * 20)


def test_the_last_picture_is_the_overlay_of_the_last_look(tmp_path: Path) -> None:
    run = read_run(write_report(tmp_path / "run", n=2).report_path)
    path, _ = write_strips(run, tmp_path)[:2]
    record = record_at(15, 2)
    mine = overlay(to_display(record.batch.images), record.attribution.maps["guidance_cam"])[0].permute(
        1, 2, 0
    )
    with Image.open(path) as opened:
        shown = np.asarray(opened)[20:-20:10, -160::10]
    assert np.abs(shown[..., :3].astype(int) - mine.numpy().astype(int)).mean() < 1.5


def test_without_samples_there_is_nothing_to_strip(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no samples one by one"):
        write_strips(Run("pictures"), tmp_path)
