"""Exchanges: one property of each image (its colours, its border, ...) borrowed from a donor, the rest kept.

A prediction that follows a borrowed property is evidence of what carries the class, and needs no annotation. Each
property is one pure function of images and donors `(N, C, *S)`, with one to three sides `S`; `register_property` adds
another. Those that take regions as well have their names and remedies here, and are made in `exchange_checks`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor

from lightning_gcam.shortcuts.removal import in_dtype_of, in_floats
from lightning_gcam.utils.dimensions import pixels_of
from lightning_gcam.utils.errors import InputError, did_you_mean, raise_for_user_function

Exchange = Callable[[Tensor, Tensor], Tensor]
"""From images and donors `(N, C, *S)` to the images with one property of their donors, in the same dtype."""

KEPT, RATE, CHANCE = "_swap_accuracy", "_follow_rate", "_follow_chance"
SAME_CLASS, SAME_CLASS_RATE = "_same_class_accuracy", "_same_class_follow_rate"
"""What stands behind a property's name in the names of its scores; see `Exchanges.measure`."""

SCORES = (KEPT, RATE, CHANCE, SAME_CLASS, SAME_CLASS_RATE)

BORDER = 0.17
"""The width of the border, as a share of each side."""

_SIGMA, _LARGEST_SIGMA = 1 / 32, 1.5
"""The standard deviation of the low pass that separates texture from shape: a share of the shorter side, and no more
than so many pixels. A wider one leaves the edges of a photograph's object to its texture."""


@dataclass(frozen=True)
class ImageProperty:
    """A property that can be exchanged.

    Args:
        name: in `available_properties`, and before `_follow_rate` in a score's name.
        exchange: borrows the property; None where that takes regions of the samples as well, or their maps.
        fewest_channels: of images that have the property.
        fewest_sides: of images that have it: 1 where signals do, 2 where it takes images, volumes or videos.
        remedy: what to try where predictions follow it.
        by_default: whether it is exchanged where nobody names the checks.
        have_it: from images to which of them have the property, `(N,)` bool; all of so many channels where left out.
    """

    name: str
    exchange: Exchange | None
    fewest_channels: int = 1
    fewest_sides: int = 1
    remedy: str = ""
    by_default: bool = True
    have_it: Callable[[Tensor], Tensor] | None = None


_PROPERTIES: dict[str, ImageProperty] = {}
_ENDINGS = ("_accuracy", "_flips", "_same_class", RATE, CHANCE)


