"""Every backend the same way: how its logger is made, and what lies on disk afterwards."""

from __future__ import annotations

import csv
import io
import re
import shutil
import time
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pytorch_lightning.loggers.logger import Logger

from lightning_gcam.loggers import ReportLogger
from tests.support import wandb_reader
from tests.support.pages import Page
from tests.support.toys import decoded

Pictures = dict[str, dict[int, Any]]
"""By tag, by step; the pixels, or None where the backend keeps no whole picture."""

Numbers = dict[str, dict[int, float]]
"""By name, by step."""


class Backend:
    """A run of one backend under `root`."""

    has_sample_tags = True
    exact = True
    """Whether pixels come back as they were."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def logger(self, package: ModuleType, *, resumed: bool = False) -> Any:
        """What the Trainer gets; `resumed` for the run that goes on."""
        raise NotImplementedError

    def finish(self) -> None:
        """What the end of the process does."""

    def pictures(self) -> Pictures:
        raise NotImplementedError

    def numbers(self) -> Numbers:
        raise NotImplementedError


class TensorBoard(Backend):
    exact = False

    def logger(self, package: ModuleType, *, resumed: bool = False) -> Any:
        return package.loggers.TensorBoardLogger(self.root, version=0)

    def events(self) -> Any:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        everything = {"images": 0, "scalars": 0, "tensors": 0}
        return EventAccumulator(
            str(self.root / "lightning_logs" / "version_0"), size_guidance=everything
        ).Reload()

    def pictures(self) -> Pictures:
        events = self.events()
        return {
            tag: {each.step: decoded(each.encoded_image_string) for each in events.Images(tag)}
            for tag in events.Tags()["images"]
        }

    def numbers(self) -> Numbers:
        events = self.events()
        return {
            tag: {each.step: each.value for each in events.Scalars(tag)} for tag in events.Tags()["scalars"]
        }


class Wandb(Backend):
    has_sample_tags = False

    def logger(self, package: ModuleType, *, resumed: bool = False) -> Any:
        pytest.importorskip("wandb")
        if resumed:
            time.sleep(1.1)  # a run's directory is named by the second
        self.root.mkdir(parents=True, exist_ok=True)  # older ones write elsewhere where it is not there
        return package.loggers.WandbLogger(project="toy", id="toy", save_dir=self.root, offline=True)

    def finish(self) -> None:
        import wandb

        wandb.finish()

    def runs(self) -> list[wandb_reader.OfflineRun]:
        return wandb_reader.runs(self.root)

    def pictures(self) -> Pictures:
        found: Pictures = defaultdict(dict)
        for run in self.runs():
            for row in run.history:
                for key, value in row.items():
                    if isinstance(value, dict) and value.get("_type") == "images/separated":
                        (first, *_) = value["filenames"]
                        found[key][row["trainer/global_step"]] = decoded(run.files / first)
        return dict(found)

    def numbers(self) -> Numbers:
        found: Numbers = defaultdict(dict)
        for run in self.runs():
            for row in run.history:
                for key, value in row.items():
                    if isinstance(value, int | float):
                        found[key][row["trainer/global_step"]] = value
        return dict(found)


class MLflow(Backend):
    """On an SQLite store. Its tables are made once and copied: that takes seconds."""

    made: Path | None = None

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.root / 'store.db'}"

    def logger(self, package: ModuleType, *, resumed: bool = False) -> Any:
        pytest.importorskip("mlflow")
        self.prepare()
        run_id = self.run().info.run_id if resumed else None
        return package.loggers.MLFlowLogger(
            "toy", tracking_uri=self.uri, artifact_location=str(self.root / "artifacts"), run_id=run_id
        )

    def prepare(self) -> None:
        if not (self.root / "store.db").exists():
            if MLflow.made is None:
                from mlflow import MlflowClient

                MLflow.made = self.root.with_name("template.db")
                MlflowClient(f"sqlite:///{MLflow.made}").search_experiments()
            self.root.mkdir(parents=True, exist_ok=True)
            shutil.copy(MLflow.made, self.root / "store.db")

    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(self.uri)

    def run(self) -> Any:
        client = self.client()
        experiment = client.get_experiment_by_name("toy")
        (run,) = client.search_runs([experiment.experiment_id])
        return run

    def folder(self) -> Path:
        """Where the run's artifacts are."""
        return Path(self.run().info.artifact_uri.removeprefix("file://"))

    def pictures(self) -> Pictures:
        found: Pictures = defaultdict(dict)
        for path in (self.folder() / "images").glob("*.png"):
            key, step = re.fullmatch(r"(.+?)[+%]step[+%](\d+)[+%].*", path.name).groups()  # type: ignore[union-attr]
            assert int(step) not in found[re.sub("[~#]", "/", key)], "each look once"
            found[re.sub("[~#]", "/", key)][int(step)] = decoded(path)
        return dict(found)

    def numbers(self) -> Numbers:
        client, run = self.client(), self.run()
        return {
            name: {each.step: each.value for each in client.get_metric_history(run.info.run_id, name)}
            for name in run.data.metrics
        }


