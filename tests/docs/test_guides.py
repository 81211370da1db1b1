"""docs/start.md, docs/guides and the README: their code runs, and their sentences are short."""

from __future__ import annotations

import re
import shlex
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_gcam.cam import available_methods
from lightning_gcam.cli import _parser, main
from lightning_gcam.loggers import registry
from lightning_gcam.shortcuts import exchange
from tests.support.toys import LIGHTNING_SAYS

pytestmark = LIGHTNING_SAYS

ROOT = Path(__file__).parents[2]
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
START = ROOT / "docs" / "start.md"
README = ROOT / "README.md"
PAGES = [README, ROOT / "docs" / "index.md", START, *GUIDES]
MOST_WORDS = 25
SCRIPT = "class Net(LightningModule)"
"""In the block of Start with this line, the names are defined from which every guide continues."""

EXPECTED = {"shortcuts": r"\[?ShortcutAlarm|.*shortcut"}
"""Guides whose training is meant to warn, and how the warning begins."""


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Each block of Python, or of commands, of a page: why it is not run ("" where it is), the language, the code."""
    return re.findall(
        r"(?:<!-- not run: (.*?) -->\n)?^```(python|console)\n(.*?)^```",
        page.read_text(encoding="utf-8"),
        flags=re.M | re.S,
    )


def script() -> str:
    (code,) = [code for _, _, code in blocks(START) if SCRIPT in code]
    return code


def run_commands(lines: str) -> None:
    """Run what is a command about runs that are there; a command about a dataset is only parsed."""
    for command in (shlex.split(line, comments=True) for line in lines.splitlines()):
        if command[0] == "lightning-gcam" and command[1] != "evaluate":
            assert main(command[1:]) == 0, command
        elif command[0] == "lightning-gcam":
            _parser().parse_args(command[1:])


@pytest.fixture
def own_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a guide registers is forgotten when its test ends."""
    monkeypatch.setattr(exchange, "_PROPERTIES", dict(exchange._PROPERTIES))
    monkeypatch.setattr(registry, "_BACKENDS", list(registry._BACKENDS))


@pytest.mark.parametrize("page", [START, *GUIDES], ids=lambda page: page.stem)
@pytest.mark.usefixtures("own_registries")
def test_the_code_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if page.stem in EXPECTED:
        warnings.filterwarnings("ignore", message=EXPECTED[page.stem])
    names: dict[str, Any] = {"__name__": page.stem}
    with torch.random.fork_rng(devices=[]):
        exec(compile(script(), str(START), "exec"), names)
        for reason, language, code in blocks(page):
            if language == "console":
                run_commands(code)
                continue
            compiled = compile(code, str(page), "exec")
            if not reason:
                exec(compiled, names)
    if page.stem == "shortcuts":
        assert names["alert"], "the corner is noticed"
        (shown,) = re.findall(r"```text\n.*?\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)
        rows = [re.split(r"  +|, ", each.strip())[0] for each in shown.splitlines()]
        assert len(rows) > 5 and all(each in names["alert"]["message"] for each in rows), rows
        assert names["result"]["val_acc"] < 0.9, "the honest test shows it"
    if page.stem == "whole_dataset":
        assert "Row(method='grad_cam', score='energy'" in capsys.readouterr().out
        assert Path("table", "scores.csv").exists()


@pytest.mark.parametrize("page", [START, *GUIDES], ids=lambda page: page.stem)
def test_a_page_opens_with_a_picture_and_code_that_runs(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert -1 < text.find("![") < text.find("```python"), "a picture, and then code"
    assert page == START or "the script of Start" in text[: text.find("```python")]
    reason, _, _ = blocks(page)[0]
    assert not reason or page.stem == "several_gpus", reason


def prose(text: str) -> str:
    """A page without its comments, code, tables, headings, formulas and pictures, and links as their words."""
    for pattern in (
        r"<!--.*?-->",
        r"^```.*?^```",
        r"^\|.*?$",
        r"^#.*?$",
        r"^\$\$.*?\$\$",
        r"!\[.*?\]\(.*?\)",
    ):
        text = re.sub(
            pattern, "\n", text, flags=re.M | re.S if ".*?^" in pattern or "--" in pattern else re.M
        )
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text, flags=re.S)
    return re.sub(r"`[^`]*`", "code", text)


def sentences(text: str) -> list[str]:
    paragraphs = re.split(r"\n\s*\n|^\s*(?:[-*]|\d+\.) ", prose(text), flags=re.M)
    ends = re.compile(r"(?<=[.?!:])[*)_\"”]*\s+(?=[A-Z0-9\"“`*(_])|(?<=[.?!:])[*)]*\s+code ")
    return [" ".join(each.split()) for part in paragraphs for each in ends.split(part) if each.strip()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_sentences_are_short(page: Path) -> None:
    long = [each for each in sentences(page.read_text(encoding="utf-8")) if len(each.split()) > MOST_WORDS]
    assert not long, "\n".join(f"{len(each.split())} words: {each}" for each in long)


def test_a_long_sentence_is_noticed() -> None:
    text = (
        f"# A heading\n\nShort. A {'word ' * 25}end. See [the\nlinks](a.md).\n\n```python\n{'x ' * 30}\n```\n"
    )
    assert [len(each.split()) for each in sentences(text)] == [1, 27, 3]


def test_the_readme_counts_the_methods() -> None:
    counted = re.search(r"\*\*(\d+) methods\*\*", README.read_text(encoding="utf-8"))
    of_docstrings = {"mean_activation", "darkened"}  # which doctests of the same process register
    assert counted and int(counted[1]) == len({*available_methods()} - {"random", "centre"} - of_docstrings)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(#[^)\s]*)?\)", page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        found = page.parent / target if target else page
        assert found.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), flags=re.M)
            slugs = {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}
            assert anchor[1:] in slugs, f"{page.name} links to {target}{anchor}"
