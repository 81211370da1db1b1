"""The data of a run, written to files look by look and read back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lightning_gcam.report.reading import (
    BrokenFile,
    check_look,
    finite_number,
    json_lines,
    parse_json,
    placeholder_sample,
    read_text,
    repair_samples,
)
from lightning_gcam.utils.files import atomic_write_text, printable, safe_name

Curves = dict[str, dict[int, float]]
"""For each metric its value by step."""


@dataclass
class Monitor:
    """The looks of one `SaliencyMonitor`.

    Args:
        prefix: its `log_prefix`.
        samples: JSON, as `plain_samples` returns it: what does not change from look to look; "[]" where only whole
            pictures are known.
        looks: JSON by step, as `plain_look` gives it, or `{"step", "picture"}` with a data URI.
    """

    prefix: str
    samples: str = "[]"
    looks: dict[int, str] = field(default_factory=dict)


@dataclass
class Run:
    """One run: its looks, its curves and its alerts.

    Args:
        name: as the page calls it.
        monitors: by prefix.
        curves: every logged number.
        alerts: `step`, `message` and `log_prefix` of each; where they are known, its `PARTS`.
        hyperparameters: names and values, as strings.
        left_out: what could not be read, a line each: the file, and why.
    """

    name: str
    monitors: dict[str, Monitor] = field(default_factory=dict)
    curves: Curves = field(default_factory=dict)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    hyperparameters: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def num_looks(self) -> int:
        """The number of looks of all monitors."""
        return sum(len(monitor.looks) for monitor in self.monitors.values())

    @property
    def shows_something(self) -> bool:
        """Whether there is anything to show on a page."""
        return bool(self.num_looks or self.curves or self.alerts)

    @contextmanager
    def skip_broken(self, path: Path) -> Iterator[None]:
        """Context for reading a file: where it is broken, the block ends and `left_out` has the reason."""
        try:
            yield
        except (BrokenFile, OSError) as error:
            self.left_out.append(f"{printable(path)}: {error}")

    @contextmanager
    def skip_broken_lines(self, path: Path) -> Iterator[list[BrokenFile]]:
        """Context like `skip_broken`, for a file whose broken lines are collected in a list."""
        broken: list[BrokenFile] = []
        with self.skip_broken(path):
            yield broken
        if broken:
            others = f", and {len(broken) - 1} more like it" if len(broken) > 1 else ""
            self.left_out.append(f"{printable(path)}: {broken[0]}{others}")

    def add_points(self, row: dict[str, Any], step: int) -> None:
        """Add the finite numbers of a step to the curves."""
        for metric, value in row.items():
            number = finite_number(value)
            if number is not None:
                self.curves.setdefault(metric, {})[step] = number

    def monitor(self, prefix: str) -> Monitor:
        """Return the monitor of a prefix, created where there is none yet."""
        return self.monitors.setdefault(prefix, Monitor(prefix))


def thin_curve(points: dict[int, float], most: int = 400) -> tuple[list[int], list[float]]:
    """Thin a curve to at most `most` points: the lowest and the highest of each stretch, so that no spike is lost.

    Args:
        points: the value by step.
        most: how many points are kept, at the most.

    Returns:
        Steps in order, and their values.

    Example:
        >>> thin_curve({3: 0.5, 1: 0.25})
        ([1, 3], [0.25, 0.5])
        >>> steps, values = thin_curve({step: float(step == 777) for step in range(10_000)}, most=100)
        >>> len(steps) <= 100, max(values)
        (True, 1.0)
    """
    steps = sorted(points)
    if len(steps) > most:
        stretch = -(-len(steps) * 2 // max(most - 2, 2))
        kept = {steps[0], steps[-1]}
        for start in range(0, len(steps), stretch):
            part = steps[start : start + stretch]
            kept |= {min(part, key=points.__getitem__), max(part, key=points.__getitem__)}
        steps = sorted(kept)
    return steps, [points[step] for step in steps]


_METRICS, _ALERTS, _RUN, _SAMPLES = "metrics.jsonl", "alerts.jsonl", "run.json", "samples.json"
_LOOK = re.compile(r"look-([0-9]{1,15})\.json")


def write_text(path: Path, text: str) -> None:
    """Write a text file, complete or not at all."""
    with atomic_write_text(path) as file:
        file.write(text)


class Store:
    """The data of one run under a directory.

    `metrics.jsonl` and `alerts.jsonl` have a line for each call; `<prefix>/samples.json` what stays the same,
    `<prefix>/look-<step>.json` a look. What is broken is left out when it is read, and named.

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
        # the hash of a file that was checked, and how many samples it has: a run reads its looks after each of them
        self._checked: dict[Path, tuple[int, int]] = {}

    def write_hyperparameters(self, values: Mapping[str, str]) -> None:
        """Write the run's hyperparameters, in place of earlier ones."""
        write_text(self.directory / _RUN, json.dumps({"hyperparameters": dict(values)}))

    def add_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Add the finite numbers of one step."""
        numbers = {name: finite_number(value) for name, value in metrics.items() if name != "step"}
        finite = {name: number for name, number in numbers.items() if number is not None}
        if finite:
            self._append(_METRICS, {"step": int(step), **finite})

    def add_alert(
        self, step: int, message: str, log_prefix: str, parts: Mapping[str, Any] | None = None
    ) -> None:
        """Add an alert, with those of its `PARTS` that are given."""
        known = {name: parts[name] for name in PARTS if name in parts} if parts is not None else {}
        self._append(_ALERTS, {"step": int(step), "message": message, "log_prefix": log_prefix, **known})

    def add_look(self, prefix: str, step: int, samples: str, look: str) -> None:
        """Write a look, in place of one at the same step. Looks at other samples are moved to another folder.

        Args:
            prefix: of the monitor.
            step: of the look.
            samples: JSON of what stays the same.
            look: JSON of what does not.
        """
        directory = self.directory / safe_name(prefix)
        if samples != _read_text_or_empty(directory / _SAMPLES):
            if directory.exists():
                directory.rename(_unused_name(directory))
            write_text(directory / _SAMPLES, samples)
        write_text(directory / f"look-{step:010d}.json", look)

    def steps(self, prefix: str) -> list[int]:
        """Return the steps of the stored looks."""
        paths = (self.directory / safe_name(prefix)).glob("look-*.json")
        return sorted({int(match[1]) for path in paths if (match := _LOOK.fullmatch(path.name))})

    def read(self, name: str) -> Run:
        """Read all that is valid; the rest is named in `left_out`."""
        run = Run(name)
        if (self.directory / _RUN).exists():
            self._read_hyperparameters(run)
        if (self.directory / _METRICS).exists():
            self._read_metrics(run)
        if (self.directory / _ALERTS).exists():
            self._read_alerts(run)
        for directory in sorted(self.directory.glob("*")):
            if directory.is_dir() and directory.suffix != ".aside":
                self._read_looks(run, directory)
        return run

    def _read_hyperparameters(self, run: Run) -> None:
        with run.skip_broken(self.directory / _RUN):
            stored = parse_json(read_text(self.directory / _RUN))
            values = stored.get("hyperparameters", {}) if isinstance(stored, dict) else None
            if not isinstance(values, dict):
                raise BrokenFile("it has no hyperparameters by name")
            run.hyperparameters = {str(key): str(value) for key, value in values.items()}

    def _read_metrics(self, run: Run) -> None:
        with run.skip_broken_lines(self.directory / _METRICS) as broken:
            for row in json_lines(self.directory / _METRICS):
                if isinstance(row, BrokenFile):
                    broken.append(row)
                else:
                    run.add_points(row, row.pop("step"))

    def _read_alerts(self, run: Run) -> None:
        alerts: dict[tuple[int, str, str], dict[str, Any]] = {}
        with run.skip_broken_lines(self.directory / _ALERTS) as broken:
            for row in json_lines(self.directory / _ALERTS):
                if isinstance(row, dict):
                    row = parse_alert(row)
                if isinstance(row, BrokenFile):
                    broken.append(row)
                else:
                    alerts[row["step"], row["message"], row["log_prefix"]] = row
        run.alerts = [alerts[key] for key in sorted(alerts)]

    def _read_looks(self, run: Run, directory: Path) -> None:
        paths = sorted(directory.glob("look-*.json"))
        if not paths and not (directory / _SAMPLES).exists():
            return
        prefix = unquote(directory.name)
        monitor = run.monitor(prefix if prefix not in run.monitors else directory.name)
        number: int | None = None
        with run.skip_broken(directory / _SAMPLES):
            monitor.samples, number = self._samples(run, directory / _SAMPLES)
        for path in paths:
            with run.skip_broken(path):
                step = _step_in(path)
                if step in monitor.looks:
                    raise BrokenFile(f"step {step} is there already")
                text, number = self._look(path, step, number)
                monitor.looks[step] = text
        if monitor.samples == "[]" and number:
            monitor.samples = json.dumps([placeholder_sample()] * number)

    def _samples(self, run: Run, path: Path) -> tuple[str, int]:
        """Read the text of the samples, and count them."""
        text = read_text(path)
        known = self._checked.get(path)
        if known and known[0] == hash(text):
            return text, known[1]
        samples, broken = repair_samples(parse_json(text))
        if broken:
            run.left_out.append(f"{printable(path)}: {broken}")
            return json.dumps(samples), len(samples)
        self._checked[path] = hash(text), len(samples)
        return text, len(samples)

    def _look(self, path: Path, step: int, samples: int | None) -> tuple[str, int]:
        """Read the text of a look, and count its samples."""
        text = read_text(path)
        known = self._checked.get(path)
        if known != (hash(text), samples):
            known = self._checked[path] = hash(text), check_look(parse_json(text), step, samples)
        return text, known[1]

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / name
        if path.exists() and not path.is_file():
            raise OSError(f"{path} is no regular file")  # a pipe would wait for a reader that never comes
        with path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(row))  # in front: a line that was cut off stays alone


PARTS = ("headline", "evidence", "advice", "unchecked")
"""The parts of an alert's message, see `lightning_gcam.shortcuts.plain_of`; without them the page shows the message."""


