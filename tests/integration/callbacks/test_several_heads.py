"""The monitor and modules with several heads: a look of each, under its name, and labels that go to their heads."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lightning_gcam import SaliencyEvaluation, SaliencyMonitor, ShortcutAlarm
from lightning_gcam.loggers import ReportLogger
from lightning_gcam.loggers.mlflow import log_to_mlflow
from lightning_gcam.utils.errors import InputError
from tests.support.toys import LIGHTNING_SAYS, listening, toy_samples, toy_trainer
from tests.support.wandb_reader import runs

pytestmark = [*LIGHTNING_SAYS, pytest.mark.filterwarnings("ignore:.* maps are blank")]


class Faces(Dataset[Any]):
    """Pictures with an age and a sex, as `{"image", "age", "sex", "mask"}` or as a tuple of these."""

    def __init__(
        self, n: int = 24, *, as_tuple: bool = False, names: tuple[str, ...] = ("age", "sex")
    ) -> None:
        self.samples = toy_samples(n)
        self.as_tuple = as_tuple
        self.names = names

    def __len__(self) -> int:
        return len(self.samples[0])

    def __getitem__(self, index: int) -> Any:
        image, label, mask = (each[index] for each in self.samples)
        age, sex = 20.5 + 10 * label, label % 2
        found = {"image": image, self.names[0]: age, self.names[1]: sex, "mask": mask}
        return tuple(found.values()) if self.as_tuple else found


class Face(pytorch_lightning.LightningModule):
    """Two heads on one body, the first of which branches off earlier; returned as a dict or a tuple."""

    def __init__(self, *, as_tuple: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.early = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU())
        self.late = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())
        self.age, self.sex = nn.Linear(6, 1), nn.Linear(6, 2)
        for each in (self.age, self.sex):
            nn.init.uniform_(each.weight, 0.1, 0.6)
        self.as_tuple = as_tuple

    def forward(self, images: Tensor) -> Any:
        early = self.early(images)
        age, sex = self.age(early.mean(dim=(2, 3))), self.sex(self.late(early).mean(dim=(2, 3)))
        return (age, sex) if self.as_tuple else {"age": age, "sex": sex}

    def loss(self, batch: Any) -> Tensor:
        image, age, sex, _ = batch.values() if isinstance(batch, dict) else batch
        ages, sexes = self(image) if self.as_tuple else self(image).values()
        return nn.functional.cross_entropy(sexes, sex) + 1e-3 * (ages[:, 0] - age).square().mean()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(Faces(**options), batch_size=8)


def fit(
    root: Path, monitor: SaliencyMonitor, *callbacks: Any, as_tuple: bool = False, **options: Any
) -> list[str]:
    """Train two epochs; what was said."""
    batches = loader(as_tuple=as_tuple)
    with listening() as said:
        toy_trainer(root, monitor, *callbacks, **options).fit(Face(as_tuple=as_tuple), batches, batches)
    return said


def watching(**options: Any) -> SaliencyMonitor:
    return SaliencyMonitor(**{"num_samples": 6, "checks": [], "on_error": "raise", **options})


def test_every_head_of_a_dict_has_a_look_of_its_own(tmp_path: Path) -> None:
    monitor = watching(scores=["energy"])
    said = fit(tmp_path, monitor, logger=[TensorBoardLogger(tmp_path / "tb"), CSVLogger(tmp_path / "csv")])

    record = monitor.last_record
    assert record is not None
    assert list(record.heads) == ["age", "sex"]
    age, sex = record.heads.values()
    assert (age.attribution.target_layer, sex.attribution.target_layer) == ("early", "late")
    assert (age.attribution.explains, sex.attribution.explains) == ("output", "classes")
    assert sex.attribution.targets.tolist() == sex.batch.labels.tolist()
    assert age.batch.labels.tolist() == [20.5 + 10 * each for each in (0, 2, 0, 1, 3, 1)]  # by sex
    assert "head sex · layer late · maps of the true class" in sex.title

    names = ["energy", "energy_chance", "centre/energy"]
    expected = [*(f"age/{name}" for name in names), *(f"sex/{name}" for name in names)]
    assert list(monitor.history[-1]) == ["step", "epoch", *expected]
    assert record.scores["sex/energy"] == sex.scores["energy"]

    sentence = '2 heads are looked at: "age" of 1 with the labels "age", "sex" of 2 with the labels "sex".'
    assert len([each for each in said if each.startswith(sentence)]) == 1
    age_words, sex_words = [each for each in said if each.startswith("SaliencyMonitor (")]
    assert age_words.startswith("SaliencyMonitor (saliency/age): ") and "for the output itself\n" in age_words
    assert "saliency/age/overlay and 2 scores, in TensorBoard" in age_words
    assert sex_words.startswith("SaliencyMonitor (saliency/sex): ") and sex_words.count("\n") == 1
    assert sex_words.endswith("for each sample's label")

    events = EventAccumulator(str(tmp_path / "tb" / "lightning_logs" / "version_0"))
    events.Reload()
    assert set(events.Tags()["images"]) == {"saliency/age/overlay", "saliency/sex/overlay"}
    assert {f"saliency/{name}" for name in expected} <= set(events.Tags()["scalars"])
    assert [each.step for each in events.Images("saliency/sex/overlay")] == [2, 5]
    values = [each.value for each in events.Scalars("saliency/sex/energy")]
    assert values == pytest.approx([row["sex/energy"] for row in monitor.history])
    layout = events.Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0]
    assert b"saliency/age" in layout and b"saliency/sex" in layout

    folder = tmp_path / "csv" / "lightning_logs" / "version_0" / "saliency"
    with (folder / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["step", "epoch", *expected]
    assert (
        len(list(folder.glob("age/overlay-step=*.png"))) == len(list(folder.glob("sex/overlay-*.png"))) == 2
    )
    with (folder / "measurements-step=00000005.csv").open() as file:
        assert [row["score"] for row in csv.DictReader(file)][:1] == ["age/energy"]


def test_the_looks_are_those_of_each_head_by_itself(tmp_path: Path) -> None:
    both = watching(checks=None, max_overhead=None)
    fit(tmp_path, both)
    for name in ("age", "sex"):
        alone = watching(
            checks=None,
            max_overhead=None,
            forward=lambda module, images, name=name: module(images)[name],
            adapter=lambda batch, name=name: {
                "image": batch["image"],
                "label": batch[name],
                "mask": batch["mask"],
            },
        )
        fit(tmp_path, alone)
        here = [
            {key: row[f"{name}/{key}"] for key in alone.history[0] if f"{name}/{key}" in row}
            for row in both.history
        ]
        there = [
            {key: value for key, value in row.items() if key not in ("step", "epoch")}
            for row in alone.history
        ]
        assert here == there


@pytest.mark.parametrize(("head", "looked_at"), [(None, ["0", "1"]), ("1", ["1"]), (["1", "0"], ["1", "0"])])
@pytest.mark.parametrize("sanity", [0, 2])
def test_heads_of_a_tuple_are_named_by_their_places(
    tmp_path: Path, head: Any, looked_at: list[str], sanity: int
) -> None:
    monitor = watching(scores=["energy"], head=head)
    fit(tmp_path, monitor, as_tuple=True, num_sanity_val_steps=sanity)
    assert monitor.last_record is not None
    assert list(monitor.last_record.heads) == looked_at
    assert f"{looked_at[-1]}/energy" in monitor.history[-1]
    assert monitor.last_record.heads["1"].attribution.logits.shape == (6, 2)
    assert monitor.last_record.heads["1"].batch.labels.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("sanity", [0, 2])
def test_a_wrong_name_is_refused_before_training(tmp_path: Path, sanity: int) -> None:
    monitor = SaliencyMonitor(head=["age", "sx"])
    module = Face()
    with pytest.raises(InputError, match='`head` "sx" is not known. Did you mean "sex"?'):
        toy_trainer(tmp_path, monitor, num_sanity_val_steps=sanity).fit(module, loader(), loader())
    assert module.trainer.global_step == 0
    with pytest.raises(InputError, match="`head` must be the name of a head"):
        SaliencyMonitor(head=[])


def test_callbacks_monitor_the_score_of_a_head(tmp_path: Path) -> None:
    saving = ModelCheckpoint(tmp_path / "best", monitor="saliency/sex/energy", mode="max")
    stopping = EarlyStopping("saliency/age/energy", mode="max", patience=0, min_delta=2.0)
    monitor = watching(scores=["energy"])
    fit(tmp_path, monitor, saving, stopping, max_epochs=6, enable_checkpointing=True)
    assert len(monitor.history) == 2
    assert saving.best_model_score is not None
    assert float(saving.best_model_score) == pytest.approx(max(row["sex/energy"] for row in monitor.history))


def test_a_resumed_run_goes_on_with_the_same_heads(tmp_path: Path) -> None:
    options: dict[str, Any] = {"scores": ["energy", "drift"], "show_change": True}
    whole = watching(**options)
    fit(tmp_path, whole)

    before, batches = watching(**options), loader()
    trainer = toy_trainer(tmp_path, before, max_epochs=1)
    trainer.fit(Face(), batches, batches)
    trainer.save_checkpoint(path := tmp_path / "first.ckpt")
    (state,) = [
        each for key, each in torch.load(path, weights_only=True)["callbacks"].items() if "Saliency" in key
    ]
    assert state["target_layer"] is None
    assert state["heads"] == [[["early"], "age", 1, "age"], [["late"], "sex", 2, "sex"]]

    after = watching(**options)
    toy_trainer(tmp_path, after, max_epochs=2).fit(Face(), batches, batches, ckpt_path=path)
    assert after.history == whole.history
    assert "sex/drift" in after.history[-1]


def test_another_head_begins_its_history_afresh(tmp_path: Path) -> None:
    before, batches = watching(scores=["energy"]), loader()
    trainer = toy_trainer(tmp_path, before, max_epochs=1)
    trainer.fit(Face(), batches, batches)
    trainer.save_checkpoint(path := tmp_path / "first.ckpt")
    after = watching(scores=["energy"], head="sex", on_error="warn")
    with pytest.warns(UserWarning, match=r"`head` was None and is \['sex'\]"):
        toy_trainer(tmp_path, after, max_epochs=2).fit(Face(), batches, batches, ckpt_path=path)
    assert len(after.history) == 1
    assert list(after.last_record.heads) == ["sex"]


def test_the_final_scores_are_those_of_each_head(tmp_path: Path) -> None:
    monitor = watching(scores=["energy"], final_scores=["deletion"])
    fit(tmp_path, monitor)
    assert monitor.final_record is not None
    assert "sex/deletion" in monitor.final_record.scores
    assert "age/deletion" not in monitor.final_record.scores  # of no class, whose probability could be taken
    (table,) = tmp_path.rglob("scores.csv")
    assert "final/sex/deletion" in table.read_text().splitlines()[0]


def test_the_page_has_each_head(tmp_path: Path) -> None:
    logger = ReportLogger(tmp_path / "page")
    monitor = watching(scores=["energy"])
    fit(tmp_path, monitor, logger=logger)
    page = logger.report_path.read_text(encoding="utf-8")
    assert "saliency/age" in page and "saliency/sex" in page


@pytest.mark.filterwarnings("ignore")  # of W&B itself
def test_weights_and_biases_has_each_head(tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb")
    from pytorch_lightning.loggers import WandbLogger

    monitor = watching(scores=["energy"])
    fit(tmp_path, monitor, logger=WandbLogger(project="toy", save_dir=tmp_path, offline=True))
    wandb.finish()
    (run,) = runs(tmp_path)
    for head in ("age", "sex"):
        key = f"saliency/{head}"
        assert [row["trainer/global_step"] for row in run.history if f"{key}/overlay" in row] == [2, 5]
        assert [len(table) for table in run.tables(f"{key}/table")] == [6, 6]


def test_mlflow_has_each_head(tmp_path: Path) -> None:
    """Its backend shows whatever pictures a record has."""
    monitor = watching(scores=["energy"])
    fit(tmp_path, monitor)
    shown: list[tuple[str, int]] = []

    class Client:
        def log_image(self, run_id: str, image: Any, key: str, step: int) -> None:
            shown.append((key, step))

        def log_text(self, run_id: str, text: str, name: str) -> None:
            shown.append((name, text.count("sex/energy")))

        def set_tag(self, *_: Any) -> None:
            pass

    log_to_mlflow(SimpleNamespace(experiment=Client(), run_id="1"), monitor.last_record)
    assert shown[:2] == [("saliency/age/overlay", 5), ("saliency/sex/overlay", 5)]
    assert shown[2:] == [("saliency/measurements-step=00000005.csv", 2)]


def test_a_monitored_check_of_a_head_is_made_at_every_look(tmp_path: Path) -> None:
    saving = ModelCheckpoint(tmp_path / "best", monitor="saliency/sex/border_follow_rate")
    monitor = watching(checks=["border"], max_overhead=1e-6, scores=[])
    said = fit(tmp_path, monitor, saving, max_epochs=8, enable_checkpointing=True)
    assert all("sex/border_follow_rate" in row for row in monitor.history)
    assert any("monitors saliency/sex/border_follow_rate" in each for each in said)


class ReadsTheCorner(Face):
    """The second head reads the corner of the image, which shows the class as the object does."""

    def forward(self, images: Tensor) -> Any:
        early = self.early(images)
        corner = early[:, :, :4, :4].mean(dim=(1, 2, 3))
        brightest = self.early(torch.ones_like(images))[:, :, 1:3, 1:3].mean()
        return {
            "age": self.age(early.mean(dim=(2, 3))),
            "sex": torch.stack([brightest / 2 - corner, corner - brightest / 2], 1) * 20,
        }


def test_the_alarm_names_the_head(tmp_path: Path) -> None:
    dataset = Faces(32)
    images, labels, _ = dataset.samples
    images[:, :, :4, :4] = (labels % 2).float()[:, None, None, None]
    dataset.samples[2][:] = False
    dataset.samples[2][:, 10:14, 10:14] = True
    batches = DataLoader(dataset, batch_size=8)
    monitor, alarm = watching(num_samples=16, checks=None, max_overhead=None), ShortcutAlarm(on_error="raise")
    module = ReadsTheCorner()
    module.requires_grad_(True)
    with pytest.warns(UserWarning, match=r"ShortcutAlarm \(saliency/sex\): "):
        toy_trainer(tmp_path, monitor, alarm, max_epochs=3).fit(module, batches, batches)
    assert {alert["log_prefix"] for alert in alarm.alerts} == {"saliency/sex"}
    assert (next(tmp_path.rglob("alerts.csv"))).parent.name == "sex"


@pytest.mark.parametrize(
    ("head", "evaluated", "as_tuple"), [(None, "age", False), ("sex", "sex", False), ("1", "1", True)]
)
def test_an_evaluation_is_of_one_head(
    tmp_path: Path, head: str | None, evaluated: str, as_tuple: bool
) -> None:
    evaluation = SaliencyEvaluation(scores=["energy"], head=head, on_error="raise", check_samples=8)
    module, batches = Face(as_tuple=as_tuple), loader(as_tuple=as_tuple)
    with listening() as said:
        toy_trainer(tmp_path, evaluation).test(module, batches, verbose=False)
    assert evaluation.result is not None
    assert any(f'evaluates one head, "{evaluated}"' in each for each in said) == (head is None)
    assert (evaluation.result.reliance is not None) == (evaluated != "age")
    looking = watching(scores=["energy"], num_samples=24, head=evaluated)
    toy_trainer(tmp_path, looking).test(module, batches, verbose=False)
    assert looking.last_record is not None
    energy = looking.last_record.scores[f"{evaluated}/energy"]
    assert evaluation.result.row("guidance_cam", "energy").value == pytest.approx(energy)


def test_an_evaluation_goes_on_with_its_head(tmp_path: Path) -> None:
    """What an interrupted one has done is not done again, and the rest is of the same head."""

    class Stops(Face):
        def test_step(self, batch: Any, batch_idx: int) -> None:
            if batch_idx == 1:
                raise KeyboardInterrupt

    options: dict[str, Any] = {"scores": ["energy"], "head": "sex", "checks": [], "on_error": "raise"}
    whole = SaliencyEvaluation(**options)
    toy_trainer(tmp_path / "whole", whole).test(Face(), loader(), verbose=False)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        toy_trainer(tmp_path, SaliencyEvaluation(**options, directory=tmp_path / "out")).test(
            Stops(), loader(), verbose=False
        )
    again = SaliencyEvaluation(**options, directory=tmp_path / "out")
    with listening() as said:
        toy_trainer(tmp_path, again).test(Face(), loader(), verbose=False)
    assert any("samples are done already" in each for each in said)
    assert again.result is not None and whole.result is not None
    assert again.result.row("guidance_cam", "energy") == whole.result.row("guidance_cam", "energy")


def test_an_evaluation_of_several_heads_is_refused() -> None:
    with pytest.raises(InputError, match="`head` must be the name of one head"):
        SaliencyEvaluation(head=["age", "sex"])  # type: ignore[arg-type]


class SomeAges(Faces):
    """Faces of which every third has no age."""

    def __getitem__(self, index: int) -> Any:
        found = super().__getitem__(index)
        return {**found, "age": found["age"] if index % 3 else torch.tensor(torch.nan)}


def test_an_age_that_is_missing_costs_its_sample_alone(tmp_path: Path) -> None:
    monitor = watching(scores=["energy"])
    batches = DataLoader(SomeAges(), batch_size=8)
    with pytest.warns(UserWarning, match=r"2 of 6 samples are looked at without .* a label of NaN \(2\)"):
        toy_trainer(tmp_path, monitor, logger=[ReportLogger(tmp_path)]).fit(Face(), loader(), batches)

    age, sex = monitor.last_record.heads.values()
    positions = [0, 2, 4, 1, 3, 5]
    assert [each == each for each in age.batch.labels.tolist()] == [bool(each % 3) for each in positions]
    assert age.attribution.explains == "output"
    assert ["true" in each for each in age.captions] == [bool(each % 3) for each in positions]
    assert sex.batch.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert 0 < monitor.history[-1]["age/energy"] <= 1
