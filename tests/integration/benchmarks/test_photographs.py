"""The benchmark on photographs, small: pictures made of noise, and the network of ImageNet with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_gcam.metrics import Measurement
from lightning_gcam.shortcuts import Reliance

pytest.importorskip("timm")


@pytest.fixture(scope="module")
def modules() -> dict[str, ModuleType]:
    from benchmarks.common import cues, pictures
    from benchmarks.shortcuts import photographs, photographs_tables, runs

    return {
        "cues": cues,
        "pictures": pictures,
        "script": photographs,
        "tables": photographs_tables,
        "runs": runs,
    }


@pytest.fixture(scope="module")
def script(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["script"]


@pytest.fixture(scope="module")
def pictures(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["pictures"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures of each kind, and one that is of none."""
    folder, draw = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for number in (*range(5), *range(151, 156), *range(291, 296), 403, 405, 407, 408, 417, 999):
        pixels = draw.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04d}_a_name.jpg")
    return folder


def test_each_photograph_is_of_one_kind(pictures: ModuleType, folder: Path) -> None:
    kinds = list(pictures.KINDS.values())
    assert sum(map(len, kinds)) == len(set.union(*kinds)) and max(set.union(*kinds)) < 1000
    found = pictures.find_photographs(folder)
    assert [kind for _, kind in found] == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5
    training, validation = pictures.split(found, seed=1)
    assert sorted(training + validation) == found
    assert [kind for _, kind in validation] == [0, 0, 1, 1, 2, 2, 3, 3]
    with pytest.raises(SystemExit, match="`FOLDER` .* does not hold photographs of every kind"):
        pictures.find_photographs(folder.parent)


@pytest.mark.parametrize("views", [0, 3])
def test_a_shuffled_cue_is_all_that_differs(
    modules: dict[str, ModuleType], pictures: ModuleType, folder: Path, views: int
) -> None:
    found, plan = pictures.find_photographs(folder), modules["cues"].Plan
    plain = pictures.draw_pictures(found, plan("none", 0.0), 32, 3, views)
    assert plain.images.shape == (len(plain.labels), 3, 32, 32) == (20 * (views or 1), 3, 32, 32)
    for cue in pictures.PAINTERS:
        told, shuffled = (pictures.draw_pictures(found, plan(cue, p), 32, 3, views) for p in (1.0, 0.0))
        assert torch.equal(told.labels, plain.labels) and torch.equal(shuffled.labels, plain.labels)
        assert not torch.equal(told.images, shuffled.images)
        painted = (told.images != plain.images).any(dim=1).float().mean(dim=(1, 2))
        least, most = {"corner": (0, 0.03), "plate": (0, 0.03), "frame": (0.1, 0.3)}.get(cue, (0.5, 1))
        assert (least < painted).all() and (painted <= most).all()


def test_the_middle_is_cut_in_validation(pictures: ModuleType) -> None:
    columns = np.arange(0, 240, 5, dtype=np.uint8).reshape(1, 48, 1).repeat(16, 0).repeat(3, 2)
    middle = pictures.cut(Image.fromarray(columns), 1, 0.5, 0.5, side=16)
    assert torch.equal(middle[0, 0], torch.arange(80, 160, 5) / 255)


def test_narrower_properties_by_hand(script: ModuleType) -> None:
    flat, checks = (
        torch.zeros(1, 3, 20, 20),
        (torch.arange(400) % 2).float().view(1, 1, 20, 20).expand(1, 3, -1, -1),
    )
    made = script.narrow_border(flat, torch.ones_like(flat))
    assert made.sum() == 3 * (20 * 20 - 16 * 16) and made[..., 2:-2, 2:-2].sum() == 0
    assert script.fine_texture(flat, checks).mean().abs() < 0.01
    assert torch.allclose(script.fine_texture(checks, checks), checks)


def test_the_plan(script: ModuleType) -> None:
    plan = script.plan_photographs(list(script.PAINTERS), range(2))
    assert len(plan) == len(set(plan)) >= 18
    assert sum(run.plan.strength == 0 for run in plan) >= 8
    assert sum(map(script.learns_blocks, plan)) == len(plan) / 2


