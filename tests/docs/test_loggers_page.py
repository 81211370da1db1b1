"""docs/guides/loggers.md: its ten lines are a backend that works, and what it promises of others is there."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
import pytest

from lightning_gcam import SaliencyMonitor
from lightning_gcam.loggers import log_alert, log_saliency, log_table
from tests.support.backends import Scalars
from tests.support.toys import LIGHTNING_SAYS, Toy, decoded, toy_loader, toy_trainer

pytestmark = LIGHTNING_SAYS

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "loggers.md"


class MyLogger(Scalars):
    @property
    def page(self) -> Path:
        return self.directory / "page.html"


def code_blocks() -> list[str]:
    found = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
    return [each for each in found if "log_saliency.register" in each or "register_backend" in each]


def test_ten_lines_are_a_backend(tmp_path: Path) -> None:
    code, _ = code_blocks()
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    tmp_path.joinpath("run").mkdir()
    monitor, logger = SaliencyMonitor(num_samples=4, on_error="raise"), MyLogger(tmp_path / "run")

    exec(compile(code, str(PAGE), "exec"), {"MyLogger": MyLogger})
    toy_trainer(tmp_path, monitor, logger=logger).fit(Toy(), toy_loader(32), toy_loader())

    page = logger.page.read_text(encoding="utf-8")
    (picture,) = re.findall(r"base64,([^']+)'", page)
    assert "step 7" in page
    assert monitor.last_record is not None
    assert np.array_equal(decoded(base64.b64decode(picture)), monitor.last_record.overlay)
    assert list(tmp_path.rglob("*.png")) == [], "no file is written in its place"


def test_look_alert_and_table_are_registered_in_one_call(tmp_path: Path) -> None:
    class Mine(MyLogger): ...

    names = {"MyLogger": Mine}
    logger = Mine(tmp_path)
    for code in code_blocks():
        exec(compile(code, str(PAGE), "exec"), names)

    log_alert(logger, {"step": 3, "message": "Measured so.", "log_prefix": "saliency"})
    assert logger.page.read_text(encoding="utf-8") == "<h1>step 3</h1>Measured so."
    log_table(logger, "saliency/table", [], 3)
    assert "Measured so." in logger.page.read_text(encoding="utf-8"), "a table without rows is not shown"
    log_table(logger, "saliency/table", [{"score": "energy", "value": 0.5}], 3)
    assert "<tr><td>energy<td>0.5</table>" in logger.page.read_text(encoding="utf-8")
    assert log_saliency.dispatch(Mine).__name__ == "log_to_mine"


@pytest.mark.parametrize(
    "name", ["TensorBoardLogger", "WandbLogger", "MLFlowLogger", "CSVLogger", "ReportLogger"]
)
def test_each_registered_logger_stands_in_the_table(name: str) -> None:
    registered = {kind.__name__ for kind in log_saliency.registry} - {"object", "MyLogger"}
    assert name in registered
    assert f"`{name}`" in PAGE.read_text(encoding="utf-8")
