"""How often a look would wait for a CUDA device, counted on the CPU.

`python -m tests.unit.pipeline.test_synchronizations` prints where.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_gcam.data import SaliencyBatch
from lightning_gcam.pipeline.config import LookConfig
from lightning_gcam.pipeline.record import LookHistory, SaliencyRecord, Stamp
from lightning_gcam.pipeline.run import analyze
from lightning_gcam.shortcuts import resolve_checks
from tests.support.synchronizations import (
    OnDevice,
    Synchronizations,
    synchronizations,
    to_device,
    to_host,
)

LOOKS = {
    "with masks, no checks": (6, 5),
    "with masks": (9, 7),
    "labels only, no checks": (6, 5),
    "labels only": (9, 7),
}
"""At most so many, at the first look and at the second."""


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    ).eval()


def samples(*, masks: bool) -> SaliencyBatch:
    objects = torch.zeros(16, 32, 32, dtype=torch.bool)
    objects[:, 8:20, 8:20] = True
    return SaliencyBatch(torch.rand(16, 3, 32, 32), torch.arange(16) % 3, objects if masks else None)


def looks(
    kind: str, place: Callable[[Any], Any] = to_device
) -> list[tuple[SaliencyRecord, Synchronizations]]:
    """Two looks of a run at 16 samples, as `SaliencyMonitor` takes them; the checks, where there are any, at both."""
    torch.manual_seed(0)
    model, batch = place(network()), place(samples(masks=kind.startswith("with masks")))
    checks = () if kind.endswith("no checks") else resolve_checks(None)
    history, config = LookHistory(), LookConfig(checks=checks, draws_earlier=True).at_layers(["5"], None)
    found = []
    for step in (1, 2):
        with synchronizations() as counted:
            record = analyze(model, batch, config, history=history, stamp=Stamp(step))
        found.append((record, counted))
    return found


@pytest.mark.parametrize("kind", LOOKS)
def test_a_look_waits_at_most_so_often(kind: str) -> None:
    for (_, counted), most in zip(looks(kind), LOOKS[kind], strict=True):
        assert counted.total <= most, counted.table()


def test_what_is_counted_computes_the_same() -> None:
    counted, plain = looks("with masks"), looks("with masks", place=lambda each: each)
    for (record, waits), (expected, none) in zip(counted, plain, strict=True):
        assert waits.total > none.total == 0
        assert record.scores == expected.scores
        assert not isinstance(record.attribution.logits, OnDevice)  # measured and drawn on the host


WAITS: list[tuple[str, Callable[[Tensor], Any]]] = [
    ("item", lambda x: x.sum().item()),
    ("float", lambda x: float(x.sum())),
    ("if", lambda x: bool(x.any())),
    ("tolist", lambda x: x.tolist()),
    ("cpu", lambda x: x.cpu() + x.cpu().sum()),
    ("equal", lambda x: torch.equal(x, x)),
    ("nonzero", lambda x: x.nonzero()),
    ("where", lambda x: torch.where(x > 0)),
    ("mask", lambda x: x[x > 0]),
    ("masked_select", lambda x: x.masked_select(x > 0)),
    ("unique", lambda x: x.unique()),
    ("write at a mask", lambda x: x.index_put_((x > 0,), x[0])),
    ("a list", lambda x: x[[0, 1]]),
    ("host index", lambda x: x[torch.tensor([0])]),
    ("new tensor", lambda x: torch.tensor([1.0], device=x.device) + x),
    ("another new tensor", lambda x: x.new_tensor([1.0]) + x),
    ("host tensor", lambda x: torch.ones(3).to(x.device)),
    ("write host values", lambda x: x.copy_(torch.ones(3))),
    ("repeat", lambda x: x.repeat_interleave(torch.ones(3, dtype=torch.long).to(x.device))),
    ("isfinite", lambda x: bool(torch.isfinite(x).all())),
]
GOES_ON: list[tuple[str, Callable[[Tensor], Any]]] = [
    ("arithmetic", lambda x: (x * 2 + 1).sum(dim=0)),
    ("number into a mask", lambda x: x.__setitem__(x > 0, 0.0)),
    ("number into places", lambda x: x.__setitem__(slice(2), 1.0)),
    ("where of three", lambda x: torch.where(x > 0, x, 0.0)),
    ("device index", lambda x: x[torch.arange(2, device=x.device)]),
    ("slice", lambda x: x[:2]),
    ("made there", lambda x: torch.zeros(3, device=x.device) + x),
    ("other type", lambda x: x.double().to(x.device)),
    ("not waited for", lambda x: torch.ones(3).to(x.device, non_blocking=True)),
    ("gradient", lambda x: torch.autograd.grad((w := x.clone().requires_grad_()).pow(2).sum(), w)),
]


@pytest.mark.parametrize(("what", "call"), WAITS, ids=[name for name, _ in WAITS])
def test_the_host_waits(what: str, call: Callable[[Tensor], Any]) -> None:
    x = to_device(torch.tensor([1.0, -1.0, 2.0]))
    with synchronizations() as counted:
        call(x)
    assert counted.total >= 1
    assert "outside of the package" in counted.table()


@pytest.mark.parametrize(("what", "call"), GOES_ON, ids=[name for name, _ in GOES_ON])
def test_the_host_goes_on(what: str, call: Callable[[Tensor], Any]) -> None:
    x = to_device(torch.tensor([1.0, -1.0, 2.0]))
    with synchronizations() as counted:
        call(x)
    assert counted.table() == ""


def test_behind_a_copy_to_the_host_nothing_waits_any_more() -> None:
    x = to_device(torch.tensor([1.0, -1.0, 2.0]))
    with synchronizations() as counted:
        host = x.cpu()
        assert type(host) is Tensor
        assert host[host > 0].tolist() == [1.0, 2.0]
    assert counted.total == 1
    assert torch.equal(to_host(x), host)


def test_host_and_device_do_not_mix() -> None:
    x = to_device(torch.ones(3))
    with synchronizations(), pytest.raises(RuntimeError, match="on the host and on the device"):
        x + torch.ones(3)


if __name__ == "__main__":
    for each in LOOKS:
        for number, (_, counts) in enumerate(looks(each), start=1):
            print(f"16 samples, {each}, look {number}: {counts.total} synchronizations\n{counts.table()}\n")
