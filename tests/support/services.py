"""Comet, Aim, Neptune, ClearML and LitLogger without a network: how each logger is made, and what it kept.

`make loggers` installs the packages. All but LitLogger log offline; LitLogger's experiment is the real one, and what it
would send is kept.
"""

from __future__ import annotations

import base64
import json
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pytorch_lightning.loggers.logger import Logger

from tests.support.backends import Backend, Numbers, Pictures, TensorBoard
from tests.support.toys import decoded

Texts = dict[str, dict[int, str]]
"""By tag, by step."""


class Service(Backend):
    """A run of one service, which keeps texts and tables, too."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        super().__init__(root)
        self.patch = patch

    def texts(self) -> Texts:
        """Alerts and tables."""
        raise NotImplementedError


class Comet(Service):
    def logger(self, package: ModuleType, *, resumed: bool = False) -> Any:
        pytest.importorskip("comet_ml")
        self.patch.setenv("COMET_START_ONLINE", "0")
        quiet = dict.fromkeys(("log_code", "log_env_details", "log_git_metadata"), False)
        self.made = package.loggers.CometLogger(offline_directory=str(self.root), **quiet)
        return self.made

    def finish(self) -> None:
        self.made.experiment.end()

    def messages(self, kind: str) -> Iterator[tuple[dict[str, Any], zipfile.ZipFile]]:
        for path in self.root.glob("*.zip"):
            with zipfile.ZipFile(path) as archive:
                for line in archive.read("messages.json").decode().splitlines():
                    message = json.loads(line)
                    if message["type"] == kind:
                        yield message["payload"], archive

    def pictures(self) -> Pictures:
        found: Pictures = defaultdict(dict)
        for sent, archive in self.messages("file_upload"):
            if sent["upload_type"] == "visualization":
                about = sent["additional_params"]
                found[about["figName"]][about["step"]] = decoded(archive.read(sent["file_path"]))
        return dict(found)

    def numbers(self) -> Numbers:
        found: Numbers = defaultdict(dict)
        for sent, _ in self.messages("metric_msg"):
            metric = sent["metric"]
            found[metric["metricName"]][metric["step"]] = metric["metricValue"]
        return dict(found)

    def texts(self) -> Texts:
        found: Texts = defaultdict(dict)
        for sent, archive in self.messages("file_upload"):
            about = sent["additional_params"]
            if sent["upload_type"] in ("asset", "text-sample"):
                name = (sent["metadata"] or {}).get("tag") or about["fileName"].partition("-step=")[0]
                found[name][about["step"]] = archive.read(sent["file_path"]).decode()
        return dict(found)


class Aim(Service):
    def logger(self, package: ModuleType, *, resumed: bool = False) -> Any:
        pytest.importorskip("aim")
        from aim.pytorch_lightning import AimLogger

        self.root.mkdir(parents=True, exist_ok=True)
        quiet = {
            "system_tracking_interval": None,
            "log_system_params": False,
            "capture_terminal_logs": False,
        }
        return AimLogger(repo=str(self.root), **quiet)

    def run(self) -> Any:
        """The run as `aim up` reads it: by an index of its own."""
        from aim import Repo, Run
        from aim.sdk.index_manager import RepoIndexManager

        repo = Repo.from_path(str(self.root))
        (name,) = repo.list_all_runs()
        RepoIndexManager.get_index_manager(repo).index(name)
        return Run(name, repo=repo, read_only=True)

    def values(self, kind: str) -> dict[str, dict[int, Any]]:
        from aim.storage.context import Context

        run = self.run()
        found = {}
        for each in run.collect_sequence_info((kind,))[kind]:
            sequence = run._get_sequence(kind, each["name"], Context(each["context"]))
            found[each["name"]] = {step: value for step, (value, *_) in sequence.data.items()}
        return found

    def pictures(self) -> Pictures:
        return {
            tag: {step: np.asarray(each.to_pil_image()) for step, each in steps.items()}
            for tag, steps in self.values("images").items()
        }

    def numbers(self) -> Numbers:
        return self.values("metric")

    def texts(self) -> Texts:
        return {
            tag: {step: each.data for step, each in steps.items()}
            for tag, steps in self.values("texts").items()
        }


class Neptune(Service):
    """Lightning removed its logger with 2.6.4, and the service has ended; runs are kept in files."""

    def logger(self, package: ModuleType, *, resumed: bool = False) -> Any:
        pytest.importorskip("neptune")
        self.root.mkdir(parents=True, exist_ok=True)
        self.patch.chdir(self.root)
        self.patch.setenv("NEPTUNE_MODE", "offline")
        quiet = dict.fromkeys(
            ("capture_stdout", "capture_stderr", "capture_hardware_metrics", "capture_traceback"), False
        )
        try:
            self.made = package.loggers.NeptuneLogger(mode="offline", project="toy/toy", prefix="", **quiet)
        except RuntimeError as error:
            pytest.skip(str(error).splitlines()[0])
        return self.made

    def finish(self) -> None:
        self.made.experiment.stop()

    def operations(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for path in self.root.rglob("data-*.log"):
            for line in path.read_text().splitlines():
                operation = json.loads(line)["obj"]
                if operation["type"] == kind:
                    yield "/".join(operation["path"]), operation

    def pictures(self) -> Pictures:
        found: Pictures = defaultdict(dict)
        for tag, operation in self.operations("LogImages"):
            for each in operation["values"]:
                found[tag][int(each["step"])] = decoded(base64.b64decode(each["value"]["data"]))
        return dict(found)

    def numbers(self) -> Numbers:
        found: Numbers = defaultdict(dict)
        for tag, operation in self.operations("LogFloats"):
            for each in operation["values"]:
                found[tag][int(each["step"])] = each["value"]
        return dict(found)

    def texts(self) -> Texts:
        found: Texts = defaultdict(dict)
        for tag, operation in self.operations("UploadFile"):
            name, _, step = tag.rpartition("/step=")
            (path,) = self.root.rglob(operation["tmp_file_name"])
            found[name][int(step)] = path.read_text()
        return dict(found)


class ClearMl(Service):
    """A task of ClearML beside the logger; what it captured lies in the folder of its offline session."""

    exact = False

    def start(self) -> Any:
        pytest.importorskip("clearml")
        self.root.mkdir(parents=True, exist_ok=True)
        self.patch.setenv("CLEARML_CACHE_DIR", str(self.root))
        from clearml import Task

        Task.set_offline(True)
        self.patch.setattr(Task, "_update_repository", lambda *_: None)  # takes minutes on a busy machine
        quiet = dict.fromkeys(
            ("auto_connect_arg_parser", "auto_resource_monitoring", "auto_connect_streams"), False
        )
        self.task = Task.init("toy", "toy", reuse_last_task_id=False, **quiet)
        self.folder = Path(self.task.get_offline_mode_folder())
        return self.task

    def finish(self) -> None:
        self.task.close()

    def events(self, *kinds: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for line in (self.folder / "metrics.jsonl").read_text().splitlines():
            for event in json.loads(line):
                if event["type"] in kinds:
                    yield f"{event['metric']}/{event['variant']}", event

    def pictures(self) -> Pictures:
        found: Pictures = defaultdict(dict)
        for tag, event in self.events("training_debug_image"):
            if not event["url"].endswith(".txt"):
                found[tag][event["iter"]] = decoded(Path(event["url"]).read_bytes())
        return dict(found)

    def numbers(self) -> Numbers:
        found: Numbers = defaultdict(dict)
        for tag, event in self.events("training_stats_scalar"):
            found[tag][event["iter"]] = event["value"]
        return dict(found)

    def texts(self) -> Texts:
        found: Texts = defaultdict(dict)
        for tag, event in self.events("training_debug_image", "plot"):
            if event["type"] == "plot":
                found[tag][event["iter"]] = event["plot_str"]
            elif event["url"].endswith(".txt"):
                name = tag.removesuffix("/text_summary").removesuffix("_text_summary")
                found[name][event["iter"]] = Path(event["url"]).read_text()
        return dict(found)


class ClearMlBesideTensorBoard(ClearMl):
    """What most people do: `Task.init`, which captures what goes to TensorBoard's event files."""

    def logger(self, package: ModuleType, *, resumed: bool = False) -> Any:
        self.start()
        return TensorBoard(self.root / "board").logger(package)


