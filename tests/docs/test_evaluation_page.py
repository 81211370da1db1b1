"""The code in docs/evaluation.md runs, and the commands in docs/paper.md are ones that the parser takes."""

from __future__ import annotations

import re
import shlex
from functools import partial
from pathlib import Path

import pytest

from lightning_gcam.cli import _parser
from tests.support.toys import Toy, toy_loader, toy_trainer

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)
    return found


def test_the_code_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import pytorch_lightning

    class Data(pytorch_lightning.LightningDataModule):
        def test_dataloader(self) -> object:
            return toy_loader()

    def trainer(callbacks: list[object]) -> object:
        return toy_trainer(tmp_path, *callbacks)

    monkeypatch.chdir(tmp_path)
    names = {"Trainer": partial(trainer), "model": Toy(), "datamodule": Data()}
    for code in blocks("evaluation.md", "python"):
        exec(code, names)  # type: ignore[arg-type]
    assert "Row(method='grad_cam', score='energy'" in capsys.readouterr().out
    assert (tmp_path / "table" / "scores.csv").exists()


def commands() -> list[str]:
    lines = "\n".join(blocks("paper.md", "sh")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("lightning-gcam")]


def test_there_is_a_command_for_each_dataset() -> None:
    assert {line.split()[2] for line in commands()} == {"voc2012", "coco2014", "imagenet"}


@pytest.mark.parametrize("command", commands())
def test_the_commands_are_taken(command: str) -> None:
    chosen = _parser().parse_args(shlex.split(command)[1:])
    assert chosen.command == "evaluate"
