"""Each exchanged property by hand, and what must hold for all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from lightning_gcam import SaliencyBatch
from lightning_gcam.pipeline.config import LookConfig
from lightning_gcam.pipeline.run import analyze
from lightning_gcam.shortcuts.exchange import (
    available_properties,
    default_properties,
    exchange_property,
    property_of,
    register_property,
    unregister_property,
)
from lightning_gcam.shortcuts.exchange_checks import Exchanges
from lightning_gcam.shortcuts.regions import Donors, salient_place, with_rim
from lightning_gcam.shortcuts.shares import wilson_interval
from lightning_gcam.utils.errors import InputError

EVERY = ("color", "histogram", "spectrum", "texture", "border")
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8]


def image(values: list[list[float]]) -> Tensor:
    """One image of one channel."""
    return torch.tensor(values)[None, None]


def random_pair(
    channels: int = 3, size: tuple[int, int] = (12, 10), dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Images and donors `(4, channels, *size)` in [0, 1], or in [0, 255] where they are whole numbers."""
    generator = torch.Generator().manual_seed(channels)
    images, donors = (torch.rand(4, channels, *size, generator=generator) for _ in range(2))
    scale = 1 if dtype.is_floating_point else 255
    return (images * scale).to(dtype), (donors * scale).to(dtype)


# ------------------------------------------------------------------------------------------ by hand, 4 x 4

OWN = image([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [15, 14, 13, 12]])
LENT = image([[50, 20, 30, 40], [10, 60, 70, 80], [90, 100, 110, 120], [130, 140, 150, 160]])


def test_a_histogram_is_the_donors_values_at_the_images_ranks() -> None:
    expected = image([[10, 20, 30, 40], [50, 60, 70, 80], [90, 100, 110, 120], [160, 150, 140, 130]])

    assert torch.equal(exchange_property("histogram", OWN, LENT), expected)


def test_a_border_is_a_pixel_of_four() -> None:
    expected = image([[50, 20, 30, 40], [10, 5, 6, 80], [90, 9, 10, 120], [130, 140, 150, 160]])

    assert torch.equal(exchange_property("border", OWN, LENT), expected)


def test_a_colour_is_the_donors_ratio_at_the_images_luminance() -> None:
    """Luminances 3, 6, 9, 12 of the image meet the donor's 10, 20, 30, 40, whose colours are given beside them."""
    ratios = torch.tensor([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 3.0], [1.0, 1.0, 1.0]])
    donor = (torch.tensor([20.0, 10.0, 40.0, 30.0])[:, None] * ratios[[1, 0, 3, 2]]).T.view(1, 3, 2, 2)
    own = torch.tensor([[3.0, 6.0], [9.0, 12.0]]).expand(1, 3, 2, 2)

    made = exchange_property("color", own, donor)

    expected = torch.tensor([3.0, 6.0, 9.0, 12.0])[:, None] * ratios
    torch.testing.assert_close(made, expected.T.view(1, 3, 2, 2))
    torch.testing.assert_close(made.mean(dim=1), own.mean(dim=1))


def test_a_colour_of_normalized_images_is_a_difference() -> None:
    own = torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2).expand(1, 2, 1, 2)
    donor = torch.tensor([[[[0.0, 1.0]], [[-1.0, 2.0]]]])  # luminance -0.5 and 1.5

    made = exchange_property("color", own, donor)

    torch.testing.assert_close(
        made, torch.tensor([[[[-0.5, 0.5]], [[-1.0, 1.5]]]])
    )  # -1.5 lies below all values


def test_a_spectrum_has_the_donors_amplitude_and_the_images_phase() -> None:
    """A cosine of amplitude 1 around 4, with the donor's amplitude 3 around 6 a quarter of a period later."""
    steps = torch.arange(4) * torch.pi / 2
    own = (4 + torch.cos(steps)).expand(1, 1, 4, 4)
    donor = (6 + 3 * torch.sin(steps)).expand(1, 1, 4, 4)

    made = exchange_property("spectrum", own, donor)

    torch.testing.assert_close(made, (6 + 3 * torch.cos(steps)).expand(1, 1, 4, 4), atol=1e-5, rtol=0)


