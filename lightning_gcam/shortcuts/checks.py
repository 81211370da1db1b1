"""The causal checks by their names, and the changed images of those that remove or cover something."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

from lightning_gcam.data import SaliencyBatch
from lightning_gcam.shortcuts.exchange import KEPT, available_properties, default_properties
from lightning_gcam.shortcuts.regions import AnnotatedRegions, most_salient, moved_at_random, regions_of_batch
from lightning_gcam.shortcuts.removal import (
    DEFAULT_REMOVAL,
    Removal,
    RemovedObjects,
    check_removal,
    exchange,
    in_dtype_of,
    in_floats,
    remove_regions,
)
from lightning_gcam.utils.dimensions import for_each, pixels_of
from lightning_gcam.utils.errors import InputError, did_you_mean
from lightning_gcam.utils.transfer import to_device

Checks = str | Sequence[str] | None
"""A name out of `available_checks`, or several; None for all that are on by default."""

MakeImages = Callable[[Tensor], Tensor]
"""From the numbers `(n,)` int64 of some samples, on the host, to their changed images `(n, C, *S)`."""

CHECKS: dict[str, tuple[str, ...]] = {
    "background_only_accuracy": ("background_only",),
    "object_only_accuracy": ("object_only",),
    "salient_flips": ("salient_outside", "random_outside"),
}
"""Each check beside the exchanges, and the changed versions it needs: the one place where both get their names."""

BEFORE = "_before"
"""What the accuracy on the unchanged images of a check's own samples is called, where they are not all."""


def available_checks() -> tuple[str, ...]:
    """The names of the causal checks, in the order of the tables; behind the first three, the exchanged properties.

    Example:
        >>> available_checks()
        ('background_only_accuracy', 'object_only_accuracy', 'salient_flips', 'color', 'histogram', 'spectrum',
        'texture', 'border', 'salient_region', 'background', 'object', 'suspect')
    """
    return (*CHECKS, *available_properties())


def takes_masks(check: str) -> bool:
    """Whether a check needs the objects' masks or boxes."""
    return check in (*CHECKS, "background", "object")


def resolve_checks(checks: Checks) -> tuple[str, ...]:
    """The names of the checks that a user gave, each once.

    Args:
        checks: a name, several, or None for those that are on by default. `<property>_swap_accuracy` stands for the
            property.

    Raises:
        InputError: naming what is not known.

    Example:
        >>> resolve_checks(["salient_flips", "background_swap_accuracy"]), resolve_checks([])
        (('salient_flips', 'background'), ())
    """
    if checks is None:
        return (*CHECKS, *default_properties())
    if not isinstance(checks, (str, Sequence)):
        raise InputError(f"`checks` must be names of checks, or None for all; got {type(checks).__name__}.")
    given, known = [checks] if isinstance(checks, str) else checks, available_checks()
    names = dict.fromkeys(str(each) if each in known else str(each).removesuffix(KEPT) for each in given)
    for name in names:
        if name not in known:
            raise InputError(f'`checks` "{name}" is not a check. {did_you_mean(name, known)}')
    return tuple(names)


def changed_images(
    batch: SaliencyBatch,
    maps: Tensor | None = None,
    checks: Checks = None,
    removal: Removal = DEFAULT_REMOVAL,
    seed: int = 0,
) -> dict[str, Tensor]:
    """The changed versions of a batch that the checks beside the exchanges need, as far as its annotation allows.

    - "background_only": the object removed, in a square around it that hides its outline.
    - "object_only": all but the object (with a thin rim) in one colour, the mean over the backgrounds of all samples.
      (A blurred background would keep a frame's colour or a tint; a callable `removal` is called instead.)
    - "salient_outside": the most salient region outside of the square around the object, of the object's area,
      replaced by what lies there in a sample of another class; "random_outside": as well, at a random place.

    Where a sample lacks what a version takes (its mask is empty or leaves no background, nobody is of another class,
    its map is blank), its image is unchanged, and `measure_reliance` leaves it out.

    Args:
        batch: the samples: labels that are classes, and masks or boxes.
        maps: `(N, *S)` saliency in [0, 1], of the size of the images; without it no "salient_outside".
        checks: the names of the checks; None for all.
        removal: how an object is removed; see `remove_regions`.
        seed: of the random places. No other random stream moves.

    Returns:
        Images `(N, C, *S)` by the name of the version, of the dtype and on the device of those in the batch; empty
        where the labels are no classes.

    Raises:
        InputError: an unknown check or removal, or maps of another size.

    Example:
        >>> mask = torch.zeros(2, 8, 8, dtype=torch.bool)
        >>> mask[:, 3:5, 3:5] = True
        >>> batch = SaliencyBatch(torch.rand(2, 1, 8, 8), torch.tensor([0, 1]), masks=mask)
        >>> list(changed_images(batch))
        ['background_only', 'object_only']
    """
    every = torch.arange(len(batch), device="cpu")
    return {name: make(every) for name, make in image_changes(batch, maps, checks, removal, seed).items()}


