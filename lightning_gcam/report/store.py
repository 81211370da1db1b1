"""`Store`: the report's data on disk, a file a look, so that a resumed run goes on and a page can be built again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lightning_gcam._names import safe_name
from lightning_gcam.report.run import Run, finite_number

_METRICS, _ALERTS, _RUN, _SAMPLES = "metrics.jsonl", "alerts.jsonl", "run.json", "samples.json"


def write_whole(path: Path, text: str) -> None:
    """Write under another name, then rename: the file is never half there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


class Store:
    """The data of one run under a directory.

    `metrics.jsonl` and `alerts.jsonl` have a line for each call; `<prefix>/samples.json` what stays the same,
    `<prefix>/look-<step>.json` a look. What is half written when a run is killed is passed over when it is read.

    Args:
        directory: it is made with the first file.

    Example:
        >>> import tempfile
        >>> store = Store(Path(tempfile.mkdtemp()))
        >>> store.add_metrics({"val_loss": 0.5}, step=3)
        >>> store.read("my run").curves
        {'val_loss': {3: 0.5}}
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write_hyperparameters(self, values: Mapping[str, str]) -> None:
        """Keep the run's hyperparameters, in place of those that stood there."""
        write_whole(self.directory / _RUN, json.dumps({"hyperparameters": dict(values)}))

    def add_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Keep numbers of one step; those that are not finite are no point of a curve."""
        numbers = {name: finite_number(value) for name, value in metrics.items() if name != "step"}
        finite = {name: number for name, number in numbers.items() if number is not None}
        if finite:
            self._append(_METRICS, {"step": int(step), **finite})

    def add_alert(self, step: int, message: str, log_prefix: str) -> None:
        """Keep what the alarm said."""
        self._append(_ALERTS, {"step": int(step), "message": message, "log_prefix": log_prefix})

    def add_look(self, prefix: str, step: int, samples: str, look: str) -> None:
        """Keep a look, in place of one at the same step. Looks at other samples are set aside.

        Args:
            prefix: of the monitor.
            step: of the look.
            samples: JSON of what stays the same.
            look: JSON of what does not.
        """
        directory = self.directory / safe_name(prefix)
        if samples != _text_of(directory / _SAMPLES):
            if directory.exists():
                directory.rename(_free(directory))
            write_whole(directory / _SAMPLES, samples)
        write_whole(directory / f"look-{step:010d}.json", look)

    def steps(self, prefix: str) -> list[int]:
        """The steps of the looks that are kept."""
        paths = (self.directory / safe_name(prefix)).glob("look-*.json")
        return sorted(int(path.stem.removeprefix("look-")) for path in paths)

    def read(self, name: str) -> Run:
        """All of it, as far as it was written whole."""
        run = Run(name)
        stored = json.loads(_text_of(self.directory / _RUN) or "{}")
        run.hyperparameters = {
            str(key): str(value) for key, value in stored.get("hyperparameters", {}).items()
        }
        for row in self._lines(_METRICS):
            step = row.pop("step")
            for metric, value in row.items():
                run.curves.setdefault(metric, {})[step] = value
        alerts = {(each["step"], each["message"], each["log_prefix"]): each for each in self._lines(_ALERTS)}
        run.alerts = [alerts[key] for key in sorted(alerts)]
        for samples in sorted(self.directory.glob(f"*/{_SAMPLES}")):
            if samples.parent.suffix != ".aside":
                self._read_looks(run, samples.parent)
        return run

    def _read_looks(self, run: Run, directory: Path) -> None:
        monitor = run.monitor(unquote(directory.name))
        monitor.samples = _text_of(directory / _SAMPLES)
        for step in self.steps(monitor.prefix):
            monitor.looks[step] = _text_of(directory / f"look-{step:010d}.json")

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / name).open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(row))  # in front: a line that was cut off stays alone

    def _lines(self, name: str) -> list[dict[str, Any]]:
        rows = []
        for line in _text_of(self.directory / name).splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # the line that was being written when the run was killed
                continue
            if isinstance(row, dict) and "step" in row:
                rows.append(row)
        return rows


def _text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _free(directory: Path) -> Path:
    """A name beside `directory` that is not taken yet."""
    taken = len(list(directory.parent.glob(f"{directory.name}.*.aside")))
    return directory.with_name(f"{directory.name}.{taken}.aside")
