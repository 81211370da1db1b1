"""The figure says what is there, at the same place at every look."""

import warnings

import numpy as np
import pytest
import torch

from lightning_gcam.utils.errors import InputError
from lightning_gcam.visual import dim, grid, overlay, overlay_change, render_grid
from lightning_gcam.visual.drawing import OBJECT_COLOR, SUSPECT_COLOR
from lightning_gcam.visual.layout import cut_panels, plan


def pictures(samples=4, height=32, width=32):
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (samples, 3, height, width), generator=generator).to(torch.uint8)


def saliency(samples=4, height=32, width=32, seed=0):
    return torch.rand(samples, height, width, generator=torch.Generator().manual_seed(seed))


def render(images=None, maps=None, **given):
    images = pictures() if images is None else images
    maps = {"grad_cam": saliency()} if maps is None else maps
    words = {"captions": [f"sample {i}" for i in range(len(images))], **given}
    return render_grid(images, maps, **words)


def cut(figure, box):
    left, top, right, bottom = box
    return figure[top:bottom, left:right]


def differing(first, second):
    """The box around all pixels that differ."""
    rows, columns = np.nonzero((first != second).any(-1))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def within(inner, outer):
    return inner[0] >= outer[0] and inner[1] >= outer[1] and inner[2] <= outer[2] and inner[3] <= outer[3]


def colorfulness(pixels):
    return int(np.ptp(pixels.astype(int), axis=-1).max())


def test_pictures_are_shown_as_they_are():
    images, layout = pictures(), plan(4, 1, 32, 32)
    figure = render(images)
    assert layout.factors[0] > 1
    for sample, image in enumerate(images):
        shown = cut(figure, layout.panel_box(sample, 0))
        large = image.permute(1, 2, 0).numpy().repeat(layout.factors[0], 0).repeat(layout.factors[0], 1)
        assert np.array_equal(shown, large)


def test_heat_is_the_overlay_apart_from_the_ring():
    images, maps, layout = pictures(), saliency(), plan(4, 1, 32, 32)
    figure = render(images, {"grad_cam": maps})
    own = maps / maps.amax((1, 2), keepdim=True)
    for sample, heat in enumerate(overlay(images, own)):
        large = heat.permute(1, 2, 0).numpy().repeat(layout.factors[0], 0).repeat(layout.factors[0], 1)
        differs = (cut(figure, layout.panel_box(sample, 1)) != large).any(-1)
        rows, columns = np.nonzero(differs)
        row, column = divmod(int(maps[sample].argmax()), 32)
        middle = np.array([row, column]) * layout.factors[0] + (layout.factors[0] - 1) / 2
        distance = np.hypot(rows - middle[0], columns - middle[1])
        assert len(rows) > 0 and distance.max() < 12 and distance.min() > 2


def test_each_map_is_scaled_to_its_own_maximum():
    maps = saliency()
    assert np.array_equal(render(maps={"a": maps}), render(maps={"a": maps * 2.0**-20}))


def test_blank_map_shows_the_dimmed_picture_and_a_word_but_no_colour():
    images, maps, layout = pictures(), saliency(), plan(4, 1, 32, 32)
    maps[2] = 0
    mask = torch.zeros(4, 32, 32, dtype=torch.bool)
    mask[:, 4:20, 4:20] = True
    figure = render(images, {"grad_cam": maps}, masks=mask)
    panels = [cut(figure, layout.panel_box(s, 1)) for s in range(4)]
    assert colorfulness(panels[2]) < 10 < 100 < min(colorfulness(panels[s]) for s in (0, 1, 3))
    large = dim(images)[2].permute(1, 2, 0).numpy().repeat(layout.factors[0], 0).repeat(layout.factors[0], 1)
    rows, columns = np.nonzero((panels[2] != large).any(-1))
    left, top, right, bottom = layout.blank_box(2, 1)
    assert len(rows) and np.ptp(columns) < right - left and np.ptp(rows) < bottom - top
    assert not np.array_equal(figure, render(images, {"grad_cam": maps}, masks=mask, blank_text="leer"))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, -1.0])