class ClearMlLogger(Logger):
    """As people write it themselves, their task as the `experiment`; ClearML has no Lightning logger."""

    def __init__(self, task: Any) -> None:
        super().__init__()
        self.experiment = task

    name = "clearml"
    version = 0

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        for tag, value in metrics.items():
            title, _, series = tag.partition("/")
            self.experiment.get_logger().report_scalar(title, series or title, value, step)

    def log_hyperparams(self, *_: Any, **__: Any) -> None: ...


class ClearMlTask(ClearMl):
    exact = True

    def logger(self, package: ModuleType, *, resumed: bool = False) -> Any:
        return ClearMlLogger(self.start())


class Cloud:
    """In place of LitLogger's client and its teamspace: what would be sent."""

    def __init__(self) -> None:
        self.media: list[Any] = []
        self.metrics: list[Any] = []
        self.contents: list[bytes] = []

    def lit_logger_service_get_metrics_stream(self, **_: Any) -> None:
        return None

    def lit_logger_service_create_metrics_stream(self, **_: Any) -> Any:
        return SimpleNamespace(id="1", cluster_id="c", cloudspace_id="", tags=[], work_id="")

    def lit_logger_service_get_logger_metrics_summary(self, **_: Any) -> Any:
        return SimpleNamespace(summaries_per_name={})

    def lit_logger_service_update_metrics_stream(self, **_: Any) -> None: ...

    def lit_logger_service_append_logger_metrics(self, body: Any, **_: Any) -> None:
        self.metrics += body.metrics

    def lit_logger_service_create_lit_logger_media(self, body: Any, **_: Any) -> Any:
        self.media.append(body)
        media = SimpleNamespace(id="m", cluster_id="c", storage_path=body.name)
        return SimpleNamespace(media=media, already_exists=False)

    def lit_logger_service_update_lit_logger_media(self, **_: Any) -> None: ...

    def upload_file(self, file_path: str, **_: Any) -> None:
        self.contents.append(Path(file_path).read_bytes())