def of_a_run(
    cue: str, lost: float, rates: tuple[float, float], alerts: list[dict[str, Any]]
) -> dict[str, Any]:
    """A line of two looks, with the follow rates of one property."""

    def measured(share: float) -> Measurement:
        return Measurement(share, 100, 0, 0, 0, (max(share - 0.02, 0.0), share + 0.02))

    def followed(rate: float) -> dict[str, Any]:
        controls = {"border_follow_chance": measured(0.05), "border_same_class_follow_rate": measured(0.1)}
        measurements = {"accuracy": measured(0.9), "border_follow_rate": measured(rate), **controls}
        return Reliance(measurements, 0.25).to_plain()

    accuracies = {"validation": 0.9, "honest": 0.9 - lost}
    exchanged = [{"reliance": followed(rate), "narrower": followed(rate - 0.04)} for rate in rates]
    looks = [{"step": step, "epoch": step, **accuracies, **each} for step, each in enumerate(exchanged)]
    trained = {"cue": cue, "strength": 0.95 if lost else 0.0, "seed": 0, "learns_blocks": True}
    return {**trained, "looks": looks, "alerts": alerts}


def test_the_tables_by_hand(modules: dict[str, ModuleType]) -> None:
    lines = [
        of_a_run("frame", 0.5, (0.5, 0.7), [{"look": 2, "properties": ["border"]}]),
        of_a_run("frame", 0.0, (0.35, 0.21), []),
        of_a_run("corner", 0.3, (0.1, 0.1), []),
        of_a_run("corner", 0.1, (0.1, 0.1), []),
        of_a_run("none", 0.0, (0.34, 0.33), [{"look": 2, "properties": ["border"]}]),
    ]
    text = "\n\n".join(modules["tables"].tables(lines))

    assert (
        "| frame | 0.95 | last blocks | 0.90, 0.40 | yes | **0.70, 0.10** | look 2: border |\n"
        "| frame | any kind | last blocks | 0.90, 0.90 | no | 0.21, 0.10 |  |\n"
        "| corner | 0.95 | last blocks | 0.90, 0.60 | yes | **0.10, 0.10** |  |\n"
        "| corner | 0.95 | last blocks | 0.90, 0.80 | in part | 0.10, 0.10 |  |\n"
        "| none |  | last blocks | 0.90, 0.90 | no | 0.33, 0.10 | look 2: border |\n"
    ) in text
    assert "it alerted in 1 of 2" in text and "In 1 of these" in text
    assert "Silent in spite of reliance: corner 0.95, last blocks." in text
    assert "False alarms: 1 of 2 (none, last blocks)." in text
    assert "it alerted in 0 of 1" in text
    corner, none = (f"{cue}, last blocks" for cue in ("corner 0.95", "none"))
    row = f"| `border` | 0.25 (frame of any kind, last blocks) | 0.17 | 0.23 ({none}) | 0.00 ({corner}) |"
    assert row in text
    row = f"| `border`, narrower | 0.21 (frame of any kind, last blocks) | 0.13 | 0.19 ({none}) | -0.04 ({corner}) |"
    assert row in text
    assert "| 0.20 | 1 of 2 | 1 of 2 | 1 of 2 | 1 of 2 | 1 of 2 | 0 of 2 |" in text
    assert "| 0.25 | 1 of 2 | 1 of 2 | 0 of 2 | 1 of 2 | 1 of 2 | 0 of 2 |" in text


@pytest.mark.filterwarnings(
    "ignore:.*(maps are blank|ShortcutAlarm|in eval mode|does not have many workers|logging interval)"
)
def test_a_training_leaves_a_line(
    modules: dict[str, ModuleType],
    script: ModuleType,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    import timm

    kept: list[Any] = []

    def random_weights() -> Any:
        torch.manual_seed(0)
        kept.append(timm.create_model("tf_efficientnet_lite0"))
        return kept[-1]

    monkeypatch.setattr(script, "pretrained", random_weights)
    settings = script.Settings(epochs=1, side=32, views=1, samples=8)
    run = modules["runs"].Run(modules["cues"].Plan("tint", 0.95), 0)
    line = script.train(folder, run, settings)

    assert json.loads(json.dumps(line)) == line
    assert [look["epoch"] for look in line["looks"]] == [0]
    assert not line["learns_blocks"] and list(line["photographs"].values()) == [5, 5, 5, 5]
    names = script.report([line], settings)
    assert "| `color` |" in names and "20 photographs (5 birds, reptiles and fish" in names
    torch.manual_seed(0)
    before, after = timm.create_model("tf_efficientnet_lite0").state_dict(), kept[0].state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert all(name.startswith("classifier") for name in changed), "the rest is frozen, statistics too"