def test_a_texture_is_the_donors_stripes_on_the_images_level() -> None:
    own, stripes = torch.full((1, 1, 4, 4), 5.0), torch.tensor([4.0, 6.0]).repeat(2).expand(1, 1, 4, 4)

    made = exchange_property("texture", own, stripes + 10)

    side = torch.exp(torch.tensor(-2.0))  # the Gaussian of half a pixel, one and two pixels away
    weights = torch.stack([side**4, side, torch.ones(()), side, side**4])
    weights = weights / weights.sum()
    mirrored = torch.tensor([4.0, 6.0, 4.0, 6.0])[[2, 1, 0, 1, 2, 3, 2, 1]]
    blurred = torch.stack([(weights * mirrored[at : at + 5]).sum() for at in range(4)])
    expected = 5 + torch.tensor([4.0, 6.0, 4.0, 6.0]) - blurred
    torch.testing.assert_close(made, expected.clamp(min=5).expand(1, 1, 4, 4))


def test_the_texture_of_a_photograph_does_not_bring_its_objects_along() -> None:
    """Of a round object with a soft edge little is high frequency, however large the image."""
    places = torch.arange(224) - 112.0
    blob = torch.exp(-(places[:, None] ** 2 + places**2) / (2 * 6**2)).expand(1, 1, 224, 224)

    made = exchange_property("texture", torch.zeros_like(blob), blob)

    left = 1 - 6**2 / (6**2 + 1.5**2)  # at its middle, where a Gaussian of 1.5 pixels took the rest
    assert float(made.max()) == pytest.approx(left, abs=0.01)