def test_a_map_without_one_good_value_is_blank(bad):
    maps, blank = saliency(), saliency()
    maps[1], blank[1] = bad, 0
    assert np.array_equal(render(maps={"a": maps}), render(maps={"a": blank}))


def test_one_scale_for_all_samples():
    """A map of half the greatest peak is drawn as a map of height one half, and a blank one stays blank."""
    images, maps, layout = pictures(), torch.zeros(4, 32, 32), plan(4, 1, 32, 32)
    maps[0, 5, 9], maps[1, 5, 9], maps[2, 5, 9] = 4, 2, 1
    figure = render(images, {"a": maps}, scale="shared")
    for sample, share in enumerate((1.0, 0.5, 0.25)):
        expected = overlay(images, maps / maps.amax((1, 2), keepdim=True).clamp(min=1) * share)[
            sample, :, 5, 9
        ]
        left, top, _, _ = layout.panel_box(sample, 1)
        factor = layout.factors[0]
        assert figure[top + 5 * factor + 2, left + 9 * factor + 2].tolist() == expected.tolist()
    assert colorfulness(cut(figure, layout.panel_box(3, 1))) < 10
    assert not np.array_equal(figure, render(images, {"a": maps}))


def test_the_scale_of_a_run_goes_on_from_the_earlier_looks():
    maps, page = saliency(), slice(0, plan(4, 1, 32, 32).height - 40)  # without the legend
    shared = render(maps={"a": maps}, scale="shared")[page]
    brightest_so_far = render(maps={"a": maps}, scale="run", tops={"a": 0.1})[page]
    assert np.array_equal(brightest_so_far, shared)
    fainter = render(maps={"a": maps}, scale="run", tops={"a": 2 * float(maps.max())})
    images, layout = pictures(), plan(4, 1, 32, 32)
    half = overlay(images, maps / maps.max() / 2)
    for sample in range(4):
        large = (
            half[sample].permute(1, 2, 0).numpy().repeat(layout.factors[0], 0).repeat(layout.factors[0], 1)
        )
        same = (np.abs(cut(fainter, layout.panel_box(sample, 1)).astype(int) - large) <= 1).all(-1)
        assert same.mean() > 0.9  # all but the ring


def test_columns_have_a_scale_of_their_own():
    maps = saliency()
    one, two = (
        render(maps={"a": maps, "b": maps}, scale="shared"),
        render(maps={"a": maps, "b": maps * 64}, scale="shared"),
    )
    assert np.array_equal(one, two)


def test_the_legend_tells_the_scale():
    foot = slice(-40, None)
    feet = [render(scale=scale)[foot].tobytes() for scale in ("own", "shared", "run")]
    assert len(set(feet)) == 3


def test_the_change_is_drawn_beside_its_map():
    images, maps, then, layout = pictures(), saliency(), saliency(seed=8), plan(4, 2, 32, 32, bars=2)
    figure = render(images, {"grad_cam": maps}, before={"grad_cam": then * 7})
    change = maps / maps.amax((1, 2), keepdim=True) - then / then.amax((1, 2), keepdim=True)
    for sample, drawn in enumerate(overlay_change(images, change)):
        large = drawn.permute(1, 2, 0).numpy().repeat(layout.factors[0], 0).repeat(layout.factors[0], 1)
        shown = cut(figure, layout.panel_box(sample, 2)).astype(int)
        assert np.abs(shown - large).max() <= 1  # a division may round differently


def test_a_look_that_changed_nothing_shows_no_colour():
    layout = plan(4, 2, 32, 32, bars=2)
    figure = render(before={"grad_cam": saliency() * 3})
    assert max(colorfulness(cut(figure, layout.panel_box(s, 2))) for s in range(4)) == 0


