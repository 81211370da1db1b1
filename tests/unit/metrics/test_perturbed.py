"""The images of the faithfulness scores, by hand and by invariants; and the model's outputs for them."""

from __future__ import annotations

import pickle

import pytest
import torch
from torchvision.transforms.functional import gaussian_blur

from lightning_gcam.metrics.functional import deletion_steps, insertion_steps, keep_salient
from lightning_gcam.metrics.perturbation import PerturbedKey, PerturbedOutputs, filled

IMAGES = torch.rand(3, 2, 8, 6, generator=torch.Generator().manual_seed(0)) + 1
MAPS = torch.rand(3, 8, 6, generator=torch.Generator().manual_seed(1))


def by_step(chunks) -> dict[tuple[int, int], torch.Tensor]:
    return {
        tuple(key): image
        for index, images in chunks
        for key, image in zip(index.tolist(), images, strict=True)
    }


def test_keep_salient_by_hand() -> None:
    images = torch.tensor([[[[2.0, 4.0]], [[10.0, 30.0]]]])
    maps = torch.tensor([[[8.0, 2.0]]])
    assert keep_salient(images, maps).tolist() == [[[[2, 1]], [[10, 7.5]]]]
    assert keep_salient(images, maps, "mean").tolist() == [[[[2, 1 + 0.75 * 3]], [[10, 7.5 + 0.75 * 20]]]]
    assert keep_salient(images, maps, lambda x: x + 1).tolist() == [[[[2, 4.75]], [[10, 30.75]]]]


def test_a_blank_map_keeps_nothing() -> None:
    maps = MAPS.clone()
    maps[0], maps[1, 2, 2] = 0, float("nan")
    kept = keep_salient(IMAGES, maps, "mean")
    torch.testing.assert_close(kept[:2], filled(IMAGES, "mean")[:2])
    assert kept.isfinite().all()


@pytest.mark.parametrize("fill", ["zero", "blur", "mean"])
def test_a_uniform_map_keeps_the_image(fill) -> None:
    torch.testing.assert_close(keep_salient(IMAGES, torch.full((3, 8, 6), 0.2), fill), IMAGES)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("fill", ["zero", "blur", "mean"])
def test_the_images_keep_their_dtype(dtype, fill) -> None:
    images = IMAGES.to(dtype)
    assert keep_salient(images, MAPS, fill).dtype == dtype
    for _, shown in insertion_steps(images, MAPS, 2, fill):
        assert shown.dtype == dtype


def test_insertion_shows_and_deletion_takes_the_most_salient_pixels() -> None:
    steps = 7  # 48 pixels do not divide by it
    shown = by_step(insertion_steps(IMAGES, MAPS, steps, "zero"))
    left = by_step(deletion_steps(IMAGES, MAPS, steps))
    assert set(shown) == set(left) == {(n, k) for n in range(3) for k in range(steps + 1)}
    for (sample, step), image in shown.items():
        count = step * 48 // steps
        assert (image != 0).all(dim=0).sum() == count
        there = (image != 0).all(dim=0)
        assert count in (0, 48) or MAPS[sample][there].min() > MAPS[sample][~there].max()
        torch.testing.assert_close(image + left[sample, step], IMAGES[sample])


@pytest.mark.parametrize("fill", ["zero", "blur", "mean"])
def test_the_ends_are_the_image_and_the_fill(fill) -> None:
    shown, left = (
        by_step(insertion_steps(IMAGES, MAPS, 4, fill)),
        by_step(deletion_steps(IMAGES, MAPS, 4, fill)),
    )
    for sample in range(3):
        assert torch.equal(shown[sample, 4], IMAGES[sample])
        assert torch.equal(left[sample, 0], IMAGES[sample])
        assert torch.equal(shown[sample, 0], filled(IMAGES, fill)[sample])
        assert torch.equal(left[sample, 4], filled(IMAGES, fill)[sample])


@pytest.mark.parametrize("chunk_size", [1, 5, 100])
def test_chunks_are_no_larger_than_asked_and_change_nothing(chunk_size) -> None:
    chunks = list(insertion_steps(IMAGES, MAPS, 4, chunk_size=chunk_size))
    assert all(len(index) == len(images) <= chunk_size for index, images in chunks)
    assert sum(len(index) for index, _ in chunks) == 15
    whole = by_step(insertion_steps(IMAGES, MAPS, 4))
    assert all(torch.equal(image, whole[key]) for key, image in by_step(chunks).items())


def test_pixels_of_equal_saliency_come_row_by_row() -> None:
    shown = by_step(insertion_steps(torch.ones(1, 1, 2, 2), torch.zeros(1, 2, 2), 4, "zero"))
    assert shown[0, 1].flatten().tolist() == [1, 0, 0, 0]
    assert shown[0, 3].flatten().tolist() == [1, 1, 1, 0]


