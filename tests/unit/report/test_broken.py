"""Directories with broken files: what is broken is named, all else is shown, and nothing is no page at all."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from lightning_gcam.cli import main
from lightning_gcam.loggers import ReportLogger, write_alert, write_look
from lightning_gcam.report import Store, read_run
from tests.support.pages import Page, record_at, write_report

ALERT = {"step": 7, "message": "Measured so.", "log_prefix": "saliency"}


def write_files(directory: Path) -> None:
    """What a CSVLogger's run has, without the page beside it."""
    for step in (3, 7):
        write_look(directory, record_at(step, 2))
    write_alert(directory, ALERT)
    (directory / "metrics.csv").write_text("step,val_loss\r\n3,0.5\r\n7,0.25\r\n")


def bomb(side: int = 12_000) -> bytes:
    """A PNG of a few bytes that says it has `side` x `side` pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each kind, to be copied and broken."""
    root = tmp_path_factory.mktemp("written")
    write_report(root / "report", range(3, 12, 4), n=2)
    write_files(root / "files")
    writer = SummaryWriter(str(root / "events"))
    for step in (3, 7):
        writer.add_scalar("val_loss", step / 8, step)
        writer.add_image("saliency/overlay", record_at(step, 2).overlay, step, dataformats="HWC")
    writer.close()
    return root


@pytest.fixture
def run_of(written: Path, tmp_path: Path) -> Callable[[str], Path]:
    return lambda kind: shutil.copytree(written / kind, tmp_path / kind)


def report(directory: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str], Any]:
    """The exit code, the lines that were said, and the first run of the page; None where there is no page."""
    page = directory.parent / "page.html"
    page.unlink(missing_ok=True)
    code = main(["report", str(directory), "-o", str(page)])
    said = capsys.readouterr().err.splitlines()
    return code, said, Page(page).data["runs"][0] if page.exists() else None


def steps_of(run: Any) -> list[int]:
    return [look["step"] for look in run["monitors"][0]["looks"]]


def changed(path: Path, change: Callable[[Any], Any]) -> None:
    """Parse a file, change it in place, and write it back."""
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain))


LOOK = "report_data/saliency/look-0000000007.json"

