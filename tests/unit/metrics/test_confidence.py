"""Scores made of forwards: by hand, and against torch-cam's, which run the model themselves."""

from __future__ import annotations

import contextlib
import math

import pytest
import torch
from torch import Tensor, nn

from lightning_gcam.metrics import (
    ADCC,
    AverageDrop,
    AverageGain,
    AverageIncrease,
    DeletionAUC,
    InsertionAUC,
    WinRate,
)
from lightning_gcam.metrics.functional import (
    adcc,
    average_drop,
    average_gain,
    average_increase,
    coherency,
    complexity,
    deletion_auc,
    deletion_steps,
    insertion_auc,
    insertion_steps,
    keep_salient,
    win_rate,
)

BEFORE, AFTER = torch.tensor([0.8, 0.5, 0.4, 0.2]), torch.tensor([0.4, 0.75, 0.4, 0.0])
NAN = float("nan")


class Extractor:
    """What torch-cam's metrics ask for their maps: here, maps that were made beforehand."""

    def __init__(self, model: nn.Module, maps: Tensor) -> None:
        self.model, self.maps = model, maps

    def __call__(self, *_: object, **__: object) -> list[Tensor]:
        return [self.maps]

    def fuse_cams(self, cams: list[Tensor]) -> Tensor:
        return cams[0]

    def _hooks_off(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


@pytest.fixture
def asked() -> tuple[nn.Module, Tensor, Tensor]:
    """A model that gives class 1 a probability, images, and maps without ties whose peaks are 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 8, 3)).eval()
        images, maps = torch.randn(12, 3, 8, 10), torch.rand(12, 8, 10)
    return model, images, maps / maps.amax(dim=(1, 2), keepdim=True)


@torch.no_grad()
def probability(model: nn.Module, images: Tensor) -> Tensor:
    return model(images).softmax(dim=1)[:, 1]


def curves(model: nn.Module, chunks, n: int, steps: int) -> Tensor:
    """How a driver fills the curves."""
    found = torch.full((n, steps + 1), NAN)
    for index, images in chunks:
        found[index[:, 0], index[:, 1]] = probability(model, images)
    return found


@pytest.mark.parametrize(
    ("function", "metric", "expected"),
    [
        (average_drop, AverageDrop(), (0.4 / 0.8 + 0 + 0 + 1) / 4),
        (average_increase, AverageIncrease(), 1 / 4),
        (average_gain, AverageGain(), (0.25 / 0.5) / 4),
    ],
)
def test_value_by_hand(function, metric, expected) -> None:
    assert function(BEFORE, AFTER).item() == pytest.approx(expected)
    assert metric(BEFORE, AFTER).item() == pytest.approx(expected)


def test_the_win_rates_of_two_methods_add_up_to_one() -> None:
    # Two wins, a tie, a loss.
    ours, theirs = torch.tensor([0.9, 0.5, 0.3, 0.1]), torch.tensor([0.8, 0.2, 0.3, 0.4])
    assert win_rate(ours, theirs).item() == WinRate()(ours, theirs).item() == 2.5 / 4
    assert win_rate(theirs, ours).item() == 1.5 / 4


@pytest.mark.parametrize(
    ("score", "before", "after", "left"),
    [
        (
            AverageDrop,
            [0.0, 0.5],
            [0.5, 0.25],
            0.5,
        ),  # nothing to lose: 0/0, which torch-cam scores as no drop
        (AverageGain, [1.0, 0.5], [1.0, 0.75], 0.5),  # nothing to gain: 0/0
        (AverageDrop, [0.5, 0.5], [NAN, 0.25], 0.5),
        (AverageIncrease, [NAN, 0.5], [0.5, 0.75], 1),
        (WinRate, [0.5, 0.5], [NAN, 0.25], 1),
    ],
)
def test_what_does_not_exist_is_left_out(score, before, after, left) -> None:
    metric = score()
    metric.update(torch.tensor(before), torch.tensor(after))
    assert metric.compute().item() == left
    assert (metric.n, metric.left_out, metric.blank) == (1, 1, 0)


@pytest.mark.parametrize("score", [AverageDrop, AverageIncrease, AverageGain, WinRate])
def test_a_sample_with_a_blank_map_is_left_out(score) -> None:
    metric, blank = score(), torch.tensor([True, False, True, False])
    metric.update(BEFORE, AFTER, blank)
    assert metric.compute() == score()(BEFORE[~blank], AFTER[~blank])
    assert (metric.n, metric.left_out, metric.blank) == (2, 2, 2)


def test_drop_and_increase_against_torchcam(asked) -> None:
    metrics = pytest.importorskip("torchcam.metrics")
    model, images, maps = asked
    theirs = metrics.ClassificationMetric(Extractor(model, maps), lambda logits: logits.softmax(dim=-1))
    theirs.update(images, class_idx=1)
    before, after = probability(model, images), probability(model, keep_salient(images, maps))
    assert average_drop(before, after).item() == pytest.approx(theirs.summary()["avg_drop"], abs=1e-5)
    assert average_increase(before, after).item() == pytest.approx(theirs.summary()["conf_increase"])
    assert 0 < average_increase(before, after) < 1


@pytest.mark.parametrize("steps", [1, 4, 20, 80])  # divisors of 8 * 10: other steps of theirs are uneven
@pytest.mark.parametrize("chunk_size", [7, 1000])
def test_insertion_and_deletion_against_torchcam(asked, steps, chunk_size) -> None:
    metrics = pytest.importorskip("torchcam.metrics")
    if not hasattr(metrics, "DeletionInsertionMetric"):
        pytest.skip("this torchcam has no insertion and deletion")
    model, images, maps = asked
    theirs = metrics.DeletionInsertionMetric(
        Extractor(model, maps), lambda logits: logits.softmax(dim=-1), steps=steps
    )
    theirs.update(images, class_idx=1)
    found = {
        "insertion_auc": insertion_auc(
            curves(model, insertion_steps(images, maps, steps, "zero", chunk_size), 12, steps)
        ),
        "deletion_auc": deletion_auc(
            curves(model, deletion_steps(images, maps, steps, chunk_size=chunk_size), 12, steps)
        ),
    }
    assert {name: each.item() for name, each in found.items()} == pytest.approx(theirs.summary(), abs=1e-5)


@pytest.mark.parametrize(
    ("curve", "area"),
    [([0.0, 1.0], 0.5), ([1.0, 1.0, 1.0], 1), ([0.0, 0.5, 1.0, 0.5], (0.25 + 0.75 + 0.75) / 3)],
)
def test_area_by_hand(curve, area) -> None:
    for score, metric in ((insertion_auc, InsertionAUC), (deletion_auc, DeletionAUC)):
        assert score(torch.tensor([curve])).item() == pytest.approx(area)
        assert metric(steps=len(curve) - 1)(torch.tensor([curve])).item() == pytest.approx(area)


def test_a_metric_says_what_its_images_are_made_with() -> None:
    assert (InsertionAUC().steps, InsertionAUC().fill, InsertionAUC().cost) == (20, "blur", 21)
    assert (DeletionAUC(steps=5, fill="mean").fill, DeletionAUC(steps=5).cost) == ("mean", 6)
    assert AverageDrop().fill == "zero"


def test_a_curve_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`curves` must be \(N, 21\), .* got \(1, 3\)\. Set `steps`"):
        InsertionAUC().update(torch.rand(1, 3))
    with pytest.raises(
        ValueError, match=r"`curves` must be \(N, steps \+ 1\) with at least one step, got \(1, 1\)"
    ):
        insertion_auc(torch.rand(1, 1))


def test_adcc_by_hand() -> None:
    # Coherency 1, complexity (1 + 1/2 + 0 + 0) / 4, drop 1/2.
    saliency = torch.tensor([[[4.0, 2.0], [0.0, 0.0]]])
    before, after = torch.tensor([0.8]), torch.tensor([0.4])
    assert coherency(saliency, saliency * 3).item() == pytest.approx(1)
    assert complexity(saliency).item() == pytest.approx(3 / 8)
    expected = 3 / (1 / 1 + 1 / (1 - 3 / 8) + 1 / (1 - 1 / 2))
    assert adcc(saliency, saliency, before, after).item() == pytest.approx(expected)
    assert ADCC()(saliency, saliency, before, after).item() == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_coherency_against_scipy(seed, make_batch) -> None:
    stats = pytest.importorskip("scipy.stats")
    first, second = make_batch(seed=seed)[0], make_batch(seed=seed + 10)[0]
    theirs = [stats.pearsonr(a.flatten(), b.flatten()).statistic for a, b in zip(first, second, strict=True)]
    assert coherency(first, second).item() == pytest.approx(sum((1 + r) / 2 for r in theirs) / 7, abs=1e-5)


def test_where_nothing_is_found_again_coherency_and_adcc_are_zero() -> None:
    saliency = torch.tensor([[[4.0, 2.0]]])
    assert coherency(saliency, torch.zeros(1, 1, 2)).item() == 0
    assert adcc(saliency, torch.zeros(1, 1, 2), torch.tensor([0.8]), torch.tensor([0.4])).item() == 0


@pytest.mark.parametrize(
    ("saliency", "kept", "before"),
    [
        ([4.0, 2.0], [1.0, 1.0], 0.8),  # the same everywhere: no correlation
        ([4.0, 4.0], [1.0, 2.0], 0.8),
        ([4.0, 2.0], [1.0, 2.0], 0.0),  # no confidence to lose
        ([0.0, 0.0], [1.0, 2.0], 0.8),
    ],
)
def test_adcc_leaves_out_what_one_of_its_parts_does(saliency, kept, before) -> None:
    metric = ADCC()
    metric.update(
        torch.tensor([[saliency]]), torch.tensor([[kept]]), torch.tensor([before]), torch.tensor([0.4])
    )
    assert (metric.n, metric.left_out, metric.blank) == (0, 1, int(saliency[0] == 0))
    assert math.isnan(metric.compute())


@pytest.mark.parametrize("score", [AverageDrop, AverageIncrease, AverageGain, WinRate])
def test_what_are_no_probabilities_is_refused(score) -> None:
    metric, first = score(), "after" if score is WinRate else "before"
    for wrong in (torch.rand(2, 3, 4), torch.ones(2).long(), [0.5], None):
        with pytest.raises(ValueError, match=rf"`{first}` must be floating probabilities \(N,\)"):
            metric.update(wrong, AFTER)
    with pytest.raises(
        ValueError, match=rf"`{first}` must be probabilities in \[0, 1\], got values from -3 to 2"
    ):
        metric.update(torch.tensor([-3.0, 2.0, NAN, 0.5]), AFTER)
    with pytest.raises(ValueError, match=r"`\w+` must hold 4 samples, as many as the others, got 3"):
        metric.update(BEFORE, AFTER[:3])
    for blank in (torch.tensor([True]), torch.zeros(4), [True] * 4):
        with pytest.raises(ValueError, match=r"`blank` must be bool \(4,\), True where a map is blank, got "):
            metric.update(BEFORE, AFTER, blank)
    assert (metric.n, metric.left_out) == (0, 0)


def test_adcc_refuses_probabilities_of_other_samples() -> None:
    saliency = torch.rand(3, 2, 2)
    with pytest.raises(ValueError, match=r"`(before|blank)` must "):
        adcc(saliency, saliency, BEFORE, AFTER)


@pytest.mark.parametrize("score", [AverageDrop, WinRate, InsertionAUC, DeletionAUC])
def test_an_unknown_fill_is_refused(score) -> None:
    with pytest.raises(
        ValueError, match=r'`fill` must be "zero", "blur", "mean" or a callable .* got \'grey\''
    ):
        score(fill="grey")


@pytest.mark.parametrize(("score", "words"), [(InsertionAUC, "shown"), (DeletionAUC, "taken away")])
def test_the_curve_is_the_mean_of_those_that_count(score, words) -> None:
    from matplotlib import pyplot

    metric = score(steps=2)
    metric.update(torch.tensor([[0.0, 0.8, 0.8], [0.2, 0.0, 0.4]]))
    metric.update(torch.tensor([[0.4, 0.4, 0.0], [NAN, 1, 1], [1, 1, 1]]), torch.tensor([False, False, True]))

    assert metric.curve.tolist() == pytest.approx([0.6 / 3, 1.2 / 3, 1.2 / 3])
    assert torch.trapezoid(metric.curve, dx=0.5).item() == pytest.approx(metric.compute().item())
    _, axis = metric.plot()
    assert list(axis.lines[0].get_xdata()) == [0, 0.5, 1]
    assert list(axis.lines[0].get_ydata()) == pytest.approx([0.2, 0.4, 0.4])
    assert words in axis.get_xlabel() and axis.get_title() == f"{score.__name__}: area 0.350, n = 3"
    other, given = pyplot.subplots()
    assert metric.plot(ax=given) == (other, given)
    assert metric.plot([0.25, 0.5])[1].lines[0].get_ydata().tolist() == [0.25, 0.5]
    pyplot.close("all")


def test_a_curve_of_nobody_is_none() -> None:
    assert InsertionAUC(steps=3).curve.isnan().all()
    metric = DeletionAUC(steps=2)
    metric(torch.tensor([[1.0, 0.5, 0.0]])), metric(torch.tensor([[0.0, 0.5, 0.0]]))
    assert metric.curve.tolist() == [0.5, 0.5, 0.0], "forward adds up as update does"