class MLflowFiles(MLflow):
    """On a store of files, which MLflow 3.17 wants to be asked for."""

    @property
    def uri(self) -> str:
        return (self.root / "mlruns").as_uri()

    def prepare(self) -> None:
        """Nothing has to be there."""


class Files(Backend):
    """PNG files and `scores.csv`, wherever they are below `root`."""

    def logger(self, package: ModuleType, *, resumed: bool = False) -> Any:
        return False

    def pictures(self) -> Pictures:
        found: Pictures = defaultdict(dict)
        for path in self.root.rglob("*.png"):
            tag, step = re.fullmatch(r"(.+)-step=(\d+)\.png", self.tag_of(path)).groups()  # type: ignore[union-attr]
            found[tag][int(step)] = decoded(path)
        return dict(found)

    def numbers(self) -> Numbers:
        found: Numbers = defaultdict(dict)
        for path in self.root.rglob("scores.csv"):
            prefix = self.tag_of(path).removesuffix("/scores.csv")
            for row in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))):
                for name, value in row.items():
                    if value and name not in ("step", "epoch"):
                        found[f"{prefix}/{name}"][int(row["step"])] = float(value)
        return dict(found)

    def tag_of(self, path: Path) -> str:
        """Below the run's own directory."""
        run = next(each for each in path.parents if re.fullmatch(r"version_\d+", each.name))
        return path.relative_to(run).as_posix()


class Csv(Files):
    def logger(self, package: ModuleType, *, resumed: bool = False) -> Any:
        return package.loggers.CSVLogger(self.root, version=0)


class Report(Backend):
    has_sample_tags = False

    def logger(self, package: ModuleType, *, resumed: bool = False) -> Any:
        return ReportLogger(self.root)

    def pictures(self) -> Pictures:
        (run,) = Page(self.root / "report.html").data["runs"]
        return {
            f"{monitor['prefix']}/overlay": {look["step"]: None for look in monitor["looks"]}
            for monitor in run["monitors"]
        }

    def numbers(self) -> Numbers:
        (run,) = Page(self.root / "report.html").data["runs"]
        return {
            name: dict(zip(steps, values, strict=True)) for name, (steps, values) in run["curves"].items()
        }


class Scalars(Logger):
    """A third party's logger that takes numbers; it writes each into a file of its own."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory

    @property
    def name(self) -> str:
        return "theirs"

    @property
    def version(self) -> int:
        return 0

    @property
    def save_dir(self) -> str:
        return str(self.directory / "version_0")

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        for name, value in metrics.items():
            path = self.directory / "numbers" / name / str(step)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(value))

    def log_hyperparams(self, *_: Any, **__: Any) -> None: ...

    def draw(self, tag: str, picture: Any, step: int) -> None:
        path = self.directory / "pictures" / tag / f"{step}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert not path.exists(), "each look once"
        Image.fromarray(picture).save(path)


class WithLogImage(Scalars):
    def log_image(self, key: str, images: list[Any], step: int) -> None:
        (picture,) = images
        self.draw(key, picture, step)


class WithAddImage(Scalars):
    @property
    def experiment(self) -> Any:
        return self

    def add_image(self, tag: str, picture: Any, global_step: int, dataformats: str) -> None:
        assert dataformats == "HWC"
        self.draw(tag, picture, global_step)

    def flush(self) -> None: ...


class Theirs(Backend):
    """A logger that nobody registered."""

    kind: type[Scalars] = Scalars

    def logger(self, package: ModuleType, *, resumed: bool = False) -> Any:
        return self.kind(self.root)

    def pictures(self) -> Pictures:
        found: Pictures = defaultdict(dict)
        for path in (self.root / "pictures").rglob("*.png"):
            tag = path.parent.relative_to(self.root / "pictures").as_posix()
            found[tag][int(path.stem)] = decoded(path)
        return dict(found)

    def numbers(self) -> Numbers:
        found: Numbers = defaultdict(dict)
        for path in (each for each in (self.root / "numbers").rglob("*") if each.is_file()):
            name = path.parent.relative_to(self.root / "numbers").as_posix()
            found[name][int(path.name)] = float(path.read_text())
        return dict(found)


class TheirsWithLogImage(Theirs):
    kind = WithLogImage


class TheirsWithAddImage(Theirs):
    kind = WithAddImage


class TheirsWithScalars(Theirs):
    """The pictures are files."""

    def pictures(self) -> Pictures:
        return Files(self.root).pictures()


BACKENDS: dict[str, type[Backend]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "mlflow on sqlite": MLflow,
    "mlflow on files": MLflowFiles,
    "csv": Csv,
    "report": Report,
    "no logger": Files,
    "log_image": TheirsWithLogImage,
    "add_image": TheirsWithAddImage,
    "scalars only": TheirsWithScalars,
}


def alike(kept: Any, shown: Any) -> bool:
    """A JPEG of high quality: no pixel is seen to be another one."""
    error = np.abs(kept.astype(int) - shown.astype(int)) if kept.shape == shown.shape else np.full(1, 255)
    return bool(error.mean() < 2 and np.quantile(error, 0.999) < 40)
