"""A run for people: one HTML page that carries all it needs, and each sample's maps over the looks as strips."""

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

from lightning_gcam.report.reading import picture_of
from lightning_gcam.report.storage import Monitor, Run, thinned
from lightning_gcam.utils.errors import InputError
from lightning_gcam.utils.files import atomic_write, atomic_write_text, printable, safe_name
from lightning_gcam.visual.drawing import write
from lightning_gcam.visual.overlay import enlarge, heat_table, overlay


def build_page(runs: Sequence[Run], path: Path) -> Path:
    """Write the page whole under another name, then rename it: whoever opens it never sees half of it.

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
        data=_data(runs),
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


def _data(runs: Sequence[Run]) -> Iterator[Markup]:
    """The JSON of all runs in pieces, so that looks go from their files into the page as they are."""
    yield Markup('{"runs":[')
    for index, run in enumerate(runs):
        plain = {
            "name": run.name,
            "hyperparameters": run.hyperparameters,
            "alerts": run.alerts,
            "curves": {
                name: thinned(points) for name, points in sorted(run.curves.items()) if name != "epoch"
            },
        }
        yield _inert(("," if index else "") + json.dumps(plain)[:-1] + ',"monitors":[')
        for number, monitor in enumerate(run.monitors.values()):
            yield Markup("," if number else "")
            yield from _looks(monitor)
        yield Markup("]}")
    yield Markup("]}")


def _looks(monitor: Monitor) -> Iterator[Markup]:
    yield _inert(f'{{"prefix":{json.dumps(monitor.prefix)},"samples":{monitor.samples},"looks":[')
    for index, step in enumerate(sorted(monitor.looks)):
        yield _inert(("," if index else "") + monitor.looks[step])
    yield Markup("]}")


def _inert(text: str) -> Markup:
    """JSON that no HTML parser can read a tag in: the three signs stand in strings only, where JSON can escape them."""
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


_PAGE, _TEXT = (18, 20, 25), (236, 238, 242)
_LEAST = 160
_LINE, _GAP, _SIZE = 20, 4, 12
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
            paths += _save(frames, target / f"sample-{index:02d}", most)
    if not paths:
        raise InputError(
            f'`PATH` of "{printable(run.name)}" has no samples one by one. Give the directory of a ReportLogger: of '
            "files and events only whole pictures are known."
        )
    return paths


def _frames(sample: dict[str, Any], index: int, looks: list[dict[str, Any]]) -> list[Image.Image]:
    pixels = torch.from_numpy(picture_of(sample["image"])).permute(2, 0, 1)[None]
    return [_frame(pixels, look, look["samples"][index]) for look in looks]


def _frame(pixels: Tensor, look: dict[str, Any], words: dict[str, Any]) -> Image.Image:
    """The overlay of one look, above it its step, below it the prediction or that the map is blank."""
    cells, peak, *_ = next(iter(words["maps"].values()))
    height, width = pixels.shape[2:]
    saliency = _read_map(cells, look["size"]) if peak else torch.zeros(1, 1, 1, 1)
    large = F.interpolate(saliency, (height, width), mode="bilinear").squeeze(1)
    factor = max(1, -(-_LEAST // max(height, width)))
    picture = enlarge(overlay(pixels, large), factor)[0].permute(1, 2, 0).numpy()
    box_width = max(picture.shape[1], _LEAST)
    frame = Image.new("RGB", (box_width, picture.shape[0] + 2 * _LINE), _PAGE)
    frame.paste(Image.fromarray(picture), ((box_width - picture.shape[1]) // 2, _LINE))
    mark = "× " if words.get("right") is False else ""
    state = "" if peak else " · blank" if peak == 0 else " · not finite"
    write(frame, (2, 0, box_width, _LINE), f"step {look['step']}{state}", _SIZE, _TEXT, bold=True)
    write(
        frame, (2, frame.height - _LINE, box_width, frame.height), mark + words["caption"], _SIZE - 1, _TEXT
    )
    return frame


def _read_map(cells: str, size: list[int]) -> Tensor:
    values = np.frombuffer(base64.b64decode(cells), dtype=np.uint8).reshape(1, 1, *size)
    return torch.from_numpy(values.astype(np.float32) / 255)


def _save(frames: list[Image.Image], stem: Path, most: int) -> list[Path]:
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
