"""The documentation site, built as `make docs` builds it: whole, strict, and without the network."""

from __future__ import annotations

import importlib
import os
import posixpath
import re
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.test_api import modules
from tests.support.browser import CHROMIUM, Browser

for package in ("mkdocs", "material", "mkdocstrings", "latex2mathml", "nbconvert"):
    pytest.importorskip(package, reason="the `docs` extra wants Python 3.11")

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NOT_DOCUMENTED = {"lightning_gcam.__version__", "lightning_gcam.utils.lightning_compat"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (build.returncode, build.stdout, build.stderr) == (0, "", "")
    return folder


class Page(HTMLParser):
    """The ids of a page, where it leads to, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given["id"]} if "id" in given else set()
        if tag == "a":
            self.links |= {given["href"]} if "href" in given else set()
        elif not (tag == "link" and given.get("rel") in ("canonical", "prev", "next")):
            self.loaded |= {
                given[each] for each in ("href", "src", "srcset", "data", "poster") if each in given
            }


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return {path.relative_to(site).as_posix(): Page(path) for path in sorted(site.rglob("*.html"))}


class Target(NamedTuple):
    path: str
    anchor: str


def target_of(address: str, page: str) -> Target:
    """The file that an address leads to from a page, from the site's root."""
    parts = urlsplit(address)
    return Target(
        posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(parts.path)))
        if parts.path
        else page,
        unquote(parts.fragment),
    )


def home_of(found: Any) -> str:
    """Where a class or function is defined."""
    return f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    *_, listed = (site / "objects.inv").read_bytes().split(b"\n", 4)
    documented = {line.split(" ")[0] for line in zlib.decompress(listed).decode().splitlines()}

    public = [
        {f"{room}.{name}", home_of(getattr(importlib.import_module(room), name))}
        for room in modules()
        for name in getattr(importlib.import_module(room), "__all__", ())
        if not {room, f"{room}.{name}"} & NOT_DOCUMENTED
    ]

    assert len(public) > 150
    assert [names for names in public if not names & documented] == []


def test_no_page_loads_anything_from_elsewhere(site: Path, pages: dict[str, Page]) -> None:
    loaded = {address for page in pages.values() for address in page.loaded}
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))

    assert len(loaded) > 10
    assert [each for each in loaded if urlsplit(each).netloc] == []
    assert re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//[^)]*", styles) == []


def test_every_link_leads_somewhere(site: Path, pages: dict[str, Page]) -> None:
    broken = []
    for name, page in pages.items():
        if name == "404.html":
            continue  # it may be shown anywhere, so its addresses are absolute
        for address in page.links | page.loaded:
            if urlsplit(address).scheme:
                continue
            path, anchor = target_of(address, name)
            there = (site / path).is_file() and (not anchor or path not in pages or anchor in pages[path].ids)
            broken += [] if there or anchor == "__skip" else [f"{name}: {address}"]

    assert sorted(broken) == []


def test_links_out_of_the_docs_lead_to_files_that_are_there(pages: dict[str, Page]) -> None:
    (repository,) = re.findall(r'^repository-code: "(.*)"$', (ROOT / "CITATION.cff").read_text(), flags=re.M)
    links = {link for page in pages.values() for link in page.links if link.startswith(repository + "/blob/")}
    paths = [urlsplit(link).path.partition("/blob/main/")[2] for link in links]

    assert len(paths) > 100
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_names_in_the_text_are_links_to_the_reference(site: Path) -> None:
    page = (site / "reference" / "callbacks.html").read_text(encoding="utf-8")

    assert 'href="cam.html#lightning_gcam.cam.available_methods"><code>available_methods</code></a>' in page


def test_formulas_are_drawn_without_a_script(site: Path) -> None:
    page = (site / "method.html").read_text(encoding="utf-8")

    assert '<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">' in page
    assert "\\sum" not in page and 'class="arithmatex"' not in page


def test_the_command_prints_its_help(site: Path) -> None:
    page = (site / "reference" / "command.html").read_text(encoding="utf-8")

    for command in ("report", "strip", "evaluate"):
        assert f"usage: lightning-gcam {command} [-h]" in page


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_page_opened_from_the_disk_is_searched_and_loads_only_what_lies_beside_it(
    site: Path, tmp_path: Path
) -> None:
    with Browser(tmp_path) as browser:
        browser.open((site / "reference" / "metrics.html").as_uri())
        browser.wait(
            "return document.querySelector('[data-md-component=search-query]')?.form.hidden === false"
        )
        browser.run(
            "const box = document.querySelector('[data-md-component=search-query]');"
            "document.querySelector('label[for=__search]').click();"
            "box.focus(); box.value = 'pointing'; box.dispatchEvent(new Event('input'));"
            "box.dispatchEvent(new KeyboardEvent('keyup'));"
        )
        found = browser.wait("return document.querySelector('.md-search-result__list')?.innerText")

        assert "PointingGame" in found
        assert {urlsplit(address).scheme for address in browser.asked} <= {"file", "data"}
        assert browser.said == []


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_no_page_is_wider_than_a_telephone(pages: dict[str, Page], site: Path, tmp_path: Path) -> None:
    telephone = {"width": 400, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    with Browser(tmp_path) as browser:
        browser.call("Emulation.setDeviceMetricsOverride", **telephone)
        widths = {}
        for name in pages:
            browser.open((site / name).as_uri())
            browser.wait("return document.readyState === 'complete'")
            widths[name] = browser.run("return document.documentElement.scrollWidth")

        assert {name: width for name, width in widths.items() if width > 400} == {}