def test_no_sample_gives_no_image() -> None:
    assert list(insertion_steps(IMAGES[:0], MAPS[:0])) == []


def test_blur_is_torchvisions_inside_the_image() -> None:
    images = torch.rand(2, 3, 40, 60, generator=torch.Generator().manual_seed(0))
    ours, theirs = filled(images, "blur"), gaussian_blur(images, kernel_size=[25, 25], sigma=4.0)
    inside = (..., slice(12, -12), slice(12, -12))
    torch.testing.assert_close(ours[inside], theirs[inside], atol=1e-5, rtol=0)
    assert ours.std() < 0.3 * images.std()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2)])
def test_blur_of_an_even_image_of_any_size_is_itself(size) -> None:
    images = torch.full((1, 2, *size), 3.0)
    torch.testing.assert_close(filled(images, "blur"), images)


def test_nothing_random_and_the_inputs_are_left_alone() -> None:
    before, images, maps = torch.get_rng_state(), IMAGES.clone(), MAPS.clone()
    by_step(insertion_steps(images, maps))
    keep_salient(images, maps)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(images, IMAGES)
    assert torch.equal(maps, MAPS)


@pytest.mark.parametrize("make", [keep_salient, insertion_steps, deletion_steps])
def test_what_does_not_fit_is_refused_at_the_call(make) -> None:
    with pytest.raises(
        ValueError, match=r"`images` must be floating \(N, C, \*spatial\), .* got torch.float32 \(8, 6\)"
    ):
        make(IMAGES[0, 0], MAPS)
    with pytest.raises(
        ValueError, match=r"`images` must be floating \(N, C, \*spatial\), .* got torch.uint8"
    ):
        make(IMAGES.to(torch.uint8), MAPS)
    with pytest.raises(
        ValueError, match=r"`maps` must be \(N, \*spatial\) of the images' \(3, 8, 6\), got \(3, 4, 6\)"
    ):
        make(IMAGES, MAPS[:, :4])
    with pytest.raises(TypeError, match="`saliency` must be floating"):
        make(IMAGES, MAPS.long())
    with pytest.raises(ValueError, match=r'`fill` must be "zero", "blur", "mean" or a callable'):
        make(IMAGES, MAPS, fill="gray")
    with pytest.raises(ValueError, match=r"`fill` must give images of the shape \(3, 2, 8, 6\)"):
        make(IMAGES, MAPS, fill=lambda images: images[:1])


@pytest.mark.parametrize("make", [insertion_steps, deletion_steps])
@pytest.mark.parametrize("name", ["steps", "chunk_size"])
def test_wrong_counts_are_refused_at_the_call(make, name) -> None:
    with pytest.raises(ValueError, match=rf"`{name}` must be a whole number from 1; got 0"):
        make(IMAGES, MAPS, **{name: 0})


KEPT = PerturbedKey("grad_cam", 0)


def outputs(*rows: float) -> PerturbedOutputs:
    """A probability, a map and a random map for each sample."""
    values = torch.tensor(rows)
    return PerturbedOutputs(
        {KEPT: values[:, None]},
        {KEPT: values[:, None, None].expand(-1, 2, 3)},
        {"grad_cam": -values[:, None, None].expand(-1, 2, 3)},
    )


def assert_same(found: PerturbedOutputs, expected: PerturbedOutputs) -> None:
    for field in ("probabilities", "maps", "random_maps"):
        ours, theirs = getattr(found, field), getattr(expected, field)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_outputs_have_a_row_a_sample() -> None:
    assert len(outputs(0.1, 0.2)) == 2
    assert len(PerturbedOutputs()) == 0
    assert len(PerturbedOutputs(random_maps={"grad_cam": torch.zeros(3, 2, 2)})) == 3
    assert_same(outputs(0.1, 0.2, 0.3).select([2, 0]), outputs(0.3, 0.1))
    assert_same(outputs(0.1, 0.2).to("cpu"), outputs(0.1, 0.2))


def test_outputs_of_several_batches_and_of_several_runs_are_joined() -> None:
    assert_same(PerturbedOutputs.cat([outputs(0.1), outputs(0.2, 0.3)]), outputs(0.1, 0.2, 0.3))
    whole = outputs(0.1, 0.2)
    parts = [
        PerturbedOutputs(whole.probabilities),
        PerturbedOutputs(),
        PerturbedOutputs(maps=whole.maps, random_maps=whole.random_maps),
    ]
    assert_same(PerturbedOutputs.merged(parts), whole)
    assert parts[0].maps == parts[1].probabilities == {}  # joined out of place


def test_outputs_can_be_sent_to_another_process() -> None:
    assert_same(pickle.loads(pickle.dumps(outputs(0.1, 0.2))), outputs(0.1, 0.2))