def test_the_first_look_has_the_column_too_and_says_that_it_is_the_first():
    layout, mask = plan(4, 2, 32, 32, bars=2), torch.ones(4, 32, 32, dtype=torch.bool)
    first, second = render(before={}, masks=mask), render(before={"grad_cam": saliency(seed=8)}, masks=mask)
    assert first.shape == second.shape == (layout.height, layout.width, 3)
    unchanged = [within(differing(first, second), (0, 0, layout.width, layout.height))]
    for sample in range(4):
        for panel in (0, 1):
            box = layout.panel_box(sample, panel)
            unchanged.append(np.array_equal(cut(first, box), cut(second, box)))
        plate = cut(first, layout.blank_box(sample, 2))
        assert (plate.max(-1) > 200).any(), "there is a word"
        assert (plate[0] == grid.PAGE).all(), "on a plate"
    assert all(unchanged)


def test_blank_now_and_blank_before_are_said_and_show_no_colour():
    now, then, layout = saliency(), saliency(seed=8), plan(4, 2, 32, 32, bars=2)
    now[1], then[2] = 0, 0
    mask = torch.zeros(4, 32, 32, dtype=torch.bool)
    mask[:, 4:20, 4:20] = True
    figure = render(maps={"grad_cam": now}, before={"grad_cam": then}, masks=mask)
    panels = [cut(figure, layout.panel_box(sample, 2)) for sample in range(4)]
    assert colorfulness(panels[0]) > 100 < colorfulness(panels[3])
    assert max(colorfulness(panels[1]), colorfulness(panels[2])) < 10
    words = [cut(figure, layout.blank_box(sample, 2)) for sample in (1, 2)]
    assert not np.array_equal(*words)
    assert np.array_equal(words[0], cut(figure, layout.blank_box(1, 1))), "blank here and there"


def test_the_legend_says_since_when_the_change_is():
    plain, dated = (render(before={}, **given) for given in ({}, {"since": "at step 120"}))
    layout = plan(4, 2, 32, 32, bars=2)
    assert within(differing(plain, dated), layout.footer_boxes()[1])


def test_everything_is_copied_from_the_device_once_and_drawn_on_the_cpu(monkeypatch):
    """Each image, map and region, at the size it is shown; a word at most besides."""
    taken, cpu = [], torch.Tensor.cpu

    def counted(self):
        taken.append(tuple(self.shape))
        return cpu(self)

    monkeypatch.setattr(torch.Tensor, "cpu", counted)
    layout, mask = plan(4, 2, 512, 512, bars=2), torch.ones(4, 512, 512, dtype=torch.bool)
    given = {"masks": mask, "suspect": mask[0], "boxes": [torch.ones(1, 4)] * 4}
    maps, then = saliency(4, 512, 512), saliency(4, 512, 512, seed=8)
    render(pictures(4, 512, 512), {"grad_cam": maps}, before={"grad_cam": then}, **given)
    shown = (4, *layout.work)
    assert sorted(taken) == sorted([(4, 3, *layout.work), *[shown] * 4]), "two maps, two regions"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_picture_from_a_cuda_device_is_the_same():
    maps, then = saliency(), saliency(seed=8)
    here = render(maps={"grad_cam": maps}, before={"grad_cam": then}).astype(int)
    there = render(pictures().cuda(), {"grad_cam": maps.cuda()}, before={"grad_cam": then}).astype(int)
    assert np.abs(here - there).max() <= 1


def test_layout_does_not_depend_on_what_is_shown():
    plain = render()
    rich = render(
        maps={"grad_cam": torch.zeros(4, 32, 32)},
        captions=["x" * 999] * 4,
        correct=[False] * 4,
        headings=["another heading that is very long"],
        notes={"grad_cam": ["a note"] * 4},
        masks=torch.ones(4, 32, 32, dtype=torch.bool),
        title="t" * 999,
    )
    assert plain.shape == rich.shape
    assert np.array_equal(render(), plain)


def test_every_word_stays_in_its_own_area():
    layout, plain = plan(4, 1, 32, 32), render()
    for sample in range(4):
        captions = [f"sample {i}" for i in range(4)]
        captions[sample] = "true 7 · predicted 3 (0.81) and a great deal more than there is room for"
        assert within(differing(plain, render(captions=captions)), layout.caption_box(sample))
        notes = ["" if i != sample else "peak 0.0123" for i in range(4)]
        assert within(differing(plain, render(notes={"grad_cam": notes})), layout.note_box(sample, 1))
    assert within(differing(plain, render(title="step 12 · epoch 3")), layout.title_box())
    assert within(differing(render(), render(headings=["grad_cat"])), (0, 0, layout.width, layout.header))


