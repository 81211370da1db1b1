"""LightningCLI: every argument of `SaliencyEvaluation` but those that are data or code, from YAML."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from pytorch_lightning.cli import LightningCLI

from lightning_gcam import SaliencyEvaluation
from tests.integration.cli.test_lightning_cli import VALUES
from tests.support.toys import Toy

pytestmark = pytest.mark.filterwarnings("ignore")

OWN: dict[str, Any] = {
    "head": "sex",
    "check_samples": 12,
    "chunk_size": 3,
    "multi_label": True,
    "baselines": False,
    "directory": "table",
    "resume": False,
    "resamples": 20,
    "about": {"dataset": "toys", "images": 3},
}


def test_every_argument_from_yaml(tmp_path: Path) -> None:
    names = set(inspect.signature(SaliencyEvaluation).parameters)
    shared = {name: value for name, value in VALUES.items() if name in names and name not in OWN}
    assert names == {*shared, *OWN}
    callback = {"class_path": "lightning_gcam.SaliencyEvaluation", "init_args": {**shared, **OWN}}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"trainer": {"callbacks": [callback]}}))
    arguments = [f"--config={config}", "--trainer.logger=false", "--trainer.accelerator=cpu"]
    cli = LightningCLI(Toy, args=arguments, run=False, save_config_callback=None)
    (evaluation,) = [each for each in cli.trainer.callbacks if isinstance(each, SaliencyEvaluation)]
    plan, settings = evaluation._plan, evaluation._plan.config
    assert list(settings.method_table) == ["guidance_cam", "mean_activation"]
    assert (plan.chunk_size, plan.directory, plan.resume) == (3, Path("table"), False)
    assert (settings.multi_label, settings.with_baselines) == (True, False)
    assert (settings.check_names, plan.check_samples) == (tuple(VALUES["checks"]), 12)
    assert evaluation._table.about == {"dataset": "toys", "images": 3}
    assert settings.target_layer == ["network.2", "network.5"]
