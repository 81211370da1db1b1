"""Signals in two dimensions: the curve, the band under it on the same axis, its peak, and the regions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_gcam.visual import colormap
from lightning_gcam.visual.curves import curve_sheets, draw_curves, lay_bands, peaks_in_band
from lightning_gcam.visual.drawing import OBJECT_COLOR, SUSPECT_COLOR
from lightning_gcam.visual.forms import CurveForm, curve_form, plan_sheets
from lightning_gcam.visual.images import unpack
from lightning_gcam.visual.panels import HeatStyle, Regions, draw_sheet


def form_of(length: int, channels: int = 1, bars: int = 0, width: int = 520) -> CurveForm:
    return CurveForm(length, channels, width, bars)


def bump(length: int, at: int) -> Tensor:
    return torch.exp(-(((torch.arange(length) - at) / (length / 20)) ** 2))[None]


def heat_of(form: CurveForm, signals: Tensor, maps: Tensor) -> Tensor:
    """The pixels `(N, 3, h, w)` of the panel with the map."""
    (sheet,) = curve_sheets(form, signals, {"cam": maps}, Regions(), ["cam"])
    layout = plan_sheets(len(signals), 1, form.sheet, pictures=0, stacked=True)
    (panel,) = draw_sheet(sheet, layout, HeatStyle())
    return unpack(panel.pixels)


@pytest.mark.parametrize("length", [187, 466, 5000, 7])
def test_the_band_is_as_hot_as_the_map_below_the_same_samples(length: int) -> None:
    form, at = form_of(length), length // 3
    maps = bump(length, at)
    pixels = heat_of(form, torch.randn(1, 1, length), maps)
    band = pixels[
        0, :, (form.band.start + form.band.stop) // 2, form.columns
    ]  # through the middle of the ring
    hottest = colormap(torch.tensor([1.0]))[0].long()
    column = int((at + 0.5) * form.across / length)
    assert torch.equal(band[:, min(column, form.across - 1)].long(), hottest), (
        "the brightest colour at the peak"
    )
    for share in (0.1, 0.5, 0.9):
        near = int(share * length)
        value = maps[0, near : near + max(1, length // form.across)].max()
        found = band[:, int((near + 0.5) * form.across / length)].long()
        if value < 1e-3:
            assert found.tolist() == [0, 0, 0], "no saliency is no colour"
    centre = peaks_in_band(form, maps)[0]
    assert abs(float(centre[1]) - form.columns.start - column) <= max(1, form.across / length)
    assert form.band.start <= centre[0] < form.band.stop


def test_around_the_band_the_picture_stays_as_it_is() -> None:
    form, signals = form_of(187), torch.randn(2, 1, 187)
    maps = torch.cat([bump(187, 90), torch.zeros(1, 187)])
    plain, _ = draw_curves(form, signals, Regions())
    pixels = heat_of(form, signals, maps)
    inside = torch.zeros(form.sheet, dtype=torch.bool)
    inside[form.band.start - 2 : form.band.stop + 2] = True  # the ring reaches over the band
    assert torch.equal(pixels[..., ~inside], plain[..., ~inside])
    assert torch.equal(pixels[1], plain[1]), "a blank map is no colour anywhere, and has no ring"


def test_the_curve_goes_through_its_values() -> None:
    form = form_of(4, width=454)  # 100 columns a sample
    pixels, words = draw_curves(form, torch.tensor([[[0.0, 1.0, 0.0, -1.0]]]), Regions())
    plot = pixels[0, 0, form.plot, form.columns].float()
    rows = plot.argmax(dim=0)
    middles = [int((sample + 0.5) * form.across / 4) for sample in range(4)]
    assert rows[middles[1]] < 6 and rows[middles[3]] > form.lane - 7
    assert abs(int(rows[middles[0]]) - form.lane // 2) <= 1
    assert [line.text for line in words[0]][:2] == ["1", "-1"]


def test_a_spike_of_one_sample_among_many_is_seen() -> None:
    signals = torch.zeros(1, 1, 160_000)
    signals[0, 0, 123_456] = 1
    form = form_of(160_000)
    plot = draw_curves(form, signals, Regions())[0][0, 0, form.plot, form.columns]
    column = 123_456 * form.across // 160_000
    assert plot[6:-6, column].min() > 200 and plot[6 : form.lane // 2, column - 5].max() < 60


def test_channels_stand_below_each_other_each_on_its_own_scale() -> None:
    signals = torch.stack([torch.linspace(0, 10**index, 187) for index in range(12)])[None]
    form = curve_form(187, 12, 4, 0)
    pixels, words = draw_curves(form, signals, Regions())
    assert form.channels == 4
    lanes = pixels[0, 0, form.plot, form.columns].view(4, form.lane, -1)
    assert all(torch.equal(lanes[0], each) for each in lanes)
    texts = [line.text for line in words[0]]
    assert [text for text in texts if text.startswith("ch")] == ["ch 1", "ch 2", "ch 3", "ch 4"]
    assert "1e+03" in texts and "10" in texts


def test_a_flat_signal_and_one_that_is_not_finite_are_drawn() -> None:
    signals = torch.zeros(3, 1, 187)
    signals[1] = torch.nan
    signals[2, 0, 50] = torch.inf
    form = form_of(187)
    plot = draw_curves(form, signals, Regions())[0][:, 0, form.plot, form.columns]
    assert plot[0].amax(dim=0).min() > 150, "a line in the middle"
    assert plot[1].max() < 60, "nothing"
    assert plot[2].amax(dim=0).float().mean() > 150


def test_the_numbers_have_the_normalization_undone() -> None:
    signals = torch.tensor([[[-1.0, 1.0], [0.0, 2.0]]])
    _, words = draw_curves(form_of(2, 2), signals, Regions(), ((10.0, 20.0), (1.0, 2.0)))
    assert [line.text for line in words[0]][:6] == ["11", "9", "ch 1", "24", "20", "ch 2"]


def test_regions_have_a_tint_and_a_bar() -> None:
    masks, suspect = torch.zeros(2, 100, dtype=torch.bool), torch.zeros(100, dtype=torch.bool)
    masks[0, 20:40], suspect[90:] = True, True
    form = form_of(100, bars=2)
    pixels, _ = draw_curves(form, torch.zeros(2, 1, 100), Regions(masks, suspect=suspect))
    bar = pixels[:, :, form.plot.stop + 2, form.columns]
    on = (bar == torch.tensor(OBJECT_COLOR)[:, None]).all(dim=1)
    columns = on[0].nonzero()[:, 0]
    assert (
        abs(int(columns.min()) - 0.2 * form.across) <= 1 and abs(int(columns.max()) - 0.4 * form.across) <= 1
    )
    assert len(columns) == columns.max() - columns.min() + 1 and not on[1].any()
    second = pixels[:, :, form.plot.stop + 8, form.columns]
    dashes = (second == torch.tensor(SUSPECT_COLOR)[:, None]).all(dim=1)
    assert dashes[0, -40:].any() and not dashes[0, : int(0.89 * form.across)].any() and torch.equal(*dashes)
    plain, _ = draw_curves(form, torch.zeros(2, 1, 100), Regions())
    changed = (pixels != plain).any(dim=1)[0, form.plot, form.columns].any(dim=0)
    assert changed[int(0.3 * form.across)] and not changed[int(0.6 * form.across)]


@pytest.mark.parametrize("length", [1, 2, 9, 187, 1000, 16_000, 160_000, 1_234_567])
def test_the_axis_has_a_few_round_numbers(length: int) -> None:
    form = curve_form(length, 1, 4, 0)
    words = draw_curves(form, torch.zeros(1, 1, 1).expand(1, 1, length), Regions())[1]
    numbers = [int(line.text) for line in words[0] if line.box[1] > form.band.stop]
    assert numbers[0] == 0 and len(numbers) <= 8 and (len(numbers) >= 3 or length < 9)
    assert all(number < length for number in numbers)
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    assert str(step).rstrip("0") in ("1", "2", "5") and numbers == list(range(0, length, step))


def test_bands_keep_the_highest_value_they_stand_for() -> None:
    maps = torch.rand(2, 5000)
    form = form_of(5000)
    bands = lay_bands(form, maps)
    assert torch.equal(bands.amax(dim=(1, 2)), maps.amax(dim=1))
    assert bands[:, : form.band.start].sum() == 0 and bands[:, form.band.stop :].sum() == 0
