"""Volumes, videos and signals on the page, in a real browser: the slider through the slices, and the band."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_gcam import SaliencyBatch, SaliencyRecord
from lightning_gcam.loggers import ReportLogger
from lightning_gcam.pipeline.record import Stamp
from lightning_gcam.pipeline.run import record_saliency
from tests.support.browser import CHROMIUM, Browser
from tests.support.dimensions import CLASSES, network, signals, videos, volumes

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")

HELPERS = """
const all = (what) => [...document.querySelectorAll(what)], later = () => new Promise((done) => setTimeout(done, 60));
const send = (element, kind) => element.dispatchEvent(new Event(kind, { bubbles: true }));
const set = (id, value) => { document.getElementById(id).value = value; send(document.getElementById(id), "change"); };
const turn = (card, to) => { const range = all(".slices input")[card]; range.value = to; send(range, "input"); };
const label = (card) => all(".slices output")[card].textContent;
const tops = (card) => [...all(".card")[card].querySelectorAll(".sheet")].map((each) => each.style.top);
const middle = (element) => { const box = element.getBoundingClientRect(); return box.y + box.height / 2; };
const seen = (card) => {
  const frame = all(".card")[card].querySelector(".panel:last-child .frame"), box = frame.getBoundingClientRect();
  return [...frame.querySelectorAll(".ring")].some((ring) => middle(ring) > box.y && middle(ring) < box.bottom);
};
const canvas = (card) => all(".card")[card].querySelector("canvas");
const pixel = (card, x, y) => [...canvas(card).getContext("2d").getImageData(Math.floor(x), Math.floor(y), 1, 1).data];
"""


def act(browser: Browser, script: str) -> Any:
    """What a script that may use `HELPERS` returns."""
    return browser.run(HELPERS + script)


def record_of(kind: str, step: int) -> SaliencyRecord:
    images, labels, masks = {"signal": signals, "volume": volumes, "video": videos}[kind](4)
    torch.manual_seed(step)
    model = network(len(images.shape) - 2, images.shape[1], CLASSES).eval()
    batch = SaliencyBatch(images, labels % CLASSES, masks)
    stamp = Stamp(step, step // 4)
    return record_saliency(
        model, batch, methods=["layer_cam", "hires_cam"], checks=[], scores=["energy"], stamp=stamp
    )


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for kind in ("signal", "volume", "video"):
        logger = ReportLogger(tmp_path_factory.mktemp(kind))
        for step in (4, 8):
            logger.log_look(record_of(kind, step))
        logger.finalize("success")
        found[kind] = logger.report_path
    return found


def visit(browser: Browser, page: Path) -> None:
    browser.asked, browser.said = [], []
    browser.open(page.as_uri())
    browser.wait(
        "return document.documentElement?.dataset.ready && document.querySelectorAll('canvas').length === 4"
    )
    browser.wait("return [...document.querySelectorAll('canvas')].every((each) => each.width !== 300)")


def peaks_of(kind: str, step: int) -> list[int]:
    """The slice of each sample's peak."""
    maps = record_of(kind, step).attribution.maps["layer_cam"]
    return [int(torch.unravel_index(each.argmax(), each.shape)[0]) for each in maps]


@pytest.mark.parametrize(("kind", "word", "depth"), [("volume", "axial slice", 12), ("video", "frame", 8)])
def test_a_slider_goes_through_the_slices_and_stands_at_the_peak_first(
    browser: Browser, pages: dict[str, Path], kind: str, word: str, depth: int
) -> None:
    visit(browser, pages[kind])
    peaks = peaks_of(kind, 8)
    found = act(browser, "return [0, 1, 2, 3].map(label)")
    assert found == [f"{word} {peak + 1}/{depth} · peak" for peak in peaks]
    assert act(browser, "return [0, 1, 2, 3].map(seen)") == [True] * 4, "the ring is in its slice"
    away = 0 if peaks[0] else depth - 1
    moved = act(browser, f"turn(0, {away}); return [label(0), label(1), seen(0), seen(1)]")
    assert moved == [f"{word} {away + 1}/{depth}", f"{word} {peaks[1] + 1}/{depth} · peak", False, True]
    assert act(browser, "return tops(0)") == [f"{-100 * away}%"] * 2, "image and map turn together"
    assert browser.said == [] and [each for each in browser.asked if each.startswith("http")] == []


def test_a_slice_stays_when_the_look_changes_and_the_others_follow_the_peak(
    browser: Browser, pages: dict[str, Path]
) -> None:
    visit(browser, pages["volume"])
    act(browser, "turn(2, 1); document.getElementById('first').click(); await later()")
    found, peaks = act(browser, "return [0, 1, 2, 3].map(label)"), peaks_of("volume", 4)
    assert found[0] == f"axial slice {peaks[0] + 1}/12 · peak" and found[2].startswith("axial slice 2/12")


def test_the_arrow_keys_on_a_slider_are_its_own(browser: Browser, pages: dict[str, Path]) -> None:
    visit(browser, pages["volume"])
    act(browser, "turn(0, 5); all('.slices input')[0].focus()")
    browser.press("ArrowRight", 39)
    found = act(browser, "return [label(0).split(' · ')[0], document.getElementById('where').textContent]")
    assert found == ["axial slice 7/12", "look 2 of 2 · step 8 · epoch 2"]


@pytest.mark.parametrize(("how", "panels"), [("side", 3), ("difference", 2)])
def test_two_looks_turn_together(browser: Browser, pages: dict[str, Path], how: str, panels: int) -> None:
    visit(browser, pages["video"])
    act(browser, f"set('how', '{how}'); set('against', 'first'); await later(); turn(0, 3)")
    assert act(browser, "return tops(0)") == ["-300%"] * panels
    act(browser, "set('against', 'none')")
    assert browser.said == []


def test_the_band_of_a_signal_is_as_hot_as_its_map_and_the_curve_stays(
    browser: Browser, pages: dict[str, Path]
) -> None:
    visit(browser, pages["signal"])
    peaks = record_of("signal", 8).attribution.maps["layer_cam"].argmax(dim=1).tolist()
    for index, peak in enumerate(peaks):
        x, width, hot, above, ground = act(
            browser,
            f"""const {{ width, height, style }} = canvas({index}), ring = all(".card")[{index}].querySelector(".ring");
            const x = parseFloat(ring.style.left) / 100 * width, y = parseFloat(ring.style.top) / 100 * height;
            return [x, width, pixel({index}, x, y), pixel({index}, x, 10), style.background];""",
        )
        assert hot[0] > 200 and hot[3] == 255, "the brightest colour, at the peak"
        assert above[3] == 0 and ground.startswith('url("data:image/'), "the curve is seen"
        assert abs((x - 44) / (width - 54) - (peak + 0.5) / 187) < 0.01
    assert act(browser, "return all('.slices').length") == 0
    assert browser.said == []
