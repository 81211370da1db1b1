"""The GPU's tables, tried on the CPU: every row is there. Without a CUDA device the page stays as it is."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

SMALL = ["--device=cpu", "--size=64", "--batch=4", "--large-batch=4", "--rounds=1", "--models", "resnet18"]
SHORT = ["--epochs=1", "--batches=1"]
ROWS = [
    "plain forward",
    "six maps",
    "**a look without checks**",
    "**a look with checks**",
    "rendering and logging",
    "by hand: grad-cam, one figure, `add_figure`",
    "resnet18",
    "resnet18",
    "small CNN, 32-true",
    "small CNN, bf16-mixed",
]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The benchmark with a training that is shorter still; it seeds everything and silences Lightning."""
    from benchmarks.cost import gpu

    loggers = [
        logging.getLogger(each) for each in ("pytorch_lightning", "lightning.pytorch", "lightning_gcam")
    ]
    levels = [each.level for each in loggers]
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    monkeypatch.setattr(gpu, "TRAININGS", {"small CNN": (gpu.small_network, 32, 1)})
    yield gpu
    for each, level in zip(loggers, levels, strict=True):
        each.setLevel(level)


@pytest.mark.slow
def test_a_small_run_prints_and_writes_every_row(
    gpu: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "gpu.md"
    page.write_text("# On a GPU\n\n<!-- gpu: begin -->\nNot yet.\n<!-- gpu: end -->\n")
    gpu.main([*SMALL, *SHORT, f"--output={page}"])
    written, printed = page.read_text(), capsys.readouterr().out
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in written.splitlines() if line[:2] == "| "
    ]
    named = [row for row in rows if row[0] in ROWS]
    assert [row[0] for row in named] == ROWS
    assert all(float(row[1]) > 0 for row in named)
    assert float(named[0][5]) == 1
    assert [row[5] for row in named[-2:]] == ["the same"] * 2
    assert "could not be measured" not in written
    assert "Not yet." not in written
    assert all(line in printed for line in written.splitlines() if line[:2] == "| ")
    assert "the CPU, in the place of a GPU" in written


def test_a_part_that_fails_is_named_and_the_others_are_measured(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> str:
        raise RuntimeError("CUDA error: too hot\nfurther lines")

    monkeypatch.setattr(gpu, "blocks", lambda *_: {"first": broken, "second": lambda: "a table\n"})
    page = tmp_path / "gpu.md"
    gpu.main([*SMALL, f"--output={page}"])
    assert (
        "**first could not be measured**: RuntimeError: CUDA error: too hot\n\na table\n" in page.read_text()
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_device_the_page_stays_as_it_is(
    gpu: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.cost import gpu_command

    gpu.main([f"--output={tmp_path / 'gpu.md'}"])
    assert gpu_command.main([]) == 0
    assert capsys.readouterr().out.count("There is no CUDA device here") == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_both_run_one_after_the_other_and_the_tests_decide(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.cost import gpu_command

    ran: list[tuple[str, list[str]]] = []

    def run(what: str, command: list[str], seconds: int, extra: object = None) -> int:
        ran.append((what, command))
        return {"The tests": 1, "The tables": 0}[what]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu_command, "run", run)
    assert gpu_command.main(["--rounds=3"]) == 1
    assert [what for what, _ in ran] == ["The tests", "The tables"]
    assert ran[1][1][-3:] == ["--output", "docs/gpu.md", "--rounds=3"]

    own = gpu_command.find_spec
    monkeypatch.setattr(gpu_command, "find_spec", lambda name: None if name == "pytest" else own(name))
    assert gpu_command.main([]) == 0
    assert "pytest is not installed" in capsys.readouterr().out


def test_what_takes_too_long_is_stopped(capfd: pytest.CaptureFixture[str]) -> None:
    import sys

    from benchmarks.cost import gpu_command

    assert gpu_command.run("The tests", [sys.executable, "-c", "raise SystemExit(3)"], 60) == 3
    assert gpu_command.run("The tests", [sys.executable, "-c", "import time; time.sleep(60)"], 1) == 1
    assert "took more than 1 seconds" in capfd.readouterr().out
