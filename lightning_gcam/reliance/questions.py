"""The checks, and the changed images that the model is asked about for each of them: one forward a question."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lightning_gcam._errors import InputError, did_you_mean
from lightning_gcam.batch import SaliencyBatch
from lightning_gcam.reliance.ground import Ground, ground_of
from lightning_gcam.reliance.removal import (
    DEFAULT_REMOVAL,
    Removal,
    check_removal,
    in_dtype_of,
    in_floats,
    remove_regions,
)
from lightning_gcam.reliance.salient import most_salient, same_elsewhere
from lightning_gcam.reliance.swaps import exchange, exchange_regions

Checks = str | Sequence[str] | None
"""A name out of `available_checks`, or several; None for all that the annotation allows."""

CHECKS: dict[str, tuple[str, ...]] = {
    "background_only_accuracy": ("background_only",),
    "object_only_accuracy": ("object_only",),
    "background_swap_accuracy": ("background_swap",),
    "suspect_swap_accuracy": ("suspect_swap",),
    "salient_flips": ("salient_outside", "random_outside"),
}
"""Each check, and the questions it takes: the one place where both get their names."""


def available_checks() -> tuple[str, ...]:
    """The names of the causal checks, in the order of the tables.

    Example:
        >>> available_checks()
        ('background_only_accuracy', 'object_only_accuracy', 'background_swap_accuracy', 'suspect_swap_accuracy',
        'salient_flips')
    """
    return tuple(CHECKS)


def takes_masks(check: str) -> bool:
    """Whether a check takes the objects' masks or boxes; the one that does not takes a suspect region."""
    return check != "suspect_swap_accuracy"


def resolve_checks(checks: Checks) -> tuple[str, ...]:
    """Turn what a user asked for into names of checks, each once.

    Args:
        checks: a name, several, or None for all.

    Raises:
        InputError: naming what is not known.

    Example:
        >>> resolve_checks("salient_flips"), resolve_checks([])
        (('salient_flips',), ())
    """
    if checks is None:
        return available_checks()
    if not isinstance(checks, (str, Sequence)):
        raise InputError(f"`checks` must be names of checks, or None for all; got {type(checks).__name__}.")
    names = tuple(dict.fromkeys([checks] if isinstance(checks, str) else checks))
    for name in names:
        if name not in CHECKS:
            raise InputError(f'`checks` "{name}" is not a check. {did_you_mean(str(name), CHECKS)}')
    return names


def changed_images(
    batch: SaliencyBatch,
    maps: Tensor | None = None,
    checks: Checks = None,
    removal: Removal = DEFAULT_REMOVAL,
    seed: int = 0,
) -> dict[str, Tensor]:
    """The changed versions of a batch that the checks ask the model about, as far as its annotation allows.

    - "background_only": the object removed, in a square around it that hides its outline.
    - "object_only": all but the object (with a thin rim) in one colour, the mean over the backgrounds of all samples.
      (A blurred background would keep a frame's colour or a tint; a callable `removal` is asked instead.)
    - "background_swap": the object on the background of a sample of another class, whose own object is removed.
    - "suspect_swap": the suspect region of a sample of another class in the place of the sample's own. Objects are
      left where they are: what of them lies in the region is neither covered nor lent.
    - "salient_outside": the most salient region outside of the square around the object, of the object's area,
      replaced by what lies there in a sample of another class; "random_outside": as well, at a random place.

    Where a sample lacks what a version takes (its mask is empty or leaves no background, nobody is of another class,
    its map is blank), its image is unchanged, and `measure_reliance` leaves it out.

    Args:
        batch: the samples: labels that are classes, and masks, boxes or a suspect region.
        maps: `(N, H, W)` saliency in [0, 1], of the size of the images; without it no "salient_outside".
        checks: the names of the checks; None for all.
        removal: how an object is removed; see `remove_regions`.
        seed: of the random places. No other random stream moves.

    Returns:
        Images `(N, C, H, W)` by the name of the version, of the dtype and on the device of those in the batch; empty
        where the labels are no classes.

    Raises:
        InputError: an unknown check or removal, or maps of another size.

    Example:
        >>> mask = torch.zeros(2, 8, 8, dtype=torch.bool)
        >>> mask[:, 3:5, 3:5] = True
        >>> batch = SaliencyBatch(torch.rand(2, 1, 8, 8), torch.tensor([0, 1]), masks=mask)
        >>> list(changed_images(batch))
        ['background_only', 'object_only', 'background_swap']
    """
    names = resolve_checks(checks)
    check_removal(removal)
    _check_maps(maps, batch)
    ground = ground_of(batch)
    if ground is None:
        return {}
    with torch.no_grad(), torch.autocast(batch.images.device.type, enabled=False):
        makers = {
            **_on_objects(batch.images, ground, removal),
            **_on_the_suspect(batch.images, ground, removal),
        }
        if maps is not None and ground.masks is not None:
            makers.update(_on_saliency(batch.images, ground, maps.to(batch.images.device), removal, seed))
        return {each: makers[each]() for name in names for each in CHECKS[name] if each in makers}


