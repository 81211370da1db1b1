"""`SaliencyEvaluation`: the numbers of a look, over a whole dataset; and the test stays what it was."""

from __future__ import annotations

import csv
import gc
import io
import json
import time
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import pytorch_lightning
import torch
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric

from lightning_gcam import SaliencyBatch, SaliencyEvaluation, attribute
from lightning_gcam.evaluation import EvaluationResult, print_table, read_result
from lightning_gcam.evaluation.result import plain_table
from lightning_gcam.metrics import PointingGame, SampleScore, functional
from lightning_gcam.metrics.samples import PerSample
from lightning_gcam.pipeline.run import record_saliency
from tests.support.toys import PACKAGES, Toy, listening, toy_loader, toy_of, toy_samples, toy_trainer
from tests.support.wandb_reader import history
from tests.support.witness import random_streams

METHODS = ["guidance_cam", "grad_cam", "layer_cam"]
SCORES = [
    "energy",
    "object_lift",
    "pointing_game",
    "max_box_accuracy",
    "average_drop",
    "deletion",
    "win_rate",
    "gini",
]


def evaluate(root: Path, loader: Any = None, module: Any = None, **options: Any) -> EvaluationResult:
    """One evaluation of the toy samples at a named layer."""
    quick = {"methods": METHODS, "scores": SCORES, "checks": [], "target_layer": "network.2", "resamples": 50}
    evaluation = SaliencyEvaluation(**{**quick, "on_error": "raise", "directory": root, **options})
    toy_trainer(root, evaluation).test(module or toy(), loader or toy_loader(), verbose=False)
    assert evaluation.result is not None
    return evaluation.result


