"""The page as an HTML parser reads it: all looks, nothing from anywhere, nothing of the data as markup."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lightning_gcam.report import Run, build_page
from tests.support.pages import EVIL, Page, write_report


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("page") / "run <b>1").report_path


def test_every_look_and_every_sample_is_on_it(page_path: Path) -> None:
    page = Page(page_path)
    (run,) = page.data["runs"]
    (monitor,) = run["monitors"]
    assert page.steps() == [3, 7, 11, 15]
    assert len(monitor["samples"]) == 8
    assert all(len(look["samples"]) == 8 for look in monitor["looks"])
    assert run["curves"]["val_acc"] == [[3, 7, 11, 15], [0.15, 0.35, 0.55, 0.75]]
    assert run["alerts"][0]["step"] == 7


def test_nothing_is_loaded_from_anywhere(page_path: Path) -> None:
    text, page = page_path.read_text(encoding="utf-8"), Page(page_path)
    assert [each for each in page.loads if not each.startswith(("data:", "#"))] == []
    assert "default-src 'none'" in text
    for word in ("fetch(", "XMLHttpRequest", "import(", "@import", "url(http", "WebSocket", "sendBeacon"):
        assert word not in text
    assert set(re.findall(r"https?://[^\"'\s<]+", text)) <= {"http://www.w3.org/2000/svg"}


def test_what_came_from_data_is_no_markup(page_path: Path) -> None:
    text, page = page_path.read_text(encoding="utf-8"), Page(page_path)
    assert page.tags.count("script") == 2
    assert "img" not in page.tags and "i" not in page.tags
    assert text.count("</script>") == 2
    assert page.texts["h1"] == "run <b>1"
    assert page.data["runs"][0]["monitors"][0]["samples"][0]["classes"] == [EVIL[0]]
    assert page.data["runs"][0]["hyperparameters"]["network"] == "<b>toy</b>"


def test_the_script_puts_no_markup_in(page_path: Path) -> None:
    text = page_path.read_text(encoding="utf-8")
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert word not in text


def test_a_page_without_a_look_says_so_rather_than_break(tmp_path: Path) -> None:
    page = Page(build_page([Run("empty")], tmp_path / "report.html"))
    assert page.data == {
        "runs": [{"name": "empty", "hyperparameters": {}, "alerts": [], "curves": {}, "monitors": []}]
    }


def test_a_page_that_cannot_be_finished_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = build_page([Run("first")], tmp_path / "report.html")

    def fails(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("lightning_gcam.report.page.thin_curve", fails)
    broken = Run("second", curves={"loss": {1: 0.5}})
    with pytest.raises(OSError, match="disk full"):
        build_page([broken], path)
    assert Page(path).data["runs"][0]["name"] == "first"


def test_every_field_has_a_name_for_those_who_cannot_see_it(page_path: Path) -> None:
    text = page_path.read_text(encoding="utf-8")
    for control in re.findall(r"<(?:select|input)[^>]*>", text):
        assert "aria-label" in control or re.search(r"<label[^>]*>[^<]*" + re.escape(control), text), control