# ------------------------------------------------------------------------------------------ what holds for all


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("channels", [2, 3, 5])
def test_a_donor_equal_to_the_image_changes_nothing(name: str, channels: int) -> None:
    images, _ = random_pair(channels)

    torch.testing.assert_close(exchange_property(name, images, images), images, atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", ["color", "histogram"])
def test_a_donor_of_the_same_pixels_elsewhere_changes_no_colour(name: str) -> None:
    images, _ = random_pair()
    elsewhere = images.flatten(2)[:, :, torch.randperm(120, generator=torch.Generator().manual_seed(0))]

    found = exchange_property(name, images, elsewhere.view_as(images))

    torch.testing.assert_close(found, images, atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_dtype_stays_and_no_value_lies_outside(name: str, dtype: torch.dtype) -> None:
    images, donors = random_pair(dtype=dtype)

    made = exchange_property(name, images, donors)

    assert made.dtype == dtype and made.shape == images.shape
    both = torch.cat([images, donors], dim=1).float().flatten(1)
    found = made.float().flatten(1)
    assert bool(
        (found.amin(dim=1) >= both.amin(dim=1)).all() and (found.amax(dim=1) <= both.amax(dim=1)).all()
    )
    assert not torch.equal(made, images)


@pytest.mark.parametrize("name", EVERY)
def test_samples_do_not_mix_and_nothing_is_written_to(name: str) -> None:
    images, donors = random_pair()
    before = images.clone(), donors.clone()

    together = exchange_property(name, images, donors)
    alone = [exchange_property(name, images[row : row + 1], donors[row : row + 1]) for row in range(4)]

    torch.testing.assert_close(together, torch.cat(alone))
    assert torch.equal(images, before[0]) and torch.equal(donors, before[1])


def test_the_borders_inside_is_untouched() -> None:
    images, donors = random_pair(size=(24, 12))

    made = exchange_property("border", images, donors)

    assert torch.equal(made[..., 4:20, 2:10], images[..., 4:20, 2:10])
    outside = torch.ones(24, 12, dtype=torch.bool)
    outside[4:20, 2:10] = False
    assert torch.equal(made[..., outside], donors[..., outside])


def test_a_histogram_is_the_same_before_and_behind_a_normalization() -> None:
    images, donors = random_pair()
    mean, std = torch.tensor([0.4, 0.5, 0.6])[:, None, None], torch.tensor([0.2, 0.3, 0.25])[:, None, None]

    plain = exchange_property("histogram", images, donors)
    normalized = exchange_property("histogram", (images - mean) / std, (donors - mean) / std)

    torch.testing.assert_close(normalized, (plain - mean) / std)


def test_a_colour_has_the_same_ranks_before_and_behind_a_normalization_of_all_channels() -> None:
    """Behind it the colour is a difference, of the same donor's pixel, within the values of the two images."""
    images, donors = random_pair()
    behind = [(each - 0.5) / 0.25 for each in (images, donors)]

    made = exchange_property("color", *behind)

    ranks, order = images.mean(1).flatten(1).argsort(1).argsort(1), donors.mean(1).flatten(1).argsort(1)
    at = order.gather(1, ranks)[:, None].expand(-1, 3, -1)
    own, lent = behind[0].mean(dim=1, keepdim=True), behind[1].flatten(2).gather(2, at).view_as(made)
    low, high = (torch.stack([each.flatten(1).aminmax(dim=1)[end] for each in behind]) for end in (0, 1))
    bounds = low.amin(0)[:, None, None, None], high.amax(0)[:, None, None, None]
    torch.testing.assert_close(made, (own + lent - lent.mean(dim=1, keepdim=True)).clamp(*bounds))


@pytest.mark.parametrize("name", ["spectrum", "histogram", "texture", "border"])
def test_a_normalized_image_borrows_what_the_plain_one_does(name: str) -> None:
    """Each channel has a mean and a deviation of its own, and dark images become negative."""
    images, donors = random_pair()
    images = images * torch.tensor([0.2, 1.0, 0.5, 0.1])[:, None, None, None]
    mean, std = (torch.tensor(each)[:, None, None] for each in ([0.4, 0.5, 0.6], [0.2, 0.3, 0.25]))

    exchange = property_of(name).exchange  # before values are kept in the range of both images
    assert exchange is not None
    plain, normalized = exchange(images, donors), exchange((images - mean) / std, (donors - mean) / std)

    torch.testing.assert_close(normalized, (plain - mean) / std, atol=1e-4, rtol=0)


def test_a_colour_does_not_depend_on_the_images_beside_it() -> None:
    images, donors = random_pair()
    images[3] -= 0.2  # a normalized image, or one of a bicubic filter

    together = exchange_property("color", images, donors)

    assert torch.equal(together[:3], exchange_property("color", images[:3], donors[:3]))


@pytest.mark.parametrize("size", [(1, 20), (2, 20), (20, 1)])
def test_a_signal_has_a_border_at_its_ends_only(size: tuple[int, int]) -> None:
    images, donors = random_pair(size=size)

    made = exchange_property("border", images, donors)

    longer = made.movedim(2 if size[0] > size[1] else 3, -1)
    own, lent = (each.movedim(2 if size[0] > size[1] else 3, -1) for each in (images, donors))
    assert torch.equal(longer[..., 3:17], own[..., 3:17]) and torch.equal(longer[..., :3], lent[..., :3])
    assert not torch.equal(exchange_property("texture", images, donors), images)


def test_a_black_donor_has_no_colour() -> None:
    images, _ = random_pair()

    made = exchange_property("color", images, torch.zeros_like(images))

    torch.testing.assert_close(made, images.mean(dim=1, keepdim=True).expand_as(images))


def test_a_grey_image_has_no_colour_to_exchange() -> None:
    images, donors = random_pair(channels=1)

    assert "color" not in available_properties(channels=1)
    with pytest.raises(InputError, match=r'"color" takes images of at least 2 channels, and these have 1'):
        exchange_property("color", images, donors)


# ---------------------------------------------------------------------------------- places, objects, backgrounds


def borrowed(exchanges: Exchanges, name: str, donors: list[int]) -> Tensor:
    """All samples, with a property of these donors."""
    return exchanges.borrowed(name, torch.tensor(donors), torch.arange(len(donors)))


def scenes(with_masks: bool = True) -> SaliencyBatch:
    """Two flat images, 1 and 2, with an object, 10 and 20, at places of their own."""
    images, masks = torch.ones(2, 1, 16, 16), torch.zeros(2, 16, 16, dtype=torch.bool)
    masks[0, 4:6, 4:6] = masks[1, 9:11, 9:11] = True
    images[1] = 2
    images[masks[:, None]] = torch.tensor([10.0] * 4 + [20.0] * 4)
    return SaliencyBatch(images, torch.tensor([0, 1]), masks=masks if with_masks else None)


def test_the_salient_place_is_exchanged_and_nothing_else() -> None:
    batch, maps = scenes(with_masks=False), torch.zeros(2, 16, 16)
    maps[:, 7:9, 7:9] = 1.0  # the middle is no place
    maps[0, 0, :8] = 0.5
    maps[1, 15, :8] = 0.25
    maps[1, 15, 8:] = torch.nan
    exchanges = Exchanges.of(batch, ["salient_region"], maps)
    assert exchanges is not None

    made = borrowed(exchanges, "salient_region", [1, 0])

    place = torch.zeros(16, 16, dtype=torch.bool)
    place[0, :8] = place[15, :8] = True  # a 16th of the image, the samples' mean
    assert torch.equal((made != batch.images)[:, 0], place.expand(2, -1, -1))
    assert (made[0, 0][place] == 2).all() and (made[1, 0][place] == 1).all()


def test_a_place_has_the_size_of_a_16th_and_of_the_sharpest_saliency() -> None:
    maps = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    place = salient_place(maps)
    assert int(place.sum()) == 64 and not place[8:24, 8:24].any()
    outside = torch.ones(32, 32, dtype=torch.bool)
    outside[8:24, 8:24] = False
    mean = (maps / maps.sum(dim=(1, 2), keepdim=True)).mean(dim=0)
    assert mean[place].min() >= mean[outside & ~place].max()
    assert torch.equal(place, salient_place(maps * torch.tensor([1.0, 50.0, 3.0])[:, None, None]))
    assert not salient_place(torch.zeros(3, 32, 32)).any()


def test_beside_objects_a_place_is_exchanged_without_them() -> None:
    batch, maps = scenes(), torch.zeros(2, 16, 16)
    batch.masks[0, 0, :4] = True  # type: ignore[index]
    batch.images[0, 0, 0, :4] = 10
    maps[:, 0, :8] = 1.0
    exchanges = Exchanges.of(batch, ["salient_region"], maps)
    assert exchanges is not None

    made = borrowed(exchanges, "salient_region", [1, 0])

    assert (made[0, 0, 0, :5] == torch.tensor([10.0, 10, 10, 10, 1])).all()  # the object and its rim stay
    assert (made[0, 0, 0, 5:8] == 2).all() and (made[0, 0, 0, 8:] == 1).all()
    assert 10 not in made[1, 0, 0]  # nor does it come along


def test_an_object_on_the_others_background_and_the_others_object_on_its_own() -> None:
    batch = scenes()
    exchanges = Exchanges.of(batch, ["object", "background"])
    assert exchanges is not None and exchanges.names == ("background", "object")

    on_other, with_other = (borrowed(exchanges, name, [1, 0]) for name in ("background", "object"))

    kept = batch.images.new_full((2, 1, 16, 16), 2.0)
    kept[1] = 1
    wider = with_rim(batch.masks)[:, None]  # type: ignore[arg-type]
    assert torch.equal(on_other, torch.where(wider, batch.images, kept))
    assert torch.equal(with_other, on_other.flip(0))
    assert [name for name in exchanges.versions() if "object" in name] == []


def test_what_an_object_leads_to_is_counted_on_the_images_of_its_background() -> None:
    """Four scenes of classes 0, 0, 1, 2. The network names the object, but takes the last scene for class 0."""
    images = torch.rand(4, 1, 16, 16)
    masks = torch.zeros(4, 16, 16, dtype=torch.bool)
    masks[:, 6:9, 6:9] = True
    labels = torch.tensor([0, 0, 1, 2])
    exchanges = Exchanges.of(SaliencyBatch(images, labels, masks=masks), ["background", "object"])
    assert exchanges is not None
    clean, named = torch.eye(3)[[0, 0, 1, 0]], torch.eye(3)[labels]

    found = exchanges.measure(clean, dict.fromkeys(exchanges.versions(), named))

    values = {name: each.value for name, each in found.items()}
    assert (values["background_swap_accuracy"], values["background_follow_rate"]) == (1, 0)
    assert (values["object_swap_accuracy"], values["object_follow_rate"]) == (0, 1)
    donors = exchanges.donors["object"].others
    before = torch.tensor([0, 0, 1, 0])
    taken = (
        before[donors] == labels[:, None]
    ).double()  # a scene that is already taken for the object's class
    assert values["object_follow_chance"] == pytest.approx(float(taken.mean()))
    assert "object_same_class_accuracy" not in values and values["background_same_class_accuracy"] == 1
    assert found["object_swap_accuracy"].n == 4


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("spectrum", "texture", "border", "salient_region")),
        ({"suspect": torch.ones(16, 16, dtype=torch.bool)}, ("suspect",)),
        ({"masks": torch.ones(4, 16, 16, dtype=torch.bool)}, ()),
    ],
    ids=["labels only", "a suspect region", "objects without a background"],
)
def test_the_properties_that_a_batch_has(fields: dict[str, Tensor], expected: tuple[str, ...]) -> None:
    batch = SaliencyBatch(torch.rand(4, 1, 16, 16), torch.tensor([0, 0, 1, 1]), **fields)
    always = ("spectrum", "texture", "border")
    exchanges = Exchanges.of(batch, default_properties(), None if fields else torch.rand(4, 16, 16))
    assert exchanges is not None
    assert exchanges.names == tuple(dict.fromkeys([*always, *expected]))


