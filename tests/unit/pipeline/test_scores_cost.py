"""What scores cost, counted: waits for a device, sorts, checks of a map, and numbers in memory as images grow."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_gcam import Attribution, SaliencyBatch
from lightning_gcam.cam.maps import scale_map
from lightning_gcam.metrics import resolve_scores
from lightning_gcam.metrics.measurement import ScoreKey
from lightning_gcam.metrics.samples import CheckedMaps
from lightning_gcam.pipeline.config import LookConfig
from lightning_gcam.pipeline.record import LookHistory
from lightning_gcam.pipeline.run import analyze
from lightning_gcam.pipeline.scoring import score_maps
from tests.support.nets import bits
from tests.support.synchronizations import synchronizations, to_device
from tests.support.toys import toy_network, toy_samples

OF_MAPS = ["best_iou", "pixel_average_precision", "gini", "entropy", "complexity", "positional_concentration"]
OF_LOOKS = ["drift", "drift_from_first", "drift_from_best"]


def look(
    n: int = 4, side: int = 24, names: tuple[str, ...] = ("first", "second")
) -> tuple[Attribution, SaliencyBatch]:
    """Maps and masks as a look has them."""
    generator = torch.Generator().manual_seed(0)
    maps = {}
    for name in names:
        raw = torch.rand(n, 5, 5, generator=generator)
        maps[name], _ = scale_map(raw, (side, side), torch.ones(n, dtype=torch.bool))
    masks = torch.zeros(n, side, side, dtype=torch.bool)
    masks[:, : side // 2, side // 4 : side // 2] = True
    peaks = dict.fromkeys(names, torch.ones(n))
    attribution = Attribution(
        maps, torch.zeros(n, 3), torch.zeros(n, dtype=torch.long), "layer", peaks, False
    )
    return attribution, SaliencyBatch(torch.zeros(n, 3, side, side), torch.zeros(n, dtype=torch.long), masks)


# ------------------------------------------------------------------------------------- waits for a device


@pytest.mark.parametrize("names", [("one",), ("first", "second", "third")])
@pytest.mark.parametrize("scores", [None, OF_MAPS])
def test_the_scores_of_a_look_wait_twice_for_a_device(names: tuple[str, ...], scores: Any) -> None:
    attribution, batch = look(names=names)
    expected = score_maps(attribution, batch, scores, baselines={})
    with synchronizations() as counted:
        found = score_maps(to_device(attribution), to_device(batch), scores, baselines={})

    assert counted.total == 2, counted.table()  # whether all maps can be scored, and all numbers at once
    assert found.values == expected.values
    assert all(
        type(part) is Tensor for _, sample in found.samples.values() for part in sample if part is not None
    )


# ------------------------------------------------------------------------------------- once a map


def test_the_numbers_are_those_of_each_score_alone() -> None:
    attribution, batch = look()
    attribution.maps["first"][0] = 0
    attribution.maps["first"][1, 0, 0] = float("nan")
    scores = ["energy", "object_lift", "pointing_game", "rank_accuracy", "iou", "blank_rate", *OF_MAPS]
    found = score_maps(attribution, batch, scores)

    for name, metric in resolve_scores(scores).items():
        for of_map, maps in attribution.maps.items():
            inputs = (maps, batch.masks) if metric.requires_mask else (maps,)
            for mine, alone in zip(
                found.samples[ScoreKey(of_map, name)][1], metric.per_sample(*inputs), strict=True
            ):
                assert (mine is None and alone is None) or bits(mine) == bits(alone)


def test_a_negative_map_fails_its_scores_and_no_others() -> None:
    attribution, batch = look()
    attribution.maps["second"][0, 0, 0] = -1
    failed: list[str] = []
    found = score_maps(
        attribution, batch, ["energy", "gini"], lambda name, _: failed.append(name), baselines={}
    )

    assert failed == ["energy", "energy_chance", "gini"]
    assert {"energy", "gini"} < set(found.values)
    with pytest.raises(ValueError, match=r"`saliency` must be at least 0, got a minimum of -1\."):
        score_maps(attribution, batch, ["energy"])


class Operations(TorchDispatchMode):
    """Counts the operations inside, and the numbers that they allocate."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.allocated = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.count[func.overloadpacket.__name__] += 1
        given = {each.untyped_storage().data_ptr() for each in args if isinstance(each, Tensor)}
        for each in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(each, Tensor) and each.untyped_storage().data_ptr() not in given:
                self.allocated += each.numel()
        return found


