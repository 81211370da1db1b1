"""Write a run as one HTML page without further files, and each sample's maps over the looks as strips."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from lightning_gcam.report.reading import decode_picture
from lightning_gcam.report.storage import Monitor, Run, thin_curve
from lightning_gcam.utils.errors import InputError
from lightning_gcam.utils.files import atomic_write, atomic_write_text, printable, safe_name
from lightning_gcam.visual.drawing import write
from lightning_gcam.visual.overlay import enlarge, heat_table, overlay


def build_page(runs: Sequence[Run], path: Path) -> Path:
    """Write the HTML page of one or several runs; the file is complete whenever it is opened.

    Args:
        runs: one, or several to be compared.
        path: of the page.

    Returns:
        `path`.

    Example:
        >>> import tempfile
        >>> path = build_page([Run("a <b> run")], Path(tempfile.mkdtemp()) / "report.html")
        >>> "a &lt;b&gt; run" in path.read_text(encoding="utf-8")
        True
    """
    parts = _template().stream(
        title=" and ".join(run.name for run in runs),
        data=_runs_as_json(runs),
        heat=base64.b64encode(heat_table().numpy().tobytes()).decode(),
    )
    with atomic_write_text(path) as file:
        file.writelines(parts)
    return path


def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("lightning_gcam.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html")


def _runs_as_json(runs: Sequence[Run]) -> Iterator[Markup]:
    """Yield the JSON of all runs in parts, with the looks as they stand in their files."""
    yield Markup('{"runs":[')
    for index, run in enumerate(runs):
        plain = {
            "name": run.name,
            "hyperparameters": run.hyperparameters,
            "alerts": run.alerts,
            "curves": {
                name: thin_curve(points) for name, points in sorted(run.curves.items()) if name != "epoch"
            },
        }
        yield _escaped_for_html(("," if index else "") + json.dumps(plain)[:-1] + ',"monitors":[')
        for number, monitor in enumerate(run.monitors.values()):
            yield Markup("," if number else "")
            yield from _monitor_as_json(monitor)
        yield Markup("]}")
    yield Markup("]}")


def _monitor_as_json(monitor: Monitor) -> Iterator[Markup]:
    yield _escaped_for_html(f'{{"prefix":{json.dumps(monitor.prefix)},"samples":{monitor.samples},"looks":[')
    for index, step in enumerate(sorted(monitor.looks)):
        yield _escaped_for_html(("," if index else "") + monitor.looks[step])
    yield Markup("]}")


def _escaped_for_html(text: str) -> Markup:
    """Escape the three characters in JSON that HTML could read as a tag; they occur in strings only."""
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


_PAGE, _TEXT = (18, 20, 25), (236, 238, 242)
_SMALLEST_SIDE = 160
_LINE_HEIGHT, _GAP, _FONT_SIZE = 20, 4, 12
_MILLISECONDS = 500


def write_strips(run: Run, directory: Path, most: int = 12) -> list[Path]:
    """Write `<prefix>/sample-<n>.png`, the looks side by side, and `<prefix>/sample-<n>.gif`, one after the other.

    Args:
        run: read from the data of a `ReportLogger`; its first method is drawn.
        directory: it is made where it is not there.
        most: how many looks a strip shows, from the first to the last, evenly chosen; the animation shows all.

    Returns:
        The files.

    Raises:
        InputError: where the run has no samples one by one.
    """
    paths: list[Path] = []
    for monitor in run.monitors.values():
        samples = json.loads(monitor.samples or "[]")
        looks = [json.loads(monitor.looks[step]) for step in sorted(monitor.looks)]
        target = directory / safe_name(monitor.prefix)
        for index, sample in enumerate(samples if looks else []):
            frames = _frames(sample, index, looks)
            paths += _save_strip(frames, target / f"sample-{index:02d}", most)
    if not paths:
        raise InputError(
            f'`PATH` of "{printable(run.name)}" has no samples one by one. Give the directory of a ReportLogger: of '
            "files and events only whole pictures are known."
        )
    return paths


def _frames(sample: dict[str, Any], index: int, looks: list[dict[str, Any]]) -> list[Image.Image]:
    pixels = torch.from_numpy(decode_picture(sample["image"])).permute(2, 0, 1)[None]
    return [_frame(pixels, sample, look, look["samples"][index]) for look in looks]


def _frame(
    pixels: Tensor, known: dict[str, Any], look: dict[str, Any], sample: dict[str, Any]
) -> Image.Image:
    """Draw the overlay of one look, with its step above and the caption below; of slices the one with the peak."""
    cells, peak, row, _ = next(iter(sample["maps"].values()))
    saliency = _read_map(cells, look["size"]) if peak else torch.zeros(1, 1, *look["size"])
    if "slices" in known:
        count = len(known["slices"]["numbers"])
        at = min(int(row * count), count - 1) if peak else count // 2
        pixels, saliency = pixels.chunk(count, dim=2)[at], saliency.chunk(count, dim=2)[at]
    height, width = pixels.shape[2:]
    left, top, right, bottom = known.get("band", (0, 0, width, height))
    large = F.interpolate(saliency, (bottom - top, right - left), mode="bilinear").squeeze(1)
    shown = pixels.clone()
    shown[:, :, top:bottom, left:right] = overlay(pixels[:, :, top:bottom, left:right], large)
    factor = max(1, -(-_SMALLEST_SIDE // max(height, width)))
    picture = enlarge(shown, factor)[0].permute(1, 2, 0).numpy()
    box_width = max(picture.shape[1], _SMALLEST_SIDE)
    frame = Image.new("RGB", (box_width, picture.shape[0] + 2 * _LINE_HEIGHT), _PAGE)
    frame.paste(Image.fromarray(picture), ((box_width - picture.shape[1]) // 2, _LINE_HEIGHT))
    mark = "× " if sample.get("right") is False else ""
    state = "" if peak else " · blank" if peak == 0 else " · not finite"
    write(frame, (2, 0, box_width, _LINE_HEIGHT), f"step {look['step']}{state}", _FONT_SIZE, _TEXT, bold=True)
    write(
        frame,
        (2, frame.height - _LINE_HEIGHT, box_width, frame.height),
        mark + sample["caption"],
        _FONT_SIZE - 1,
        _TEXT,
    )
    return frame


def _read_map(cells: str, size: list[int]) -> Tensor:
    values = np.frombuffer(base64.b64decode(cells), dtype=np.uint8).reshape(1, 1, *size)
    return torch.from_numpy(values.astype(np.float32) / 255)


def _save_strip(frames: list[Image.Image], stem: Path, most: int) -> list[Path]:
    chosen = sorted({round(at) for at in np.linspace(0, len(frames) - 1, min(most, len(frames)))})
    width, height = frames[0].size
    strip = Image.new("RGB", (len(chosen) * (width + _GAP) - _GAP, height), _PAGE)
    for place, look in enumerate(chosen):
        strip.paste(frames[look], (place * (width + _GAP), 0))
    row, animation = stem.with_suffix(".png"), stem.with_suffix(".gif")
    with atomic_write(row) as file:
        strip.save(file, format="png")
    with atomic_write(animation) as file:
        others = frames[1:]
        frames[0].save(file, "gif", save_all=True, append_images=others, duration=_MILLISECONDS, loop=0)
    return [row, animation]
