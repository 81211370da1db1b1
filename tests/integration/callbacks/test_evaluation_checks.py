"""The causal checks of an evaluation: on a balanced choice out of the whole dataset, beside the table of the scores."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightning_gcam import SaliencyEvaluation
from lightning_gcam.data.fixed_samples import FixedBatch
from lightning_gcam.evaluation import EvaluationResult, Facts, print_table, read_result
from lightning_gcam.evaluation.result import as_csv, plain_table
from lightning_gcam.metrics import Measurement
from lightning_gcam.shortcuts import Reliance
from tests.support import evaluation_script
from tests.support.toys import ReadsTheBorder, Toy, bordered_loader, listening, toy_loader, toy_trainer

CHECKS = ["border", "spectrum"]
NO_CHECKS = "there are no causal checks, which need labels that are classes"


class Quiet(Toy):
    """Tests without a loss, so that its data may be of any kind."""

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing."""


def evaluate(root: Path, loader: Any = None, module: Any = None, **options: Any) -> EvaluationResult:
    """One evaluation of the bordered samples, sorted by class in batches of one class each."""
    usual = {"methods": ["grad_cam", "layer_cam"], "scores": ["gini"], "resamples": 20, "on_error": "raise"}
    evaluation = SaliencyEvaluation(**{**usual, "checks": CHECKS, "directory": root, **options})
    trainer = toy_trainer(root, evaluation)
    trainer.test(module or Quiet(ReadsTheBorder()), loader or bordered_loader(48), verbose=False)
    assert evaluation.result is not None
    return evaluation.result


# ------------------------------------------------------------------------------------------------ what is measured


def test_a_border_that_decides_is_found_in_a_dataset_sorted_by_class(tmp_path: Path) -> None:
    result = evaluate(tmp_path, check_samples=16)

    follow = result.checks["border_follow_rate"]
    assert (follow.value, follow.n, follow.left_out) == (1.0, 16, 0)
    assert follow.interval is not None and follow.interval[0] > 0.75
    assert result.checks["border_swap_accuracy"].value == 0.0
    assert result.checks["border_follow_chance"].value == 0.0
    assert result.checks["border_same_class_accuracy"].value == 1.0
    assert result.scores["accuracy"] == 1.0
    assert result.scores["accuracy_chance"] == 0.25, "four samples of each class, though a batch holds one"
    assert result.facts.samples == 48
    assert {row.n for row in result.rows} == {48}


def test_what_the_model_does_not_read_is_not_followed(tmp_path: Path) -> None:
    """The same images; the class is told by the quadrant of the bright square."""

    class Quadrants(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1, bias=False), torch.nn.ReLU())
            torch.nn.init.ones_(self.features[0].weight)

        def forward(self, images: Tensor) -> Tensor:
            inside = self.features(images)[..., 3:-3, 3:-3]
            return torch.nn.functional.adaptive_avg_pool2d(inside, 2).flatten(1)

    result = evaluate(tmp_path, module=Quiet(Quadrants()), check_samples=16)
    assert result.checks["accuracy"].value == 1.0
    assert result.checks["border_follow_rate"].value == 0.0
    assert result.checks["border_swap_accuracy"].value == 1.0


def test_batches_do_not_change_the_choice(tmp_path: Path) -> None:
    whole = evaluate(tmp_path / "whole", bordered_loader(48, batch_size=48), check_samples=12)
    odd = evaluate(tmp_path / "odd", bordered_loader(48, batch_size=5), check_samples=12, chunk_size=2)
    assert whole.checks == odd.checks
    assert whole.checks["accuracy"].n == 12


def test_the_checks_are_bounded_however_large_the_dataset_is(tmp_path: Path) -> None:
    seen: list[int] = []

    class Counts(Quiet):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(len(images))
            return super().forward(images)

    forwards = []
    for n in (48, 96):
        for checks in (CHECKS, []):
            seen.clear()
            root = tmp_path / f"{n}-{len(checks)}"
            evaluate(root, bordered_loader(n), Counts(ReadsTheBorder()), checks=checks, check_samples=8)
            forwards.append(sum(seen))
    with_48, without_48, with_96, without_96 = forwards
    assert 0 < with_48 - without_48 == with_96 - without_96
    assert without_96 > without_48