class Quiet(Toy):
    """Tests without a loss, so that its data may be of any kind."""

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing."""


def toy() -> Toy:
    torch.manual_seed(3)
    return Quiet()


def numbers(result: EvaluationResult) -> dict[tuple[str, str], tuple[Any, ...]]:
    """All that a row says, by method and score."""
    return {
        (row.method, row.score): (row.value, row.low, row.high, row.n, row.left_out) for row in result.rows
    }


def loader_of(batch_size: int = 8, **fields: Any) -> DataLoader[Any]:
    """The toy samples with some fields exchanged, as dicts."""
    images, labels, masks = toy_samples()
    parts = {"image": images, "label": labels, "mask": masks, **fields}
    rows = [{name: part[row] for name, part in parts.items()} for row in range(len(images))]
    return DataLoader(rows, batch_size=batch_size)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ values


def test_the_numbers_are_those_of_a_look_at_all_samples_at_once(tmp_path: Path) -> None:
    module, options = toy(), {"methods": METHODS, "scores": SCORES, "target_layer": "network.2"}
    record = record_saliency(module, SaliencyBatch(*toy_samples()), checks=[], **options)  # type: ignore[arg-type]
    expected = {name: each.value for name, each in record.measurements.items()}

    result = evaluate(tmp_path, module=module)

    found = {
        name: value
        for name, value in result.scores.items()
        if name.partition("/")[0] not in ("centre", "uniform")
    }
    assert found == pytest.approx(expected, rel=1e-5)
    assert {row.n for row in result.rows} == {24}
    for name, value in record.results.baselines.items():
        assert result.row(*name.split("/")).value == pytest.approx(value, rel=1e-6), name


def test_neither_batches_nor_chunks_change_a_number(tmp_path: Path) -> None:
    whole = numbers(evaluate(tmp_path / "whole", toy_loader(batch_size=24)))
    for name, loader, chunk in (
        ("odd", toy_loader(batch_size=5), None),
        ("chunks", toy_loader(batch_size=12), 5),
    ):
        other = numbers(evaluate(tmp_path / name, loader, chunk_size=chunk))
        assert other.keys() == whole.keys()
        for key, values in whole.items():
            assert other[key] == pytest.approx(values, rel=1e-4, abs=1e-6), key


def test_all_maps_of_a_batch_come_from_one_forward_and_one_gradient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {"forward": 0, "gradient": 0}
    module, true_forward, true_gradient = toy(), Toy.forward, torch.autograd.grad

    def forward(self: Toy, images: Tensor) -> Tensor:
        calls["forward"] += 1
        return true_forward(self, images)

    def gradient(*arguments: Any, **options: Any) -> Any:
        calls["gradient"] += 1
        return true_gradient(*arguments, **options)

    monkeypatch.setattr(Toy, "forward", forward)
    monkeypatch.setattr(torch.autograd, "grad", gradient)
    counts = []
    for batch_size in (
        8,
        4,
    ):  # the difference of 3 and 6 batches, so that the trial before the first does not count
        before = dict(calls)
        result = evaluate(
            tmp_path / str(batch_size),
            toy_loader(batch_size=batch_size),
            module,
            scores=["energy", "iou", "gini"],
        )
        counts.append({name: calls[name] - before[name] for name in calls})
        assert result.facts.forwards == 1.0

    assert [counts[1][name] - counts[0][name] for name in ("forward", "gradient")] == [3, 3]


def test_the_cost_is_told(tmp_path: Path) -> None:
    result = evaluate(tmp_path, scores=["energy", "average_drop", "average_gain", "deletion"])
    assert result.facts.forwards == 1 + len(METHODS) * (1 + 21)


# ------------------------------------------------------------------------------------------------ what is left out


def test_what_is_left_out_is_counted_by_its_reason(tmp_path: Path) -> None:
    _, labels, masks = toy_samples()
    masks[:3] = False
    labels[3:5] = -1
    module = toy()
    with torch.no_grad():
        module.network[8].weight[0] = -1.0  # nothing speaks for class 0
    blank = int((labels == 0).sum())

    scores = ["energy", "blank_rate"]
    result = evaluate(
        tmp_path, loader_of(label=labels, mask=masks), module, scores=scores, target_layer="network.5"
    )

    row = result.row("grad_cam", "energy")
    assert (row.n, row.blank, row.no_mask, row.undefined) == (22 - blank - 2, blank, 2, 0)
    assert result.row("grad_cam", "blank_rate").value == pytest.approx(blank / 22)
    assert (result.facts.samples, result.facts.unlabelled) == (22, 2)
    assert result.row("centre", "energy").n == 19


def test_without_masks_there_is_what_needs_none(tmp_path: Path) -> None:
    images, labels, _ = toy_samples()
    loader = DataLoader(TensorDataset(images, labels), batch_size=8)
    result = evaluate(tmp_path, loader, scores=["energy", "gini", "average_drop"])
    assert {row.score for row in result.rows} == {"gini", "average_drop"}
    assert result.facts.methods == METHODS


def test_a_batch_that_fails_is_counted_told_and_tried_again(tmp_path: Path) -> None:
    images, *_ = toy_samples()
    module, true_forward, failing = toy(), Toy.forward, [True]

    def forward(self: Toy, batch: Tensor) -> Tensor:
        if failing and torch.equal(batch, images[8:16]):
            raise RuntimeError("the cable was pulled")
        return true_forward(self, batch)

    module.forward = forward.__get__(module)  # type: ignore[method-assign]
    with (
        pytest.warns(UserWarning, match="Evaluating a batch failed, and the test goes on without it"),
        pytest.warns(UserWarning, match="8 samples could not be evaluated"),
    ):
        result = evaluate(tmp_path, module=module, on_error="warn", scores=["energy"])
    assert (result.facts.samples, result.facts.failed, result.row("grad_cam", "energy").n) == (16, 8, 16)

    failing.clear()
    again = evaluate(tmp_path, module=module, scores=["energy"])
    assert (again.facts.samples, again.facts.failed) == (24, 0)
    assert numbers(again) == numbers(evaluate(tmp_path / "fresh", module=module, scores=["energy"]))


# ------------------------------------------------------------------------------------------------ the test stays


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_the_test_is_the_same_bit_for_bit(tmp_path: Path, package: ModuleType) -> None:
    seen = []
    for callbacks in (
        [],
        [SaliencyEvaluation(methods=METHODS, scores=SCORES, directory=tmp_path, on_error="raise")],
    ):
        torch.manual_seed(5)
        module = toy_of(package)
        trainer = toy_trainer(tmp_path, *callbacks, package=package)
        measured = trainer.test(module, toy_loader(shuffle=False), verbose=False)
        state = {name: each.clone() for name, each in module.state_dict().items()}
        seen.append((measured, state, random_streams(), [each.training for each in module.modules()]))
    (plain, before, streams, modes), (watched, after, same_streams, same_modes) = seen
    assert plain == watched
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert streams == same_streams
    assert modes == same_modes


def test_nothing_is_done_in_fit_and_validate(tmp_path: Path) -> None:
    evaluation = SaliencyEvaluation(on_error="raise", directory=tmp_path / "out")
    trainer = toy_trainer(tmp_path, evaluation, max_epochs=1, num_sanity_val_steps=0)
    trainer.fit(toy(), toy_loader(), toy_loader())
    trainer.validate(toy(), toy_loader(), verbose=False)
    assert evaluation.result is None
    assert not (tmp_path / "out").exists()


def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    """All tensors and arrays that live behind a batch, from the second one on."""

    class Weighs(pytorch_lightning.Callback):
        held: ClassVar[list[int]] = []

        def on_test_batch_end(self, *_: Any) -> None:
            gc.collect()
            tensors = [each for each in gc.get_objects() if issubclass(type(each), Tensor)]
            dense = [each for each in tensors if each.layout is torch.strided]
            self.held.append(sum(each.untyped_storage().nbytes() for each in dense))

    options = {"methods": METHODS, "scores": SCORES, "check_samples": 4, "on_error": "raise"}
    evaluation = SaliencyEvaluation(**options, directory=tmp_path)
    trainer = toy_trainer(tmp_path, evaluation, Weighs())
    trainer.test(toy(), toy_loader(28, batch_size=4), verbose=False)
    assert len(Weighs.held) == 7
    assert len(set(Weighs.held[1:])) == 1, Weighs.held


def test_no_bar_of_a_piece_lies_over_the_bar_of_the_test(tmp_path: Path) -> None:
    from lightning_gcam.utils import chunking as pieces

    shown = []

    class Bar(pieces.tqdm):  # type: ignore[misc, name-defined]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            shown.append(not options.get("disable"))
            super().__init__(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "tqdm", Bar)
        evaluate(tmp_path, chunk_size=3, scores=["average_drop", "coherency"])
        assert shown and not any(shown)
        pieces.run_in_chunks(4, lambda piece: piece, chunk_size=2)
        assert shown[-1], "elsewhere it is shown"


# ------------------------------------------------------------------------------------------------ what is written


def test_the_files_hold_the_table_and_how_it_came_about(tmp_path: Path) -> None:
    result = evaluate(tmp_path, about={"dataset": "toys"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation.json", "scores.csv"]
    with (tmp_path / "scores.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [(line["method"], line["score"]) for line in lines] == [
        (row.method, row.score) for row in result.rows
    ]
    assert float(lines[0]["value"]) == result.rows[0].value
    assert (lines[0]["n"], lines[0]["left_out"]) == ("24", "0")

    read = read_result(tmp_path)
    assert read == result
    facts = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))["facts"]
    assert facts["versions"]["torch"] == torch.__version__.split("+")[0]
    assert facts["versions"].keys() >= {"python", "lightning-gcam", "pytorch-lightning"}
    assert (facts["target_layer"], facts["device"], facts["about"]) == (
        "network.2",
        "cpu",
        {"dataset": "toys"},
    )
    assert facts["command"] and facts["weights"] and facts["resamples"] == 50


def test_without_a_directory_each_table_has_its_own(tmp_path: Path) -> None:
    for version in (0, 1):
        evaluation = SaliencyEvaluation(on_error="raise", scores=["energy"])
        toy_trainer(tmp_path, evaluation).test(toy(), toy_loader(), verbose=False)
        assert evaluation.directory == tmp_path / "lightning_gcam" / f"version_{version}"
        assert sorted(each.name for each in evaluation.directory.iterdir()) == [
            "evaluation.json",
            "scores.csv",
        ]


def test_the_seed_is_written_down(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PL_GLOBAL_SEED", "7")
        assert evaluate(tmp_path, scores=["energy"]).facts.seed == 7
        patch.delenv("PL_GLOBAL_SEED")
        assert evaluate(tmp_path, scores=["energy"]).facts.seed is None


def test_loggers_get_numbers_at_the_step_and_the_table(tmp_path: Path) -> None:
    loggers = [TensorBoardLogger(tmp_path, name="board"), CSVLogger(tmp_path, name="rows")]
    options = {"scores": ["energy"], "checks": ["border"], "on_error": "raise"}
    evaluation = SaliencyEvaluation(methods=METHODS, directory=tmp_path / "out", **options)
    trainer = toy_trainer(tmp_path, evaluation, logger=loggers, max_epochs=1, log_every_n_steps=1)
    module = toy()
    trainer.fit(module, toy_loader(), toy_loader())
    trainer.test(module, toy_loader(), verbose=False)
    assert evaluation.result is not None

    board = EventAccumulator(str(loggers[0].log_dir)).Reload()
    (event,) = board.Scalars("saliency_evaluation/grad_cam/energy")
    assert (event.step, event.value) == (3, pytest.approx(evaluation.result.row("grad_cam", "energy").value))
    (text,) = board.Tensors("saliency_evaluation/table/text_summary")
    assert b"| grad_cam | energy |" in text.tensor_proto.string_val[0]
    assert b"|  | border_follow_rate |" in text.tensor_proto.string_val[0]
    (event,) = board.Scalars("saliency_evaluation/border_follow_rate")
    assert event.value == pytest.approx(evaluation.result.checks["border_follow_rate"].value)
    with (Path(loggers[1].log_dir) / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("saliency_evaluation/energy")]
    assert [row["step"] for row in rows] == ["3"]


def test_the_printed_table_names_the_best_and_all_that_was_left_out(tmp_path: Path) -> None:
    result = evaluate(tmp_path, scores=["energy", "average_drop"])
    best = max((result.row(method, "energy") for method in METHODS), key=lambda row: row.value)
    lowest = min((result.row(method, "average_drop") for method in METHODS), key=lambda row: row.value)
    lines = plain_table(result)
    starred = [line.split()[-8:] for line in lines if " * " in line]
    assert [row[row.index("*") - 2] for row in starred] == [best.method, lowest.method]
    assert "24 samples, layer network.2, targets label" in lines[-1]
    file = io.StringIO()
    print_table(result, file)
    assert all(f"{row.value:.3f}" in file.getvalue() for row in result.rows)


def test_without_rich_the_table_is_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = evaluate(tmp_path, scores=["energy"])
    monkeypatch.setattr("lightning_gcam.evaluation.result.find_spec", lambda name: None)
    file = io.StringIO()
    print_table(result, file)
    assert file.getvalue().splitlines() == plain_table(result)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # wandb's own
def test_wandb_has_the_numbers_and_the_table(tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb")
    logger = pytorch_lightning.loggers.WandbLogger(project="toy", save_dir=tmp_path, offline=True)
    options = {"scores": ["energy"], "checks": ["border"], "on_error": "raise"}
    evaluation = SaliencyEvaluation(methods=METHODS, directory=tmp_path / "out", **options)
    toy_trainer(tmp_path, evaluation, logger=logger).test(toy(), toy_loader(), verbose=False)
    wandb.finish()
    assert evaluation.result is not None
    rows: list[dict[str, Any]] = []
    for _ in range(40):  # on a crowded machine its service may still be writing
        if rows := history(tmp_path):
            break
        time.sleep(0.25)
    numbers = next(row for row in rows if "saliency_evaluation/layer_cam/energy" in row)
    value = evaluation.result.row("layer_cam", "energy").value
    assert numbers["saliency_evaluation/layer_cam/energy"] == pytest.approx(value)
    table = next(row["saliency_evaluation/table"] for row in rows if "saliency_evaluation/table" in row)
    assert (
        numbers["saliency_evaluation/border_follow_rate"]
        == evaluation.result.checks["border_follow_rate"].value
    )
    assert (table["nrows"], table["ncols"]) == (len(evaluation.result.table), 12)


# ------------------------------------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scores": ["drift"]}, "compares a look with an earlier one"),
        ({"scores": {"mean": MeanMetric()}}, "gives one value for all samples"),
        ({"methods": "no_such_cam"}, "`methods`"),
        ({"targets": 1.5}, "`targets`"),
        ({"resamples": 0}, "`resamples`"),
        ({"checks": ["frame"]}, '`checks` "frame" is not a check'),
        ({"check_samples": 0}, "`check_samples`"),
        ({"chunk_size": 0}, "`chunk_size`"),
        ({"log_prefix": ""}, "`log_prefix`"),
        ({"on_error": "panic"}, "`on_error`"),
    ],
)
def test_what_cannot_be_is_refused_at_the_door(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SaliencyEvaluation(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target_layer": "layer9"}, "`target_layer`"),
        ({"dataloader_idx": 1}, "there is 1 test dataloader"),
        ({"scores": ["win_rate"], "methods": "grad_cam"}, "win_rate"),
        ({"targets": "output"}, "output"),
    ],
)
def test_what_cannot_be_is_refused_before_time_is_spent(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        evaluate(tmp_path, **{"on_error": "warn", **options})


def test_labels_beyond_the_logits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`labels` holds class 4"):
        evaluate(tmp_path, loader_of(label=torch.arange(24), batch_size=24), on_error="warn")


def test_two_of_one_name_are_refused(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, SaliencyEvaluation(), SaliencyEvaluation())
    with pytest.raises(ValueError, match="used by two SaliencyEvaluations"):
        trainer.test(toy(), toy_loader(), verbose=False)


def test_labels_that_are_classes_in_one_batch_only_are_refused(tmp_path: Path) -> None:
    """A regression whose first batch happens to hold zeros and ones."""
    network = torch.nn.Sequential(*toy().network[:8], torch.nn.Linear(8, 1))
    labels = torch.cat([torch.ones(8), torch.full((16,), 2.5)])

    with pytest.raises(ValueError, match='targets="output"'):
        evaluate(tmp_path, loader_of(label=labels), Quiet(network), scores=["energy"])
    result = evaluate(tmp_path, loader_of(label=labels), Quiet(network), scores=["energy"], targets="output")
    assert result.facts.samples == 24


# ------------------------------------------------------------------------------------------------ which data


def test_of_several_dataloaders_one_is_taken(tmp_path: Path) -> None:
    class Both(Toy):
        def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            self.log("test_loss", self.loss(batch))

    torch.manual_seed(3)
    module, other = Both(), toy_loader(16, seed=9)
    result = evaluate(tmp_path, [toy_loader(), other], module, dataloader_idx=1, scores=["energy"])
    assert result.facts.samples == 16
    alone = evaluate(tmp_path / "alone", other, module, scores=["energy"])
    assert numbers(result) == numbers(alone)


def test_a_score_of_ones_own_settings_is_another_one(tmp_path: Path) -> None:
    """Its tolerance is part of what an interrupted evaluation is compared by."""
    from lightning_gcam.callbacks.evaluation_runner import fingerprint, settings_of
    from lightning_gcam.pipeline.config import LookConfig

    module = toy()

    def of(tolerance: int) -> str:
        config = LookConfig(scores={"pointing": PointingGame(tolerance=tolerance)})
        return fingerprint(settings_of(config, module, None, None))

    assert of(3) == of(3) != of(15)


def test_what_is_done_is_told_and_the_layer_is_found(tmp_path: Path) -> None:
    with listening() as said:
        result = evaluate(tmp_path, target_layer=None, scores=["energy"])
    assert result.facts.target_layer == "network.5"
    assert any("the table is in" in each for each in said)


def test_a_rehearsal_writes_nothing(tmp_path: Path) -> None:
    evaluation = SaliencyEvaluation(on_error="raise", directory=tmp_path / "out", scores=["energy"])
    toy_trainer(tmp_path, evaluation, fast_dev_run=True).test(toy(), toy_loader(), verbose=False)
    assert evaluation.result is not None and evaluation.result.facts.samples == 8
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_it_works_in_the_trainers_precision(tmp_path: Path) -> None:
    evaluation = SaliencyEvaluation(on_error="raise", directory=tmp_path, scores=["energy", "average_drop"])
    trainer = toy_trainer(tmp_path, evaluation, precision="bf16-mixed")
    trainer.test(toy(), toy_loader(), verbose=False)
    assert evaluation.result is not None and evaluation.result.facts.precision == "bf16-mixed"
    exact = evaluate(tmp_path / "exact", methods="guidance_cam", target_layer=None, scores=["energy"])
    assert evaluation.result.scores["energy"] == pytest.approx(exact.scores["energy"], rel=0.05)


class InWhichPrecision(SampleScore):
    """Notes whether it is computed under autocast."""

    requires = frozenset({"mask"})
    casts: ClassVar[list[bool]] = []

    def _score(self, saliency: Tensor, mask: Tensor) -> PerSample:
        """Whether a product of float32 matrices is rounded, apart from the dry run with its one sample."""
        if len(saliency) > 1:
            self.casts.append((saliency @ saliency.mT).dtype != torch.float32)
        return PerSample(saliency.mean(dim=(1, 2)), torch.ones(len(saliency), dtype=torch.bool))


def test_only_the_model_runs_in_the_trainers_precision(tmp_path: Path) -> None:
    casts: list[bool] = []

    def forward(module: Any, images: Tensor) -> Tensor:
        casts.append(torch.is_autocast_enabled("cpu"))
        return module(images)

    InWhichPrecision.casts.clear()
    scores = {"noted": InWhichPrecision()}
    evaluation = SaliencyEvaluation(
        on_error="raise", directory=tmp_path, scores=scores, forward=forward, target_layer="network.2"
    )
    toy_trainer(tmp_path, evaluation, precision="bf16-mixed").test(toy(), toy_loader(), verbose=False)
    assert casts and all(casts)
    assert InWhichPrecision.casts and not any(InWhichPrecision.casts)


def test_each_class_of_a_multi_label_network_has_its_sigmoid(tmp_path: Path) -> None:
    images, labels, _ = toy_samples()
    module, rows = toy().eval(), torch.arange(len(labels))
    attribution = attribute(module, images, labels, target_layer="network.2")
    maps, blank = attribution.maps["guidance_cam"], attribution.peaks["guidance_cam"] == 0
    with torch.no_grad():
        before, after = (
            module(each).sigmoid()[rows, labels] for each in (images, functional.keep_salient(images, maps))
        )
    expected = float(functional.average_drop(before, after, blank))

    options: dict[str, Any] = {"methods": "guidance_cam", "scores": ["average_drop"]}
    several = evaluate(tmp_path / "a", multi_label=True, **options).row("guidance_cam", "average_drop")
    one = evaluate(tmp_path / "b", **options).row("guidance_cam", "average_drop")
    assert several.value == pytest.approx(expected, rel=1e-4)
    assert abs(one.value - expected) > 1e-3