BREAKS: dict[str, Callable[[Path], Any]] = {
    "no regular file": lambda path: (path.unlink(), os.mkfifo(path)),
    "it is no object": lambda path: path.write_text("[7]"),
    "is empty": lambda path: path.write_text(""),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe\x00{}"),
    "no whole JSON": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "no JSON that can be read": lambda path: path.write_text("[" * 200_000),
    "is no regular file": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("reason", BREAKS)
def test_a_broken_look_is_left_out_and_named(
    run_of: Callable[[str], Path], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of("report")
    BREAKS[reason](run / LOOK)
    code, said, page = report(run, capsys)
    assert code == 0 and steps_of(page) == [3, 11]
    (line,) = said
    assert str(run / LOOK) in line and reason in line
    assert len(page["monitors"][0]["samples"]) == 2


SHAPES: dict[str, Callable[[Any], Any]] = {
    "step 'abc' is no whole number": lambda look: look.update(step="abc"),
    "step 7.5 is no whole number": lambda look: look.update(step=7.5),
    "step None is no whole number": lambda look: look.pop("step"),
    "step True is no whole number": lambda look: look.update(step=True),
    "it is of step 8, its name says 7": lambda look: look.update(step=8),
    "its epoch is no number": lambda look: look.update(epoch=["1"]),
    "its layer is no text": lambda look: look.update(layer={"a": 1}),
    "its scores are no numbers": lambda look: look["scores"].update(energy="high"),
    "what it has measured": lambda look: look.update(measured={"energy": "high"}),
    "it has no samples": lambda look: look.pop("samples"),
    "it has 1 samples, of which there are 2": lambda look: look["samples"].pop(),
    "sample 1 is no object": lambda look: look["samples"].__setitem__(1, None),
    "sample 0 has no caption": lambda look: look["samples"][0].update(caption=3),
    "sample 0 is neither right nor wrong": lambda look: look["samples"][0].update(right="yes"),
    "probability of sample 0": lambda look: look["samples"][0].update(probability="0.5"),
    "the scores of sample 0": lambda look: look["samples"][0].update(scores=[1]),
    "sample 0 has no maps": lambda look: look["samples"][0].pop("maps"),
    "has not four parts": lambda look: look["samples"][0]["maps"]["guidance_cam"].pop(),
    "no base64": lambda look: look["samples"][0]["maps"]["guidance_cam"].__setitem__(0, "§"),
    "has not 256 cells": lambda look: look["samples"][0]["maps"]["guidance_cam"].__setitem__(0, "AAAA"),
    "is no number": lambda look: look["samples"][0]["maps"]["guidance_cam"].__setitem__(1, "high"),
    "has no place": lambda look: look["samples"][0]["maps"]["guidance_cam"].__setitem__(2, None),
    "no pair of whole numbers": lambda look: look.update(size=[16]),
    "NaN is no JSON": lambda look: look["scores"].update(energy=float("nan")),
}


@pytest.mark.parametrize("reason", SHAPES)
def test_a_look_of_another_shape_is_left_out_and_named(
    run_of: Callable[[str], Path], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of("report")
    changed(run / LOOK, SHAPES[reason])
    code, said, page = report(run, capsys)
    assert code == 0 and steps_of(page) == [3, 11]
    (line,) = said
    assert str(run / LOOK) in line and reason in line


def test_a_look_without_a_step_in_its_name(
    run_of: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of("report")
    look = (run / LOOK).rename((run / LOOK).with_name("look-abc.json"))
    code, said, page = report(run, capsys)
    assert (code, steps_of(page)) == (0, [3, 11])
    assert said == [f"lightning-gcam report: left out {look}: its name has no step"]
    assert ReportLogger(run)._store().steps("saliency") == [3, 11]


@pytest.mark.parametrize("reason", ["is empty", "not UTF-8", "no whole JSON", "no regular file"])
def test_without_the_samples_their_maps_are_shown_on_grey(
    run_of: Callable[[str], Path], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of("report")
    BREAKS[reason](run / "report_data/saliency/samples.json")
    code, said, page = report(run, capsys)
    assert code == 0 and steps_of(page) == [3, 7, 11]
    assert len(said) == 1 and "samples.json" in said[0] and reason in said[0]
    assert [each["classes"] for each in page["monitors"][0]["samples"]] == [[], []]
    assert main(["strip", str(run)]) == 0
    assert len(list((run / "strips").rglob("*.gif"))) == 2


def test_one_sample_that_cannot_be_shown_takes_no_other_along(
    run_of: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from base64 import b64encode

    run = run_of("report")
    path = run / "report_data/saliency/samples.json"
    whole = json.loads(path.read_text())
    uri = f"data:image/png;base64,{b64encode(bomb()).decode()}"
    changed(path, lambda samples: samples[0].update(image=uri))
    code, said, page = report(run, capsys)
    assert code == 0 and steps_of(page) == [3, 7, 11]
    assert "sample 0: it has 12000 x 12000 pixels" in said[0] and "samples.json" in said[0]
    shown = page["monitors"][0]["samples"]
    assert shown[1] == whole[1] and len(shown[0]["image"]) < 200


LINES = [
    '{"step": 5, "lo',
    "[3]",
    '{"step": "abc", "loss": 1}',
    '{"step": 2.5, "loss": 1}',
    '{"loss": 1}',
    '{"step": 1, "loss": NaN}',
    "1" * 5000,
]


@pytest.mark.parametrize("line", LINES)
def test_a_broken_line_of_metrics_or_alerts_is_named_and_harms_no_other(
    run_of: Callable[[str], Path], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of("report")
    for name in ("metrics.jsonl", "alerts.jsonl"):
        path = run / "report_data" / name
        path.write_bytes(path.read_bytes() + b"\n" + line.encode() + b"\n\xff\xff\n")
    Store(run / "report_data").add_metrics({"val_loss": 0.125}, step=15)
    code, said, page = report(run, capsys)
    assert code == 0 and [steps[-1] for steps in page["curves"]["val_loss"]] == [15, 0.125]
    assert [each["step"] for each in page["alerts"]] == [7]
    assert len(said) == 2 and all("and 1 more like it" in each for each in said)


def test_numbers_of_any_kind_are_points_or_are_not(tmp_path: Path) -> None:
    Store(tmp_path).add_metrics({"loss": 0.5}, step=1)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('\n{"step": 2, "loss": "words", "acc": [1], "lr": 0.25, "huge": 1' + "0" * 400 + "}")
    run = Store(tmp_path).read("run")
    assert run.curves == {"loss": {1: 0.5}, "lr": {2: 0.25}} and run.left_out == []


@pytest.mark.parametrize("content", ["", "[]", '{"hyperparameters": [1]}', '{"hyper', "\udcff"])
def test_a_broken_run_json_costs_the_hyperparameters_only(
    run_of: Callable[[str], Path], content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of("report")
    (run / "report_data/run.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    code, said, page = report(run, capsys)
    assert (code, steps_of(page), page["hyperparameters"]) == (0, [3, 7, 11], {})
    assert len(said) == 1 and "run.json" in said[0]


def test_directories_whose_names_are_no_names(
    run_of: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """No UTF-8, escapes that are none, and two names for one prefix: nothing is read in another's place."""
    run = run_of("report")
    data = run / "report_data"
    for name in (b"\xff", b"%FF", b"a%2Fb", b"a%2fb"):
        shutil.copytree(data / "saliency", Path(os.fsdecode(os.path.join(os.fsencode(data), name))))
    odd = run.rename(run.with_name(os.fsdecode(b"run-\xff")))
    code, said, _ = report(odd, capsys)
    assert (code, said) == (0, [])
    found = read_run(odd)
    assert len(found.monitors) == 5 and all(len(each.looks) == 3 for each in found.monitors.values())
    assert main(["strip", str(odd)]) == 0
    assert len(list((odd / "strips").rglob("*.gif"))) == 10


def test_strips_stay_in_their_directory(run_of: Callable[[str], Path], tmp_path: Path) -> None:
    run = run_of("report")
    (run / "report_data/saliency").rename(run / "report_data/%2E%2E")
    assert main(["strip", str(run), "-o", str(tmp_path / "deep/strips")]) == 0
    assert {path.parent.parent for path in tmp_path.rglob("*.gif")} == {tmp_path / "deep/strips"}


TABLES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it is empty"),
    "other columns": (b"method,score\r\na,1\r\n", 'it has no column "step"'),
    "words for a step": (b"step,energy\r\nabc,0.5\r\n", "line 2: its step 'abc' is no whole number"),
    "half a step": (b"step,energy\r\n3.5,0.5\r\n", "line 2: its step '3.5' is no whole number"),
    "no step": (b"step,energy\r\n,0.5\r\n", "line 2: its step '' is no whole number"),
    "too few cells": (b"step,energy,iou\r\n3,0.5\r\n", "line 2: it has more or fewer cells"),
    "too many cells": (b"step,energy\r\n3,0.5,7\r\n", "line 2: it has more or fewer cells"),
    "not UTF-8": (b"step,energy\r\n3,\xff\r\n", "line 2: it is not UTF-8"),
    "a huge cell": (b"step,energy\r\n3," + b"x" * 140_000 + b"\r\n", "line 2: field larger"),
    "cut off": (b"step,energy\r\n3,0.1", "line 2: it is cut off"),
}


@pytest.mark.parametrize("name", ["saliency/scores.csv", "metrics.csv", "saliency/alerts.csv"])
@pytest.mark.parametrize("kind", TABLES)
def test_a_broken_table_is_named_and_the_pictures_are_shown(
    run_of: Callable[[str], Path], kind: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of("files")
    content, reason = TABLES[kind]
    (run / name).write_bytes(content)
    code, said, page = report(run, capsys)
    assert code == 0 and steps_of(page) == [3, 7]
    assert len(said) == 1 and str(run / name) in said[0] and reason in said[0]


@pytest.mark.parametrize("name", ["saliency/scores.csv", "metrics.csv", "saliency/alerts.csv"])
def test_a_broken_row_harms_no_other(
    run_of: Callable[[str], Path], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of("files")
    head, *rows = (run / name).read_bytes().splitlines(keepends=True)
    cells = head.count(b",")
    (run / name).write_bytes(
        head + b"abc" + b"," * cells + b"\r\n\xff" + b"," * cells + b"\r\n" + b"".join(rows)
    )
    code, said, page = report(run, capsys)
    assert (
        code == 0 and len(said) == 1 and "line 2: its step 'abc'" in said[0] and "1 more like it" in said[0]
    )
    assert page["curves"]["val_loss"] == [[3, 7], [0.5, 0.25]]
    assert page["curves"]["saliency/energy"][0] == [3, 7]
    assert [each["message"] for each in page["alerts"]] == ["Measured so."]


PICTURES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a bomb": (lambda path: path.write_bytes(bomb()), "12000 x 12000 pixels"),
    "a larger bomb": (lambda path: path.write_bytes(bomb(60_000)), "more pixels than are read"),
    "long": (lambda path: Image.new("L", (20_000, 1)).save(path), "20000 x 1 pixels"),
    "half": (lambda path: path.write_bytes(path.read_bytes()[:400]), "no picture, or half of one"),
    "empty": (lambda path: path.write_bytes(b""), "no picture"),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "no regular file"),
    "another name": (
        lambda path: path.rename(path.with_name("overlay-step=abc.png")),
        "its name has no step",
    ),
    "a program": (
        lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        "no picture",
    ),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_that_cannot_be_shown_is_no_look(
    run_of: Callable[[str], Path], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of("files")
    change, reason = PICTURES[kind]
    change(run / "saliency/overlay-step=00000003.png")
    code, said, page = report(run, capsys)
    assert (code, steps_of(page)) == (0, [7])
    assert len(said) == 1 and "overlay-step=" in said[0] and reason in said[0]


def test_events_that_are_broken_or_no_files(
    run_of: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of("events")
    os.mkfifo(run / "events.out.tfevents.99.pipe")
    code, said, page = report(run, capsys)
    assert (code, steps_of(page)) == (0, [3, 7])
    assert page["curves"]["val_loss"] == [[3, 7], [3 / 8, 7 / 8]]
    assert len(said) == 1 and "99.pipe: it is no regular file" in said[0]
    (run / "events.out.tfevents.99.pipe").unlink()
    (path,) = run.glob("events*")
    path.write_bytes(path.read_bytes()[:-2000])  # the second picture is cut off
    code, said, page = report(run, capsys)
    assert (code, steps_of(page)) == (0, [3])
    path.write_bytes(b"\xff" * 3000)
    code, said, page = report(run, capsys)
    assert (code, page) == (1, None)


def test_where_the_reports_own_data_is_broken_the_pictures_beside_it_are_shown(
    run_of: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run, files = run_of("report"), run_of("files")
    for look in run.rglob("look-*.json"):
        look.write_text("")
    shutil.copytree(files / "saliency", run / "saliency")
    code, said, page = report(run, capsys)
    assert (code, steps_of(page)) == (0, [3, 7])
    assert len(said) == 3 and page["monitors"][0]["looks"][0]["picture"].startswith("data:image/")


@pytest.mark.parametrize("kind", ["report", "files"])
def test_where_nothing_is_left_there_is_no_page(
    run_of: Callable[[str], Path], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(kind)
    kinds = {".csv", ".png", ".json", ".jsonl"}
    broken = [path for path in run.rglob("*") if path.suffix in kinds and path.name != "run.json"]
    for path in broken:
        path.write_bytes(b"\xff")
    code, said, page = report(run, capsys)
    assert (code, page) == (1, None)
    assert all(any(str(path) in line for line in said) for path in broken if "measurements" not in path.name)
    assert "nothing that can be read is left" in said[-1]
    assert main(["strip", str(run)]) == 1
    other = run_of("events")
    page_path = run.parent / "both.html"
    assert main(["report", str(run), str(other), "-o", str(page_path)]) == 0
    assert [each["name"] for each in Page(page_path).data["runs"]] == ["events"]
    assert f"left out {kind}: nothing of it can be read" in capsys.readouterr().err


def test_a_link_beside_the_page_is_not_followed(run_of: Callable[[str], Path], tmp_path: Path) -> None:
    run, victim = run_of("report"), tmp_path / "victim"
    victim.write_text("mine")
    for name in ("report.html.part", "report.part", "report.html.tmp"):
        (run / name).symlink_to(victim)
    (run / "report.html").unlink()
    (run / "report.html").symlink_to(victim)
    assert main(["report", str(run), "--force"]) == 0
    assert victim.read_text() == "mine"
    assert not (run / "report.html").is_symlink() and len(Page(run / "report.html").steps()) == 3


def test_what_is_no_file_is_not_written_over(
    run_of: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert main(["report", str(run_of("report")), "-o", str(tmp_path / "pipe"), "--force"]) == 1
    assert "is no file" in capsys.readouterr().err and not (tmp_path / "pipe").is_file()
    assert main(["report", str(tmp_path / "pipe")]) == 1
    assert "is no directory" in capsys.readouterr().err


def test_a_run_that_goes_on_names_what_is_broken_once(run_of: Callable[[str], Path]) -> None:
    run = run_of("report")
    (run / LOOK).write_text('{"step": 7, "sam')
    logger = ReportLogger(run)
    with pytest.warns(UserWarning, match="look-0000000007.json: it is no whole JSON"):
        logger.log_look(record_at(15, 2))
    logger.log_look(record_at(19, 2))
    logger.finalize("success")  # a second warning would be an error
    assert Page(logger.report_path).steps() == [3, 11, 15, 19]


def test_a_run_goes_on_over_samples_that_cannot_be_read(run_of: Callable[[str], Path]) -> None:
    run = run_of("report")
    (run / "report_data/saliency/samples.json").write_bytes(b"\xff")
    logger = ReportLogger(run)
    logger.log_look(record_at(15, 2))
    assert Page(logger.report_path).steps() == [15]
    assert len(list(run.rglob("saliency.0.aside/look-*.json"))) == 3, "set aside, not deleted"


def test_metrics_are_not_written_into_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "report_data").mkdir()
    os.mkfifo(tmp_path / "report_data/metrics.jsonl")
    logger = ReportLogger(tmp_path)
    with pytest.warns(UserWarning, match="metrics.jsonl is no regular file. The training goes on"):
        logger.log_metrics({"loss": 0.5}, step=3)


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.just("7"),
)


@st.composite
def damages(draw: st.DrawFn) -> list[tuple[int, str, Any]]:
    """Which files are hit, by number, how, and with what."""
    kinds = st.sampled_from(["cut", "bytes", "value", "value", "value", "remove", "directory", "rename"])
    what = st.tuples(
        st.integers(0, 1 << 16), kinds, st.tuples(st.integers(0, 1 << 30), JUNK, st.binary(max_size=40))
    )
    return draw(st.lists(what, min_size=1, max_size=4))


def damage(path: Path, kind: str, where: int, junk: Any, content: bytes) -> None:
    old = path.read_bytes()
    at = where % (len(old) + 1)
    if kind == "cut":
        path.write_bytes(old[:at])
    elif kind == "bytes":
        path.write_bytes(old[:at] + content + old[at + len(content) :])
    elif kind == "value":
        path.write_text(_with_junk(old, where, junk))
    elif kind == "rename":
        path.rename(path.with_name(f"{path.stem.partition('-')[0]}-{content.hex()[:8]}{path.suffix}"))
    else:
        path.unlink()
        if kind == "directory":
            path.mkdir()


def _with_junk(old: bytes, where: int, junk: Any) -> str:
    """Another value at a random place of the JSON, or another cell in the table."""
    text = old.decode("utf-8", "replace")
    try:
        plain = json.loads(text)
    except ValueError:
        cells = text.split(",")
        cells[where % len(cells)] = str(junk)
        return ",".join(cells).encode("utf-8", "replace").decode()
    at = plain
    for _ in range(1 + where % 6):
        keys: list[Any] = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            break
        key = keys[where % len(keys)]
        if not isinstance(at[key], dict | list) or where % 5 == 0:
            at[key] = junk
            break
        at = at[key]
    return json.dumps(plain)


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.sampled_from(["report", "report", "files"]), damages())
def test_random_damage_is_never_a_traceback_and_never_an_empty_page(
    written: Path, tmp_path_factory: pytest.TempPathFactory, kind: str, hits: list[tuple[int, str, Any]]
) -> None:
    root = tmp_path_factory.mktemp("damage")
    run = shutil.copytree(written / kind, root / "run", ignore=shutil.ignore_patterns("report.html"))
    for number, how, (where, junk, content) in hits:
        files = sorted(path for path in run.rglob("*") if path.is_file())
        if files:
            damage(files[number % len(files)], how, where, junk, content)
    code = main(["report", str(run), "-o", str(root / "page.html")])
    assert (code == 0) is (root / "page.html").exists()
    if code == 0:
        (shown,) = Page(root / "page.html").data["runs"]
        assert any(each["looks"] for each in shown["monitors"]) or shown["curves"] or shown["alerts"]
    code = main(["strip", str(run), "-o", str(root / "strips")])
    assert (code == 0) is bool(list(root.rglob("sample-*.png")))
    assert list(root.rglob("*.part")) == []
    shutil.rmtree(root)


@pytest.mark.parametrize(
    ("damage", "steps"),
    [
        (lambda content, start: content[: start + 60], [0, 1]),
        (lambda content, start: content[: start + 60] + b"\xff" + content[start + 61 :], [0, 1]),
        (lambda content, start: b"\0" * len(content), None),
    ],
    ids=["cut off", "a byte", "zeros"],
)
def test_what_is_behind_a_damaged_place_in_an_event_file_is_named(
    damage: Any, steps: list[int] | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """TensorBoard itself stops reading there without a word."""
    directory, starts = tmp_path / "run", []
    writer = SummaryWriter(str(directory))
    (events,) = directory.iterdir()
    for step in range(4):
        writer.flush()
        starts.append(events.stat().st_size)
        writer.add_image("saliency/overlay", np.zeros((8, 8, 3), np.uint8), step, dataformats="HWC")
    writer.close()
    assert report(directory, capsys)[:2] == (0, [])
    events.write_bytes(damage(events.read_bytes(), starts[2]))
    code, said, run = report(directory, capsys)
    assert f"{events}: it is damaged or cut off, and what is behind that place is not read" in said[0]
    assert (code, run and steps_of(run)) == ((0, steps) if steps else (1, None))
