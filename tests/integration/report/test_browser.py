"""The page in a real browser: Chromium, headless, on the file itself; a script at its end does what a person would."""

from __future__ import annotations

import html
import json
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from lightning_gcam.report import Run, build_page, read_run
from lightning_gcam.report.reading import placeholder_sample
from tests.support.browser import Browser
from tests.support.pages import EVIL, write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here: apt-get install chromium")

HELPERS = """
const $ = (id) => document.getElementById(id), all = (what) => [...document.querySelectorAll(what)];
const set = (id, value) => { $(id).value = value; $(id).dispatchEvent(new Event("change", { bubbles: true })); };
const slide = (to) => { $("slider").value = to; $("slider").dispatchEvent(new Event("input", { bubbles: true })); };
const press = (key, on = document.body) => on.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
const where = () => $("where").textContent, titles = () => all(".card h3").map((each) => each.textContent);
const pixels = (canvas) => [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
const later = () => new Promise((done) => setTimeout(done, 60));
"""


def visit(page: Path, script: str, *options: str, width: int | None = None, fragment: str = "") -> Any:
    """What `script`, the body of an async function, returns at the end of the page; no error may reach the console.

    With a `width` the page stands in a frame: a window has a least width, which is more than a phone's.
    """
    acting = page.with_name("acting.html")
    wrapped = (
        f"<script>{HELPERS}(async () => {{ await later(); {script} }})()"
        ".catch((error) => ({ failed: String(error) })).then((found) => { const said = document.createElement('pre');"
        "said.id = 'found'; said.textContent = JSON.stringify(found); document.body.append(said);"
        "parent.postMessage(said.textContent, '*'); });</script></body>"
    )
    acting.write_text(page.read_text(encoding="utf-8").replace("</body>", wrapped), encoding="utf-8")
    if width is not None:
        acting = page.with_name("frame.html")
        acting.write_text(
            f"<iframe src='acting.html' style='width:{width}px;height:800px;border:0'></iframe><pre id='found'></pre>"
            "<script>onmessage = (e) => { document.getElementById('found').textContent = e.data; };</script>",
            encoding="utf-8",
        )
    command = [
        str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr",
        f"--user-data-dir={page.parent / 'profile'}", "--virtual-time-budget=8000", "--window-size=1200,900",
        *options, "--dump-dom", acting.as_uri() + fragment,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, flags=re.S)
    assert found is not None, done.stdout[-2000:]
    return json.loads(html.unescape(found[1]))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("browser") / "run"
    return write_report(
        directory, methods=["guidance_cam", "grad_cam"], checks=["spectrum", "border"]
    ).report_path


def test_it_opens_at_the_last_look_and_asks_nobody_for_anything(page: Path) -> None:
    found = visit(
        page,
        """return { where: where(), cards: all(".card").length, drawn: all("canvas").map((c) => c.width),
        asked: performance.getEntriesByType("resource").map((e) => e.name).filter((n) => !n.startsWith("data:")),
        evil: all("i, b b, .card script, .card img[onerror]").length,
        titles: titles(), heading: $("alerts").textContent };""",
    )
    assert found["where"] == "look 4 of 4 · step 15 · epoch 3"
    assert found["cards"] == 8 and found["drawn"] == [16] * 8
    assert found["asked"] == [] and found["evil"] == 0
    assert EVIL[0] in found["titles"][0]
    assert "<i>so</i>" in found["heading"]


def test_slider_and_keys_move_through_the_looks_and_cards_stay(page: Path) -> None:
    found = visit(
        page,
        """const before = titles().map((t) => t.split(" · ")[0].slice(2)), steps = [];
        slide(0); steps.push(where()); await later(); const drawn = pixels(all("canvas")[0]);
        press("ArrowRight"); steps.push(where()); press("ArrowLeft"); press("ArrowLeft"); steps.push(where());
        press("End"); steps.push(where()); press("Home"); steps.push(where());
        $("last").click(); steps.push(where()); await later();
        press("ArrowLeft", $("sort")); steps.push(where());
        return { steps, same: String(before) === String(titles().map((t) => t.split(" · ")[0].slice(2))),
          changed: String(drawn) !== String(pixels(all("canvas")[0])), marks: all(".chart .now").length };""",
    )
    order = [re.search(r"look (\d)", each)[1] for each in found["steps"]]  # type: ignore[index]
    assert order == ["1", "2", "1", "4", "1", "4", "4"], "a key in a menu belongs to the menu"
    assert found["same"] and found["changed"] and found["marks"] > 4


