"""The comparison on digits, small: what is scored, the statistics by hand, and that a stopped run goes on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gcam.cam import available_methods
from lightning_gcam.cam.methods import grad_cam, guidance_cam, hires_cam
from tests.support.nets import OF_TRANSFORMERS

METHODS = ("guidance_cam", "grad_cam", "hires_cam", "score_cam", "random", "centre")
SEVEN = {"pointing_game", "energy", "iou", "average_drop", "average_increase", "insertion", "deletion"}


@pytest.fixture(scope="module")
def modules() -> Any:
    from benchmarks.methods import comparison, method_figures, networks, runs, summary, tables, variants

    return {
        "script": comparison,
        "methods": variants,
        "networks": networks,
        "runs": runs,
        "statistics": summary,
        "tables": tables,
        "figures": method_figures,
    }


@pytest.fixture(scope="module")
def settings(modules: dict[str, ModuleType]) -> Any:
    return modules["runs"].Settings(1, 64, 6, METHODS)


# ------------------------------------------------------------------------------------- what is compared


def test_all_methods_by_the_seven_scores_and_more(modules: dict[str, ModuleType]) -> None:
    assert set(modules["runs"].SCORES) >= SEVEN
    apart = (*OF_TRANSFORMERS, *modules["methods"].CONTROLS)
    of_convolutions = [each for each in available_methods() if each not in apart]
    assert modules["runs"].Settings.of(1, 1, 1).methods == tuple(of_convolutions)
    plan = modules["runs"].plan_runs(3)
    assert len(plan) == len(set(plan)) == 3 * 2 * 3 * 2
    assert {run.unit.head for run in plan} == {"pooled", "max-pooled", "VGG-like"}


@pytest.mark.parametrize("labels", ["single", "multi"])
def test_each_row_has_its_own_mask(modules: dict[str, ModuleType], labels: str) -> None:
    networks = modules["networks"]
    unit = networks.Unit(labels, "pooled", 0)
    rows = networks.targets_of(unit, 6)
    again = networks.targets_of(unit, 6)
    assert torch.equal(rows.images, again.images)
    assert rows.masks.shape == (6, 64, 64) and rows.masks.flatten(1).any(dim=1).all()
    canvases = networks.canvas_of_row(unit, 6).tolist()
    assert canvases == ([0, 0, 0, 1, 1, 1] if labels == "multi" else list(range(6)))
    if labels == "multi":
        assert torch.equal(rows.images[0], rows.images[2])
        assert len(set(rows.classes[:3].tolist())) == 3
        assert not (rows.masks[0] & rows.masks[1]).any()


def test_no_ground_of_the_training_is_explained(modules: dict[str, ModuleType]) -> None:
    """Grounds are cut from the left halves of the photographs there, and from the right halves here."""
    networks, generators = modules["networks"], [torch.Generator().manual_seed(4) for _ in range(2)]
    trained, unseen = (
        networks.cut_grounds(3, each, validation)
        for each, validation in zip(generators, (False, True), strict=True)
    )
    assert not torch.equal(trained, unseen)
    assert trained.min() >= 0 and trained.max() <= 1


def test_controls_and_variants_by_hand(modules: dict[str, ModuleType]) -> None:
    room = modules["methods"]
    A = torch.tensor([[[[1.0, 2.0]], [[2.0, 0.0]]]])
    g = torch.tensor([[[[3.0, 1.0]], [[-1.0, -1.0]]]])
    # w = 2, -1; Grad-CAM: 2 - 2, 4 - 0; HiResCAM: 3 - 2, 2 - 0
    assert grad_cam(A, g).tolist() == [[[0, 4]]] and hires_cam(A, g).tolist() == [[[1, 2]]]
    assert room.grad_cam_squared(A, g).tolist() == [[[0, 16]]]
    assert room.hires_cam_squared(A, g).tolist() == [[[1, 4]]]
    assert room.guidance_root(A, g).tolist() == [[[0, pytest.approx(math.sqrt(8))]]]
    assert room.guidance_rectified_terms(A, g).tolist() == [[[2, 8]]]  # (2, 4) * G
    assert room.guidance_own_terms(A, g).tolist() == [[[6, 8]]]  # 2 * 3 + 0, 4 * 2 + 0
    assert room.guidance_softened(A, g).tolist() == [[[0, 8]]]  # Grad-CAM * (1 + G / 2)
    assert guidance_cam(A, g).tolist() == [[[0, 8]]]


# ------------------------------------------------------------------------------------- statistics


def line(seed: int, first: list[float | None], second: list[float | None], names: Any, scores: Any) -> Any:
    values = {names[0]: dict.fromkeys(scores, first), names[1]: dict.fromkeys(scores, second)}
    return {"labels": "single", "head": "pooled", "layer": "last", "seed": seed, "values": values}


def test_differences_are_paired_and_turned_so_that_more_is_better(modules: dict[str, ModuleType]) -> None:
    room = modules["statistics"]
    names, scores = ["guidance_cam", "other"], modules["runs"].SCORES
    lines = [line(seed, [0.5, None, 0.9, 0.4], [0.4, 0.9, 0.8, None], names, scores) for seed in range(3)]
    (samples,) = room.samples_of(lines).values()
    assert samples.values.shape == (2, len(scores), 12)
    own = room.estimate(samples.values, samples.times)
    torch.testing.assert_close(own.mean[:, 0], torch.tensor([0.6, 0.7], dtype=torch.float64))
    paired = room.estimate(room.SIGNS[:, None] * (samples.values[0] - samples.values[1:]), samples.times)
    expected = [0.1 * room.SIGNS[index] for index in range(len(scores))]  # where both have a number
    torch.testing.assert_close(paired.mean[0], torch.stack(expected).double())
    triple = room.triples(paired)[0][scores.index("energy")]
    assert triple == [0.1, 0.1, 0.1]
    assert room.triples(paired)[0][scores.index("deletion")] == [-0.1, -0.1, -0.1]


def test_draws_keep_rows_of_one_canvas_together(modules: dict[str, ModuleType]) -> None:
    times: Tensor = modules["statistics"].draw_samples(3, torch.tensor([0, 0, 0, 1, 1, 1]))
    assert times.shape == (1000, 18)
    for seed in range(3):
        rows = times[:, 6 * seed : 6 * seed + 6]
        assert torch.equal(rows[:, 0], rows[:, 2]) and torch.equal(rows[:, 3], rows[:, 5])
    assert torch.equal(times.sum(dim=1), torch.full((1000,), 18.0, dtype=torch.float64))
    assert len(times[:, 0].unique()) > 3


def test_won_and_lost_are_decided_by_the_interval(modules: dict[str, ModuleType]) -> None:
    room = modules["tables"]
    cases = {
        (0.1, 0.01, 0.2): (True, False),
        (0.1, -0.01, 0.2): (False, False),
        (-0.1, -0.2, -0.01): (False, True),
    }
    for triple, expected in cases.items():
        assert (room.won(triple), room.lost(triple)) == expected
    assert not room.won((None, None, None)) and not room.lost((None, None, None))
    assert room.marked((0.1, 0.01, 0.2)) == "**+0.100**"


# ------------------------------------------------------------------------------------- runs that are kept


@pytest.fixture(scope="module")
def two(modules: dict[str, ModuleType], settings: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One network at both layers, kept in a folder."""
    folder = tmp_path_factory.mktemp("runs")
    units = modules["networks"].Unit("multi", "pooled", 0)
    runs = [modules["runs"].Run(units, layer) for layer in ("last", "earlier")]
    return runs, folder, modules["runs"].run_all(runs, settings, folder, 0)