@pytest.mark.parametrize("rows", [slice(0, 6), slice(2, 8), slice(3, 4)])
@pytest.mark.parametrize("with_masks", [False, True])
def test_a_suspect_region_in_some_samples_is_exchanged_in_these(rows: slice, with_masks: bool) -> None:
    suspect, masks = (torch.zeros(8, 16, 16, dtype=torch.bool) for _ in range(2))
    suspect[rows, :3, :3] = True
    masks[:, 8:10, 8:10] = True
    images = torch.rand(8, 1, 16, 16)
    batch = SaliencyBatch(images, torch.arange(8) % 2, masks=masks if with_masks else None, suspect=suspect)
    exchanges = Exchanges.of(batch, ["suspect", "border"])
    assert exchanges is not None

    made = {name: make(torch.arange(8)) for name, make in exchanges.versions().items()}

    assert ("suspect_swap_0" in made) == (rows != slice(3, 4))  # one alone has no donor
    for name, each in made.items():
        changed = (each != images).flatten(1).any(dim=1)
        assert changed.tolist() == (suspect.flatten(1).any(1).tolist() if "suspect" in name else [True] * 8)


def test_only_coloured_images_exchange_their_colour() -> None:
    images = torch.rand(6, 3, 8, 8)
    images[:2] = images[:2, :1]
    exchanges = Exchanges.of(SaliencyBatch(images, torch.arange(6) % 2), ["color", "border"])
    assert exchanges is not None and exchanges.lacking(["color", "border", "suspect"]) == []
    assert exchanges.donors["color"].others[:2].tolist() == [[-1, -1]] * 2
    assert exchanges.donors["color"].others[2:].min() >= 2 and exchanges.donors["border"].others.min() == 0