def test_the_heat_is_the_packages_own(page: Path) -> None:
    """The canvas and `visual.overlay` agree to a step of rounding, at a size where no map was shrunk."""
    from lightning_gcam.visual import overlay, to_display
    from tests.support.pages import record_at

    record = record_at(15, methods=["guidance_cam", "grad_cam"])
    mine = overlay(to_display(record.batch.images), record.attribution.maps["guidance_cam"])[0].permute(
        1, 2, 0
    )
    theirs = visit(page, 'return pixels(all("canvas")[0]);')
    got = [theirs[i : i + 3] for i in range(0, len(theirs), 4)]
    differences = [
        abs(a - b)
        for x, y in zip(got, mine.reshape(-1, 3).tolist(), strict=True)
        for a, b in zip(x, y, strict=True)
    ]
    assert (
        sum(differences) / len(differences) < 1.5 and max(differences) < 12
    )  # a byte a cell, against a float


def test_filters_and_orders(page: Path) -> None:
    found = visit(
        page,
        """const out = {}; slide(3);
        set("class", $("class").options[1].value); out.one = titles();
        set("class", "");
        set("right", "wrong"); out.wrong = all(".card").length; out.crosses = all(".card.wrong").length;
        set("right", "right"); out.right = all(".card").length; set("right", "");
        set("sort", "-energy");
        out.energies = all(".card .facts b:first-of-type").map((b) => Number(b.textContent));
        out.words = $("count").textContent; slide(0); out.kept = titles().length;
        set("sort", "change"); out.order = $("count").textContent; set("method", "grad_cam"); await later();
        out.method = all(".panel canvas")[0].getAttribute("aria-label"); return out;""",
    )
    assert len(found["one"]) == 2
    assert found["wrong"] == found["crosses"] and found["wrong"] + found["right"] == 8
    assert found["energies"] == sorted(found["energies"], reverse=True) and len(found["energies"]) == 8
    assert "as of step 15" in found["words"] and found["kept"] == 8
    assert "compared with" in found["order"]
    assert found["method"].startswith("grad_cam map: peak")


def test_two_looks_side_by_side_and_as_a_difference(page: Path) -> None:
    found = visit(
        page,
        """set("against", "first"); await later();
        const out = { side: all("canvas").length, words: $("cards").textContent };
        set("how", "difference"); await later(); out.difference = all("canvas").length;
        $("first").click(); await later(); const still = pixels(all("canvas")[0]);
        out.grey = still.every((v, i) => i % 4 === 3 || v === still[i - (i % 4)]); return out;""",
    )
    assert found["side"] == 16 and "step 3: peak" in found["words"]
    assert found["difference"] == 8
    assert found["grey"], "a look differs from itself in nothing"


def test_two_runs(page: Path, tmp_path: Path) -> None:
    other = write_report(tmp_path / "other", range(3, 8, 4)).report_path
    both = build_page([read_run(page), read_run(other)], tmp_path / "both.html")
    found = visit(
        both,
        """await later(); return { where: where(), canvases: all("canvas").length, words: $("cards").textContent,
        lines: all(".curve.other").length, names: $("pair").textContent,
        count: $("count").textContent, chosen: $("against").selectedOptions[0].textContent };""",
    )
    assert found["where"].startswith("run · look 4 of 4")
    assert found["canvases"] == 16 and "other, step 7" in found["words"]
    assert found["lines"] > 2 and found["chosen"] == "run other" and found["names"] == "runother"
    assert "other samples" not in found["count"]


def test_two_runs_that_looked_at_other_samples_are_not_passed_off_as_one(page: Path, tmp_path: Path) -> None:
    other = write_report(tmp_path / "other", range(3, 4), seed=5).report_path
    both = build_page([read_run(page), read_run(other)], tmp_path / "both.html")
    assert "other samples" in visit(both, 'return $("count").textContent;')


