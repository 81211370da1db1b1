"""Words on the canvas: fonts that are always there, and text that stays inside its own area."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont
Box: TypeAlias = tuple[int, int, int, int]

_SEPARATOR = " · "


@lru_cache(maxsize=64)
def load_font(size: int, bold: bool = False) -> Font:
    """Load the DejaVu Sans that matplotlib brings along, or else Pillow's own font; never fail."""
    try:
        import matplotlib

        name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
        return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)
    except (ImportError, OSError):
        return _pillow_font(size)


def _pillow_font(size: int) -> Font:
    try:
        return ImageFont.load_default(size)
    except (ImportError, OSError):  # a Pillow without FreeType has its bitmap font left
        return ImageFont.load_default()


def write(
    canvas: Image.Image,
    box: Box,
    text: str,
    size: int,
    color: tuple[int, int, int],
    *,
    bold: bool = False,
    center: bool = False,
) -> int:
    """Write one line into `box` (left, top, right, bottom), and return where it ended.

    The line is shortened until it fits. It is drawn on a cut-out, so not even a stack of diacritics can reach
    beyond the box.
    """
    font = load_font(size, bold)
    line = fit(text, font, box[2] - box[0])
    length = _length(line, font)
    if not line:
        return box[0]
    tile = canvas.crop(box)
    left = max(0.0, (tile.width - length) / 2) if center else 0.0
    # the middle of an x, not of the box the letters fill: lines with and without a g stand at one height
    top = (tile.height - font.getbbox("Hg")[1] - font.getbbox("Hg")[3]) / 2
    ImageDraw.Draw(tile).text((round(left), round(top)), line, font=font, fill=color)
    canvas.paste(tile, box[:2])
    return box[0] + round(left + length)


def fit(text: str, font: Font, width: float) -> str:
    """Shorten a line to `width` pixels with an ellipsis.

    Parts joined by " · " give way in turn, the longest first, and a closing "(0.81)" stays: of
    "true x · predicted y (0.81)" both halves remain.
    """
    parts = _printable(text, font).split(_SEPARATOR)
    dots = _printable("…", font)
    heads, tails = zip(*(_split_tail(p) for p in parts), strict=True)
    kept = [len(h) for h in heads]

    def line() -> str:
        shown = (h if k == len(h) else h[:k].rstrip() + dots for h, k in zip(heads, kept, strict=True))
        return _SEPARATOR.join(s + t for s, t in zip(shown, tails, strict=True))

    while (excess := _length(line(), font) - width) > 0 and max(kept) > 1:
        # many letters at once while much is to go: none is wider than 32 pixels, so no step goes too far
        longest = kept.index(max(kept))
        kept[longest] -= min(max(1, int(excess / 32)), kept[longest] - 1)
    if _length(line(), font) <= width:
        return line()
    return dots if _length(dots, font) <= width else ""


def _split_tail(part: str) -> tuple[str, str]:
    """Split "Egyptian cat (0.81)" into what may be shortened and what may not."""
    head, space, tail = part.rpartition(" (")
    keep = bool(space) and tail.endswith(")") and len(tail) <= 8
    return (head, space + tail) if keep else (part, "")


def _printable(text: str, font: Font) -> str:
    """One line that the font can draw: no line breaks, no lone surrogates, Latin-1 for a bitmap font."""
    line = " ".join(str(text)[:400].split())
    encoding = "utf-8" if isinstance(font, ImageFont.FreeTypeFont) else "latin-1"
    return "".join(c for c in line.encode(encoding, "replace").decode(encoding) if c.isprintable())


def _length(text: str, font: Font) -> float:
    return float(font.getlength(text))
