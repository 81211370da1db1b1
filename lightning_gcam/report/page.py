"""`build_page()`: runs onto one HTML page that carries all it needs."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lightning_gcam.report.storage import Monitor, Run, thinned
from lightning_gcam.utils.files import atomic_write_text
from lightning_gcam.visual.overlay import heat_table


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
