"""Tables to which lines are appended: what is there stays, whoever wrote it and wherever writing ended."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_gcam.loggers import files
from lightning_gcam.report import read_run
from tests.integration.loggers.test_claims import ends_well, process

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the processes")

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, strict=True))


Add = Callable[..., None]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "scores.csv"


@pytest.fixture
def add(table: Path) -> Add:
    return lambda step, **scores: files._add_row(table, {"step": step, **scores})


def is_appended(table: Path, add: Callable[[], None]) -> bool:
    """Whether the file stays the one it is."""
    before = table.stat().st_ino, table.read_bytes()
    add()
    return table.stat().st_ino == before[0] and table.read_bytes().startswith(before[1])


def test_a_later_step_is_appended_and_all_else_is_written_anew(table: Path, add: Add) -> None:
    add(3, energy=0.5)
    assert is_appended(table, lambda: add(7, energy=0.25))
    assert is_appended(table, lambda: add(11)), "what a look has not measured is empty"
    assert not is_appended(table, lambda: add(11, energy=1.0)), "a resumed run comes to a step again"
    assert not is_appended(table, lambda: add(5, energy=2.0)), "it comes to an earlier one"
    assert is_appended(table, lambda: add(15, energy=3.0))
    assert not is_appended(table, lambda: add(19, energy=4.0, drift=0.5)), "a column that is new"
    assert is_appended(table, lambda: add(23, drift=0.25, energy=5.0)), "in another order"
    assert rows(table) == [
        {"step": step, "energy": energy, "drift": drift}
        for step, energy, drift in [
            ("3", "0.5", ""), ("5", "2.0", ""), ("7", "0.25", ""), ("11", "1.0", ""), ("15", "3.0", ""),
            ("19", "4.0", "0.5"), ("23", "5.0", "0.25"),
        ]
    ]  # fmt: skip
    assert [path.name for path in table.parent.iterdir()] == ["scores.csv"]


def test_a_table_of_an_earlier_process_is_read_once(table: Path, add: Add) -> None:
    add(3, energy=0.5)
    files._KNOWN.clear()
    assert not is_appended(table, lambda: add(7, energy=0.25))
    assert is_appended(table, lambda: add(11, energy=1.0))
    assert [row["step"] for row in rows(table)] == ["3", "7", "11"]


def edited(table: Path) -> None:
    """In place, to the same size, as an editor may do it."""
    table.write_text(table.read_text().replace("0.25", "0.75"))
    os.utime(table, (1, 1))


def replaced(table: Path) -> None:
    """By another file of the same size and time."""
    found = table.stat()
    shutil.copy2(table, table.with_name("copy"))
    table.with_name("copy").replace(table)
    assert (table.stat().st_size, table.stat().st_mtime_ns) == (found.st_size, found.st_mtime_ns)


def shortened(table: Path) -> None:
    table.write_bytes(b"".join(table.read_bytes().splitlines(keepends=True)[:2]))


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (edited, ["0.5", "0.75", "1.0"]),
        (replaced, ["0.5", "0.25", "1.0"]),
        (shortened, ["0.5", "1.0"]),
        (Path.unlink, ["1.0"]),
    ],
)
def test_what_somebody_did_to_the_table_meanwhile_stays(
    table: Path, add: Add, change: Callable[[Path], None], left: list[str]
) -> None:
    add(3, energy=0.5)
    add(7, energy=0.25)
    change(table)
    add(11, energy=1.0)
    assert [row["energy"] for row in rows(table)] == left
    assert is_appended(table, lambda: add(15, energy=2.0))


@FORKS
def test_another_process_appends_to_what_this_one_wrote(table: Path, add: Add) -> None:
    """A forked one, which has all that this one knows; then this one goes on."""
    add(3, energy=0.5)
    assert ends_well(process(lambda: [add(step, energy=0.25) for step in (7, 11)]))
    add(15, energy=1.0)
    assert ends_well(process(lambda: add(19, energy=2.0, drift=0.5)))
    add(23, energy=3.0)
    assert [(row["step"], row["energy"], row["drift"]) for row in rows(table)] == [
        ("3", "0.5", ""), ("7", "0.25", ""), ("11", "0.25", ""), ("15", "1.0", ""), ("19", "2.0", "0.5"),
        ("23", "3.0", ""),
    ]  # fmt: skip


MESSAGES = ["plain", 'zwei Zeilen,\n„eine“ ist "quoted"\r\nand so on']


@pytest.mark.parametrize("message", MESSAGES)
def test_wherever_a_line_is_cut_off_every_earlier_one_is_kept(
    tmp_path: Path, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at each byte of the line; another process goes on."""
    warned: list[str] = []
    monkeypatch.setattr(files, "rank_zero_warn", warned.append)
    table = tmp_path / "alerts.csv"
    alerts = [{"step": step, "message": message, "log_prefix": "saliency"} for step in (3, 7, 11)]
    for alert in alerts:
        files._add_row(table, alert)
    whole = table.read_bytes()
    start = len(whole) - len(files._as_lines(("step", "message", "log_prefix"), alerts[2:]).encode())
    assert whole[start:].startswith(b"11,")
    for cut in range(start, len(whole)):
        table.write_bytes(whole[:cut])
        assert [alert["step"] for alert in read_run(tmp_path).alerts] == [3, 7, 11][
            : 3 if cut == len(whole) - 1 else 2
        ]
        files._KNOWN.clear()
        warned.clear()
        files._add_row(table, {"step": 15, "message": message, "log_prefix": "saliency"})
        assert [(row["step"], row["message"]) for row in rows(table)] == [
            (step, message) for step in ("3", "7", "15")
        ]
        aside = table.with_name("alerts.csv.broken")
        if cut == start:
            assert warned == [] and not aside.exists(), "nothing of the line"
        else:
            assert len(warned) == 1 and "alerts.csv is cut off" in warned[0] and aside.name in warned[0]
            assert aside.read_bytes() == whole[:cut]
            aside.unlink()


