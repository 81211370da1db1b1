"""What holds for every score: what counts, and what may not change a result."""

from __future__ import annotations

import math
import pickle
import warnings

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_gcam.metrics import BlankRate, available_scores, functional, resolve_scores
from lightning_gcam.metrics.functional.mean import PerSample, mean_counted

FUNCTIONS = {
    "energy": functional.energy_pointing_game,
    "energy_chance": functional.energy_chance,
    "object_lift": functional.region_lift,
    "pointing_game": functional.pointing_game,
    "rank_accuracy": functional.relevance_rank_accuracy,
    "iou": functional.saliency_iou,
    "blank_rate": lambda saliency, mask: functional.blank_rate(saliency),
}
LOCALIZING = [name for name in available_scores() if name != "blank_rate"]
every_score = pytest.mark.parametrize("name", available_scores())
every_localizing_score = pytest.mark.parametrize("name", LOCALIZING)


def fresh(name):
    return resolve_scores(name)[name]


def result(name, saliency, mask) -> float:
    return fresh(name)(saliency, mask).item()


@every_score
def test_class_equals_function(name, gaps) -> None:
    value = FUNCTIONS[name](*gaps)
    assert value.shape == ()
    assert value.dtype == torch.float32
    torch.testing.assert_close(fresh(name)(*gaps), value)


@every_localizing_score
def test_blank_and_empty_samples_are_left_out_and_counted(name, gaps) -> None:
    saliency, mask = gaps
    metric, kept = fresh(name), [0, 3, 6]
    metric.update(saliency, mask)
    assert (metric.n, metric.left_out) == (3, 4)
    assert type(metric.n) is type(metric.left_out) is int
    assert metric.compute().item() == pytest.approx(result(name, saliency[kept], mask[kept]), abs=1e-6)


