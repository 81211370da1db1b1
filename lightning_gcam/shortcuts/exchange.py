"""Exchanges: one property of each image (its colours, its border, ...) borrowed from a donor, the rest kept.

A prediction that follows a borrowed property is evidence of what carries the class, and needs no annotation. Each
property is one pure function of images and donors; `register_property` adds another. Those that take regions as well
have their names and remedies here, and are made in `exchange_checks`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from lightning_gcam.shortcuts.removal import exchange, in_dtype_of, in_floats
from lightning_gcam.utils.errors import InputError, did_you_mean, raise_for_user_function

Exchange = Callable[[Tensor, Tensor], Tensor]
"""From images and donors `(N, C, H, W)` to the images with one property of their donors, in the same dtype."""

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
        remedy: what to try where predictions follow it.
        by_default: whether it is exchanged where nobody names the checks.
        have_it: from images to which of them have the property, `(N,)` bool; all of so many channels where left out.
    """

    name: str
    exchange: Exchange | None
    fewest_channels: int = 1
    remedy: str = ""
    by_default: bool = True
    have_it: Callable[[Tensor], Tensor] | None = None


_PROPERTIES: dict[str, ImageProperty] = {}
_ENDINGS = ("_accuracy", "_flips", "_same_class", RATE, CHANCE)


def register_property(
    name: str,
    *,
    fewest_channels: int = 1,
    remedy: str = "",
    by_default: bool = True,
    have_it: Callable[[Tensor], Tensor] | None = None,
) -> Callable[[Exchange], Exchange]:
    """Register a function as the exchange of a property.

    Args:
        name: of the property.
        fewest_channels: of images that have the property; it is left out for others.
        remedy: what to try where predictions follow it.
        by_default: whether it is exchanged where nobody names the checks.
        have_it: from images `(N, C, H, W)` to which of them have the property, `(N,)` bool; the others neither borrow
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
        _PROPERTIES[name] = ImageProperty(name, exchange, fewest_channels, remedy, by_default, have_it)
        return exchange

    return register


def unregister_property(name: str) -> None:
    """Remove a property that was registered."""
    del _PROPERTIES[property_of(name).name]


def available_properties(channels: int | None = None) -> tuple[str, ...]:
    """The names of the properties that images of so many channels have; of all where it is left out.

    Example:
        >>> available_properties()
        ('color', 'histogram', 'spectrum', 'texture', 'border', 'salient_region', 'background', 'object', 'suspect')
        >>> available_properties(channels=1)[:2]
        ('histogram', 'spectrum')
    """
    there = (each for each in _PROPERTIES.values() if channels is None or channels >= each.fewest_channels)
    return tuple(each.name for each in there)


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
        images: `(N, C, H, W)`, in any range and dtype, normalized or not.
        donors: `(N, C, H, W)`, in the same range and dtype.

    Returns:
        `(N, C, H, W)`, of the dtype and on the device of the images; no value lies outside of those of an image and
        its donor.

    Raises:
        InputError: an unknown property, one that images of so few channels do not have, one that takes regions as well
            (see `lightning_gcam.shortcuts.Exchanges`), or donors of another shape.

    Example:
        >>> images = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]], [[[9.0, 8.0], [7.0, 5.0]]]])
        >>> exchange_property("histogram", images, images.flip(0)).tolist()
        [[[[5.0, 7.0], [8.0, 9.0]]], [[[3.0, 2.0], [1.0, 0.0]]]]
    """
    chosen = property_of(name)
    if images.ndim != 4 or images.shape != donors.shape:
        raise InputError(
            f"`donors` must be as the images, (N, C, H, W); got {tuple(donors.shape)} for {tuple(images.shape)}."
        )
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


def try_properties(names: Sequence[str], images: Tensor) -> None:
    """Exchange the properties of images with themselves, before training time is spent.

    Args:
        names: out of `available_properties`; those that take more than images are left to the looks.
        images: `(N, C, H, W)`.

    Raises:
        InputError: where a function of a user's does not give images.
    """
    for name in available_properties(images.shape[1]):
        if name in names and property_of(name).exchange is not None:
            exchange_property(name, images, images)


def _lowest(images: Tensor) -> Tensor:
    return images.amin(dim=(1, 2, 3), keepdim=True)


def _are_coloured(images: Tensor) -> Tensor:
    """Whether the channels of each image differ: a grey image may have three."""
    return (images != images[:, :1]).flatten(1).any(dim=1)


