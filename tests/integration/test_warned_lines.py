"""Warnings name the user's line: the one that began the fit, whichever Lightning package runs it."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from tests.support.processes import run_script

SCRIPT = """
    import sys

    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset
    import {package} as pl

    from lightning_gcam import SaliencyMonitor


    class Net(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(144, 2))

        def forward(self, images):
            return self.body(images)

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            pass

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)


    loader = DataLoader(TensorDataset(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1])), batch_size=4)
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, default_root_dir=sys.argv[1], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[SaliencyMonitor(checks=[])],
    )
    trainer.fit(  # the line
        Net(), loader, loader,
    )
"""


@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
def test_a_warning_names_the_line_of_the_fit(package: str, tmp_path: Path) -> None:
    script = tmp_path / "training.py"
    script.write_text(dedent(SCRIPT).format(package=package), encoding="utf-8")
    line = script.read_text(encoding="utf-8").splitlines().index("trainer.fit(  # the line") + 1

    ended = run_script(str(script), str(tmp_path))

    assert ended.returncode == 0, ended.said
    (warned,) = [each for each in ended.said.splitlines() if "The fixed batch has 4 samples" in each]
    assert warned.startswith(f"{script}:{line}: ")
