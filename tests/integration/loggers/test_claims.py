"""Two runs that write into one directory at the same time, as real processes: no row is torn, and none is lost."""

from __future__ import annotations

import csv
import errno
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lightning_gcam import SaliencyBatch, SaliencyEvaluation, SaliencyRecord
from lightning_gcam.loggers import ReportLogger, write_alert, write_look
from lightning_gcam.loggers import disk as claims
from lightning_gcam.loggers.disk import claim_directory, claimed_directory, next_version, release_directory
from lightning_gcam.pipeline.record import Stamp
from lightning_gcam.pipeline.run import record_saliency
from lightning_gcam.report import read_run
from lightning_gcam.utils.errors import InputError
from tests.support.toys import Toy, toy_loader, toy_network, toy_samples, toy_trainer

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the processes"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Another process writes its looks"),
]

ROWS = 10


@pytest.fixture(scope="module")
def record() -> SaliencyRecord:
    found = record_saliency(toy_network(), SaliencyBatch(*toy_samples(2)), scores=["energy"], checks=[])
    assert found.overlay.size  # drawn before the processes part
    return found


def process(work: Callable[[], Any]) -> int:
    """Run in another process, which is not waited for; its id."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException:
        os._exit(1)
    os._exit(0)


def ends_well(*children: int) -> bool:
    return all(os.waitpid(child, 0)[1] == 0 for child in children)


def wait_for(path: Path) -> None:
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_of_two_runs_has_all_of_its_rows(tmp_path: Path, record: SaliencyRecord) -> None:
    """The same steps, as a script that is started twice has them."""
    directory = tmp_path / "run"

    def run(who: int) -> None:
        (tmp_path / str(who)).touch()
        for step in range(ROWS):
            mine = {"energy": float(who), f"score_{step}": step + 0.5}
            write_look(directory, replace(record, stamp=Stamp(step=step), scores=mine))
            write_alert(directory, {"step": step, "message": str(who), "log_prefix": "saliency"})
            for other in (1, 2):
                wait_for(tmp_path / str(other))

    children = [process(lambda who=who: run(who)) for who in (1, 2)]
    assert ends_well(*children)
    found = {}
    for each in (directory, directory / "run_2"):
        table = rows(each / "saliency" / "scores.csv")
        assert [row["step"] for row in table] == [str(step) for step in range(ROWS)]
        assert [row[f"score_{step}"] for step, row in enumerate(table)] == [f"{n}.5" for n in range(ROWS)]
        (who,) = {row["energy"] for row in table}
        alerts = rows(each / "saliency" / "alerts.csv")
        assert [row["message"] for row in alerts] == [who[0]] * ROWS
        assert len(list((each / "saliency").glob("overlay-*.png"))) == ROWS
        found[who] = each
    assert set(found) == {"1.0", "2.0"}
    assert {prefix: len(each.looks) for prefix, each in read_run(directory).monitors.items()} == {
        "saliency": ROWS,
        "run_2/saliency": ROWS,
    }


def test_each_of_two_pages_has_all_of_its_looks(tmp_path: Path, record: SaliencyRecord) -> None:
    """Two `ReportLogger`s of one `save_dir`, in two processes; each has its own numbers and its own alarms."""

    def run(who: int) -> None:
        logger = ReportLogger(tmp_path / "run")
        logger.log_metrics({"who": who}, step=0)
        (tmp_path / str(who)).touch()
        for other in (1, 2):
            wait_for(tmp_path / str(other))
        for step in range(3):
            logger.log_look(replace(record, stamp=Stamp(step=step)))
        logger.log_alert(2, str(who))
        logger.finalize("success")
        (tmp_path / f"page{who}").write_text(str(logger.report_path))

    assert ends_well(*[process(lambda who=who: run(who)) for who in (1, 2)])
    pages = {who: Path((tmp_path / f"page{who}").read_text()) for who in (1, 2)}
    assert set(pages.values()) == {
        tmp_path / "run" / "report.html",
        tmp_path / "run" / "run_2" / "report.html",
    }
    for who, page in pages.items():
        found = read_run(page)
        assert found.curves["who"] == {0: float(who)}
        assert sorted(found.monitors["saliency"].looks) == [0, 1, 2] and not found.left_out
        assert [alert["message"] for alert in found.alerts] == [str(who)]
        assert page.is_file()


def test_a_page_of_its_own_makes_no_directory_before_its_first_file(tmp_path: Path) -> None:
    logger = ReportLogger(tmp_path / "run")
    assert logger.report_path == tmp_path / "run" / "report.html"
    assert not (tmp_path / "run").exists()


def test_an_evaluation_into_a_directory_of_another_is_refused_before_its_first_batch(tmp_path: Path) -> None:
    def other() -> None:
        assert claim_directory(tmp_path / "out")
        (tmp_path / "ready").touch()
        wait_for(tmp_path / "stop")

    def evaluate() -> SaliencyEvaluation:
        evaluation = SaliencyEvaluation(directory=tmp_path / "out", scores="energy", resamples=10)
        toy_trainer(tmp_path, evaluation).test(Toy(), toy_loader(), verbose=False)
        return evaluation

    child = process(other)
    wait_for(tmp_path / "ready")
    with pytest.raises(InputError, match=r"`directory` .*out. is written to by another evaluation"):
        evaluate()
    assert [path.name for path in (tmp_path / "out").iterdir()] == [claims._LOCK]
    (tmp_path / "stop").touch()
    assert ends_well(child)
    assert evaluate().directory == tmp_path / "out"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["evaluation.json", "scores.csv"]

    def next_one() -> None:
        assert claim_directory(tmp_path / "out")

    assert ends_well(process(next_one)), "it is free again, though this process goes on"


def test_a_directory_that_is_left_can_be_taken_and_a_removed_lock_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, opened = claims._lock, []

    def slow(file: int) -> None:
        if not opened:  # between opening and locking, its owner leaves
            (tmp_path / claims._LOCK).unlink()
        opened.append(file)
        lock(file)

    monkeypatch.setattr(claims, "_lock", slow)
    assert claim_directory(tmp_path) and len(opened) == 2
    _, held = claims._CLAIMS[claims._key(tmp_path)]
    assert held is not None and os.path.samestat(os.fstat(held), (tmp_path / claims._LOCK).stat())
    release_directory(tmp_path)
    release_directory(tmp_path)
    assert list(tmp_path.iterdir()) == [] and claims._key(tmp_path) not in claims._CLAIMS


def test_a_directory_is_one_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert claimed_directory(Path("run")) == Path("run")
    assert claim_directory(tmp_path / "run") and claimed_directory(tmp_path / "run") == tmp_path / "run"


def test_a_run_that_was_killed_goes_on_in_its_directory(tmp_path: Path) -> None:
    def run() -> None:
        claimed_directory(tmp_path / "run")
        (tmp_path / "ready").touch()
        time.sleep(60)

    child = process(run)
    wait_for(tmp_path / "ready")
    with pytest.warns(UserWarning, match=r"Another process writes its looks to .*run, .* go to .*run_2"):
        assert claimed_directory(tmp_path / "run") == tmp_path / "run" / "run_2"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    claims._CLAIMS.clear()
    assert claimed_directory(tmp_path / "run") == tmp_path / "run"


def test_a_worker_that_outlives_its_run_does_not_hold_the_directory(tmp_path: Path) -> None:
    """As a DataLoader's may for some seconds."""

    def run() -> None:
        claimed_directory(tmp_path / "run")
        worker = process(lambda: time.sleep(60))
        (tmp_path / "worker").write_text(str(worker))

    assert ends_well(process(run))
    assert claimed_directory(tmp_path / "run") == tmp_path / "run"
    os.kill(int((tmp_path / "worker").read_text()), signal.SIGKILL)


