"""Reports to test on, and a page read back as an HTML parser sees it."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import torch

from lightning_gcam import SaliencyBatch, SaliencyRecord
from lightning_gcam.loggers import ReportLogger
from lightning_gcam.pipeline.record import Stamp
from lightning_gcam.pipeline.run import record_saliency
from tests.support.toys import CLASSES, toy_network, toy_samples

EVIL = ("<script>throw 1</script>", "</script><img src=x onerror=alert(1)>", "a & b", '"quoted"')


class Page(HTMLParser):
    """Tags, the texts of headings, whatever an attribute would load, and the data."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.texts: dict[str, str] = {}
        self._inside = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.data = json.loads(self.texts["data"])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append(tag)
        self.loads += [
            value or "" for name, value in attrs if name in ("src", "href", "data", "action", "srcset")
        ]
        self._inside = named.get("id") or tag

    def handle_data(self, data: str) -> None:
        self.texts[self._inside] = self.texts.get(self._inside, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def steps(self, run: int = 0, monitor: int = 0) -> list[int]:
        return [look["step"] for look in self.data["runs"][run]["monitors"][monitor]["looks"]]


def record_at(
    step: int = 0, n: int = 8, *, seed: int = 0, class_names: tuple[str, ...] = EVIL, **options: Any
) -> SaliencyRecord:
    """A look of a toy whose weights differ from step to step."""
    torch.manual_seed(step)
    stamp = Stamp(step, step // 4, options.pop("log_prefix", "saliency"), class_names)
    batch, options = SaliencyBatch(*toy_samples(n, seed=seed)), {"checks": [], **options}
    return record_saliency(toy_network(), batch, stamp=stamp, **options)


def write_report(directory: Path, steps: range = range(3, 16, 4), **options: Any) -> ReportLogger:
    """A report of a few looks, with an alarm."""
    logger = ReportLogger(directory)
    logger.log_hyperparams({"network": "<b>toy</b>", "classes": CLASSES})
    for step in steps:
        logger.log_metrics({"val_loss": 1 / (step + 1), "val_acc": step / 20}, step=step)
        logger.log_look(record_at(step, **options))
    logger.log_alert(7, "Measured <i>so</i>: 0.96, chance 0.25.")
    logger.finalize("success")
    return logger
