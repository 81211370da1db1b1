"""The progress bars of long looks follow the Trainer's own switch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lightning_gcam import SaliencyMonitor
from lightning_gcam.utils import chunking
from tests.support.toys import LIGHTNING_SAYS, Toy, toy_loader, toy_trainer

pytestmark = LIGHTNING_SAYS


@pytest.mark.parametrize("switch", [True, False])
def test_a_look_in_several_chunks_has_a_bar_where_the_trainer_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switch: bool
) -> None:
    hidden: list[bool] = []
    plain = chunking.tqdm

    def recorded(*given: Any, **options: Any) -> Any:
        hidden.append(options["disable"])
        return plain(*given, **options | {"disable": True})

    monkeypatch.setattr(chunking, "tqdm", recorded)
    monitor = SaliencyMonitor(num_samples=8, on_error="raise", checks=[])
    trainer = toy_trainer(tmp_path, monitor, max_epochs=1, enable_progress_bar=switch)
    trainer.fit(Toy(), toy_loader(), toy_loader(batch_size=4))
    assert len(monitor.history) == 1
    assert (False in hidden) == switch
