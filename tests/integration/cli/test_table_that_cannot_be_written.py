"""A table that is due when the disk is full, or when the process is killed: nothing that was computed is lost."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from lightning_gcam import SaliencyEvaluation
from lightning_gcam.callbacks.evaluation_table import Table
from lightning_gcam.cli import main
from lightning_gcam.evaluation import read_result
from lightning_gcam.utils.errors import InputError
from tests.integration.cli.test_evaluate_command import Small, own
from tests.support.toys import Toy, toy_loader, toy_trainer
from tests.support.trees import write_voc

needs_full_device = pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="a full disk is played by /dev/full"
)
FORWARDS = [0]


@pytest.fixture(autouse=True)
def _count(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = Small.forward

    def counted(self: Small, images: Tensor) -> Tensor:
        FORWARDS[0] += 1
        return forward(self, images)

    monkeypatch.setattr(Small, "forward", counted)


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., int]:
    """One and the same command, each time; how many forwards it took stands in `FORWARDS`."""
    write_voc(tmp_path / "voc2012")
    model = own(tmp_path / "last.ckpt")

    def run(out: Path = tmp_path / "out", *options: str) -> int:
        FORWARDS[0] = 0
        usual = [
            "--image-size",
            "48",
            "--methods",
            "grad_cam",
            "--scores",
            "energy",
            "iou",
            "--target-layer",
            "network.1",
            "--checks",  # none: these are made anew each time
        ]
        root = ["--root", str(tmp_path / "voc2012"), "-o", str(out)]
        return main(["evaluate", "voc2012", *root, *usual, *model, *options])

    return run


@pytest.fixture
def expected(command: Callable[..., int], tmp_path: Path) -> str:
    """The table of an evaluation that nothing happened to."""
    assert command(tmp_path / "undisturbed") == 0
    assert FORWARDS[0] > 2
    return (tmp_path / "undisturbed" / "scores.csv").read_text()


def parts_in(out: Path) -> list[Path]:
    return list(out.glob("saliency_evaluation-*/*.npz"))


def fill_disk(monkeypatch: pytest.MonkeyPatch, out: Path, name: str = "scores.csv") -> None:
    """A file of this name finds no room in `out`, under whatever name it is written before it is whole."""
    opened = Path.open

    def full(self: Path, mode: str = "r", **options: Any) -> Any:
        file = opened(self, mode, **options)
        if self.parent != out or not self.name.startswith(name) or "x" not in mode:
            return file
        file.close()
        return open("/dev/full", mode.replace("x", "w"), **options)

    monkeypatch.setattr(Path, "open", full)


@needs_full_device
@pytest.mark.parametrize("name", ["scores.csv", "evaluation.json"])
def test_a_full_disk_when_the_table_is_due(
    name: str,
    command: Callable[..., int],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))

    with pytest.MonkeyPatch.context() as patch:
        fill_disk(patch, out, name)
        with pytest.warns(
            UserWarning, match="The table could not be written. What is done is kept in .*the same"
        ):
            assert command() == 1

    (table,) = elsewhere.glob("*/scores.csv")
    assert table.read_text() == expected
    assert str(table) in (said := capsys.readouterr()).err and "No space left on device" in said.err
    assert read_result(table.parent).facts.samples == 4
    assert parts_in(out)
    left = [each.name for each in out.iterdir() if each.is_file()]
    assert left == [], "no empty files"

    assert command() == 0  # there is room again
    assert (out / "scores.csv").read_text() == expected
    assert FORWARDS[0] == 1, "one for the number of outputs, none for the numbers"
    assert not parts_in(out)


@needs_full_device
def test_a_disk_that_is_full_everywhere(
    command: Callable[..., int],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(**_: Any) -> str:
        raise OSError(28, "No space left on device")

    capsys.readouterr()
    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    fill_disk(monkeypatch, tmp_path / "out")
    with pytest.warns(UserWarning, match="could not be written"):
        assert command() == 1
    said = capsys.readouterr()
    assert "The table was printed instead" in said.err
    printed = said.out[said.out.index("method,score,value") :]
    assert list(csv.DictReader(io.StringIO(printed)))[:2] == list(csv.DictReader(io.StringIO(expected)))[:2]


@needs_full_device
def test_the_callback_warns_and_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
    fill_disk(monkeypatch, tmp_path / "out")
    settings: dict[str, Any] = {"scores": ["energy"], "directory": tmp_path / "out", "resamples": 10}
    evaluation = SaliencyEvaluation(**settings)
    with (
        pytest.warns(
            UserWarning, match="(?s)Writing the table failed, and the test goes on.*elsewhere.*instead"
        ),
        pytest.warns(UserWarning, match="The table could not be written. What is done is kept"),
    ):
        toy_trainer(tmp_path, evaluation).test(Toy(), toy_loader(8), verbose=False)
    assert evaluation.directory is None
    assert evaluation.result is not None and evaluation.result.facts.samples == 8
    assert parts_in(tmp_path / "out")


def between_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def killed(source: Any, target: Any) -> None:
        if Path(target).name == "scores.csv":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    before_the_parts_are_removed(monkeypatch)  # a process that is killed does not clean up


def before_the_parts_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Table, "tidy", killed)


@pytest.mark.parametrize("when", [between_the_files, before_the_parts_are_removed])
def test_the_same_command_goes_on_after_it_was_killed_at_the_end(
    when: Callable[[pytest.MonkeyPatch], None],
    command: Callable[..., int],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        when(patch)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            command()
    assert parts_in(out)
    assert (out / "evaluation.json").exists()
    if when is before_the_parts_are_removed:  # another command is refused as before, and removes nothing
        assert command(out, "--scores", "energy") == 1
        assert "--force" in capsys.readouterr().err
        assert parts_in(out)

    assert command() == 0
    assert (out / "scores.csv").read_text() == expected
    assert FORWARDS[0] == 1
    assert not parts_in(out)
    assert command() == 1, "it is finished"


def test_facts_that_cannot_be_written_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`about` must hold plain facts"):
        SaliencyEvaluation(about={"rate": float("nan")})
    evaluation = SaliencyEvaluation(
        scores=["energy"], directory=tmp_path / "out", resamples=10, about={"data": Path("a/b")}
    )
    toy_trainer(tmp_path, evaluation).test(Toy(), toy_loader(4), verbose=False)
    about = json.loads((tmp_path / "out" / "evaluation.json").read_text())["facts"]["about"]
    assert about == {"data": "a/b"}
