"""`lightning.pytorch` and `pytorch_lightning`: each alone, both installed, and the users' silencing respected."""

from __future__ import annotations

import os
import subprocess
import sys
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
    script = TRAINING.format(package=package, before=before, between=between)
    done = subprocess.run(
        [sys.executable, "-c", script, str(root)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "looked" in done.stdout
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
    assert done.stderr.count("SaliencyMonitor: 4 fixed samples") == 1


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