def test_wrong_predictions_stand_out_by_colour_and_by_sign():
    layout, plain = plan(4, 1, 32, 32), render()
    marked = render(correct=[True, False, None, True])
    assert within(differing(plain, marked), layout.card_box(1))
    assert (
        colorfulness(cut(plain, layout.caption_box(1)))
        < 40
        < colorfulness(cut(marked, layout.caption_box(1)))
    )
    assert np.array_equal(marked, render(correct=[True, np.False_, None, torch.tensor(True)]))
    by_sign = render(captions=["sample 0", "× sample 1", "sample 2", "sample 3"])
    shape, sign = (cut(f, layout.caption_box(1)).max(-1) > 90 for f in (marked, by_sign))
    assert (shape == sign).mean() > 0.99


def has_color(pixels, color):
    return bool((pixels == np.array(color, dtype=np.uint8)).all(-1).any())


def test_regions_are_outlined_on_the_picture_and_on_the_heat():
    layout = plan(4, 1, 32, 32)
    mask = torch.zeros(4, 32, 32, dtype=torch.bool)
    mask[1, 8:20, 8:20] = True
    figure = render(masks=mask)
    for panel in (0, 1):
        shown = [has_color(cut(figure, layout.panel_box(s, panel)), OBJECT_COLOR) for s in range(4)]
        assert shown == [False, True, False, False]


def test_a_box_is_outlined_where_its_mask_would_be():
    mask = torch.zeros(4, 32, 32, dtype=torch.bool)
    mask[:, 3:9, 5:20] = True
    boxes = [torch.tensor([[5.0, 3, 20, 9]])] * 4
    assert np.array_equal(render(masks=mask), render(boxes=boxes))


def test_one_suspect_region_serves_all_samples():
    suspect = torch.zeros(32, 32, dtype=torch.bool)
    suspect[-8:, -8:] = True
    one, each = render(suspect=suspect), render(suspect=suspect.expand(4, -1, -1))
    assert np.array_equal(one, each)
    layout = plan(4, 1, 32, 32)
    assert all(has_color(cut(one, layout.panel_box(s, 0)), SUSPECT_COLOR) for s in range(4))


def test_signs_are_explained_only_where_they_occur():
    bottom = [has_color(f[-60:], OBJECT_COLOR) for f in (render(), render(boxes=[torch.zeros(0, 4)] * 4))]
    assert bottom == [False, True]


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (512, 512), (40, 120), (300, 20), (512, 8), (1, 1)])
@pytest.mark.parametrize(("samples", "methods"), [(1, 1), (3, 6), (7, 2), (32, 1)])
def test_every_size_and_number(samples, methods, size):
    images = pictures(samples, *size)
    maps = {f"method_{i}": saliency(samples, *size, seed=i) for i in range(methods)}
    maps["method_0"][0] = 0
    layout = plan(samples, methods, *size)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = render(images, maps, boxes=[torch.tensor([[0.0, 0, 9, 9]])] * samples)
    assert figure.shape == (layout.height, layout.width, 3) and figure.dtype == np.uint8
    assert figure.flags.writeable and figure.flags.c_contiguous


def test_no_maps_shows_the_pictures_alone():
    assert render(maps={}).shape[2] == 3


def test_half_precision_gradients_and_inference_mode():
    maps = saliency().bfloat16()
    assert np.array_equal(render(maps={"a": maps}), render(maps={"a": maps.float().requires_grad_()}))
    with torch.inference_mode():
        inside = render()
    assert np.array_equal(inside, render())


