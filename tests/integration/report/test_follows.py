"""What the page shows of the exchanges: a real training, and the section in a real browser."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.loggers import CSVLogger

from lightning_gcam import SaliencyMonitor
from lightning_gcam.loggers import ReportLogger
from lightning_gcam.report import build_page, read_run
from tests.integration.report.test_browser import BROWSER, small_look, small_run, visit
from tests.support.pages import Page
from tests.support.toys import LIGHTNING_SAYS, Toy, toy_loader, toy_trainer

pytestmark = [
    *LIGHTNING_SAYS,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium here: apt-get install chromium"),
]

SHOWN = """
const share = (e) => e && [e.style.left, e.style.width].map((each) => parseFloat(each));
const shown = () => ({ hidden: $("follows").hidden, rows: all("#follow-rows > *").map((row) => ({
  name: row.querySelector(".name").firstChild.nextSibling?.textContent ?? row.querySelector(".name").textContent,
  value: row.querySelector("b").textContent, facts: row.querySelector(".facts").textContent,
  apart: row.classList.contains("apart"), label: row.querySelector(".bar").getAttribute("aria-label"),
  rate: share(row.querySelector(".rate")), whisker: share(row.querySelector(".whisker")),
  tick: share(row.querySelector(".tick")) })),
  lines: all("#follow-chart path").map((e) => e.getAttribute("d")), dots: all("#follow-chart circle").length,
  chart: all("#follow-chart svg").map((e) => e.getAttribute("aria-label"))[0] });