def test_a_grey_image_of_three_channels_has_no_colour() -> None:
    images, labels = torch.rand(4, 1, 8, 8).expand(-1, 3, -1, -1), torch.arange(4) % 2
    exchanges = Exchanges.of(SaliencyBatch(images, labels), ["color", "border"])
    assert exchanges is not None and exchanges.names == ("border",)
    assert exchanges.lacking(["color", "border", "suspect"]) == ["color"]


def test_a_prediction_that_is_compared_with_two_donors_is_one_datum() -> None:
    """Of 16 samples of two classes all are right: what follows is exactly what is wrong, with the same interval."""
    labels = torch.arange(16) % 2
    exchanges = exchanges_of(labels, "border")
    right = torch.eye(2)[labels]

    found = exchanges.measure(right, dict.fromkeys(exchanges.versions(), right))

    _, high = wilson_interval(0, 16) or (0, 0)
    for name in ("border_follow_chance", "border_same_class_follow_rate", "border_follow_rate"):
        assert found[name].interval == pytest.approx((0, high))


def test_whole_images_alone_do_not_have_a_place() -> None:
    with pytest.raises(InputError, match=r'"background" takes regions of the samples or their maps'):
        exchange_property("background", *random_pair())


# ------------------------------------------------------------------------------------------ properties of a user's own


@pytest.fixture
def mirrored() -> Iterator[str]:
    @register_property("mirrored", fewest_channels=3, remedy="flip the images at random")
    def exchange_side(images: Tensor, donors: Tensor) -> Tensor:
        return torch.cat([images[..., :5], donors[..., 5:]], dim=3)

    yield "mirrored"
    unregister_property("mirrored")


