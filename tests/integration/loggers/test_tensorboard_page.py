"""What a person sees: a real TensorBoard server on this machine, its page in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_gcam import SaliencyMonitor
from lightning_gcam.loggers import log_alert
from tests.integration.loggers.test_custom_scalars import Judged
from tests.support.browser import CHROMIUM, Browser
from tests.support.tensorboard_page import IMAGES, Server
from tests.support.toys import LIGHTNING_SAYS, decoded, toy_loader, toy_trainer
from tests.unit.loggers.test_alerts import ALERT, PARTS

pytestmark = [
    *LIGHTNING_SAYS,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]

TAGS = [
    "saliency/exchanges",
    "saliency/overlay",
    *(f"saliency/sample/{number}" for number in range(4)),
    "second/overlay",
]

CHECKS = ["background_only_accuracy", "object_only_accuracy", "background"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("board")
    logger = TensorBoardLogger(root, version=0)
    monitors = [
        SaliencyMonitor(num_samples=4, sample_images=True, checks=CHECKS, on_error="raise"),
        SaliencyMonitor(num_samples=2, log_prefix="second", checks=[], on_error="raise"),
    ]
    trainer = toy_trainer(root, *monitors, logger=logger, max_epochs=3)
    trainer.fit(Judged(), toy_loader(32), toy_loader())
    log_alert(logger, {**ALERT, **PARTS})
    logger.experiment.close()
    try:
        running = Server(root)
    except RuntimeError as error:
        if "No module named 'pkg_resources'" in str(error):
            pytest.skip("this TensorBoard's server needs pkg_resources, which setuptools no longer ships")
        raise
    with running:
        yield running


@pytest.fixture(scope="module")
def browser(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as page:
        yield page
        strangers = {url for url in page.asked if not url.startswith((server.address, "data:", "blob:"))}
        assert strangers == set(), "nobody else is asked for anything"
        assert page.said == [], "no error reaches the console"


def test_the_images_are_there_and_the_slider_moves_through_the_looks(
    server: Server, browser: Browser, tmp_path: Path
) -> None:
    browser.open(f"{server.address}#images")
    browser.wait(f"{IMAGES}.length === {len(TAGS)}")
    words = browser.run("return words()")
    assert all(tag in words for tag in TAGS)

    steps = "return deep('tf-image-loader').map((e) => Number(words(e).match(/step\\s+(\\d+)/)[1]))"
    source = f"{IMAGES}[1].src"
    assert browser.run(steps) == [11] * len(TAGS)
    last = browser.run(source)
    browser.run("deep('paper-slider#steps')[1].focus()")
    browser.press("ArrowLeft", 37)
    browser.wait(f"return ({steps.removeprefix('return ')})[1] === 7")
    browser.wait(f"{source} !== {last!r}")
    assert browser.run(steps)[2:] == [11] * (len(TAGS) - 2), "each has a slider of its own"
    browser.run("deep('paper-slider#steps')[0].focus()")
    browser.press("ArrowLeft", 37)
    browser.wait(f"return ({steps.removeprefix('return ')})[0] === 3")  # of the first and the last look

    seen = decoded(browser.picture(tmp_path / "images.png"))
    assert len(np.unique(seen.reshape(-1, 3), axis=0)) > 500, "heat has many colours, an empty page few"


def test_accuracy_stands_beside_energy(server: Server, browser: Browser) -> None:
    browser.open(f"{server.address}#custom_scalars")
    browser.wait("return /Matches \\(3\\)/.test(words())")
    words = browser.run("return words()")
    for title in (
        "accuracy",
        "energy in the object",
        "accuracy without the object, or with the object alone",
        "what the prediction follows",
        "accuracy with a property of another class",
    ):
        assert words.count(f"\n{title}\n") + words.count(f" {title}\n") >= 1
    tops = browser.run(
        "return deep('tf-custom-scalar-multi-line-chart-card').map((e) => e.getBoundingClientRect().y)"
    )
    assert tops[0] == tops[1], "side by side"
    assert [int(n) for n in browser.run("return words().match(/(?<=Matches \\()\\d+/g)")][:5] == [
        3,
        2,
        3,
        1,
        2,
    ]


def test_the_alarm_is_a_text(server: Server, browser: Browser) -> None:
    browser.open(f"{server.address}#text")
    browser.wait(f"return deep('h3').some((e) => e.textContent === {PARTS['headline']!r})")
    cells = browser.run("return deep('td').map((e) => e.textContent)")
    at = cells.index("[0.50, 0.90]")
    assert cells[at - 2 : at + 3] == ["accuracy", "0.75", "[0.50, 0.90]", "16", ""]
    assert PARTS["advice"][0] in browser.run("return deep('li').map((e) => e.textContent)")


def test_only_this_machine_was_asked(server: Server, browser: Browser) -> None:
    hosts = {urlparse(url).hostname for url in browser.asked if url.startswith("http")}
    assert hosts == {"127.0.0.1"}
    assert browser.said == []