def register_property(
    name: str,
    *,
    fewest_channels: int = 1,
    fewest_sides: int = 1,
    remedy: str = "",
    by_default: bool = True,
    have_it: Callable[[Tensor], Tensor] | None = None,
) -> Callable[[Exchange], Exchange]:
    """Register a function as the exchange of a property.

    Args:
        name: of the property.
        fewest_channels: of images that have the property; it is left out for others.
        fewest_sides: of images that have it; 2 leaves it out for signals.
        remedy: what to try where predictions follow it.
        by_default: whether it is exchanged where nobody names the checks.
        have_it: from images `(N, C, *S)` to which of them have the property, `(N,)` bool; the others neither borrow
            nor lend it. All of so many channels where it is left out.

    Raises:
        InputError: where the name is no identifier, taken, or ends as the scores of other checks do.

    Example:
        >>> @register_property("brightness")
        ... def exchange_brightness(images, donors):
        ...     return images + (donors.mean((1, 2, 3)) - images.mean((1, 2, 3)))[:, None, None, None]
        >>> "brightness" in available_properties()
        True
        >>> unregister_property("brightness")
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(
            f'`name` must be a word such as "brightness", of which scores are named; got {name!r}.'
        )
    if name in _PROPERTIES:
        raise InputError(f'`name` "{name}" is a property already. Choose another name.')
    if name.endswith(_ENDINGS):
        raise InputError(f'`name` "{name}" ends as the scores of checks do. Choose another name.')

    def register(exchange: Exchange) -> Exchange:
        _PROPERTIES[name] = ImageProperty(
            name, exchange, fewest_channels, fewest_sides, remedy, by_default, have_it
        )
        return exchange

    return register


def unregister_property(name: str) -> None:
    """Remove a property that was registered."""
    del _PROPERTIES[property_of(name).name]


def available_properties(channels: int | None = None, sides: int | None = None) -> tuple[str, ...]:
    """The names of the properties that images of so many channels and sides have; of all where both are left out.

    Args:
        channels: C of images `(N, C, *S)`.
        sides: how many sides `S` are: 1 for signals, 2 for images, 3 for volumes and videos.

    Example:
        >>> available_properties()
        ('color', 'histogram', 'spectrum', 'texture', 'border', 'salient_region', 'background', 'object', 'suspect')
        >>> available_properties(channels=1)[:2], available_properties(sides=1)[:2]
        (('histogram', 'spectrum'), ('histogram', 'border'))
    """
    return tuple(
        name
        for name, each in _PROPERTIES.items()
        if (channels is None or channels >= each.fewest_channels)
        and (sides is None or sides >= each.fewest_sides)
    )


def default_properties() -> tuple[str, ...]:
    """The names of the properties that are exchanged where nobody names the checks.

    Example:
        >>> default_properties()
        ('color', 'spectrum', 'texture', 'border', 'salient_region', 'background', 'object', 'suspect')
    """
    return tuple(each.name for each in _PROPERTIES.values() if each.by_default)


def property_of(name: str) -> ImageProperty:
    """The property of a name.

    Raises:
        InputError: where it is not known.
    """
    if name not in _PROPERTIES:
        raise InputError(f'`properties` "{name}" is not known. {did_you_mean(str(name), _PROPERTIES)}')
    return _PROPERTIES[name]


def exchange_property(name: str, images: Tensor, donors: Tensor) -> Tensor:
    """Give each image one property of its donor.

    Args:
        name: out of `available_properties`.
        images: `(N, C, *S)`, in any range and dtype, normalized or not.
        donors: `(N, C, *S)`, in the same range and dtype.

    Returns:
        `(N, C, *S)`, of the dtype and on the device of the images; no value lies outside of those of an image and
        its donor.

    Raises:
        InputError: an unknown property, one that images of so few channels or signals do not have, one that takes
            regions as well (see `lightning_gcam.shortcuts.Exchanges`), or donors of another shape.

    Example:
        >>> images = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]], [[[9.0, 8.0], [7.0, 5.0]]]])
        >>> exchange_property("histogram", images, images.flip(0)).tolist()
        [[[[5.0, 7.0], [8.0, 9.0]]], [[[3.0, 2.0], [1.0, 0.0]]]]
    """
    chosen = property_of(name)
    if not 3 <= images.ndim <= 5 or images.shape != donors.shape:
        raise InputError(
            f"`donors` must be as the images, (N, C, *S); got {tuple(donors.shape)} for {tuple(images.shape)}."
        )
    check_sides([name], images.ndim - 2)
    if images.shape[1] < chosen.fewest_channels:
        raise InputError(
            f'`properties` "{name}" takes images of at least {chosen.fewest_channels} channels, and these have '
            f"{images.shape[1]}. Leave it out."
        )
    if chosen.exchange is None:
        raise InputError(
            f'`properties` "{name}" takes regions of the samples or their maps, which images alone do not have. Use '
            "`lightning_gcam.shortcuts.Exchanges`."
        )
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        own, lent = in_floats(images).clone(), in_floats(donors).clone()
        low = torch.minimum(_lowest(own), _lowest(lent))
        high = -torch.minimum(_lowest(-own), _lowest(-lent))
        try:
            made = chosen.exchange(own, lent)
        except Exception as error:
            raise_for_user_function(f"properties={name}", images, error)
        if not isinstance(made, Tensor) or made.shape != images.shape:
            came = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
            raise InputError(
                f'The function of `properties` "{name}" must give images of {tuple(images.shape)}; got {came}.'
            )
        return in_dtype_of(images, made.clamp(low, high))


def check_sides(names: Sequence[str], sides: int) -> None:
    """Refuse properties that images of so few sides do not have.

    Args:
        names: of the properties.
        sides: 1 for signals, 2 for images, 3 for volumes and videos.

    Raises:
        InputError: naming the property, and those that such images have.
    """
    for name in names:
        if sides < (fewest := property_of(name).fewest_sides):
            raise InputError(
                f'`properties` "{name}" is one of images with {fewest} sides or more, and these have {sides}: of '
                "signals, what it exchanges is the evidence itself. Leave it out; these have "
                f"{', '.join(available_properties(sides=sides))}."
            )


def try_properties(names: Sequence[str], images: Tensor) -> None:
    """Exchange the properties of images with themselves, before training time is spent.

    Args:
        names: out of `available_properties`; those that take more than images are left to the looks.
        images: `(N, C, *S)`.

    Raises:
        InputError: where a function of a user's does not give images.
    """
    for name in available_properties(images.shape[1], images.ndim - 2):
        if name in names and property_of(name).exchange is not None:
            exchange_property(name, images, images)


def _lowest(images: Tensor) -> Tensor:
    return images.amin(dim=pixels_of(images), keepdim=True)


def _are_coloured(images: Tensor) -> Tensor:
    """Whether the channels of each image differ: a grey image may have three."""
    return (images != images[:, :1]).flatten(1).any(dim=1)


@register_property(
    "color",
    fewest_channels=2,
    fewest_sides=2,  # the channels of a signal are sensors, and their mean is no luminance
    have_it=_are_coloured,
    remedy="train with color jitter or in grey, or balance the colours of the classes",
)
def exchange_color(images: Tensor, donors: Tensor) -> Tensor:
    """Keep each image's luminance (the mean of its channels), and take the donor's colour at equal rank of luminance.

    The colour is the ratio of the channels to the luminance. Where values are negative, as in normalized images, it is
    their difference: then a pixel's luminance is still its own, but the colour is not scaled with it. The ranks are
    those of the images before a normalization that is the same for every channel; one of its own for each channel
    weighs the channels anew, and may exchange pixels of nearly the same luminance.

    Args:
        images: `(N, C, *S)` floating point, two channels at least.
        donors: `(N, C, *S)` floating point.

    Example:
        >>> grey, red = torch.full((1, 3, 1, 2), 0.2), torch.tensor([[[[0.6, 0.3]], [[0.0, 0.0]], [[0.0, 0.0]]]])
        >>> exchange_color(grey, red)[0, :, 0, 0].tolist()
        [0.6000000238418579, 0.0, 0.0]
    """
    own, lent = (each.mean(dim=1, keepdim=True) for each in (images, donors))
    order = _order(lent)
    ordered = donors.flatten(2).gather(2, order.expand(-1, donors.shape[1], -1))
    luminance = lent.flatten(2).gather(2, order)
    at_rank = _ranks(own)
    taken = ordered.gather(2, at_rank.expand_as(ordered)).view_as(images)
    below = luminance.gather(2, at_rank).view_as(own)
    ratio = torch.where(below > 0, own * taken / below.clamp(min=torch.finfo(below.dtype).tiny), own)
    is_normalized = (
        torch.minimum(_lowest(images), _lowest(donors)) < 0
    )  # of each pair, whatever stands beside it
    return torch.where(is_normalized, own + (taken - below), ratio)


@register_property(
    "histogram",
    remedy="train with changes of brightness and contrast, or equalize the images' histograms",
    by_default=False,  # a colour without its place in luminance: "color" and "spectrum" see what it sees
)
def exchange_histogram(images: Tensor, donors: Tensor) -> Tensor:
    """Replace each channel's values, rank by rank, by the donor's.

    It does not matter whether images are normalized: a normalization keeps the ranks of each channel.

    Args:
        images: `(N, C, *S)` floating point.
        donors: `(N, C, *S)` floating point.

    Example:
        >>> images, donors = torch.tensor([[[[3.0, 1.0]]]]), torch.tensor([[[[7.0, 9.0]]]])
        >>> exchange_histogram(images, donors).tolist()
        [[[[9.0, 7.0]]]]
    """
    values = donors.flatten(2).sort(dim=2).values
    return values.gather(2, _ranks(images)).view_as(images)


@register_property(
    "spectrum",
    fewest_sides=2,  # the frequencies of a signal are what it is told by
    remedy="look for a global tint, noise or compression that differs between the classes",
)
def exchange_spectrum(images: Tensor, donors: Tensor) -> Tensor:
    """Keep each image's phase, and take the donor's amplitude at every frequency of every channel, and its mean.

    It does not matter whether images are normalized: a normalization scales all amplitudes of a channel and moves the
    mean.

    Args:
        images: `(N, C, *S)` floating point.
        donors: `(N, C, *S)` floating point.

    Example:
        >>> images, donors = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[8.0, 4.0]]]])
        >>> exchange_spectrum(images, donors).tolist()  # the mean and the contrast of the donor, the sign of its own
        [[[[4.0, 8.0]]]]
    """
    # contiguous: MKL refuses expanded images in older releases of torch
    size = images.shape[2:]
    own, lent = (torch.fft.rfftn(each.contiguous(), s=size) for each in (images, donors))
    spectrum = torch.polar(lent.abs(), own.angle())
    mean: tuple[Any, ...] = (..., *(0,) * len(size))
    spectrum[mean] = lent[mean]  # with its sign: a normalized image may be dark
    made: Tensor = torch.fft.irfftn(spectrum, s=size)
    return made


@register_property(
    "texture",
    fewest_sides=2,  # the beats of an ECG, and most of speech, are high frequencies
    remedy="look for noise, sharpness or compression that differs between the classes",
)
def exchange_texture(images: Tensor, donors: Tensor) -> Tensor:
    """Keep each image's low frequencies (a Gaussian low pass), and take the donor's high ones.

    Of volumes and videos it is that of each slice or frame: what changes along the first side may be the motion.

    Args:
        images: `(N, C, *S)` floating point.
        donors: `(N, C, *S)` floating point.

    Example:
        >>> flat, pattern = torch.zeros(1, 1, 8, 8), (torch.arange(64) % 2).float().view(1, 1, 8, 8)
        >>> made = exchange_texture(flat, pattern)
        >>> bool((made[..., 1::2] > made[..., ::2]).all()), round(float(made.mean()), 3)
        (True, 0.0)
    """
    return donors + _low_pass(images - donors)  # a low pass of both, and only one of them: it is linear


@register_property(
    "border",
    remedy="crop the images (of signals the ends), or look for tags, frames and rulers at their edges",
)
def exchange_border(images: Tensor, donors: Tensor) -> Tensor:
    """Take the outer 17% of each side from the donor; a side of one or two pixels has no border.

    Of volumes and videos it is the border of each slice or frame: the first side is left out, of which the ends may be
    what counts, and which is often short.

    Args:
        images: `(N, C, *S)`.
        donors: `(N, C, *S)`.

    Example:
        >>> exchange_border(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4))[0, 0].tolist()
        [[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]]
    """
    sides = [(side, max(round(side * BORDER), 1) if side > 2 else 0) for side in images.shape[2:][-2:]]
    within: tuple[Any, ...] = (..., *(slice(width, side - width) for side, width in sides))
    border = torch.ones_like(images[:, :1], dtype=torch.bool)
    border[within] = False
    return torch.where(border, donors, images)


_PROPERTIES.update(
    {
        name: ImageProperty(name, None, remedy=remedy)
        for name, remedy in {
            "salient_region": "look there in the overlays for a tag, a stamp or a seam, and cover it",
            "background": "vary the backgrounds of each class, or crop to the objects",
            "object": "",  # what a prediction should follow
            "suspect": "cover or remove the suspect region",
        }.items()
    }
)


def _order(images: Tensor) -> Tensor:
    """The pixels of each channel from the darkest to the brightest, `(N, C, pixels)` int64."""
    return images.flatten(2).argsort(dim=2, stable=True)


def _ranks(images: Tensor) -> Tensor:
    """The rank of each pixel in its channel, `(N, C, pixels)` int64."""
    order = _order(images)
    places = torch.arange(order.shape[2], device=order.device).expand_as(order)
    return torch.zeros_like(order).scatter(2, order, places)


def _low_pass(images: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional as transforms  # type: ignore[import-untyped]  # slow to import

    size = images.shape[-2:]  # of a slice or a frame
    shorter = min([side for side in size if side > 1], default=1)
    sigma = min(max(shorter * _SIGMA, 0.5), _LARGEST_SIGMA)
    down, across = (2 * min(ceil(3 * sigma), side - 1) + 1 for side in size)
    blurred: Tensor = transforms.gaussian_blur(images, [across, down], [sigma, sigma])
    return blurred