def operations(scores: Any, side: int = 24, names: tuple[str, ...] = ("first", "second")) -> Operations:
    attribution, batch = look(side=side, names=names)
    earlier = {when: dict(attribution.maps) for when in ("previous", "first", "best")}
    with Operations() as counted:
        score_maps(attribution, batch, scores, baselines={}, earlier=earlier)
    return counted


def test_a_map_is_sorted_and_ranked_once_and_only_where_asked() -> None:
    assert operations(None).count["sort"] == 0
    assert operations(["energy", "rank_accuracy", "entropy"]).count["sort"] == 0
    asked = operations(["gini", *OF_LOOKS])
    assert asked.count["sort"] == 2  # for each map: the earlier ones are the same tensors here
    assert asked.count["searchsorted"] == 4


def test_a_map_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Tensor] = []
    init = CheckedMaps.__init__

    def counted(self: CheckedMaps, saliency: Tensor, *rest: Any) -> None:
        made.append(saliency)
        init(self, saliency, *rest)

    monkeypatch.setattr(CheckedMaps, "__init__", counted)
    attribution, batch = look()
    score_maps(attribution, batch, [*resolve_scores(None), *OF_MAPS], baselines={})

    assert [id(each) for each in made] == [id(each) for each in attribution.maps.values()]


def test_baselines_are_scored_at_the_first_look_only() -> None:
    history, seen = LookHistory(), list[int]()
    batch = SaliencyBatch(*toy_samples(4))
    config, network = LookConfig(methods="grad_cam", checks=[]), toy_network().eval()
    for _ in range(3):
        with Operations() as counted:
            record = analyze(network, batch, config, history=history)
        seen.append(counted.count["sum"])
        assert "centre/energy" in record.scores

    assert seen[0] > seen[1] == seen[2]


# ------------------------------------------------------------------------------------- growth


@pytest.mark.parametrize("scores", [None, OF_MAPS, OF_LOOKS, ["random_model_similarity"]])
def test_what_is_allocated_grows_no_faster_than_the_pixels(scores: Any) -> None:
    small, large = (operations(scores, side, ("one",)).allocated for side in (256, 1024))

    assert large <= 16.1 * small


def test_maps_allocate_no_faster_than_the_pixels() -> None:
    raw = torch.rand(2, 7, 7)
    allocated = []
    for side in (256, 1024):
        with Operations() as counted:
            scale_map(raw, (side, side), torch.ones(2, dtype=torch.bool))
        allocated.append(counted.allocated)

    assert allocated[1] <= 16.1 * allocated[0]


def test_masks_cost_no_more_each_than_one() -> None:
    one, many = (operations_of(n) for n in (1, 64))

    assert many <= 64 * one


def operations_of(n: int) -> int:
    attribution, batch = look(n, 64, ("one",))
    with Operations() as counted:
        score_maps(attribution, batch, [*resolve_scores(None), *OF_MAPS], baselines={})
    return counted.allocated


def test_a_map_that_falls_from_its_first_pixel_on_has_the_rank_accuracy_of_a_sort() -> None:
    side = 64
    maps = torch.arange(side * side, 0, -1).float().reshape(1, side, side)
    mask = torch.rand(1, side, side, generator=torch.Generator().manual_seed(0)) > 0.8
    highest = maps.flatten().argsort(descending=True)[: int(mask.sum())]

    score = resolve_scores("rank_accuracy")["rank_accuracy"]
    assert float(score(maps, mask)) == pytest.approx(float(mask.flatten()[highest].float().mean()))
