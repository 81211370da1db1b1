"""An evaluation that is killed or interrupted goes on where it stopped, to the very numbers of one that was not."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_gcam.evaluation import SampleStore
from tests.support.evaluation_script import evaluate
from tests.support.processes import Ended, run_script


def run(directory: Path, **options: Any) -> Ended:
    """An evaluation in a process of its own."""
    return run_script("tests.support.evaluation_script", str(directory), json.dumps(options))


def table(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = found["rows"]
    return rows


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return evaluate(tmp_path_factory.mktemp("whole"))


def parts_in(directory: Path) -> list[Path]:
    return sorted(directory.glob("saliency_evaluation-*/*.npz"))


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [("kill", -signal.SIGKILL), ("interrupt", 1)])
def test_it_goes_on_where_it_stopped(
    how: str, code: int, tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    stopped = run(tmp_path, at=3, how=how)
    assert stopped.returncode == code, stopped.said[-2000:]
    assert len(parts_in(tmp_path)) == 4
    assert not (tmp_path / "scores.csv").exists()
    if how == "interrupt":
        assert "interrupted with 16 samples done" in stopped.said

    resumed = evaluate(tmp_path)

    assert table(resumed) == table(uninterrupted)
    assert resumed["facts"]["samples"] == 21
    assert resumed["facts"]["forwards"] == uninterrupted["facts"]["forwards"]
    assert resumed["test"] == uninterrupted["test"]
    assert resumed["looks"] < uninterrupted["looks"] / 2, "four batches of six were done already"
    assert parts_in(tmp_path) == [], "what is finished leaves nothing but its table"


def half_done(directory: Path, **options: Any) -> list[Path]:
    """Four batches of six, as an evaluation leaves them that was stopped."""
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        evaluate(directory, at=3, how="interrupt", **options)
    return parts_in(directory)


def test_other_batches_go_on_as_well(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    half_done(tmp_path)
    resumed = evaluate(tmp_path, batch_size=3)
    for row, whole in zip(table(resumed), table(uninterrupted), strict=True):
        assert {**row, "value": 0, "low": 0, "high": 0} == {**whole, "value": 0, "low": 0, "high": 0}
        for name in ("value", "low", "high"):
            assert row[name] == pytest.approx(whole[name], rel=1e-5)
    assert resumed["looks"] < uninterrupted["looks"]


def test_a_file_that_was_torn_is_done_again(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    first, second, *_ = half_done(tmp_path)
    first.write_bytes(first.read_bytes()[:-40])
    damaged = bytearray(second.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    second.write_bytes(damaged)
    with pytest.warns(UserWarning, match=r"npz is passed over, and its samples are evaluated again") as said:
        assert table(evaluate(tmp_path)) == table(uninterrupted)
    assert len([each for each in said if "is passed over" in str(each.message)]) == 2


BROKEN_PARTS: dict[str, tuple[dict[str, Any], str]] = {
    "reasons of other samples": (
        {"reasons": np.zeros((9, 3), np.uint8)},
        r'"reasons" is uint8 \(9, 3\), not',
    ),
    "words in the place of numbers": ({"cost": np.array(["a", "b"])}, r'"cost" is <U1'),
    "other thresholds": ({"rows": 2}, r"other shapes than those of the files before"),
    "rows of other samples": ({"rows": 0}, r"not of 4 samples"),
    "names nested too deep": ({"names": np.array("[" * 100_000)}, r"recursion"),
    "a pickle": ({"digests": np.array([None] * 4, dtype=object)}, r"allow_pickle=False"),
    "another layer": ({"layers": np.array('["network.1"]')}, r"is of layer network.1, not of network"),
}


@pytest.mark.parametrize("what", BROKEN_PARTS)
def test_a_part_that_does_not_fit_is_done_again(
    what: str, tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    _, second, *_ = half_done(tmp_path)
    change, words = BROKEN_PARTS[what]
    with np.load(second) as file:
        members = dict(file)
    if "rows" in change:
        rows = next(name for name in members if name.startswith("rows"))
        change = {rows: members[rows].repeat(2, axis=1 if change["rows"] else 0)}
    np.savez_compressed(second, allow_pickle=True, **{**members, **change})
    with pytest.warns(UserWarning, match=rf"npz is passed over, and its samples .*{words}") as said:
        assert table(evaluate(tmp_path)) == table(uninterrupted)
    assert len([each for each in said if "is passed over" in str(each.message)]) == 1


@pytest.mark.parametrize("text", ["", '{"layers": [["a"]]}', "[" * 100_000])
def test_parts_know_their_layer_by_themselves(
    text: str, tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    (part, *_) = half_done(tmp_path)
    (part.parent / "common.json").write_text(text)
    parts = SampleStore(part.parent)
    assert len(parts.digests()) == 16
    assert parts.read_common() == {"layers": [uninterrupted["facts"]["target_layer"]]}
    resumed = evaluate(tmp_path)
    assert table(resumed) == table(uninterrupted)
    assert resumed["facts"]["target_layer"] == uninterrupted["facts"]["target_layer"]


@pytest.mark.parametrize("change", ["methods", "scores", "weights", "samples", "resume"])
def test_what_is_not_the_same_is_done_again(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers of other settings, weights or images are never taken."""
    options: dict[str, Any] = {}
    half_done(tmp_path)
    if change == "methods":
        options = {"methods": ["guidance_cam", "grad_cam"]}
    elif change == "scores":
        options = {"scores": ["energy"]}
    elif change == "resume":
        options = {"resume": False}
    elif change == "weights":
        _shift(monkeypatch, "weights")
    else:
        _shift(monkeypatch, "samples")
    resumed = evaluate(tmp_path, **options)
    fresh = evaluate(tmp_path / "fresh", **options)
    assert table(resumed) == table(fresh)
    found_already = 2 if change == "samples" else 0  # the heads and the layer, by a forward each
    assert resumed["looks"] == fresh["looks"] - found_already


def _shift(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    from tests.support import evaluation_script
    from tests.support.toys import Toy, toy_loader

    if what == "samples":
        other = lambda n, **options: toy_loader(n, seed=8, **options)  # noqa: E731
        monkeypatch.setattr(evaluation_script, "toy_loader", other)
        return
    true_init = Toy.__init__

    def shifted(self: Toy, *arguments: Any) -> None:
        true_init(self, *arguments)
        self.network[0].weight.data += 0.1

    monkeypatch.setattr(Toy, "__init__", shifted)


def test_the_samples_of_fewer_batches_are_those_that_were_delivered(tmp_path: Path) -> None:
    half_done(tmp_path)
    resumed = evaluate(tmp_path, n=8)
    assert resumed["facts"]["samples"] == 8


def test_a_part_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Any, target: Any) -> None:
        if str(target).endswith(".npz"):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(OSError, match="No space left"):
        evaluate(tmp_path)
    monkeypatch.undo()
    (directory,) = tmp_path.glob("saliency_evaluation-*")
    assert SampleStore(directory).digests() == {}