def parse_alert(row: Mapping[str, Any]) -> dict[str, Any] | BrokenFile:
    """Return the alert in a line of a file, or what is wrong with it; a list may be text in JSON, as in a CSV file."""
    alert = {name: row.get(name) for name in ("step", "message", "log_prefix")}
    if not isinstance(alert["message"], str) or not isinstance(alert["log_prefix"], str):
        return BrokenFile(f"the alert at step {row['step']} has no message or no log_prefix")
    with suppress(BrokenFile):
        alert |= _parse_parts(row)
    return alert


def _parse_parts(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `PARTS` of an alert; none where one is missing or of another form."""
    headline, *lists = (row.get(name) for name in PARTS)
    lists = [parse_json(each) if isinstance(each, str) else each for each in lists]
    if not isinstance(headline, str) or not all(isinstance(each, list) for each in lists):
        return {}
    evidence, *texts = lists
    is_valid = all(_is_evidence(each) for each in evidence or ())
    if not is_valid or not all(isinstance(each, str) for text in texts for each in text or ()):
        return {}
    return dict(zip(PARTS, (headline, *lists), strict=True))


def _is_evidence(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("what"), str):
        return False
    interval = row.get("interval")
    ends = (
        interval if isinstance(interval, list) and len(interval) == 2 else [] if interval is None else [None]
    )
    numbers = [
        row.get("value"),
        *ends,
        *(each for each in (row.get("n"), row.get("chance")) if each is not None),
    ]
    return all(type(each) in (int, float) and finite_number(each) is not None for each in numbers)


def _read_text_or_empty(path: Path) -> str:
    try:
        return read_text(path)
    except BrokenFile:
        return ""


def _step_in(path: Path) -> int:
    match = _LOOK.fullmatch(path.name)
    if match is None:
        raise BrokenFile("its name has no step")
    return int(match[1])


def _unused_name(directory: Path) -> Path:
    """Return an unused name beside `directory`."""
    taken = len(list(directory.parent.glob(f"{directory.name}.*.aside")))
    return directory.with_name(f"{directory.name}.{taken}.aside")
