"""What holds for every score: what counts, and what may not change a result."""

from __future__ import annotations

import math
import pickle
import warnings

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_gcam.metrics import BlankRate, available_scores, functional, needs, resolve_scores
from lightning_gcam.metrics.samples import PerSample, mean_counted

FUNCTIONS = {
    "energy": functional.energy_pointing_game,
    "energy_chance": functional.energy_chance,
    "object_lift": functional.region_lift,
    "suspect_lift": functional.region_lift,
    "pointing_game": functional.pointing_game,
    "rank_accuracy": functional.relevance_rank_accuracy,
    "iou": functional.saliency_iou,
    "blank_rate": lambda saliency, mask: functional.blank_rate(saliency),
    "best_iou": functional.best_saliency_iou,
    "pixel_average_precision": functional.pixel_average_precision,
    "max_box_accuracy": functional.max_box_accuracy,
    "max_box_accuracy_v1": lambda saliency, mask: functional.max_box_accuracy(saliency, mask, version=1),
    "gini": lambda saliency, mask: functional.saliency_gini(saliency),
    "entropy": lambda saliency, mask: functional.saliency_entropy(saliency),
    "complexity": lambda saliency, mask: functional.complexity(saliency),
    "positional_concentration": functional.positional_concentration,
    "drift": functional.drift,
    "drift_from_first": functional.drift,
    "drift_from_best": functional.drift,
    "average_drop": functional.average_drop,
    "average_increase": functional.average_increase,
    "average_gain": functional.average_gain,
    "win_rate": functional.win_rate,
    "coherency": functional.coherency,
    "adcc": functional.adcc,
    "insertion": functional.insertion_auc,
    "deletion": functional.deletion_auc,
    "random_model_similarity": functional.random_model_similarity,
    "random_model_ssim": functional.random_model_ssim,
}
# Samples 1, 4 and 5 of `gaps` are blank; 2 has an empty mask, or a NaN among its probabilities.
LOCALIZING = [name for name in FUNCTIONS if needs(resolve_scores(name)[name]) & {"mask", "suspect"}]
PERTURBING = [name for name in FUNCTIONS if "forwards" in needs(resolve_scores(name)[name])]
every_score = pytest.mark.parametrize("name", available_scores())
every_localizing_score = pytest.mark.parametrize("name", LOCALIZING)


def fresh(name):
    return resolve_scores(name)[name]


def result(name, *inputs) -> float:
    return fresh(name)(*inputs).item()


def counts(metric) -> tuple[int, ...]:
    return metric.n, metric.left_out, metric.blank, metric.no_mask


def expected_counts(name) -> tuple[int, ...]:
    if name == "blank_rate":
        return 7, 0, 0, 0
    if name in LOCALIZING:
        return 3, 4, 3, 1
    return (3, 4, 3, 0) if name in PERTURBING else (4, 3, 3, 0)


def test_every_name_is_tested_against_its_function() -> None:
    differs = set(FUNCTIONS) ^ set(available_scores())
    assert tuple(FUNCTIONS) == available_scores(), (
        f"rows of FUNCTIONS above, in the registry's order: {differs}"
    )


@every_score
def test_class_equals_function(name, gaps, inputs_for) -> None:
    value = FUNCTIONS[name](*inputs_for(name, gaps))
    assert value.shape == ()
    assert value.dtype == torch.float32
    torch.testing.assert_close(fresh(name)(*inputs_for(name, gaps)), value)
    assert not math.isnan(value)


@every_score
def test_blank_and_empty_samples_are_left_out_and_counted(name, gaps, inputs_for) -> None:
    inputs, metric = inputs_for(name, gaps), fresh(name)
    sample = metric.per_sample(*inputs)
    metric.update(*inputs)
    assert counts(metric) == expected_counts(name)
    assert {type(count) for count in counts(metric)} == {int}
    kept = [tensor[sample.counted] for tensor in inputs]
    assert len(kept[0]) == metric.n
    assert metric.compute().item() == pytest.approx(result(name, *kept), abs=1e-6)