@register_property(
    "color",
    fewest_channels=2,
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
        images: `(N, C, H, W)` floating point, two channels at least.
        donors: `(N, C, H, W)` floating point.

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
        images: `(N, C, H, W)` floating point.
        donors: `(N, C, H, W)` floating point.

    Example:
        >>> images, donors = torch.tensor([[[[3.0, 1.0]]]]), torch.tensor([[[[7.0, 9.0]]]])
        >>> exchange_histogram(images, donors).tolist()
        [[[[9.0, 7.0]]]]
    """
    values = donors.flatten(2).sort(dim=2).values
    return values.gather(2, _ranks(images)).view_as(images)


@register_property(
    "spectrum", remedy="look for a global tint, noise or compression that differs between the classes"
)
def exchange_spectrum(images: Tensor, donors: Tensor) -> Tensor:
    """Keep each image's phase, and take the donor's amplitude at every frequency of every channel, and its mean.

    It does not matter whether images are normalized: a normalization scales all amplitudes of a channel and moves the
    mean.

    Args:
        images: `(N, C, H, W)` floating point.
        donors: `(N, C, H, W)` floating point.

    Example:
        >>> images, donors = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[8.0, 4.0]]]])
        >>> exchange_spectrum(images, donors).tolist()  # the mean and the contrast of the donor, the sign of its own
        [[[[4.0, 8.0]]]]
    """
    # contiguous: MKL refuses expanded images in older releases of torch
    own, lent = (torch.fft.rfft2(each.contiguous()) for each in (images, donors))
    spectrum = torch.polar(lent.abs(), own.angle())
    spectrum[..., 0, 0] = lent[..., 0, 0]  # the mean, with its sign: a normalized image may be dark
    made: Tensor = torch.fft.irfft2(spectrum, s=images.shape[-2:])
    return made


@register_property(
    "texture", remedy="look for noise, sharpness or compression that differs between the classes"
)
def exchange_texture(images: Tensor, donors: Tensor) -> Tensor:
    """Keep each image's low frequencies (a Gaussian low pass), and take the donor's high ones.

    Args:
        images: `(N, C, H, W)` floating point.
        donors: `(N, C, H, W)` floating point.

    Example:
        >>> flat, pattern = torch.zeros(1, 1, 8, 8), (torch.arange(64) % 2).float().view(1, 1, 8, 8)
        >>> made = exchange_texture(flat, pattern)
        >>> bool((made[..., 1::2] > made[..., ::2]).all()), round(float(made.mean()), 3)
        (True, 0.0)
    """
    return donors + _low_pass(images - donors)  # a low pass of both, and only one of them: it is linear


@register_property("border", remedy="crop the images, or look for tags, frames and rulers at their edges")
def exchange_border(images: Tensor, donors: Tensor) -> Tensor:
    """Take the outer 17% of each side from the donor; a side of one or two pixels has no border.

    Args:
        images: `(N, C, H, W)`.
        donors: `(N, C, H, W)`.

    Example:
        >>> exchange_border(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4))[0, 0].tolist()
        [[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]]
    """
    height, width = images.shape[-2:]
    rows, columns = (max(round(side * BORDER), 1) if side > 2 else 0 for side in (height, width))
    border = torch.ones(len(images), height, width, dtype=torch.bool, device=images.device)
    border[:, rows : height - rows, columns : width - columns] = False
    return exchange(images, donors, torch.ones_like(border[:, 0, 0]), border)


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
    """The pixels of each channel from the darkest to the brightest, `(N, C, H * W)` int64."""
    return images.flatten(2).argsort(dim=2, stable=True)


def _ranks(images: Tensor) -> Tensor:
    """The rank of each pixel in its channel, `(N, C, H * W)` int64."""
    order = _order(images)
    places = torch.arange(order.shape[2], device=order.device).expand_as(order)
    return torch.zeros_like(order).scatter(2, order, places)


def _low_pass(images: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional as transforms  # type: ignore[import-untyped]  # slow to import

    size = images.shape[-2:]
    shorter = min([side for side in size if side > 1], default=1)
    sigma = min(max(shorter * _SIGMA, 0.5), _LARGEST_SIGMA)
    down, across = (2 * min(ceil(3 * sigma), side - 1) + 1 for side in size)
    blurred: Tensor = transforms.gaussian_blur(images, [across, down], [sigma, sigma])
    return blurred
