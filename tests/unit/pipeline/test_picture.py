"""One picture for a record and for `attribution.show()`: whose pixels they are, on which scale, and what changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from lightning_gcam import Attribution, SaliencyBatch, SaliencyRecord, attribute
from lightning_gcam.pipeline import rendering as picture
from lightning_gcam.pipeline.captions import captions
from lightning_gcam.pipeline.record import LookHistory, Stamp
from lightning_gcam.pipeline.rendering import Earlier
from lightning_gcam.pipeline.run import record_saliency
from lightning_gcam.utils.errors import InputError
from lightning_gcam.visual import render_grid, to_display
from lightning_gcam.visual.layout import plan
from tests.support.toys import decoded, toy_network, toy_samples

Pixels = npt.NDArray[np.uint8]
METHODS = ["guidance_cam", "grad_cam"]


@pytest.fixture(scope="module")
def record() -> SaliencyRecord:
    torch.manual_seed(0)
    batch = SaliencyBatch(*toy_samples(4))
    return record_saliency(toy_network(), batch, methods=METHODS, checks=[], stamp=Stamp(7, 2))


def styled(record: SaliencyRecord, earlier: Earlier | None = None, **style: Any) -> Pixels:
    return replace(record, stamp=replace(record.stamp, **style), earlier=earlier or Earlier()).overlay


def below_the_title(picture: Pixels) -> Pixels:
    return picture[plan(4, len(METHODS), 16, 16).header :]


# ------------------------------------------------------------------------------------------------ in a notebook


def test_a_records_figure_is_its_overlay(record: SaliencyRecord) -> None:
    assert record.figure().image is record.overlay
    assert np.array_equal(decoded(record.figure()._repr_png_()), record.overlay)


def test_an_attribution_shows_the_same_picture(record: SaliencyRecord) -> None:
    shown = record.attribution.show(record.batch).image
    assert shown.shape == record.overlay.shape
    assert np.array_equal(below_the_title(shown), below_the_title(record.overlay))


def test_without_arguments_it_shows_the_images_it_was_made_of() -> None:
    torch.manual_seed(0)
    images, network = toy_samples(4)[0], toy_network()
    attribution = attribute(network, images, methods=METHODS)
    assert attribution.images is images, "by reference: nothing is copied"
    assert np.array_equal(attribution.show().image, attribution.show(images).image)
    alone = attribution.select([2]).show().image
    assert np.array_equal(alone, replace(attribution.select([2]), images=None).show(images[2:3]).image)


def test_ipython_shows_both(record: SaliencyRecord) -> None:
    formatters = pytest.importorskip("IPython.core.formatters")
    for figure in (record.figure(), record.attribution.show(record.batch)):
        shown, _ = formatters.DisplayFormatter().format(figure)
        assert np.array_equal(decoded(shown["image/png"]), figure.image)


def test_words_names_and_normalization_reach_the_picture() -> None:
    torch.manual_seed(0)
    attribution = attribute(toy_network(), toy_samples(4)[0])
    plain = attribution.show().image
    for given in (
        {"captions": list("abcd")},
        {"class_names": ["cat", "dog", "cow", "hen"]},
        {"normalize": (0.5, 0.25)},
        {"scale": "shared"},
    ):
        assert not np.array_equal(attribution.show(**given).image, plain), given
        assert attribution.show(**given).image.shape == plain.shape


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"samples": torch.zeros(3, 1, 16, 16)}, r"`samples` must be the 4 images .* got 3"),
        ({"samples": torch.zeros(4, 1, 8, 8)}, r"`maps\[.*must be .*\(4, 8, 8\).*\(4, 16, 16\)"),
        ({"captions": ["one"]}, r"`captions` must have one entry for each sample, 4, but it has 1"),
        ({"scale": "run"}, r"`scale` 'run' is not known here. Known: \"own\", \"shared\""),
    ],
)
def test_what_cannot_be_shown_is_refused(given: dict[str, Any], match: str) -> None:
    attribution = attribute(toy_network(), toy_samples(4)[0])
    with pytest.raises(InputError, match=match):
        attribution.show(**given)


def test_an_attribution_of_a_record_holds_no_images(record: SaliencyRecord) -> None:
    assert record.attribution.images is None
    with pytest.raises(InputError, match=r"`samples` is needed: .*`record.figure\(\)`"):
        record.attribution.show()


# ------------------------------------------------------------------------------------------------ scales


def by_hand(
    record: SaliencyRecord, scale: Any, tops: dict[str, float], notes: dict[str, list[str]]
) -> Pixels:
    """The picture from raw maps, by the renderer itself."""
    found, batch = record.attribution, record.batch
    raw = {name: found.maps[name] * found.peaks[name][:, None, None] for name in found.maps}
    return render_grid(
        to_display(batch.images),
        raw,
        captions=captions(batch, found),
        correct=record.correct,
        headings=["guidance cam", "grad cam"],
        notes=notes,
        masks=batch.masks,
        title=f"step 7 · epoch 2 · layer {found.target_layer} · maps of the true class",
        scale=scale,
        tops=tops,
    )


def test_a_shared_scale_is_of_raw_maps_and_the_notes_say_of_what(record: SaliencyRecord) -> None:
    peaks = {name: each.tolist() for name, each in record.attribution.peaks.items()}
    notes = {name: [picture._note(peak, max(each)) for peak in each] for name, each in peaks.items()}
    assert len(set(peaks["grad_cam"])) == 4
    assert np.array_equal(styled(record, scale="shared"), by_hand(record, "shared", {}, notes))


def test_the_scale_of_a_run_counts_the_looks_before(record: SaliencyRecord) -> None:
    peaks = {name: each.tolist() for name, each in record.attribution.peaks.items()}
    tops = {"guidance_cam": 4 * max(peaks["guidance_cam"]), "grad_cam": max(peaks["grad_cam"]) / 2}
    of = {"guidance_cam": tops["guidance_cam"], "grad_cam": max(peaks["grad_cam"])}
    notes = {name: [picture._note(peak, of[name]) for peak in each] for name, each in peaks.items()}
    drawn = styled(record, Earlier(tops=tops), scale="run")
    assert np.array_equal(drawn, by_hand(record, "run", tops, notes))
    assert np.array_equal(styled(record, Earlier(tops=tops), scale="shared"), styled(record, scale="shared"))


def test_a_scale_that_is_not_known_is_refused_before_the_look() -> None:
    with pytest.raises(InputError, match=r"`scale` 'ours' is not known here"):
        Stamp(scale="ours")  # type: ignore[arg-type]


def test_one_look_is_a_run_of_one_but_for_the_legend(record: SaliencyRecord) -> None:
    cards = slice(0, plan(4, 2, 16, 16).height - 40)
    assert np.array_equal(styled(record, scale="run")[cards], styled(record, scale="shared")[cards])


def test_maps_that_are_not_finite_have_no_say_in_a_shared_scale(record: SaliencyRecord) -> None:
    found = record.attribution
    peaks, maps = found.peaks["grad_cam"].clone(), found.maps["grad_cam"].clone()
    peaks[int(peaks.argmax())], maps[int(peaks.argmax())] = torch.nan, 0.0
    broken = replace(
        found,
        maps={"grad_cam": maps},
        peaks={"grad_cam": peaks},
    )
    picture = styled(replace(record, attribution=broken), scale="shared")
    blank = replace(broken, peaks={"grad_cam": peaks.nan_to_num(0)})
    other = styled(replace(record, attribution=blank), scale="shared")
    rows = np.nonzero((picture != other).any(-1))[0]
    assert len(rows) and np.ptp(rows) < 20, "the note alone: not finite"


# ------------------------------------------------------------------------------------------------ changes


def test_the_first_look_has_the_column_of_the_later_ones(record: SaliencyRecord) -> None:
    first = styled(record, show_change=True)
    later = styled(record, Earlier(3, record.attribution.maps), show_change=True)
    layout = plan(4, 4, 16, 16, bars=2)
    assert first.shape == later.shape == (layout.height, layout.width, 3)
    assert first.size > record.overlay.size
    assert not np.array_equal(first, later)


def test_maps_of_other_samples_are_not_compared(record: SaliencyRecord) -> None:
    few = {name: maps[:2] for name, maps in record.attribution.maps.items()}
    others = {"layer_cam": record.attribution.maps["grad_cam"]}
    first = styled(record, show_change=True)
    for maps in (few, others):
        assert np.array_equal(styled(record, Earlier(None, maps), show_change=True), first)


def looked(maps: torch.Tensor, peaks: list[float]) -> Attribution:
    return Attribution({"a": maps}, torch.zeros(2, 3), None, "layer", {"a": torch.tensor(peaks)}, False)


def test_the_memory_keeps_the_last_maps_and_the_highest_peak() -> None:
    history = LookHistory()
    assert history.for_picture == Earlier()
    history.keep(looked(torch.ones(2, 4, 4), [3.0, float("nan")]), step=5)
    last = torch.rand(2, 4, 4)
    history.keep(looked(last, [0.5, 1.0]), step=9)
    for each in (history, LookHistory()):
        each.load_state_dict(history.state_dict())
        earlier = each.for_picture
        assert (earlier.step, earlier.tops) == (9, {"a": 3.0})
        assert torch.equal(earlier.maps["a"], last)


def test_a_memory_of_an_older_checkpoint_has_no_peaks() -> None:
    history, older = LookHistory(), LookHistory()
    older.keep(looked(torch.ones(2, 4, 4), [1.0, 2.0]), step=5)
    state = older.state_dict()
    history.load_state_dict({"maps": state["maps"], "confidence": state["confidence"]})
    assert (history.for_picture.step, history.for_picture.tops) == (None, {})


@pytest.mark.parametrize(
    ("peak", "top", "words"),
    [
        (0.3217, None, "peak 0.32"),
        (0.0, None, "peak 0"),
        (0.000283, None, "peak 2.8e-4"),
        (1234.0, None, "peak 1.2e3"),
        (0.3217, 0.78, "peak 0.32 of 0.78"),
        (0.000283, 0.00052, "2.8e-4 of 5.2e-4"),
    ],
)
def test_a_peak_is_two_digits_and_fits_below_a_small_panel(
    peak: float, top: float | None, words: str
) -> None:
    assert picture._note(peak, top) == words