@every_localizing_score
def test_if_all_are_left_out_there_is_no_score_and_no_warning(name, gaps) -> None:
    saliency, mask = (tensor[[1, 2, 4, 5]] for tensor in gaps)
    metric = fresh(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric.update(saliency, mask)
        assert math.isnan(metric.compute())
        assert math.isnan(FUNCTIONS[name](saliency, mask))
    assert (metric.n, metric.left_out) == (0, 4)


@every_score
def test_an_empty_batch_adds_nothing(name, batch) -> None:
    metric = fresh(name)
    metric.update(*batch)
    metric.update(torch.zeros(0, 9, 8), torch.zeros(0, 9, 8, dtype=torch.bool))
    assert metric.n == 7
    assert metric.compute().item() == pytest.approx(result(name, *batch))


@every_score
@pytest.mark.parametrize("sizes", [[7], [1, 6], [3, 4], [1] * 7])
def test_the_split_into_batches_changes_nothing(name, sizes, gaps) -> None:
    whole, split = fresh(name), fresh(name)
    whole.update(*gaps)
    for part in zip(*(tensor.split(sizes) for tensor in gaps), strict=True):
        split.update(*part)
    assert split.compute().item() == pytest.approx(whole.compute().item(), abs=1e-6)
    assert (split.n, split.left_out) == (whole.n, whole.left_out)


@every_score
def test_the_order_of_the_samples_changes_nothing(name, gaps) -> None:
    order = torch.tensor([4, 2, 6, 0, 1, 5, 3])
    shuffled = (tensor[order] for tensor in gaps)
    assert result(name, *shuffled) == pytest.approx(result(name, *gaps), abs=1e-6)


@every_score
@pytest.mark.parametrize("scale", [1e-30, 0.1, 3.0, 1e30])
def test_the_scale_of_a_map_changes_nothing(name, scale, gaps) -> None:
    saliency, mask = gaps
    scales = torch.linspace(0.5, 2, 7)[:, None, None] * scale
    assert result(name, saliency * scales, mask) == pytest.approx(result(name, saliency, mask), abs=1e-5)


@every_score
@pytest.mark.parametrize("flip", [lambda t: t.flip(1), lambda t: t.transpose(1, 2)])
def test_turning_map_and_mask_together_changes_nothing(name, flip, gaps) -> None:
    assert result(name, *map(flip, gaps)) == pytest.approx(result(name, *gaps), abs=1e-6)


@every_score
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_floating_dtype_is_worked_on_in_float32(name, dtype, batch) -> None:
    saliency, mask = batch
    saliency = (saliency * 3e4).to(dtype)  # its sum is far past the largest float16
    value = result(name, saliency, mask)
    assert value == result(name, saliency.float(), mask)
    assert math.isfinite(value)


@every_score
def test_summed_states_of_two_copies_equal_one(name, gaps) -> None:
    whole, left, right = fresh(name), fresh(name), fresh(name)
    whole.update(*gaps)
    left.update(*(tensor[:4] for tensor in gaps))
    right.update(*(tensor[4:] for tensor in gaps))
    for state in whole._defaults:
        # What torchmetrics does with the states that it gathered from two processes.
        both = torch.stack([getattr(left, state), getattr(right, state)])
        setattr(left, state, left._reductions[state](both))
    assert left.compute().item() == pytest.approx(whole.compute().item(), abs=1e-6)
    assert (left.n, left.left_out) == (whole.n, whole.left_out)


@every_score
def test_states_are_a_float64_total_and_int64_counts(name, gaps) -> None:
    metric = fresh(name)
    metric.update(*gaps)
    dtypes = {state: getattr(metric, state).dtype for state in metric._defaults}
    assert dtypes.pop("n_scored") == dtypes.pop("n_left_out") == torch.int64
    assert set(dtypes.values()) == {torch.float64}


@every_score
def test_set_dtype_is_kept_and_reset_forgets(name, gaps) -> None:
    metric = fresh(name).set_dtype(torch.float32)
    for _ in range(2):
        metric.update(*gaps)
        assert metric.total.dtype == torch.float32
        assert metric.compute().item() == pytest.approx(result(name, *gaps), abs=1e-5)
        metric.reset()
        assert (metric.n, metric.left_out) == (0, 0)


class NoFloat64(TorchDispatchMode):
    """Fails, as MPS would, where an operation makes a float64 tensor."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        assert getattr(out, "dtype", None) != torch.float64, func
        return out


@every_score
def test_no_float64_is_made_from_the_maps(name, gaps) -> None:
    metric = fresh(name).set_dtype(torch.float32)
    with NoFloat64():
        metric.update(*gaps)


@every_score
def test_a_state_made_in_inference_mode_can_be_used_outside(name, batch) -> None:
    metric = fresh(name)
    with torch.inference_mode():
        metric.reset()
        metric.update(*batch)
    metric.update(*batch)
    assert metric.compute().item() == pytest.approx(result(name, *batch), abs=1e-6)


@every_score
def test_the_inputs_and_their_graph_are_left_alone(name, gaps) -> None:
    saliency, mask = gaps
    before = saliency.clone(), mask.clone()
    metric = fresh(name)
    value = metric(saliency.requires_grad_(), mask)
    assert not value.requires_grad
    assert not metric.total.requires_grad
    torch.testing.assert_close((saliency.detach(), mask), before, equal_nan=True)


@every_score
def test_no_random_number_is_drawn(name, gaps) -> None:
    before = torch.get_rng_state()
    result(name, *gaps)
    assert torch.equal(torch.get_rng_state(), before)


@every_score
def test_pickle_and_clone_keep_the_counts(name, gaps) -> None:
    metric = fresh(name)
    metric.update(*gaps)
    for copy in (pickle.loads(pickle.dumps(metric)), metric.clone()):
        assert copy.compute() == metric.compute()
        assert (copy.n, copy.left_out) == (metric.n, metric.left_out)


@every_score
def test_flags(name) -> None:
    metric = fresh(name)
    assert metric.is_differentiable is False
    assert metric.full_state_update is False
    assert metric.plot_lower_bound == 0
    assert metric.plot_upper_bound == (None if name == "object_lift" else 1)
    assert metric.higher_is_better is {"energy_chance": None, "blank_rate": False}.get(name, True)


@every_score
def test_plot(name, gaps, make_batch) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    metric = fresh(name)
    values = [metric(*gaps), metric(*make_batch(seed=1))]
    figure, axis = metric.plot(values)
    assert axis.lines[0].get_ydata().tolist() == pytest.approx([value.item() for value in values])
    single_figure, _ = metric.plot()
    pyplot.close(figure)
    pyplot.close(single_figure)


def test_values_of_samples_that_do_not_count_are_never_read() -> None:
    sample = PerSample(torch.tensor([2.0, float("nan"), 4.0]), torch.tensor([True, False, True]))
    assert mean_counted(sample).item() == 3


def test_a_long_run_does_not_lose_the_small_numbers() -> None:
    # In float32 a total of 2 ** 24 no longer grows by 1.
    metric = BlankRate()
    metric.total = metric.total + 2.0**24
    metric.update(torch.zeros(1, 1, 1))
    assert metric.total.item() == 2**24 + 1