def image_changes(
    batch: SaliencyBatch,
    maps: Tensor | None = None,
    checks: Checks = None,
    removal: Removal = DEFAULT_REMOVAL,
    seed: int = 0,
    annotated: AnnotatedRegions | None = None,
    bare: RemovedObjects | None = None,
) -> dict[str, MakeImages]:
    """Functions that make the images of `changed_images` for some samples, so that no more exist than fit memory.

    The samples without their objects are made once, for all that need them, and so are the regions that are changed: a
    byte a pixel each. `annotated` are the batch's regions and `bare` the samples without objects, where they are known
    already. No device is waited for.

    Returns:
        By the name of the version, a function from the numbers `(n,)` int64 of some samples to their changed images.
    """
    names = resolve_checks(checks)
    check_removal(removal)
    _check_maps(maps, batch)
    annotated = annotated or regions_of_batch(batch)
    if annotated is None:
        return {}
    bare = bare if bare is not None else removed_objects(batch.images, annotated, removal)
    if bare is None:
        return {}
    makers = _on_objects(batch.images, annotated, bare, removal)
    if maps is not None:
        makers.update(_on_saliency(batch.images, annotated, bare, maps.cpu(), seed))
    device = batch.images.device
    return {
        each: _exactly(makers[each], device)
        for name in names
        for each in CHECKS.get(name, ())
        if each in makers
    }


def removed_objects(
    images: Tensor, annotated: AnnotatedRegions, removal: Removal = DEFAULT_REMOVAL
) -> RemovedObjects | None:
    """The samples without their objects, which are made at the first use; None where there are no masks.

    Args:
        images: `(N, C, *S)`.
        annotated: their regions.
        removal: how an object is removed; see `remove_regions`.
    """
    if annotated.around is None:
        return None
    regions = annotated.around & for_each(annotated.masked, annotated.around)
    return RemovedObjects(images, regions, removal)


def _exactly(make: MakeImages, device: torch.device) -> MakeImages:
    """Change images in their own precision, whatever the model computes in."""

    def made(rows: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            return make(rows)

    return made


def _on_objects(
    images: Tensor, annotated: AnnotatedRegions, bare: RemovedObjects, removal: Removal
) -> dict[str, MakeImages]:
    """The versions that need masks."""
    if annotated.objects is None or not (annotated.known & annotated.masked).any():
        return {}
    background = ~annotated.objects & for_each(annotated.masked, annotated.objects)
    return {
        "background_only": lambda rows: bare.images[to_device(rows, images.device)],
        "object_only": _object_only(images, background, removal),
    }


def _on_saliency(
    images: Tensor, annotated: AnnotatedRegions, bare: RemovedObjects, maps: Tensor, seed: int
) -> dict[str, MakeImages]:
    """The versions that need maps and masks."""
    masks, around, donors = annotated.masks, annotated.around, annotated.donors
    if masks is None or around is None or not (donors >= 0).any():
        return {}

    @cache
    def salient() -> Tensor:
        each = zip(maps.split(1), masks.split(1), around.split(1), strict=True)
        found = [most_salient(one.nan_to_num(0.0), *regions) for one, *regions in each]
        return torch.cat(found) & for_each(donors >= 0, masks)

    @cache
    def elsewhere() -> Tensor:
        return moved_at_random(salient(), around, seed)

    def swapped(rows: Tensor, regions: Tensor) -> Tensor:
        chosen = (rows, donors[rows].clamp(min=0), donors[rows] >= 0, regions[rows])
        own, lending, has_donor, region = (to_device(each, images.device) for each in chosen)
        return exchange(images[own], bare.images[lending], has_donor, region)

    return {
        "salient_outside": lambda rows: swapped(rows, salient()),
        "random_outside": lambda rows: swapped(rows, elsewhere()),
    }


def _object_only(images: Tensor, background: Tensor, removal: Removal) -> MakeImages:
    """The images with all of the background in the mean colour of the backgrounds of all samples."""

    @cache
    def colour() -> Tensor:
        parts = [
            (in_floats(image) * to_device(behind, images.device)).sum(dim=pixels_of(image))
            for image, behind in zip(images, background, strict=True)
        ]
        mean = torch.stack(parts).sum(dim=0) / background.sum().clamp(min=1).item()
        return for_each(in_dtype_of(images, mean), images[0])

    def made(rows: Tensor) -> Tensor:
        chosen, behind = (to_device(each, images.device) for each in (rows, background[rows]))
        if callable(removal):
            return remove_regions(images[chosen], behind, removal)
        return torch.where(behind[:, None], colour(), images[chosen])

    return made


def _check_maps(maps: Tensor | None, batch: SaliencyBatch) -> None:
    expected = (len(batch), *batch.image_size)
    if maps is not None and tuple(maps.shape) != expected:
        raise InputError(
            f"`maps` must be one a sample, of the images' size, {expected}; got {tuple(maps.shape)}."
        )