def test_an_append_that_fails_half_way_loses_no_earlier_line(
    table: Path, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(3, energy=0.5)

    def fails(path: Path, text: str) -> None:
        with path.open("a") as file:
            file.write(text[:3])
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(files, "append_text", fails)
        with pytest.raises(OSError, match="disk full"):
            add(7, energy=0.25)
    with pytest.warns(UserWarning, match="scores.csv is cut off.* set aside as scores.csv.broken"):
        add(11, energy=1.0)
    assert [row["step"] for row in rows(table)] == ["3", "11"]
    assert is_appended(table, lambda: add(15, energy=2.0))


@FORKS
def test_a_process_that_is_killed_again_and_again(table: Path, add: Add) -> None:
    """In the middle of whatever it does; each next one goes on, and no row that was there is gone."""
    before: list[str] = []

    def run(first: int) -> None:
        warnings.simplefilter("ignore")
        for step in range(first, first + 10_000):
            add(step, energy=0.5, text="a\nb")

    for turn in range(4):
        child, end = process(lambda turn=turn: run(turn * 10_000)), time.monotonic() + 20
        while len(now := present(table)) < len(before) + 20 and time.monotonic() < end:
            pass
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert len(now) >= len(before) + 20
        assert now[: len(before)] == before
        before = present(table)
        assert before[: len(now)] == now


def present(table: Path) -> list[str]:
    """The steps of its whole lines."""
    lines = table.read_bytes().decode().split("\r\n")[1:-1] if table.exists() else []
    return [line.split(",")[0] for line in lines]


def test_a_thousand_tables_are_not_all_kept_in_mind(tmp_path: Path) -> None:
    for number in range(2 * files._MOST_KNOWN):
        files._add_row(tmp_path / f"{number}.csv", {"step": 1})
    assert len(files._KNOWN) == files._MOST_KNOWN
