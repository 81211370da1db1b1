"""`lightning-gcam`: exit codes, messages, and the page it writes."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from lightning_gcam.cli import main
from tests.support.pages import Page, write_report


def test_a_run_is_built_where_its_page_belongs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = write_report(tmp_path / "run")
    logger.report_path.unlink()
    assert main(["report", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.strip() == str(logger.report_path)
    assert Page(logger.report_path).steps() == [3, 7, 11, 15]


def test_two_runs_stand_on_one_page(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_report(tmp_path / name / "run", range(3, 12, 4))
    target = tmp_path / "both.html"
    assert main(["report", str(tmp_path / "a/run"), str(tmp_path / "b/run"), "-o", str(target)]) == 0
    names = [run["name"] for run in Page(target).data["runs"]]
    assert names == [str(tmp_path / "a/run"), str(tmp_path / "b/run")], "two of one name are told apart"


def test_a_page_that_is_there_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = write_report(tmp_path / "run", range(3, 4), n=2)
    logger.report_path.write_text("mine")
    assert main(["report", str(tmp_path / "run")]) == 1
    assert "--force" in capsys.readouterr().err
    assert logger.report_path.read_text() == "mine"
    assert main(["report", str(tmp_path / "run"), "--force"]) == 0
    assert Page(logger.report_path).steps() == [3]


@pytest.mark.parametrize(
    ("arguments", "words"), [(["report"], "PATH"), ([], "COMMAND"), (["dance"], "invalid choice")]
)
def test_wrong_arguments_end_with_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_what_cannot_be_read_is_a_sentence_and_a_code() -> None:
    program = "from lightning_gcam.cli import main; raise SystemExit(main(['report', 'no/such/run']))"
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "does not exist" in done.stderr and "Traceback" not in done.stderr


def test_help_says_what_a_path_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["report", "--help"])
    assert ended.value.code == 0
    assert "TensorBoard's events" in capsys.readouterr().out


def test_the_command_is_declared() -> None:
    scripts = metadata.entry_points(group="console_scripts", name="lightning-gcam")
    if not list(scripts):
        pytest.skip("the installed metadata is older than the command: install again")
    assert next(iter(scripts)).load() is main
