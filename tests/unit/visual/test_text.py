"""Words stay in their area, and no class name makes a training stop."""

import pytest
from PIL import Image, ImageFont

from lightning_gcam.visual import drawing as text
from lightning_gcam.visual.drawing import fit, load_font, write

AWKWARD = [
    "",
    "日本語のクラス",
    "Ибис",
    "🐈 cat",
    "a\nb\tc",
    "\ud800 lone",
    "Z" + "\u0351\u036b\u0343" * 20 + "a",
    "\x00\x07",
    "ﷺ" * 50,
    "x" * 5000,
]


@pytest.fixture(params=["truetype", "bitmap"])
def any_font(request, monkeypatch):
    if request.param == "bitmap":
        monkeypatch.setattr(text, "load_font", lambda size, bold=False: ImageFont.load_default_imagefont())
    return text.load_font(14)


def test_the_font_is_the_one_matplotlib_ships():
    assert load_font(14).getname() == ("DejaVu Sans", "Book")
    assert load_font(14, bold=True).getname() == ("DejaVu Sans", "Bold")


def test_a_font_that_is_not_there_is_replaced(monkeypatch):
    truetype = ImageFont.truetype

    def missing(font, *args, **kwargs):
        if isinstance(font, str):
            raise OSError("cannot open resource")
        return truetype(font, *args, **kwargs)

    monkeypatch.setattr(ImageFont, "truetype", missing)
    font = load_font.__wrapped__(14)
    assert font.getname()[0] != "DejaVu Sans" and font.getlength("true 7") > 20


@pytest.mark.parametrize("words", AWKWARD)
def test_awkward_words_stay_in_their_box(words, any_font):
    canvas = Image.new("RGB", (200, 60))
    assert write(canvas, (20, 20, 120, 40), words, 14, (255, 255, 255), center=True) <= 120
    canvas.paste((0, 0, 0), (20, 20, 120, 40))
    assert canvas.getbbox() is None


def test_fits_as_it_is():
    assert fit("true 7 · predicted 3 (0.81)", load_font(12), 400) == "true 7 · predicted 3 (0.81)"


def test_both_halves_and_the_score_remain(any_font):
    words = fit("true " + "a" * 60 + " · predicted " + "b" * 80 + " (0.81)", any_font, 250)
    true, predicted = words.split(" · ")
    assert true.startswith("true a") and predicted.startswith("predicted b") and predicted.endswith(" (0.81)")
    assert 180 < any_font.getlength(words) <= 250


def test_too_narrow_for_a_letter():
    assert fit("word", load_font(14), 3) == ""
