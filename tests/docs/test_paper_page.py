"""The commands in docs/paper.md are ones that the parser takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lightning_gcam.cli import _parser

PAGE = (Path(__file__).parents[2] / "docs" / "paper.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.M | re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("lightning-gcam")]


def test_there_is_a_command_for_each_dataset() -> None:
    assert {line.split()[2] for line in commands()} == {"voc2012", "coco2014", "imagenet"}


@pytest.mark.parametrize("command", commands())
def test_the_commands_are_taken(command: str) -> None:
    chosen = _parser().parse_args(shlex.split(command)[1:])
    assert chosen.command == "evaluate"