def test_samples_that_are_left_out_of_the_table_are_not_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those without a label, and those of a batch that failed; when this is done again, it is as if it never had."""
    ((images, labels),) = bordered_loader(48, batch_size=48)
    labels[:3] = -1
    loader = DataLoader(TensorDataset(images, labels), batch_size=8)
    failing = [True]

    class Fails(Quiet):
        def forward(self, batch: Tensor) -> Tensor:
            if failing and torch.equal(batch, images[8:16]):
                raise RuntimeError("the cable was pulled")
            return super().forward(batch)

    module = Fails(ReadsTheBorder())
    with (
        pytest.warns(UserWarning, match="Evaluating a batch failed"),
        pytest.warns(UserWarning, match="8 samples could not be evaluated"),
    ):
        result = evaluate(tmp_path, loader, module, on_error="warn")
    assert result.facts.samples == result.checks["accuracy"].n == 48 - 3 - 8
    failing.clear()
    again = evaluate(tmp_path, loader, module, on_error="warn")
    assert again.checks["accuracy"].n == 45
    assert again.checks == evaluate(tmp_path / "fresh", loader, module).checks


# ------------------------------------------------------------------------------------------------ going on


@pytest.mark.parametrize("size", [8, 64])
def test_an_evaluation_that_goes_on_makes_the_same_checks(size: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"bordered": True, "n": 24, "checks": CHECKS, "check_samples": size}
    uninterrupted = evaluation_script.evaluate(tmp_path / "whole", **options)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        evaluation_script.evaluate(tmp_path / "cut", at=3, how="interrupt", **options)
    resumed = evaluation_script.evaluate(tmp_path / "cut", **options)
    assert resumed["reliance"] == uninterrupted["reliance"]
    assert resumed["rows"] == uninterrupted["rows"]
    assert resumed["reliance"]["measurements"]["border_follow_rate"]["value"] == 1.0


def test_other_checks_go_on_with_the_numbers_that_are_there(tmp_path: Path) -> None:
    """No number of a sample depends on them, and they are made anew in every pass."""
    options: dict[str, Any] = {"bordered": True, "n": 24}
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        evaluation_script.evaluate(tmp_path, at=3, how="interrupt", **options)
    resumed = evaluation_script.evaluate(tmp_path, checks=CHECKS, check_samples=8, **options)
    fresh = evaluation_script.evaluate(tmp_path / "fresh", checks=CHECKS, check_samples=8, **options)
    assert resumed["reliance"] == fresh["reliance"]
    assert resumed["looks"] < fresh["looks"]


# ------------------------------------------------------------------------------------------------ none


def test_an_empty_list_makes_none_and_keeps_no_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("no sample is to be kept")

    monkeypatch.setattr(FixedBatch, "offer", refuse)
    with listening() as said:
        result = evaluate(tmp_path, checks=[])
    assert (result.reliance, result.checks, result.table) == (None, {}, result.rows)
    assert not [each for each in said if "causal checks" in each]


@pytest.mark.parametrize("kind", ["no labels", "measurements", "a model without classes"])
def test_where_labels_are_no_classes_there_are_none_and_it_is_said_once(kind: str, tmp_path: Path) -> None:
    ((images, labels),) = bordered_loader(48, batch_size=48)
    rows: list[dict[str, Any]] = [{"image": each} for each in images]
    options: dict[str, Any] = {}
    if kind == "measurements":
        rows = [{**row, "label": float(label) + 0.5} for row, label in zip(rows, labels, strict=True)]
        options["targets"] = "output"
    elif kind == "a model without classes":
        rows = [{**row, "label": label} for row, label in zip(rows, labels, strict=True)]
        options["targets"] = lambda logits: logits[:, 0]
    network = ReadsTheBorder()
    if kind == "measurements":
        network.head = torch.nn.Linear(1, 1)
        torch.nn.init.ones_(network.head.weight)

    with listening() as said:
        result = evaluate(tmp_path, DataLoader(rows, batch_size=8), Quiet(network), **options)  # type: ignore[arg-type]

    assert (result.facts.samples, result.reliance) == (48, None)
    assert result.table == result.rows
    assert len([each for each in said if NO_CHECKS in each]) == 1


def test_what_the_images_do_not_have_is_said(tmp_path: Path) -> None:
    with listening() as said:
        result = evaluate(tmp_path, checks=["color", "border"])
    assert "border_follow_rate" in result.checks and "color_follow_rate" not in result.checks
    assert [each for each in said if "the images have no color to exchange" in each]


def test_where_all_samples_are_of_one_class_it_is_said_and_there_is_their_accuracy(tmp_path: Path) -> None:
    ((images, labels),) = bordered_loader(48, batch_size=48)
    one_class = DataLoader(TensorDataset(images[:12], labels[:12]), batch_size=8)
    with listening() as said:
        result = evaluate(tmp_path, one_class)
    assert list(result.checks) == ["accuracy"]
    assert (
        len([each for each in said if "no property is exchanged, which takes samples of several" in each])
        == 1
    )


class BreaksLater(Quiet):
    """Fails when all batches are done, for all images or only for images that no batch held."""

    def __init__(self, also_for: list[bytes]) -> None:
        super().__init__(ReadsTheBorder())
        self.fine, self.batches = also_for, 0

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.batches += 1

    def forward(self, images: Tensor) -> Tensor:
        if self.batches == 6 and not all(each.numpy().tobytes() in self.fine for each in images):
            raise RuntimeError("the cable was pulled")
        return super().forward(images)


@pytest.mark.parametrize("where", ["edited images", "all images"])
def test_a_failure_is_one_warning_and_the_table_comes_all_the_same(where: str, tmp_path: Path) -> None:
    ((images, _),) = bordered_loader(48, batch_size=48)
    fine = [each.numpy().tobytes() for each in images] if where == "edited images" else []

    with pytest.warns(UserWarning, match="the cable was pulled") as warned:
        result = evaluate(tmp_path, module=BreaksLater(fine), on_error="warn")

    (text,) = [str(each.message) for each in warned if "the cable was pulled" in str(each.message)]
    assert text.startswith("Checking what the model relies on failed, and the test goes on without it")
    assert {row.n for row in result.rows} == {48}
    assert "border_follow_rate" not in result.checks
    assert read_result(tmp_path) == result
    assert not list(tmp_path.glob("*/*.npz"))


def test_a_failure_raises_where_it_should_and_what_is_done_is_kept(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the cable was pulled"):
        evaluate(tmp_path, module=BreaksLater([]))
    assert len(list(tmp_path.glob("*/*.npz"))) == 6
    result = evaluate(tmp_path, module=BreaksLater([]), checks=[])
    assert result.facts.samples == 48


# ------------------------------------------------------------------------------------------------ where it stands


def test_the_files_hold_the_checks_beside_the_scores(tmp_path: Path) -> None:
    result = evaluate(tmp_path, check_samples=16)
    with (tmp_path / "scores.csv").open(encoding="utf-8") as file:
        lines = {line["score"]: line for line in csv.DictReader(file) if not line["method"]}
    assert set(lines) == {*result.checks, "accuracy_chance"}
    row = lines["border_follow_rate"]
    low, high = result.checks["border_follow_rate"].interval or (0, 0)
    assert (float(row["value"]), float(row["low"]), float(row["high"])) == (1.0, low, high)
    assert (row["n"], row["left_out"]) == ("16", "0")
    assert (lines["accuracy_chance"]["value"], lines["accuracy_chance"]["low"]) == ("0.25", "")
    assert read_result(tmp_path) == result


def test_a_file_of_an_older_version_still_reads(tmp_path: Path) -> None:
    result = evaluate(tmp_path, checks=[])
    path = tmp_path / "evaluation.json"
    plain = json.loads(path.read_text(encoding="utf-8"))
    del plain["reliance"]
    path.write_text(json.dumps(plain), encoding="utf-8")
    assert read_result(tmp_path) == result


def test_the_checks_are_printed_below_the_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = evaluate(tmp_path, checks=None, check_samples=16)
    lines = plain_table(result)
    assert lines[-1] == "what the model relies on, measured on 16 of the samples"
    (row,) = [line.split() for line in lines if line.startswith("border_follow_rate")]
    assert (row[1], row[-2:]) == ("1.000", ["16", "0"])
    file = io.StringIO()
    monkeypatch.setenv("COLUMNS", "80")
    print_table(result, file)
    assert all(name in file.getvalue() for name in result.checks), "no name is cut in a narrow terminal"


def test_samples_without_room_beside_the_object_are_not_said_to_have_no_mask() -> None:
    crowded = Measurement(0.5, 12, 0, 1, 0, (0.25, 0.75), no_room=3)
    facts = Facts(["grad_cam"], ["gini"], "layer4", "label", 16)
    result = EvaluationResult((), facts, Reliance({"background_only_accuracy": crowded}, chance=0.5))
    (row,) = [row for row in result.table if row.score == "background_only_accuracy"]
    assert (row.no_mask, row.no_room, row.left_out) == (1, 3, 4)
    assert any(line.endswith("12  4 (1 no mask, 3 no room)") for line in plain_table(result))
    (line,) = [line for line in csv.DictReader(io.StringIO(as_csv(result))) if line["score"] == row.score]
    assert (line["left_out"], line["no_mask"], line["no_room"]) == ("4", "1", "3")


def test_by_default_there_are_checks_without_any_annotation_but_labels(tmp_path: Path) -> None:
    evaluation = SaliencyEvaluation(scores=["gini"], on_error="raise", directory=tmp_path)
    toy_trainer(tmp_path, evaluation).test(Quiet(ReadsTheBorder()), bordered_loader(96), verbose=False)
    assert evaluation.result is not None
    assert evaluation.result.checks["border_follow_rate"].value == 1.0
    assert {each.n + each.left_out for each in evaluation.result.checks.values()} == {64}
    followed = {
        name.removesuffix("_follow_rate")
        for name in evaluation.result.checks
        if name.endswith("_follow_rate")
    }
    properties = {"spectrum", "texture", "border", "salient_region"}
    assert followed == properties | {f"{each}_same_class" for each in properties}, (
        "a grey image has no colour"
    )


def test_masks_and_labels_make_the_checks_that_need_them(tmp_path: Path) -> None:
    torch.manual_seed(3)
    result = evaluate(tmp_path, toy_loader(24), Quiet(), checks=None)
    assert {"accuracy", "background_only_accuracy", "object_only_accuracy"} <= set(result.checks)
