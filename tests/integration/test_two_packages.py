"""`lightning.pytorch` and `pytorch_lightning`: each alone, both installed, and the users' silencing respected."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TRAINING = """
import logging, sys, warnings
warnings.simplefilter("ignore")
{before}
import {package} as pl
{between}
import torch
from torch import nn
from lightning_gcam import SaliencyMonitor

class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    def forward(self, images):
        return self.net(images)
    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])
    def validation_step(self, batch, batch_idx):
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

data = torch.utils.data.TensorDataset(torch.rand(8, 1, 8, 8), torch.arange(8) % 2)
loader = torch.utils.data.DataLoader(data, 4)
monitor = SaliencyMonitor(num_samples=4, on_error="raise")
trainer = pl.Trainer(max_epochs=1, accelerator="cpu", callbacks=[monitor], logger=False, default_root_dir=sys.argv[1],
                     enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
assert isinstance(monitor, pl.Callback)
trainer.fit(Module(), loader, loader)
assert len(monitor.history) == 1
print("looked", *(type(each).__mro__[2].__module__ for each in [monitor]))
"""


def run(root: Path, package: str, *, before: str = "", between: str = "") -> subprocess.CompletedProcess[str]:
    done = run_script(TRAINING.format(package=package, before=before, between=between), str(root))
    assert "looked" in done.stdout
    return done


def run_script(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.parametrize(
    ("package", "absent"), [("pytorch_lightning", "lightning"), ("lightning.pytorch", "pytorch_lightning")]
)
def test_each_package_alone(package: str, absent: str, tmp_path: Path) -> None:
    """A name that is None in `sys.modules` cannot be imported: as if it were not installed."""
    run(tmp_path, package, before=f'sys.modules["{absent}"] = None')


@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
def test_both_installed_and_ours_imported_first(package: str, tmp_path: Path) -> None:
    done = run(tmp_path, package, before="import lightning_gcam")
    assert done.stderr.count("SaliencyMonitor (saliency): 4 fixed samples") == 1


@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
@pytest.mark.parametrize("ours_first", [True, False])
def test_who_silences_the_package_they_use_hears_nothing(
    package: str, ours_first: bool, tmp_path: Path
) -> None:
    silence = f'logging.getLogger("{package}").setLevel(logging.ERROR)'
    done = run(tmp_path, package, before="import lightning_gcam" if ours_first else "", between=silence)
    assert "GPU available" not in done.stderr
    assert "fixed samples" not in done.stderr


@pytest.mark.parametrize(
    ("used", "silenced"),
    [("pytorch_lightning", "lightning.pytorch"), ("lightning.pytorch", "pytorch_lightning")],
)
def test_silencing_the_other_package_does_not_silence_the_one_in_use(
    used: str, silenced: str, tmp_path: Path
) -> None:
    done = run(tmp_path, used, between=f'logging.getLogger("{silenced}").setLevel(logging.ERROR)')
    assert "GPU available" in done.stderr
    assert "fixed samples" in done.stderr


# ------------------------------------------------------------------ only what is in use is imported

PACKAGES = ("pytorch_lightning", "lightning.pytorch")


@pytest.mark.parametrize(("used", "other"), [PACKAGES, PACKAGES[::-1]])
def test_the_other_package_is_not_imported(used: str, other: str) -> None:
    ours = "import lightning_gcam.callbacks, lightning_gcam.loggers, lightning_gcam.datasets"
    run_script(f"import sys, {used}\n{ours}\nassert '{other}' not in sys.modules")


def test_nor_is_tensorboard_nor_are_both_where_ours_comes_first() -> None:
    run_script(
        "import sys\nfrom lightning_gcam import SaliencyMonitor, ShortcutAlarm\n"
        "assert 'pytorch_lightning' in sys.modules\n"
        "assert not {'lightning', 'tensorboard', 'torch.utils.tensorboard'} & {*sys.modules}"
    )


BOTH = """
import pickle, sys, warnings
from importlib import import_module
from pathlib import Path
warnings.simplefilter("ignore")
early = []
for name in sys.argv[2:]:
    module = import_module(name)
    if name == "lightning_gcam.callbacks":
        class Mine(module.SaliencyMonitor):
            pass
        early = [Mine(log_prefix="early", num_samples=2)]

import torch
from torch import nn
from lightning_gcam import SaliencyMonitor
from lightning_gcam.datasets import DatasetModule
from lightning_gcam.loggers import ReportLogger
from lightning_gcam.utils import lightning_compat
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

assert lightning_compat._WITNESS not in sys.meta_path
data = torch.utils.data.TensorDataset(torch.rand(4, 1, 8, 8), torch.arange(4) % 2)
loader = torch.utils.data.DataLoader(data, 2)
for name in ("pytorch_lightning", "lightning.pytorch"):
    pl = sys.modules[name]
    assert "exec_module" not in vars(pl.__spec__.loader)
    monitor = SaliencyMonitor(num_samples=2, on_error="raise")
    for each in (monitor, *early, pickle.loads(pickle.dumps(early[0]))):
        assert isinstance(each, pl.Callback)
    assert issubclass(Mine, pl.Callback)
    assert issubclass(ReportLogger, pl.loggers.Logger)
    assert issubclass(DatasetModule, pl.LightningDataModule)

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            pool, linear = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 2)
            self.net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), pool, nn.Flatten(), linear)
        def forward(self, images):
            return self.net(images)
        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])
        def validation_step(self, batch, batch_idx):
            pass
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    root = Path(sys.argv[1], name)
    loggers = [pl.loggers.CSVLogger(root / "csv"), pl.loggers.TensorBoardLogger(root / "tensorboard")]
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_steps=1, limit_train_batches=1, accelerator="cpu", callbacks=[monitor, *early],
                         logger=loggers, log_every_n_steps=1, num_sanity_val_steps=0, **quiet)
    trainer.fit(Module(), loader, loader)
    assert len(monitor.history) == 1 and len(early[0].history) > 0
    assert list(Path(loggers[0].log_dir).rglob("*.png"))
    assert not list(Path(loggers[1].log_dir).rglob("*.png"))
    events = EventAccumulator(loggers[1].log_dir, size_guidance={"images": 0}).Reload()
    assert any(tag.startswith("saliency/") for tag in events.Tags()["images"]), events.Tags()