def test_each_method_has_a_number_of_each_sample(two: Any, modules: dict[str, ModuleType]) -> None:
    _, _, (last, earlier) = two
    beside = [*modules["methods"].CONTROLS, *modules["methods"].VARIANTS]
    assert list(earlier["values"]) == [*METHODS, *beside]
    assert list(last["values"]) == [*METHODS, *beside, modules["methods"].FROM_EARLIER]
    for name, of_score in last["values"].items():
        assert set(of_score) == set(modules["runs"].SCORES), name
        assert all(len(values) == 6 for values in of_score.values())
    assert last["even"] and not earlier["even"]
    spearman = last["spearman"]
    assert spearman[1][1] == pytest.approx(1, abs=1e-3)
    assert spearman[0][1] > 0.98  # Grad-CAM squared under a pooled head; squared, and then enlarged
    assert last["values"]["guidance_cam"]["energy"] == pytest.approx(
        last["values"]["grad_cam_squared"]["energy"], abs=1e-4
    )


def test_a_run_that_was_stopped_goes_on(
    two: Any, modules: dict[str, ModuleType], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, folder, lines = two
    path = folder / "comparison.jsonl"
    whole = path.read_text()
    kept = [each for each in whole.splitlines() if each]
    path.write_text("\n".join([*kept[:-1], kept[-1][:50]]))  # killed while the last line was written
    measured: list[Any] = []
    room = modules["runs"]
    original = room.measure

    def measure(run: Any, *arguments: Any) -> Any:
        measured.append(run)
        return original(run, *arguments)

    monkeypatch.setattr(room, "measure", measure)
    monkeypatch.setattr(room, "train", lambda *_: pytest.fail("the network is kept"))
    again = room.run_all(runs, settings, folder, 0)
    assert measured == runs[-1:]
    for one, other in zip(again, lines, strict=True):
        assert one["values"] == other["values"]
    other_settings = settings._replace(samples=5)
    assert room.read_runs(path, room.fingerprint_of(other_settings)) == {}


def test_tables_and_figure_are_made_of_the_summary(
    two: Any, modules: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        {**each, "labels": labels, "head": head, "seed": seed}
        for each in two[2]
        for labels in ("single", "multi")
        for head in ("pooled", "max-pooled", "VGG-like")
        for seed in range(2)
    ]
    cost = [
        {"kind": "cost", "method": name, "asked": 1, "wall": 1.0, "processor": 1.0, "memory": None}
        for name in METHODS
    ]
    about = {
        "kind": "about",
        "settings": modules["runs"].Settings(1, 64, 6)._asdict(),
        "seeds": 2,
        "cost": "",
        "words": "",
    }
    summary = tmp_path / "summary.jsonl"
    modules["statistics"].write_summary([about, *modules["statistics"].summarize(lines), *cost], summary)
    page, figure = tmp_path / "page.md", tmp_path / "figure.png"
    arguments = ["--tables", "--summary", str(summary), "--output", str(page), "--figure", str(figure)]
    modules["script"].main(arguments)
    text = page.read_text(encoding="utf-8")
    assert figure.stat().st_size > 10_000
    assert all(f"`{name}`" in text for name in (*METHODS, *SEVEN))
    assert "there guidance *is* Grad-CAM squared" in text
    assert json.loads(summary.read_text().splitlines()[0])["kind"] == "about"


def test_the_figure_of_the_method(
    two: Any, modules: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "method.png"
    modules["figures"].draw([("one", [torch.zeros(8, 8, 3, dtype=torch.uint8)] * 5)], target)
    assert target.stat().st_size > 1000
