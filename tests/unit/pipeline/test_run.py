"""`analyze` and `dry_run`: what is computed where, so that several processes reach the same exchanges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name

from lightning_gcam import SaliencyBatch
from lightning_gcam.metrics import resolve_scores
from lightning_gcam.pipeline.config import LookConfig
from lightning_gcam.pipeline.dry_run import dry_run
from lightning_gcam.pipeline.heads import RunHistory
from lightning_gcam.pipeline.record import LookHistory
from lightning_gcam.pipeline.run import analyze
from lightning_gcam.shortcuts.regions import Donors
from lightning_gcam.utils.errors import InputError
from tests.support.toys import toy_network, toy_samples

HARMLESS = {"__len__", "device.__get__", "shape.__get__"}
"""What is read of a tensor without computing anything."""


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return toy_network().eval()


class Outside(TorchFunctionMode):
    """The names of torch's functions that are called outside of the work given to `map_fn`."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.exchanges = 0
        self._depth = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = (resolve_name(func) or str(func)).removeprefix("torch.Tensor.")
        if not self._depth and name not in HARMLESS:
            self.names.append(name)
        return func(*args, **(kwargs or {}))

    def map_fn(self, work: Callable[[list[int]], Any], n: int | None = None) -> Any:
        assert not self._depth  # no exchange inside of another one's work
        self.exchanges += 1
        return self.uncounted(work)(list(range(n or 0)))

    def uncounted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, of whose calls nothing is noted."""

        def call(*args: Any) -> Any:
            self._depth += 1
            try:
                return function(*args)
            finally:
                self._depth -= 1

        return call


class Twice(nn.Module):
    """One network's logits as two heads."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        logits = self.network(images)
        return {"a": logits, "b": -logits}


ASKING = ["energy", "deletion", "coherency", "random_model_similarity", "drift"]
LOOKS: dict[str, tuple[dict[str, Any], Any]] = {
    "checks and scores of every kind": ({"scores": ASKING}, None),
    "with baselines": ({"with_baselines": True, "methods": ["grad_cam", "layer_cam"]}, None),
    "labels that are measurements": ({}, torch.linspace(0.5, 2.5, 5)),
    "without labels and masks": ({"scores": ["gini"]}, "none"),
    "several heads": ({"scores": ["energy", "drift"]}, "heads"),
    "a check that fails": ({"removal": lambda images, regions: 1 / 0}, None),
    "a perturbation that fails": ({"scores": ["deletion"], "targets": lambda outputs: outputs[:, 0]}, None),
}