def test_blank_maps_say_so_and_show_no_heat(tmp_path: Path) -> None:
    logger = write_report(tmp_path / "run", range(3, 4))
    look = next(tmp_path.rglob("look-*.json"))
    plain = json.loads(look.read_text())
    plain["samples"][0]["maps"]["guidance_cam"][1] = 0
    plain["samples"][1]["maps"]["guidance_cam"][1] = None
    look.write_text(json.dumps(plain))
    found = visit(
        build_page([read_run(logger.report_path)], tmp_path / "page.html"),
        """await later(); const still = pixels(all("canvas")[0]);
        return { words: all(".blank").map((e) => e.textContent), rings: all(".ring").length,
        grey: still.every((v, i) => i % 4 === 3 || v === still[i - (i % 4)]),
        captions: all(".card figcaption").map((e) => e.textContent) };""",
    )
    assert found["words"] == ["blank", "not finite"] and found["rings"] == 6
    assert found["grey"]
    assert found["captions"][1] == "blank" and found["captions"][5].startswith("peak ")


CONTRAST = """
const parse = (c) => c.match(/[\\d.]+/g).map(Number), light = (c) => { const [r, g, b] = parse(c).map((v) => { v /= 255;
  return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const ground = (e) => {
  for (; e; e = e.parentElement) {
    const color = getComputedStyle(e).backgroundColor, parts = parse(color);
    if (parts.length < 4 || parts[3] > 0.99) return color;
  }
  return "rgb(255,255,255)";
};
const ratio = (e) => {
  const a = light(getComputedStyle(e).color), b = light(ground(e));
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
};
const worded = "h1, h2, h3, p, span," +
  " label, button, b, td, th, dt, dd, summary, output, kbd, figcaption, select, strong";
const worst = () => Math.min(
  ...all(worded).filter((e) => e.textContent.trim() && e.getClientRects().length).map(ratio));
"""


def test_light_and_dark_and_each_has_contrast_enough(page: Path) -> None:
    script = CONTRAST + (
        "const body = () => light(getComputedStyle(document.body).backgroundColor);"
        "localStorage.clear(); await later();"
        'const out = [[body(), worst()]]; $("theme").click(); out.push([body(), worst()]); return out;'
    )
    for option, first_is_light in (
        ("--blink-settings=preferredColorScheme=1", True),
        ("--blink-settings=preferredColorScheme=0", False),
    ):
        (first, first_contrast), (second, second_contrast) = visit(page, script, option)
        assert (first > 0.5) is first_is_light and (second > 0.5) is not first_is_light
        assert min(first_contrast, second_contrast) >= 4.5  # WCAG 2.1, AA


def test_the_keyboard_reaches_every_control_and_is_seen_there(page: Path) -> None:
    found = visit(
        page,
        """const seen = (e) => e.getClientRects().length && !e.disabled;
        const reach = all("a[href], button, select, input, summary, [tabindex='0']").filter(seen);
        const missed = reach.filter((e) => {
          e.focus({ focusVisible: true });
          const style = getComputedStyle(e).outlineStyle;
          return document.activeElement !== e || e.tabIndex < 0 || style === "none";
        });
        const named = (e) => e.getAttribute("aria-label") || e.textContent.trim() || (e.labels && e.labels.length);
        return { missed: missed.map((e) => e.outerHTML.slice(0, 80)), count: reach.length,
          unnamed: all("button, select, input").filter((e) => seen(e) && !named(e)).length,
          noalt: all("img:not([alt]), canvas:not([aria-label]), svg[role=img]:not([aria-label])").length };""",
    )
    assert found["missed"] == [] and found["count"] > 15
    assert found["unnamed"] == 0 and found["noalt"] == 0


@pytest.mark.parametrize("width", [360, 800, 1900])
def test_from_a_phone_to_a_wide_screen_nothing_sticks_out(page: Path, width: int) -> None:
    found = visit(
        page,
        """set("against", "first"); await later();
        const wide = document.documentElement.clientWidth;
        const beyond = (e) => !e.closest(".scroll, svg") && e.getBoundingClientRect().right > wide + 1;
        return { wide, scroll: document.documentElement.scrollWidth,
          out: all("main *").filter(beyond).map((e) => e.outerHTML.slice(0, 60)) };""",
        width=width,
    )
    assert found["wide"] == width
    assert found["scroll"] <= width and found["out"] == []


NATIVE = [
    "constructor",
    "toString",
    "hasOwnProperty",
    "valueOf",
    "__proto__",
    "isPrototypeOf",
    "length",
    "name",
]
"""What every object of JavaScript has already."""