"""


def look_with(step: int, measured: dict[str, list[Any]] | None = None, **scores: float) -> str:
    return json.dumps({**json.loads(small_look(step, **scores)), "measured": measured or {}})


def border(rate: float, **others: float) -> dict[str, float]:
    return {"border_follow_rate": rate, "border_swap_accuracy": 0.25, **others}


def test_a_bar_has_its_interval_and_the_larger_of_its_controls(tmp_path: Path) -> None:
    scores = border(0.75, border_follow_chance=0.125, border_same_class_follow_rate=0.25)
    looks = {
        1: look_with(1, {"border_follow_rate": [64, 0, 0.5, 0.875]}, **scores),
        2: look_with(2, **border(1.5), object_follow_rate=0.5, salient_region_follow_rate=0.0),
    }
    page = build_page([small_run("run", looks)], tmp_path / "page.html")
    found = visit(
        page,
        SHOWN
        + 'slide(0); const first = shown(); slide(1); set("against", "first"); return [first, shown()];',
    )
    (first, absent, thing), (second, region, last) = (each["rows"] for each in found)
    assert (first["name"], first["value"]) == ("border", "0.750")
    assert first["rate"] == [0, 75] and first["whisker"] == [50, 37.5] and first["tick"][0] == 25
    assert first["facts"] == "95% interval 0.500 to 0.875 · tick 0.250 · n 64 · accuracy kept 0.250"
    assert first["label"] == f"border: followed 0.750, {first['facts'].replace(' · ', ', ')}"
    assert absent["value"] == thing["value"] == "–" and absent["rate"] is None
    assert thing["label"] == "object: not measured at this look"
    assert second["rate"] == [0, 100], "a bar ends where it should, whatever a broken file says"
    assert second["whisker"] is None and second["tick"] is None
    assert second["facts"] == "accuracy kept 0.250 · step 1: 0.750"
    assert region["name"] == "salient region" and not region["apart"]
    assert last["name"] == "object" and last["apart"], "it should be followed, so it stands apart"


def test_looks_at_which_nothing_was_measured_are_gaps(tmp_path: Path) -> None:
    rates = {1: 0.5, 2: None, 3: 0.25, 4: 0.5, 5: None, 6: 1.0}
    looks = {step: look_with(step, **({} if rate is None else border(rate))) for step, rate in rates.items()}
    page = build_page([small_run("run", looks)], tmp_path / "page.html")
    found = visit(page, SHOWN + "slide(1); return shown();")
    (line,) = found["lines"]
    assert re.sub(r"[^ML]", "", line) == "MMLM" and found["dots"] == 2
    assert found["rows"][0]["value"] == "–"
    assert found["chart"] == "Follow rates from step 1 to 6; at step 2: border –"
    charts = """return all("#ours .chart").map((e) => [...e.querySelectorAll("b, path")]
        .map((part) => part.textContent && part.getAttribute("d") || part.textContent));"""
    for value, path in visit(page, "slide(1);" + charts):
        assert value == "–" and re.sub(r"[^ML]", "", path) == "MMLM", "no score of another look in its place"


def test_nothing_is_shown_where_no_property_was_exchanged(tmp_path: Path) -> None:
    looks = {step: look_with(step, energy=0.5, background_swap_accuracy=0.5, accuracy=1) for step in (1, 2)}
    page = build_page([small_run("run", looks)], tmp_path / "page.html")
    found = visit(page, SHOWN + "return shown();")
    assert found["hidden"] and found["rows"] == [] and found["lines"] == []


def test_of_several_monitors_each_shows_its_own(tmp_path: Path) -> None:
    run = small_run("run", {1: look_with(1, **border(0.5))})
    run.monitors |= small_run("run", {1: look_with(1, energy=0.5)}, prefix="other").monitors
    page = build_page([run], tmp_path / "page.html")
    found = visit(page, SHOWN + 'const one = shown(); set("monitor", "0:1"); return [one, shown()];')
    assert [each["hidden"] for each in found] == [False, True]
    assert found[0]["lines"] == [], "one look makes no curve"


def test_a_rate_and_what_it_is_compared_with_share_a_chart_and_a_row(tmp_path: Path) -> None:
    scores = border(0.75, border_follow_chance=0.125, border_same_class_follow_rate=0.25)
    scores["border_same_class_accuracy"] = 0.5
    page = build_page(
        [small_run("run", {step: look_with(step, **scores) for step in (1, 2)})], tmp_path / "page.html"
    )
    found = visit(
        page,
        """const words = (e, what) => [...e.querySelectorAll(what)].map((each) => each.textContent);
        return { charts: all("#ours .chart").map((e) => words(e, "figcaption span, p")),
          rows: all("#scores tbody tr").map((row) => [...row.children].map((e) => e.textContent)) };""",
    )
    assert found["charts"] == [
        ["border_swap_accuracy", "··· a donor of the same class"],
        ["border_follow_rate", "- - chance, ··· a donor of the same class"],
    ]
    (row,) = [each for each in found["rows"] if each[0] == "border_follow_rate"]
    assert row[1] == "0.750" and row[4] == "0.125"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, float]]]:
    root = tmp_path_factory.mktemp("follows")
    monitor = SaliencyMonitor(num_samples=8, checks=["color", "spectrum", "border"], on_error="raise")
    loggers = [ReportLogger(root / "report"), CSVLogger(root / "files", name="", version="")]
    toy_trainer(root, monitor, logger=loggers).fit(Toy(), toy_loader(32), toy_loader())
    shutil.rmtree(root / "files" / "report_data", ignore_errors=True)
    return root, monitor.history


def test_a_training_shows_what_its_predictions_follow(trained: tuple[Path, list[dict[str, float]]]) -> None:
    """The images are grey: they have no colour, and the page does not speak of it."""
    root, history = trained
    path = root / "report" / "report.html"
    looks = Page(path).data["runs"][0]["monitors"][0]["looks"]
    found = visit(path, SHOWN + "const last = shown(); slide(0); return [shown(), last];")
    for row, look, seen in zip(history, looks, found, strict=True):
        assert [each["name"] for each in seen["rows"]] == ["spectrum", "border"]
        for each in seen["rows"]:
            rate = row[f"{each['name']}_follow_rate"]
            low, high = look["measured"][f"{each['name']}_follow_rate"][2:]
            assert float(each["value"]) == pytest.approx(rate, abs=6e-4)
            assert each["rate"] == pytest.approx([0, 100 * rate], abs=0.01)
            assert each["whisker"] == pytest.approx([100 * low, 100 * (high - low)], abs=0.01)
            assert "n 8" in each["facts"] and each["tick"] is not None
    assert len(found[1]["lines"]) == 2 and all(line.count("L") == 1 for line in found[1]["lines"])


def test_a_page_of_files_shows_it_without_intervals(trained: tuple[Path, list[dict[str, float]]]) -> None:
    root, history = trained
    page = build_page([read_run(root / "files")], root / "of_files.html")
    found = visit(page, SHOWN + "return shown();")
    for each in found["rows"]:
        assert float(each["value"]) == pytest.approx(history[-1][f"{each['name']}_follow_rate"], abs=6e-4)
        assert each["whisker"] is None and each["tick"] is not None and "interval" not in each["facts"]
    assert [each["name"] for each in found["rows"]] == ["spectrum", "border"]