def test_inputs_and_random_state_stay_as_they_are():
    images, maps = pictures(), saliency()
    before, state = (images.clone(), maps.clone()), torch.get_rng_state()
    render(images, {"a": maps}, masks=maps > 0.5)
    assert torch.equal(images, before[0]) and torch.equal(maps, before[1])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"images": torch.zeros(4, 3, 32, 32)}, r"`images` must be uint8 .*float32.*to_display"),
        ({"images": torch.zeros(0, 3, 32, 32, dtype=torch.uint8), "maps": {}}, r"`images` is empty"),
        ({"maps": {"a": torch.zeros(4, 7, 7)}}, r'`maps\["a"\]` must be .*\(4, 32, 32\).*\(4, 7, 7\)'),
        ({"masks": torch.zeros(4, 7, 7)}, r"`masks` must be .*\(4, 7, 7\)"),
        ({"suspect": torch.zeros(7, 7)}, r"`suspect` must be .*\(4, 7, 7\)"),
        ({"suspect": torch.zeros(3, 32, 32)}, r"`suspect` must be .*\(3, 32, 32\)"),
        ({"boxes": [torch.zeros(1, 4)]}, r"`boxes` must have one entry for each sample, 4, but it has 1"),
        ({"captions": ["a"]}, r"`captions` must have one entry for each sample, 4, but it has 1"),
        ({"correct": [True]}, r"`correct` must have one entry"),
        ({"headings": ["a", "b"]}, r"`headings` must have one entry for each map, 1, but it has 2"),
        ({"notes": {"grad_can": ["a"] * 4}}, r'`notes` "grad_can" is not.*"grad_cam"'),
        ({"notes": {"grad_cam": ["a"]}}, r'`notes\["grad_cam"\]` must have one entry'),
        ({"scale": "own maximum"}, r"`scale` 'own maximum' is not known here"),
        ({"before": {"grad_can": saliency()}}, r'`before` "grad_can" is not one of the maps.*"grad_cam"'),
        (
            {"before": {"grad_cam": saliency(3)}},
            r'`before\["grad_cam"\]` must be .*\(4, 32, 32\).*\(3, 32, 32\)',
        ),
        ({"cmap": "infernal"}, r'`cmap` "infernal".*"inferno"'),
    ],
)
def test_refusals(given, match):
    with pytest.raises(ValueError, match=match):
        render(**given)


@pytest.mark.parametrize("turned", [False, True])
def test_every_pixel_of_a_thin_image_can_be_seen(turned):
    """60 rows of one pixel, the object in rows 20 to 29: an outline all around it, and the ring at the peak."""
    images = torch.arange(60, dtype=torch.uint8).mul(4).view(1, 1, 60, 1).expand(1, 3, 60, 1)
    maps = torch.linspace(0, 1, 60).view(1, 60, 1)
    masks = torch.zeros(1, 60, 1, dtype=torch.bool)
    masks[:, 20:30] = True
    if turned:
        images, maps, masks = images.mT, maps.mT, masks.mT
    layout = plan(1, 1, *images.shape[2:])
    figure = render_grid(images, {"grad_cam": maps}, captions=["thin"], masks=masks)
    plain, heat = (cut(figure, layout.panel_box(0, panel)) for panel in (0, 1))
    if turned:
        plain, heat = plain.transpose(1, 0, 2), heat.transpose(1, 0, 2)
    down = plain.shape[0] // 60
    assert plain.shape == (60 * down, 32, 3)
    assert (plain[: 15 * down, :, 0] == (np.arange(15) * 4).repeat(down)[:, None]).all()
    outlined = (plain[20 * down : 30 * down] == OBJECT_COLOR).all(-1)
    assert outlined[0].all() and outlined[-1].all() and outlined[:, 0].all() and outlined[:, -1].all()
    assert not outlined[down:-down, 3:-3].any()
    assert heat[-down:].max() > heat[: 5 * down].max()


def test_further_pictures_stand_between_the_image_and_its_maps() -> None:
    images = torch.randint(0, 256, (2, 3, 28, 28), dtype=torch.uint8)
    maps = {"cam": torch.rand(2, 28, 28)}
    figure = render_grid(images, maps, captions=["a", "b"], beside={"after": images.flip(3)})
    layout = plan(2, 1, 28, 28, pictures=2)
    before, after, _ = cut_panels(figure, layout)[0]
    assert np.array_equal(before, after[:, ::-1])
    with pytest.raises(InputError, match=r'`beside\["after"\]` must be'):
        render_grid(images, maps, captions=["a", "b"], beside={"after": images[:1]})