def small_look(step: int, samples: int = 2, caption: str = "true a", **scores: float) -> str:
    maps = {"grad_cam": ["AID/AA==", 1.0, 0.5, 0.5]}
    row = {"caption": caption, "right": step % 2 == 0, "scores": scores, "maps": maps}
    return json.dumps({"step": step, "size": [2, 2], "scores": scores, "samples": [row] * samples})


def small_run(name: str, looks: dict[int, str], samples: int = 2, prefix: str = "saliency") -> Run:
    run = Run(name)
    monitor = run.monitor(prefix)
    monitor.samples, monitor.looks = json.dumps([placeholder_sample()] * samples), looks
    return run


def test_a_metric_may_have_any_name(tmp_path: Path) -> None:
    """As a curve, as a score of looks at which others lack it, as a method, a class, a prefix and a hyperparameter."""
    looks = {step: small_look(step) for step in (1, 2)} | {3: small_look(3, **dict.fromkeys(NATIVE, 0.25))}
    run = small_run("run", {step: look.replace("grad_cam", "constructor") for step, look in looks.items()})
    run.monitors["saliency"].samples = json.dumps([{**placeholder_sample(), "classes": ["toString"]}] * 2)
    run.curves = {name: {1: 0.5, 2: 0.75} for name in NATIVE}
    run.hyperparameters = dict.fromkeys(NATIVE, "0.1")
    other = small_run("constructor", {1: small_look(1)}, prefix="constructor")
    found = visit(
        build_page([run, other], tmp_path / "page.html"),
        """await later(); const names = (id) => all(id + " figcaption span").map((e) => e.textContent).sort();
        const value = (e) => e.querySelector("figcaption b").textContent;
        const out = { own: names("#own"), ours: names("#ours"), values: all("#own .chart").map(value),
          rows: all("#scores tbody tr").map((row) => [...row.children].map((e) => e.textContent)),
          hyper: all("#hyperparameters dt").length, sorts: [] };
        for (const { value } of [...$("sort").options]) { set("sort", value); out.sorts.push(value); }
        set("against", "first"); set("sort", "+constructor"); slide(0); slide(2); await later();
        out.change = all("#scores tbody tr").map((row) => row.lastChild.textContent);
        out.cards = all(".card").length; out.drawn = all("canvas").map((c) => c.width); return out;""",
    )
    assert found["own"] == found["ours"] == sorted(NATIVE)
    assert found["values"] == ["0.750"] * len(NATIVE), "each curve at the last look"
    cells = ["0.250", "–", "–", "–", "–", "–"]
    assert sorted(found["rows"]) == [[name, *cells] for name in sorted(NATIVE)]
    assert found["change"] == ["–"] * len(NATIVE), "the first look has none of them"
    assert found["hyper"] == len(NATIVE) and "-valueOf" in found["sorts"]
    assert found["cards"] == 2 and found["drawn"] == [64] * 4


