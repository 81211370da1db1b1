"""Recordings on disk, their differences, and the small part of one that is kept in the project."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from tests.reference.recording.behaviour import Values

HERE = Path(__file__).parent
KEPT, CHECKPOINT = HERE / "kept.json", HERE / "kept.ckpt"
"""A part of a recording, and a checkpoint of the same tree."""


def write(values: Values, path: Path) -> None:
    """Arrays as they are, the rest as JSON inside of the same file."""
    arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    plain = {name: value for name, value in values.items() if name not in arrays}
    with path.open("wb") as file:
        np.savez_compressed(file, plain=np.array(json.dumps(plain)), **arrays)


def read(path: Path) -> Values:
    """What `write` wrote."""
    with np.load(path) as file:
        values: Values = {name: file[name] for name in file.files if name != "plain"}
        return {**json.loads(str(file["plain"])), **values}


def differences(before: Values, after: Values, tolerance: float = 1e-6) -> list[str]:
    """What is not the same: arrays within `tolerance` of their largest value, the rest exactly."""
    found = [f"gone: {name}" for name in before.keys() - after.keys()]
    found += [f"new: {name}" for name in after.keys() - before.keys()]
    for name in sorted(before.keys() & after.keys()):
        one, two = before[name], after[name]
        if isinstance(one, np.ndarray):
            scale = max(float(np.abs(np.nan_to_num(one)).max(initial=0)), 1e-12)
            same = one.shape == two.shape and np.allclose(
                one, two, rtol=0, atol=tolerance * scale, equal_nan=True
            )
        else:
            same = _same(one, two)
        if not same:
            found.append(f"{name}: {_short(one)} -> {_short(two)}")
    return sorted(found)


def _same(one: Any, two: Any, tolerance: float = 0.0) -> bool:
    """Equal, with two NaN equal; numbers within `tolerance`."""
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(_same(a, b, tolerance) for a, b in zip(one, two, strict=True))
    numbers = (int, float)
    if isinstance(one, numbers) and isinstance(two, numbers):
        if math.isnan(one) or math.isnan(two):
            return math.isnan(one) and math.isnan(two)
        return abs(one - two) <= tolerance * max(1.0, abs(one))
    return bool(one == two)


def _short(value: Any) -> str:
    written = " ".join(str(value).split())
    return written if len(written) < 120 else f"{written[:117]}..."


# ------------------------------------------------------------------------------------------------- the kept part


QUICK = (
    *("guidance_cam", "grad_cam", "grad_cam_plus_plus", "xgrad_cam", "layer_cam", "hires_cam"),
    *("element_wise_grad_cam", "score_cam", "full_grad", "centre"),
)
"""The methods whose maps are kept."""


def part_of(values: Values) -> Values:
    """Maps as 4 x 4 means, layers, and the first look of a fit: what any machine gives within a small error."""
    part: Values = {}
    for name, value in values.items():
        if name.startswith("maps/") and name.rpartition("/")[2] not in QUICK:
            continue
        if name.startswith("maps/") and isinstance(value, np.ndarray):
            n, height, width = value.shape
            cells = value.reshape(n, 4, height // 4, 4, width // 4).mean(axis=(2, 4))
            part[name] = np.round(cells, 4).tolist()
        elif name.startswith(("layer/", "maps/", "fit/flat/history/0/", "resumed/flat/history/0/")):
            part[name] = value
    return part


def write_part(part: Values, path: Path) -> None:
    """One name a line."""
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in sorted(part.items())]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def unequal(part: Values, now: Values, tolerance: float) -> list[str]:
    """The names under which the kept part and what is computed now differ by more than `tolerance`."""
    return [
        f"{name}: {_short(value)} -> {_short(now.get(name))}"
        for name, value in part.items()
        if not _same(value, now.get(name), tolerance)
    ]