Makers = dict[str, Callable[[], Tensor]]


def _on_objects(images: Tensor, ground: Ground, removal: Removal) -> Makers:
    """The versions that take masks."""
    around, objects = ground.around, ground.objects
    if around is None or objects is None or not (ground.known & ground.masked).any():
        return {}
    changed = ground.masked[:, None, None]
    versions: Makers = {
        "background_only": lambda: remove_regions(images, around & changed, removal),
        "object_only": lambda: _object_only(images, ~objects & changed, removal),
    }
    if (ground.partners >= 0).any():
        versions["background_swap"] = lambda: exchange(
            images, remove_regions(images, around & changed, removal), ground.partners, ~objects
        )
    return versions


def _on_the_suspect(images: Tensor, ground: Ground, removal: Removal) -> Makers:
    """The version that takes a suspect region."""
    suspect, around, objects = ground.suspect, ground.around, ground.objects
    if suspect is None or not (ground.suspect_partners >= 0).any():
        return {}

    def swapped() -> Tensor:
        if around is None or objects is None:
            return exchange_regions(images, images, ground.suspect_partners, suspect, suspect)
        # a partner's object must not come along, nor must what is suspect beside it be lost
        bare = remove_regions(images, around & ~(suspect & ~objects) & ground.masked[:, None, None], removal)
        return exchange_regions(images, bare, ground.suspect_partners, suspect, suspect & ~objects)

    return {"suspect_swap": swapped}


def _on_saliency(images: Tensor, ground: Ground, maps: Tensor, removal: Removal, seed: int) -> Makers:
    """The versions that take maps and masks."""
    masks, around = ground.masks, ground.around
    if masks is None or around is None or not (ground.partners >= 0).any():
        return {}
    salient = most_salient(maps.nan_to_num(0.0), masks, around) & (ground.partners >= 0)[:, None, None]
    bare = remove_regions(images, around & ground.masked[:, None, None], removal)
    return {
        "salient_outside": lambda: exchange(images, bare, ground.partners, salient),
        "random_outside": lambda: exchange(
            images, bare, ground.partners, same_elsewhere(salient, around, seed).to(images.device)
        ),
    }


def _object_only(images: Tensor, background: Tensor, removal: Removal) -> Tensor:
    if callable(removal):
        return remove_regions(images, background, removal)
    counted = background[:, None].to(in_floats(images))
    mean = (in_floats(images) * counted).sum(dim=(0, 2, 3)) / counted.sum(dim=(0, 2, 3)).clamp(min=1)
    return torch.where(background[:, None], in_dtype_of(images, mean)[None, :, None, None], images)


def _check_maps(maps: Tensor | None, batch: SaliencyBatch) -> None:
    expected = (len(batch), *batch.image_size)
    if maps is not None and tuple(maps.shape) != expected:
        raise InputError(
            f"`maps` must be one a sample, of the images' size, {expected}; got {tuple(maps.shape)}."
        )