STRANGE: list[Any] = [
    {"run": 5},
    {"run": 5, "monitor": 0, "look": 0, "against": "run:1"},
    {"run": 0, "monitor": 7, "look": 0},
    {"run": 0, "monitor": 0, "look": 99, "against": "look:99"},
    {"run": 0, "monitor": 0, "look": 0.5, "against": "run:5"},
    {"run": "0", "monitor": "0", "look": "0", "against": {"a": 1}},
    {"run": "constructor", "monitor": "length", "look": -7, "against": "constructor"},
    {"run": -1, "monitor": -1, "look": None, "against": "run:0"},
    [1, 2], None, 5, "words",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def shown_in(browser: Browser, address: str) -> dict[str, Any]:
    """What is seen when the address is opened in a page that showed something else before."""
    browser.open("about:blank")
    browser.open(address)
    return seen(browser)


def seen(browser: Browser) -> dict[str, Any]:
    browser.wait("return document.documentElement?.dataset.ready === 'yes'", patience=20)
    assert browser.said == []
    found: dict[str, Any] = browser.run(
        """const $ = (id) => document.getElementById(id);
        return { where: $("where").textContent, cards: document.querySelectorAll(".card, .wholes").length,
          charts: document.querySelectorAll(".chart").length, against: $("against").value };"""
    )
    return found


def reload(browser: Browser) -> None:
    browser.run("document.documentElement.dataset.ready = 'before';")
    browser.call("Page.reload")


def two_runs() -> list[Run]:
    return [
        small_run(name, {step: small_look(step, energy=step / 8) for step in (1, 2, 3)})
        for name in ("a", "b")
    ]


def test_a_fragment_that_names_nothing_shows_the_last_look(tmp_path: Path, browser: Browser) -> None:
    address = build_page(two_runs(), tmp_path / "page.html").as_uri()
    fragments = [quote(json.dumps(each)) for each in STRANGE] + ["%", "samples", "%7B%22run%22", ""]
    for fragment in fragments:
        found = shown_in(browser, f"{address}#{fragment}")
        expected = {"where": "a · look 3 of 3 · step 3", "cards": 2, "charts": 1, "against": "run:1"}
        assert found == expected, fragment
    kept = {"run": 1, "monitor": 0, "look": 1, "against": "previous"}
    found = shown_in(browser, f"{address}#{quote(json.dumps(kept))}")
    assert (found["where"], found["against"]) == ("b · look 2 of 3 · step 2", "previous"), (
        "what is there is kept"
    )


def test_a_page_built_again_with_less_is_reloaded(tmp_path: Path, browser: Browser) -> None:
    runs = two_runs()
    page = build_page([*runs, small_run("c", {9: small_look(9)})], tmp_path / "page.html")
    found = shown_in(
        browser, f"{page.as_uri()}#{quote(json.dumps({'run': 0, 'monitor': 0, 'against': 'run:2'}))}"
    )
    assert found["against"] == "run:2"
    build_page(runs, page)
    reload(browser)
    assert seen(browser)["against"] == "run:1"
    build_page(runs[:1], page)
    reload(browser)
    assert seen(browser) == {"where": "look 3 of 3 · step 3", "cards": 2, "charts": 1, "against": "none"}


def test_of_several_runs_one_with_a_look_is_shown_first(tmp_path: Path, browser: Browser) -> None:
    curves = Run("curves", curves={"loss": {1: 0.5}})
    found = shown_in(browser, build_page([curves, *two_runs()], tmp_path / "page.html").as_uri())
    assert found["where"] == "a · look 3 of 3 · step 3" and found["against"] == "run:0"


def test_ten_thousand_looks_are_shown(tmp_path: Path, browser: Browser) -> None:
    """With 150,000 captions: a call of `Math.max` takes fewer arguments."""
    words = {5: small_look(5, 15, "x" * 43), 7: small_look(7, 15, "xxx")}
    words = {step: text.replace('"right": false', '"right": null') for step, text in words.items()}
    looks = {
        step: words.get(step, words[7].replace('"step": 7', f'"step": {step}')) for step in range(10_000)
    }
    found = shown_in(browser, build_page([small_run("run", looks, 15)], tmp_path / "page.html").as_uri())
    assert found["where"] == "look 10000 of 10000 · step 9,999" and found["cards"] == 15
    assert (
        browser.run('return document.getElementById("cards").style.getPropertyValue("--caption")') == "2.9em"
    )


def test_what_is_left_of_broken_directories_is_drawn(tmp_path: Path, page: Path, browser: Browser) -> None:
    """Whatever `read_run` lets through is shown without an error: values are exchanged at random places."""
    chance = random.Random(0)
    drawn = 0
    for number in range(15):
        run = shutil.copytree(page.parent / "report_data", tmp_path / f"run{number}" / "report_data")
        for path in (each for each in run.rglob("*.json") if each.name != "run.json"):
            plain = json.loads(path.read_text())
            exchange(plain, chance)
            path.write_text(json.dumps(plain))
        read = read_run(run)
        if read.shows_something:
            found = shown_in(browser, build_page([read], tmp_path / f"{number}.html").as_uri())
            assert found["charts"] > 0 and found["cards"] in (0, 8)
            drawn += found["cards"] == 8
    assert drawn > 3


def exchange(plain: Any, chance: random.Random) -> None:
    """Put another value at one random place."""
    while isinstance(plain, dict | list) and plain:
        key = chance.choice(list(plain) if isinstance(plain, dict) else range(len(plain)))
        if not isinstance(plain[key], dict | list) or not plain[key] or chance.random() < 0.1:
            plain[key] = chance.choice([None, True, "words", "", 7, -1.5, [], {}, "AAAA", 0])
            return
        plain = plain[key]
