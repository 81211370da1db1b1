"""Draw lines, outlines and text into pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lightning_gcam.visual.images import Color, check_pictures, check_same_size, pack, unpack
from lightning_gcam.visual.layout import Box

# Cyan and pink: neither occurs in inferno, and who does not see colours well can tell them apart. What is predicted is
# of the palest green, and dashed.
OBJECT_COLOR: Color = (64, 232, 255)
SUSPECT_COLOR: Color = (255, 120, 214)
PREDICTED_COLOR: Color = (196, 255, 196)
PEAK_COLOR: Color = (255, 255, 255)


def outline(images: Tensor, masks: Tensor, color: Color = OBJECT_COLOR, dashed: bool = False) -> Tensor:
    """Draw the edge of a region, one pixel wide, with a dark line on both sides.

    The dark lines are seen on light pictures, the line itself on dark ones. Draw it after enlarging.

    Args:
        images: `(N, 3, H, W)`, uint8.
        masks: `(N, H, W)`, bool. The line lies on the outermost pixels inside; an empty mask draws nothing.
        color: RGB of the line.
        dashed: Leave gaps in the line.

    Returns:
        `(N, 3, H, W)`, uint8, on the device of `images`.

    Raises:
        InputError: If the shapes do not fit.

    Example:
        >>> import torch
        >>> grey = torch.full((1, 3, 5, 5), 99, dtype=torch.uint8)
        >>> outline(grey, torch.ones(1, 5, 5, dtype=torch.bool), (255, 0, 0))[0, 0].tolist()[0]
        [255, 255, 255, 255, 255]
    """
    check_pictures(images)
    check_same_size(images, masks, "masks")
    line = edge(masks.to(images.device).bool())
    return unpack(draw_strokes(pack(images), [stroke(dash(line) if dashed else line, color)]))


def mark_peaks(images: Tensor, centers: Tensor, marked: Tensor, color: Color = PEAK_COLOR) -> Tensor:
    """Draw a ring around each map's peak; the peak itself stays visible in its middle.

    Args:
        images: `(N, 3, H, W)`, uint8.
        centers: `(N, 2)`, float: row and column, in pixels of `images`.
        marked: `(N,)`, bool: False where a map is blank and has no peak.
        color: RGB of the ring.

    Returns:
        `(N, 3, H, W)`, uint8, on the device of `images`.

    Example:
        >>> import torch
        >>> grey = torch.full((1, 3, 32, 32), 99, dtype=torch.uint8)
        >>> ringed = mark_peaks(grey, torch.tensor([[16.0, 16.0]]), torch.tensor([True]))
        >>> ringed[0, 0, 16, [16, 22]].tolist()
        [99, 255]
    """
    return unpack(draw_rings(pack(images), centers.to(images.device), marked.to(images.device), color))


def draw_rings(
    pixels: Tensor, centers: Tensor, marked: Tensor, color: Color = PEAK_COLOR, radius: float | None = None
) -> Tensor:
    """Draw a ring around each marked peak, into packed pixels `(N, H, W)`, in place; all on one device."""
    samples, height, width = pixels.shape
    radius = radius or max(6.0, max(height, width) / 32)
    first = torch.arange(samples, device=pixels.device)[:, None] * height
    for ring, paint in ((_ring_pixels(radius, 1.9), (0, 0, 0)), (_ring_pixels(radius, 0.7), color)):
        spots = centers.round().long()[:, None] + ring.to(pixels.device)
        row, column = spots.unbind(-1)
        seen = (row >= 0) & (row < height) & (column >= 0) & (column < width) & marked[:, None]
        pixels.view(-1)[((first + row) * width + column)[seen]] = _packed(paint)
    return pixels


def edge(masks: Tensor, width: int = 1) -> Tensor:
    """Find the pixels of each mask that touch its outside, or the picture's border, along a row or a column.

    Args:
        masks: `(..., H, W)`, bool.
        width: How many pixels the edge reaches inwards.

    Returns:
        `(..., H, W)`, bool.

    Example:
        >>> import torch
        >>> edge(torch.ones(3, 3, dtype=torch.bool)).int().tolist()
        [[1, 1, 1], [1, 0, 1], [1, 1, 1]]
    """
    inside = masks
    for _ in range(width):
        wide = F.pad(inside, (1, 1, 1, 1))
        beside = wide[..., 1:-1, :-2] & wide[..., 1:-1, 2:]
        inside = inside & beside & wide[..., :-2, 1:-1] & wide[..., 2:, 1:-1]
    return masks & ~inside


def dash(line: Tensor) -> Tensor:
    """Leave gaps in a line `(..., H, W)`, in every direction that it is likely to run."""
    row = torch.arange(line.shape[-2], device=line.device)[:, None]
    column = torch.arange(line.shape[-1], device=line.device)[None, :]
    return line & ((2 * column + 3 * row) % 30 < 18)


def box_masks(boxes: Tensor, size: tuple[int, int], shown: tuple[int, int]) -> Tensor:
    """Turn boxes into one mask each, at the size they are shown.

    Args:
        boxes: `(M, 4)`, xyxy, in pixels of an image of `size`.
        size: `(H, W)` of the image.
        shown: `(H', W')` of the panel.

    Returns:
        `(M, H', W')`, bool. A box without an area, or not finite, gives an empty mask; any other has at least
        a pixel where it lies in the image.
    """
    corners = boxes.detach().float().reshape(-1, 4)
    usable = corners.isfinite().all(1) & (corners[:, 2:] > corners[:, :2]).all(1)
    scale = torch.tensor([shown[1] / size[1], shown[0] / size[0]] * 2, device=boxes.device)
    # 1e-3: 3 * (1 / 3) must not spill over into the next pixel
    left, top, right, bottom = (corners * scale).nan_to_num().unbind(1)
    rows = torch.arange(shown[0], device=boxes.device)
    columns = torch.arange(shown[1], device=boxes.device)
    in_rows = _in_range(rows, (top + 1e-3).floor(), (bottom - 1e-3).ceil())
    in_columns = _in_range(columns, (left + 1e-3).floor(), (right - 1e-3).ceil())
    return in_rows[:, :, None] & in_columns[:, None, :] & usable[:, None, None]


def box_edges(
    boxes: Sequence[Tensor],
    size: tuple[int, int],
    shown: tuple[int, int],
    device: torch.device,
    width: int = 1,
) -> Tensor:
    """Unite the edges of each sample's boxes; overlapping boxes stay apart.

    Args:
        boxes: One `(M, 4)` for each sample, xyxy, in pixels of an image of `size`.
        size: `(H, W)` of the image.
        shown: `(H', W')` of the panel.
        device: Where the edges are wanted.
        width: How many pixels the edges reach inwards.

    Returns:
        `(N, H', W')`, bool.
    """
    lines = [edge(box_masks(b.to(device), size, shown), width).any(0) for b in boxes]
    return torch.stack(lines)


RegionLines = Sequence[tuple[Tensor, Color]]
"""The outline of each region `(N, H, W)` bool, and its colour."""


class Stroke(NamedTuple):
    """Which of the pixels `(N, H, W)`, counted through, a line paints.

    Args:
        line: of the line itself.
        beside: of the line and the eight pixels around each of its own, which are darkened.
        color: of the line.
        pixels: H * W.
    """

    line: Tensor
    beside: Tensor
    color: Color
    pixels: int

    def only(self, shown: Tensor) -> Stroke:
        """The stroke on some of the samples alone: those that `shown` `(N,)` marks."""
        line, beside = (each[shown[each // self.pixels]] for each in (self.line, self.beside))
        return self._replace(line=line, beside=beside)


Strokes = Sequence[Stroke]
"""The lines that are drawn into one picture, one after the other."""


def stroke(line: Tensor, color: Color) -> Stroke:
    """Find the pixels that a line `(N, H, W)` bool paints: few, a hundredth of a picture."""
    _, height, width = line.shape
    sample, row, column = line.nonzero().unbind(1)
    near = torch.arange(-1, 2, device=line.device)
    rows = (row + near[:, None, None]).clamp_(0, height - 1) + sample * height
    columns = (column + near[:, None]).clamp_(0, width - 1)
    beside = (rows * width + columns).flatten()
    return Stroke((sample * height + row) * width + column, beside, color, height * width)


def draw_strokes(pixels: Tensor, strokes: Strokes, shown: Tensor | None = None) -> Tensor:
    """Draw lines, each with a dark one on both sides, into packed pixels `(N, H, W)`, in place.

    Args:
        pixels: as `pack` gives them.
        strokes: the lines.
        shown: `(N,)` bool, which samples have them; all where it is left out.
    """
    flat = pixels.view(-1)
    for each in strokes:
        each = each if shown is None or bool(shown.all()) else each.only(shown)
        flat[each.beside] = (flat[each.beside] >> 1) & 0x7F7F7F  # half of each of the three colours
        flat[each.line] = _packed(each.color)
    return pixels


def _packed(color: Color) -> int:
    red, green, blue = color
    return red + (green << 8) + (blue << 16)


def _ring_pixels(radius: float, half_width: float) -> Tensor:
    """Return the pixels of a ring around (0, 0) as `(K, 2)` rows and columns."""
    reach = math.ceil(radius + half_width)
    side = torch.arange(-reach, reach + 1)
    distance = (side[:, None] ** 2 + side[None, :] ** 2).sqrt()
    return ((distance - radius).abs() < half_width).nonzero() - reach


def _in_range(positions: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return (positions >= low[:, None]) & (positions < high[:, None])


Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

_SEPARATOR = " · "


@lru_cache(maxsize=64)
def load_font(size: int, bold: bool = False) -> Font:
    """Load the DejaVu Sans that matplotlib brings along, or else Pillow's own font; it does not fail."""
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

    The line is shortened until it fits. It is drawn through a mask of the box, so not even a stack of diacritics can
    reach beyond it.
    """
    mask, end = _letters(text, load_font(size, bold), box[2] - box[0], box[3] - box[1], center)
    if mask is not None:
        canvas.paste(color, box[:2], mask)
    return box[0] + end


@lru_cache(maxsize=512)
def _letters(text: str, font: Font, width: int, height: int, center: bool) -> tuple[Image.Image | None, int]:
    """One line as a mask of its box, and where it ends in it; many lines are the same at every look.

    None where not even dots have room.
    """
    line = fit(text, font, width)
    if not line:
        return None, 0
    length = _text_width(line, font)
    left = max(0.0, (width - length) / 2) if center else 0.0
    # the middle of an x, not of the box the letters fill: lines with and without a g stand at one height
    top = (height - sum(_reach(font))) / 2
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).text((round(left), round(top)), line, font=font, fill=255)
    return mask, round(left + length)


@lru_cache(maxsize=64)
def _reach(font: Font) -> tuple[float, float]:
    """How far down capitals begin, and letters below the line end."""
    _, top, _, bottom = font.getbbox("Hg")
    return top, bottom


SIGNS = {"object": OBJECT_COLOR, "suspect region": SUSPECT_COLOR, "prediction": PREDICTED_COLOR}
"""What is outlined, by its name in the legend, and its colour."""


class Line(NamedTuple):
    """One line of text; see `write`."""

    box: Box
    text: str
    size: int
    color: Color
    bold: bool = False
    center: bool = False


def write_lines(canvas: Image.Image, lines: Sequence[Line]) -> None:
    """Write several lines, each into its box."""
    for each in lines:
        write(canvas, *each[:4], bold=each.bold, center=each.center)


def draw_bar(
    canvas: Image.Image, box: Box, size: int, color: Color, low: str, bar: Image.Image, high: str
) -> None:
    """Draw a colour bar in `box`, with a word at either end."""
    left = write(canvas, box, low, size, color) + 6
    canvas.paste(bar, (left, (box[1] + box[3] - bar.height) // 2))
    write(canvas, (left + bar.width + 6, *box[1:]), high, size, color)


def draw_signs(canvas: Image.Image, box: Box, size: int, color: Color, names: Sequence[str]) -> None:
    """Draw the symbols side by side in `box`, each with its name."""
    draw = ImageDraw.Draw(canvas)
    left, middle = box[0], (box[1] + box[3]) // 2
    for name in names:
        if name == "peak":
            draw.ellipse((left, middle - 5, left + 10, middle + 5), outline=PEAK_COLOR)
            length = 11
        else:
            dashes = [(0, 20)] if name == "object" else [(0, 6), (9, 15), (18, 20)]
            for start, end in dashes:
                line = (left + start, middle, left + end, middle)
                draw.line(line, fill=SIGNS[name], width=2)
            length = 21
        left = write(canvas, (left + length + 5, *box[1:]), name, size, color) + 18


def fit(text: str, font: Font, width: float) -> str:
    """Shorten a line to `width` pixels with an ellipsis.

    Parts joined by " · " give way in turn, the longest first, and a closing "(0.81)" stays: of
    "true x · predicted y (0.81)" both halves remain.
    """
    parts = _drawable(text, font).split(_SEPARATOR)
    dots = _drawable("…", font)
    heads, tails = zip(*(_split_tail(p) for p in parts), strict=True)
    kept = [len(h) for h in heads]

    def line() -> str:
        shown = (h if k == len(h) else h[:k].rstrip() + dots for h, k in zip(heads, kept, strict=True))
        return _SEPARATOR.join(s + t for s, t in zip(shown, tails, strict=True))

    while (excess := _text_width(shown := line(), font) - width) > 0 and max(kept) > 1:
        # many letters at once while much is to go: none is wider than 32 pixels, so no step goes too far
        longest = kept.index(max(kept))
        kept[longest] -= min(max(1, int(excess / 32)), kept[longest] - 1)
    if excess <= 0:
        return shown
    return dots if _text_width(dots, font) <= width else ""


def _split_tail(part: str) -> tuple[str, str]:
    """Split "Egyptian cat (0.81)" into what may be shortened and what may not."""
    head, space, tail = part.rpartition(" (")
    keep = bool(space) and tail.endswith(")") and len(tail) <= 8
    return (head, space + tail) if keep else (part, "")


def _drawable(text: str, font: Font) -> str:
    """Turn text into one line that the font can draw: no line breaks, no lone surrogates, Latin-1 for a bitmap font."""
    line = " ".join(str(text)[:400].split())
    encoding = "utf-8" if isinstance(font, ImageFont.FreeTypeFont) else "latin-1"
    return "".join(c for c in line.encode(encoding, "replace").decode(encoding) if c.isprintable())


def _text_width(text: str, font: Font) -> float:
    return float(font.getlength(text))