def test_a_property_of_ones_own(mirrored: str) -> None:
    images, donors = random_pair(dtype=torch.uint8)

    made = exchange_property(mirrored, images, donors)

    assert torch.equal(made[..., :5], images[..., :5]) and torch.equal(made[..., 5:], donors[..., 5:])
    assert mirrored in available_properties(channels=3) and mirrored not in available_properties(channels=2)
    assert mirrored in default_properties() and mirrored in LookConfig().exchange_names
    assert property_of(mirrored).remedy == "flip the images at random"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("color", '"color" is a property already'),
        ("two words", "must be a word"),
        (3, "must be a word"),
        ("salient_flips", "ends as the scores of checks do"),
        ("color_same_class", "ends as the scores of checks do"),
    ],
)
def test_a_name_that_cannot_be(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        register_property(name)


def test_a_function_that_gives_no_images_is_refused() -> None:
    register_property("broken")(lambda images, donors: images.mean(dim=1))
    try:
        with pytest.raises(
            InputError, match=r'"broken" must give images of \(4, 3, 12, 10\); got \(4, 12, 10\)'
        ):
            exchange_property("broken", *random_pair())
    finally:
        unregister_property("broken")


def test_a_function_that_fails_is_named_and_one_that_writes_does_no_harm() -> None:
    register_property("failing")(lambda images, donors: 1 / 0 if donors.ndim == 3 else images.view(-1, 7))
    register_property("writing")(lambda images, donors: images.add_(100))
    images, donors = random_pair()
    before = images.clone()
    try:
        with pytest.raises(
            InputError, match=r"`properties=failing` failed on \(4, 3, 12, 10\) float32: Runtime"
        ):
            exchange_property("failing", images, donors)
        made = exchange_property("writing", images, donors)
    finally:
        unregister_property("failing")
        unregister_property("writing")
    assert torch.equal(images, before)
    assert made.amax() <= torch.maximum(images, donors).amax()


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(InputError, match=r'"colour" is not known. Did you mean "color"'):
        exchange_property("colour", *random_pair())
    images, donors = random_pair()
    with pytest.raises(InputError, match=r"`donors` must be as the images"):
        exchange_property("border", images, donors[:2])


# ------------------------------------------------------------------------------------------ the numbers


def exchanges_of(labels: Tensor, *names: str, channels: int = 3) -> Exchanges:
    found = Exchanges.of(SaliencyBatch(torch.rand(len(labels), channels, 4, 4), labels), names)
    assert found is not None
    return found


def test_kept_and_followed_are_counted_over_both_donors() -> None:
    """Three samples of classes 0, 0 and 1; the logits with each donor are written down."""
    clean = torch.eye(3)[[0, 1, 1]]  # the second sample is taken for its donor's class already
    same = torch.eye(3)[[0, 1, 1]]
    changed = {
        "color_swap_0": torch.eye(3)[[0, 1, 2]],
        "color_swap_1": torch.eye(3)[[1, 1, 0]],
        "color_same_class_0": same,
    }

    found = exchanges_of(torch.tensor([0, 0, 1]), "color").measure(clean, changed)

    # kept: 1, 0 | 0, 0 | 0, 0; followed: 0, 1 | 1, 1 | 0, 1
    assert found["color_swap_accuracy"].value == pytest.approx(1 / 6)
    assert found["color_follow_rate"].value == pytest.approx(4 / 6)
    assert found["color_follow_chance"].value == pytest.approx(1 / 3)
    assert found["color_same_class_accuracy"].value == pytest.approx(1 / 2)  # the third sample has no mate
    assert (found["color_same_class_accuracy"].n, found["color_swap_accuracy"].n) == (2, 3)
    # the second is taken for the class of its donors, which is also the third's, with a colour of its own class
    assert found["color_same_class_follow_rate"].value == pytest.approx(1 / 2)
    assert found["color_same_class_follow_rate"].n == 2
    low, high = found["color_follow_rate"].interval or (0, 0)
    assert low < 4 / 6 < high


def test_logits_that_are_not_finite_are_left_out() -> None:
    """NaN must be no prediction of class 0, neither with a donor nor on the image as it is."""
    clean, broken = torch.eye(2)[[0, 1, 0, 1]], torch.eye(2)[[0, 1, 0, 1]]
    broken[0] = torch.nan
    changed = {"border_swap_0": broken, "border_swap_1": clean}

    found = exchanges_of(torch.tensor([0, 1, 0, 1]), "border").measure(clean, changed)
    untouched = exchanges_of(torch.tensor([0, 1, 0, 1]), "border").measure(
        broken, dict.fromkeys(changed, clean)
    )

    assert (found["border_swap_accuracy"].value, found["border_swap_accuracy"].n) == (1, 3)
    assert (found["border_follow_rate"].n, found["border_follow_chance"].n) == (3, 4)
    assert (untouched["border_follow_chance"].n, untouched["border_swap_accuracy"].n) == (3, 4)


def test_of_several_marks_those_that_differ_are_counted() -> None:
    logits = torch.tensor([[3.0, 3.0, 3.0], [-3.0, 3.0, -3.0]])  # of two that differ: one kept; none kept
    exchanges = exchanges_of(torch.tensor([[1, 1, 0], [1, 0, 1]]), "border")

    found = exchanges.measure(logits, dict.fromkeys(exchanges.versions(), logits))

    assert found["border_swap_accuracy"].value == pytest.approx((1 / 2 + 0) / 2)
    assert found["border_follow_rate"].value == pytest.approx((1 / 2 + 1) / 2)


def test_no_image_is_made_without_a_donor_for_it() -> None:
    """Each of the versions costs a forward: a class of one sample has no control, a grey image no colour."""
    alone = exchanges_of(torch.tensor([0, 1]), "color", "border", channels=1)
    mated = exchanges_of(torch.tensor([0, 0, 1]), "border")

    assert list(alone.versions()) == ["border_swap_0", "border_swap_1"]
    assert list(mated.versions()) == [*alone.versions(), "border_same_class_0"]
    made = mated.versions()["border_same_class_0"](torch.tensor([2, 0]))
    assert torch.equal(made[0], mated.images[2])  # it has no mate
    inside = (slice(None), slice(1, 3), slice(1, 3))
    assert torch.equal(made[1][inside], mated.images[0][inside])
    assert torch.equal(made[1][:, 0], mated.images[1][:, 0])


def test_donors_are_of_another_class_mates_of_the_same_and_all_lend() -> None:
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 3, -1])

    donors = Donors.of(labels, labels >= 0)

    for row in range(7):
        assert (labels[donors.others[row]] != labels[row]).all() and (donors.others[row] >= 0).all()
        assert donors.others[row].unique().numel() == 2
    assert donors.mates.tolist()[:6] == [[3], [4], [5], [0], [1], [2]]
    assert donors.others[7].tolist() == [*donors.mates[6].tolist(), -1] == [-1, -1]
    assert len(donors.others[:7].unique()) == 7