@pytest.mark.parametrize("look", LOOKS)
def test_nothing_is_computed_between_two_exchanges(
    network: nn.Module, look: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory can run out in one process wherever something is computed; behind it the others would wait."""
    options, labels = LOOKS[look]
    images, classes, masks = toy_samples(5)
    batch = SaliencyBatch(images) if labels == "none" else SaliencyBatch(images, classes, masks)
    if isinstance(labels, Tensor):
        network = nn.Sequential(network, nn.Linear(4, 1))
        batch = SaliencyBatch(images, labels, masks)
    if labels == "heads":
        network, batch = (
            Twice(network),
            SaliencyBatch(images, None, masks, head_labels={"a": classes, "b": classes}),
        )
    outside, history = Outside(), RunHistory()
    made = outside.uncounted(resolve_scores)  # new metrics: small numbers on the CPU, the same everywhere
    monkeypatch.setattr("lightning_gcam.metrics.registry.resolve_scores", made)
    for _ in range(2):  # the second one has earlier maps and known maps of random weights
        with outside:
            analyze(
                network,
                batch,
                LookConfig(**{"checks": None, **options}),
                outside.map_fn,
                history=history,
                on_failure=lambda step, error: None,
            )
    assert outside.names == []
    assert outside.exchanges >= 2 * 3


def test_a_failure_of_another_process_ends_every_look_alike(network: nn.Module) -> None:
    """Wherever one fails in one process, `map_fn` raises in all: the same exchanges follow in each of them."""
    batch, config = SaliencyBatch(*toy_samples(5)), LookConfig(scores=["energy", "deletion"])

    def exchanges(at: int, is_mine: bool) -> tuple[list[int | None], str]:
        seen: list[int | None] = []

        def map_fn(work: Callable[[list[int]], Any], n: int | None = None) -> Any:
            seen.append(n)
            if len(seen) == at + 1 and is_mine:
                raise ZeroDivisionError("mine")
            found = work(list(range(n or 0)))
            if len(seen) == at + 1:
                raise RuntimeError("ZeroDivisionError: theirs (in process 1)")
            return found

        try:
            record = analyze(network, batch, config, map_fn, on_failure=lambda step, error: None)
        except (RuntimeError, ZeroDivisionError):
            return seen, "failed"
        return seen, " ".join(sorted(record.scores))

    ends = []
    for at in range(6):
        mine, theirs = exchanges(at, True), exchanges(at, False)
        assert mine == theirs
        ends.append(theirs[1])
    assert [end == "failed" for end in ends] == [True, True, False, True, False, False]
    assert "deletion" not in ends[2] and "object_only_accuracy" in ends[2]
    assert "deletion" in ends[4] and "object_only_accuracy" not in ends[4]
    assert "deletion" in ends[5] and "object_only_accuracy" not in ends[5]


def calls_of(network: nn.Module, batch: SaliencyBatch, config: LookConfig) -> list[tuple[int, ...]]:
    """The shapes of the images that a dry run gives the model."""
    dry_run(network, batch, config)  # the layout of the layer is found once
    seen: list[tuple[int, ...]] = []
    hook = network.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape)))
    try:
        dry_run(network, batch, config)
    finally:
        hook.remove()
    return seen


def test_a_dry_run_calls_the_model_alike_for_every_sample(network: nn.Module) -> None:
    """A sharded model is run by all processes at once, each on a sample of its own, annotated or not."""
    images, labels, masks = toy_samples(1)
    config = LookConfig(target_layer="5", scores=["energy", "deletion"])
    bare = calls_of(network, SaliencyBatch(images), config)
    assert calls_of(network, SaliencyBatch(images, labels, masks), config) == bare
    unlabelled = SaliencyBatch(images, torch.tensor([-1]), masks)
    assert calls_of(network, unlabelled, config) == bare


def test_a_dry_run_leaves_random_weights_to_the_looks(network: nn.Module) -> None:
    batch = SaliencyBatch(*toy_samples(1))
    asked, plain = (
        LookConfig(target_layer="5", scores=each) for each in (["random_model_similarity", "gini"], ["gini"])
    )
    assert calls_of(network, batch, asked) == calls_of(network, batch, plain)


def test_a_dry_run_refuses_a_removal_that_gives_something_else(network: nn.Module) -> None:
    batch = SaliencyBatch(*toy_samples(1))
    with pytest.raises(InputError, match="removal"):
        dry_run(network, batch, LookConfig(removal=lambda images, regions: images[:, :, :2]))
    dry_run(network, batch, LookConfig(removal=lambda images, regions: 1 / 0))  # the first look tells of it


@pytest.mark.parametrize("first_process", [True, False])
def test_whether_the_checks_wait_is_the_first_processs_decision(
    network: nn.Module, first_process: bool
) -> None:
    """Sharded processes have logits of their own, and one that made the checks alone would wait for the others."""
    images, labels, masks = toy_samples(8)
    history, given = LookHistory(), []

    def agree(own: bool) -> bool:
        given.append(own)
        return first_process

    for _ in range(2):
        batch = SaliencyBatch(images, labels, masks)
        record = analyze(network, batch, LookConfig(), history=history, agree=agree)

    assert given == [record.reliance.is_above_chance]  # type: ignore[union-attr]  # the first look makes them anyway
    assert record.checks_wait == (not first_process)
    assert ("border_follow_rate" in record.scores) == first_process
    assert "accuracy" in record.scores


def test_a_history_is_of_its_samples(network: nn.Module) -> None:
    """What depends on the samples is kept for a run, and for no other images, whatever their labels."""
    images, labels, _ = toy_samples(4)
    history, config = LookHistory(), LookConfig(checks=[], target_layer="0")
    looks = [
        analyze(network, SaliencyBatch(each, labels), config, history=history)
        for each in (images, 1 - images)
    ]
    assert torch.equal(looks[0].batch.images, images) and torch.equal(looks[1].batch.images, 1 - images)


def test_other_properties_of_the_same_samples_have_their_own_donors(network: nn.Module) -> None:
    batch, history = SaliencyBatch(*toy_samples(8)[:2]), LookHistory()
    for name in ("border", "spectrum"):
        config = LookConfig(checks=[name], target_layer="0")
        record = analyze(network, batch, config, history=history)
        assert record.exchanges is not None and record.exchanges.names == (name,)
        assert f"{name}_follow_rate" in record.scores


def test_what_depends_on_the_samples_alone_is_computed_once_a_run(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []
    choose = Donors.of
    monkeypatch.setattr(Donors, "of", lambda *given: (calls.append(given), choose(*given))[1])
    batch, history = SaliencyBatch(*toy_samples(8)[:2]), LookHistory()
    config = LookConfig(checks=["border", "spectrum"], target_layer="0")
    for _ in range(3):
        analyze(network, batch, config, history=history)
    assert len(calls) == 1