@every_score
def test_if_all_are_left_out_there_is_no_score_and_no_warning(name, gaps, inputs_for) -> None:
    if name == "blank_rate":
        pytest.skip("every sample counts")
    inputs = [tensor[[1, 4, 5]] for tensor in inputs_for(name, gaps)]
    metric = fresh(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric.update(*inputs)
        assert math.isnan(metric.compute())
        assert math.isnan(FUNCTIONS[name](*inputs))
    assert counts(metric) == (0, 3, 3, 0)


@every_localizing_score
def test_where_every_mask_is_empty_there_is_no_score(name, batch) -> None:
    saliency, mask = batch
    metric = fresh(name)
    metric.update(saliency, torch.zeros_like(mask))
    assert counts(metric) == (0, 7, 0, 7)
    assert math.isnan(metric.compute())


@every_score
def test_an_empty_batch_adds_nothing(name, batch, inputs_for) -> None:
    metric, inputs = fresh(name), inputs_for(name, batch)
    metric.update(*inputs)
    metric.update(*(tensor[:0] for tensor in inputs))
    assert metric.n == 7
    assert metric.compute().item() == pytest.approx(result(name, *inputs))


@every_score
@pytest.mark.parametrize("sizes", [[7], [1, 6], [3, 4], [1] * 7])
def test_the_split_into_batches_changes_nothing(name, sizes, gaps, inputs_for) -> None:
    whole, split, inputs = fresh(name), fresh(name), inputs_for(name, gaps)
    whole.update(*inputs)
    for part in zip(*(tensor.split(sizes) for tensor in inputs), strict=True):
        split.update(*part)
    assert split.compute().item() == pytest.approx(whole.compute().item(), abs=1e-6)
    assert counts(split) == counts(whole)


@every_score
def test_the_order_of_the_samples_changes_nothing(name, gaps, inputs_for) -> None:
    order, inputs = torch.tensor([4, 2, 6, 0, 1, 5, 3]), inputs_for(name, gaps)
    shuffled = (tensor[order] for tensor in inputs)
    assert result(name, *shuffled) == pytest.approx(result(name, *inputs), abs=1e-6)


@every_score
@pytest.mark.parametrize("scale", [1e-30, 0.1, 3.0, 1e30])
def test_the_scale_of_a_map_changes_nothing(name, scale, gaps, inputs_for) -> None:
    inputs = inputs_for(name, gaps)
    scales = torch.linspace(0.5, 2, 7)[:, None, None] * scale
    scaled = [each * scales if each.ndim == 3 and each.is_floating_point() else each for each in inputs]
    assert result(name, *scaled) == pytest.approx(result(name, *inputs), abs=1e-5)


@every_score
@pytest.mark.parametrize("flip", [lambda t: t.flip(1), lambda t: t.transpose(1, 2)])
def test_turning_map_and_mask_together_changes_nothing(name, flip, gaps, inputs_for) -> None:
    inputs = inputs_for(name, gaps)
    turned = (flip(each) if each.ndim == 3 else each for each in inputs)
    assert result(name, *turned) == pytest.approx(result(name, *inputs), abs=1e-6)


@every_score
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_floating_dtype_is_worked_on_in_float32(name, dtype, batch, inputs_for) -> None:
    inputs = [
        (each * (3e4 if each.ndim == 3 else 1)).to(dtype) if each.is_floating_point() else each
        for each in inputs_for(name, batch)
    ]  # the sum of a map is far past the largest float16
    value = result(name, *inputs)
    assert value == result(name, *(each.float() if each.is_floating_point() else each for each in inputs))
    assert math.isfinite(value)


@every_score
def test_summed_states_of_two_copies_equal_one(name, gaps, inputs_for) -> None:
    whole, left, right, inputs = fresh(name), fresh(name), fresh(name), inputs_for(name, gaps)
    whole.update(*inputs)
    left.update(*(tensor[:4] for tensor in inputs))
    right.update(*(tensor[4:] for tensor in inputs))
    for state in whole._defaults:
        # What torchmetrics does with the states that it gathered from two processes.
        both = torch.stack([getattr(left, state), getattr(right, state)])
        setattr(left, state, left._reductions[state](both))
    assert left.compute().item() == pytest.approx(whole.compute().item(), abs=1e-6)
    assert counts(left) == counts(whole)


@every_score
def test_states_are_a_float64_total_and_int64_counts(name, gaps, inputs_for) -> None:
    metric = fresh(name)
    metric.update(*inputs_for(name, gaps))
    dtypes = {state: getattr(metric, state).dtype for state in metric._defaults}
    assert dtypes.pop("n_scored") == dtypes.pop("n_left_out") == torch.int64
    assert dtypes.pop("n_blank") == dtypes.pop("n_no_mask") == torch.int64
    assert set(dtypes.values()) == {torch.float64}


@every_score
def test_a_state_does_not_grow_with_the_samples(name, gaps, inputs_for) -> None:
    metric = fresh(name)
    before = {state: getattr(metric, state).shape for state in metric._defaults}
    metric.update(*inputs_for(name, gaps))
    metric.update(*inputs_for(name, gaps))
    assert {state: getattr(metric, state).shape for state in metric._defaults} == before


@every_score
def test_set_dtype_is_kept_and_reset_forgets(name, gaps, inputs_for) -> None:
    metric, inputs = fresh(name).set_dtype(torch.float32), inputs_for(name, gaps)
    for _ in range(2):
        metric.update(*inputs)
        assert metric.total.dtype == torch.float32
        assert metric.compute().item() == pytest.approx(result(name, *inputs), abs=1e-5)
        metric.reset()
        assert counts(metric) == (0, 0, 0, 0)


class NoFloat64(TorchDispatchMode):
    """Fails, as MPS would, where an operation makes a float64 tensor."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        assert getattr(out, "dtype", None) != torch.float64, func
        return out


@every_score
def test_no_float64_is_made_from_the_maps(name, gaps, inputs_for) -> None:
    metric, inputs = fresh(name).set_dtype(torch.float32), inputs_for(name, gaps)
    with NoFloat64():
        metric.update(*inputs)


@every_score
def test_a_state_made_in_inference_mode_can_be_used_outside(name, batch, inputs_for) -> None:
    metric, inputs = fresh(name), inputs_for(name, batch)
    with torch.inference_mode():
        metric.reset()
        metric.update(*inputs)
    metric.update(*inputs)
    assert metric.compute().item() == pytest.approx(result(name, *inputs), abs=1e-6)


@every_score
def test_the_inputs_and_their_graph_are_left_alone(name, gaps, inputs_for) -> None:
    inputs = inputs_for(name, gaps)
    before = [each.clone() for each in inputs]
    metric = fresh(name)
    value = metric(*(each.requires_grad_() if each.is_floating_point() else each for each in inputs))
    assert not value.requires_grad
    assert not metric.total.requires_grad
    torch.testing.assert_close([each.detach() for each in inputs], before, equal_nan=True)


@every_score
def test_no_random_number_is_drawn(name, gaps, inputs_for) -> None:
    inputs = inputs_for(name, gaps)
    before = torch.get_rng_state()
    result(name, *inputs)
    assert torch.equal(torch.get_rng_state(), before)


@every_score
def test_pickle_and_clone_keep_the_counts(name, gaps, inputs_for) -> None:
    metric = fresh(name)
    metric.update(*inputs_for(name, gaps))
    for copy in (pickle.loads(pickle.dumps(metric)), metric.clone()):
        assert copy.compute() == metric.compute()
        assert counts(copy) == counts(metric)


# Lower and upper bound of the plot, and which end is better, where they are not 0, 1 and the upper one.
FLAGS = {
    "energy_chance": (0, 1, None),
    "object_lift": (0, None, True),
    "blank_rate": (0, 1, False),
    "suspect_lift": (0, None, False),
    "gini": (0, 1, None),
    "entropy": (0, 1, None),
    "complexity": (0, 1, False),
    "positional_concentration": (None, 1, False),
    "drift": (-1, 1, None),
    "drift_from_first": (-1, 1, None),
    "drift_from_best": (-1, 1, None),
    "average_drop": (0, 1, False),
    "deletion": (0, 1, False),
    "random_model_similarity": (-1, 1, False),
    "random_model_ssim": (-1, 1, False),
}


@every_score
def test_flags(name) -> None:
    metric = fresh(name)
    assert metric.is_differentiable is False
    assert metric.full_state_update is False
    found = metric.plot_lower_bound, metric.plot_upper_bound, metric.higher_is_better
    assert found == FLAGS.get(name, (0, 1, True))


@every_score
def test_plot(name, gaps, make_batch, inputs_for) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    metric = fresh(name)
    values = [metric(*inputs_for(name, each)) for each in (gaps, make_batch(seed=1))]
    _, axis = metric.plot(values)
    assert axis.lines[0].get_ydata().tolist() == pytest.approx([value.item() for value in values])
    assert axis.get_ylabel() == type(metric).__name__
    for bound in (metric.plot_lower_bound, metric.plot_upper_bound):
        assert bound is None or axis.get_ylim()[0] < bound < axis.get_ylim()[1]
    _, by_floats = metric.plot([value.item() for value in values], pyplot.figure().gca())
    assert by_floats.lines[0].get_ydata().tolist() == axis.lines[0].get_ydata().tolist()
    _, single = metric.plot()
    _, of_a_float = metric.plot(0.5)
    assert single.lines and of_a_float.lines[0].get_ydata().tolist() == [0.5]
    pyplot.close("all")


def test_values_of_samples_that_do_not_count_are_never_read() -> None:
    sample = PerSample(torch.tensor([2.0, float("nan"), 4.0]), torch.tensor([True, False, True]))
    assert mean_counted(sample).item() == 3


def test_a_long_run_does_not_lose_the_small_numbers() -> None:
    # In float32 a total of 2 ** 24 no longer grows by 1.
    metric = BlankRate()
    metric.total = metric.total + 2.0**24
    metric.update(torch.zeros(1, 1, 1))
    assert metric.total.item() == 2**24 + 1