print("looked in both")
"""

OURS = "lightning_gcam.callbacks"


@pytest.mark.parametrize(
    "order",
    [(*PACKAGES, OURS), (*PACKAGES[::-1], OURS), (OURS, *PACKAGES), (OURS, *PACKAGES[::-1])],
    ids=["ours last", "ours last, reversed", "ours first", "ours first, reversed"],
)
def test_both_trainers_take_our_callbacks_in_whatever_order_they_are_imported(
    order: Sequence[str], tmp_path: Path
) -> None:
    assert "looked in both" in run_script(BOTH, str(tmp_path), *order).stdout


@pytest.mark.parametrize(("first", "second"), [PACKAGES, PACKAGES[::-1]])
def test_a_package_that_is_imported_after_ours(first: str, second: str, tmp_path: Path) -> None:
    assert "looked in both" in run_script(BOTH, str(tmp_path), first, OURS, second).stdout


def test_an_import_of_the_other_package_that_fails_may_be_tried_again() -> None:
    run_script(
        "import sys\nimport lightning_gcam.callbacks as ours\n"
        "sys.modules['lightning.pytorch.trainer'] = None\n"
        "try:\n    import lightning.pytorch\nexcept ImportError:\n    pass\n"
        "else:\n    raise AssertionError\n"
        "for name in [each for each in sys.modules if each.split('.')[0] == 'lightning']:\n    del sys.modules[name]\n"
        "import lightning.pytorch as pl\n"
        "assert issubclass(ours.SaliencyMonitor, pl.Callback)"
    )