class Lit(Service):
    def logger(self, package: ModuleType, *, resumed: bool = False) -> Any:
        pytest.importorskip("litlogger")
        module = import_module("litlogger.experiment")  # the package has a variable of that name

        self.cloud = Cloud()
        space = SimpleNamespace(
            id="t",
            name="toy",
            owner=SimpleNamespace(name="toy"),
            _teamspace_api=self.cloud,
            list_models=list,
        )
        self.patch.setattr(module.AuthApi, "authenticate", lambda _: None)
        self.patch.setattr(module, "_resolve_teamspace", lambda _: space)
        self.patch.setattr(
            import_module("litlogger.api.metrics_api"), "LitRestClient", lambda **_: self.cloud
        )
        self.patch.setattr(module, "ArtifactsApi", lambda: None)
        return package.loggers.LitLogger(self.root, name="toy", save_logs=False)

    def sent(self, kind: str) -> Iterator[tuple[str, int, bytes]]:
        for body, content in zip(self.cloud.media, self.cloud.contents, strict=True):
            if kind in str(body.media_type).lower():
                yield body.name, body.step, content

    def pictures(self) -> Pictures:
        found: Pictures = defaultdict(dict)
        for tag, step, content in self.sent("image"):
            found[tag][step] = decoded(content)
        return dict(found)

    def numbers(self) -> Numbers:
        found: Numbers = defaultdict(dict)
        for metric in self.cloud.metrics:
            for each in metric.values:
                found[metric.name][int(each.step)] = each.value
        return dict(found)

    def texts(self) -> Texts:
        found: Texts = defaultdict(dict)
        for tag, step, content in self.sent("text"):
            found[tag][step] = content.decode()
        return dict(found)


SERVICES: dict[str, type[Service]] = {
    "comet": Comet,
    "aim": Aim,
    "neptune": Neptune,
    "clearml beside tensorboard": ClearMlBesideTensorBoard,
    "clearml": ClearMlTask,
    "litlogger": Lit,
}