def test_versions_that_are_asked_for_at_the_same_time_are_several(tmp_path: Path) -> None:
    def run(who: int) -> None:
        wait_for(tmp_path / "go")
        (tmp_path / str(who)).write_text(" ".join(next_version(tmp_path / "runs").name for _ in range(20)))

    children = [process(lambda who=who: run(who)) for who in (1, 2, 3)]
    (tmp_path / "go").touch()
    assert ends_well(*children)
    given = [name for who in (1, 2, 3) for name in (tmp_path / str(who)).read_text().split()]
    assert sorted(given) == sorted(f"version_{number}" for number in range(60))


def test_a_thousand_runs_in_one_process_keep_few_files_open(tmp_path: Path) -> None:
    for number in range(100):
        claimed_directory(tmp_path / str(number))
    assert len(claims._CLAIMS) == claims._MOST_CLAIMS
    locks = [lock for _, lock in claims._CLAIMS.values() if lock is not None]
    assert len(locks) == claims._MOST_CLAIMS and all(os.fstat(lock) for lock in locks)
    held = {path.name for _, path in claims._CLAIMS}
    assert held == {str(number) for number in range(100 - claims._MOST_CLAIMS, 100)}


def test_without_locks_the_directory_is_shared_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(file: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(claims, "_lock", fails)
    assert claimed_directory(tmp_path / "run") == tmp_path / "run"


def test_a_table_that_is_broken_is_set_aside(tmp_path: Path, record: SaliencyRecord) -> None:
    for number, text in enumerate(
        (b"\xff\xfe", b"", b"step,energy\nthree,0.5\n", b"energy\n0.5\n", b'step\n"1"2\n3\n')
    ):
        directory = tmp_path / str(number) / "saliency"
        directory.mkdir(parents=True)
        (directory / "scores.csv").write_bytes(text)
        if text:
            with pytest.warns(UserWarning, match=r"scores.csv is no table.* set aside as scores.csv.broken"):
                write_look(tmp_path / str(number), replace(record, stamp=Stamp(step=7)))
            assert (directory / "scores.csv.broken").read_bytes() == text
        else:
            write_look(tmp_path / str(number), replace(record, stamp=Stamp(step=7)))
        (row,) = rows(directory / "scores.csv")
        assert row["step"] == "7" and float(row["energy"]) == pytest.approx(record.scores["energy"])