@pytest.mark.parametrize("labels", [None, torch.tensor([1, 1]), torch.tensor([0.5, 1.5])])
def test_without_two_classes_nothing_is_exchanged(labels: Tensor | None) -> None:
    assert Exchanges.of(SaliencyBatch(torch.rand(2, 3, 4, 4), labels), ["color"]) is None


class ReadsTheBorder(nn.Module):
    """A classifier by the brightness of the image's first row: 0 where it is dark, else 1."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        row = self.features(images)[:, :1, 0].mean(dim=(1, 2))
        return torch.stack([-row, row], dim=1)


def test_a_look_names_the_property_that_the_network_reads() -> None:
    network = ReadsTheBorder()
    with torch.no_grad():
        network.features.weight.fill_(1.0)
        network.features.bias.zero_()
    images = torch.rand(8, 1, 12, 12, generator=torch.Generator().manual_seed(0)) - 0.5
    labels = torch.arange(8) % 2
    images[:, :, 0] = (2.0 * labels - 1)[:, None, None]

    config = LookConfig(checks=["border", "texture", "color"], target_layer="features", scores=[])
    scores = analyze(network, SaliencyBatch(images, labels), config).scores

    assert scores["accuracy"] == 1
    assert (scores["border_swap_accuracy"], scores["border_follow_rate"]) == (0, 1)
    assert (scores["border_follow_chance"], scores["border_same_class_accuracy"]) == (0, 1)
    assert (scores["texture_swap_accuracy"], scores["texture_follow_rate"]) == (1, 0)
    assert not any(name.startswith("color") for name in scores)  # a grey image has none
    assert "background_only_accuracy" not in scores
