"""Models with other classes than the dataset's: mapped where the user says how, refused otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning_gcam._errors import InputError, did_you_mean

_MOST = 1_000_000
"""Outputs of a model; the names of as many are kept in a list."""


def read_class_map(class_map: Mapping[str, int], class_names: Sequence[str]) -> dict[int, int]:
    """From the dataset's number of a class to the model's output for it.

    Args:
        class_map: name of a class to the place of its output; classes that are not in it are left out.
        class_names: of the dataset.

    Raises:
        InputError: an empty map, an unknown name, an output that is no whole number from 0, or one for two classes.

    Example:
        >>> read_class_map({"dog": 207}, ["cat", "dog"])
        {1: 207}
    """
    places = {name: place for place, name in enumerate(class_names)}
    found: dict[int, int] = {}
    for name, output in class_map.items():
        if name not in places:
            raise InputError(
                f'`class_map` names "{name}", no class of the dataset. {did_you_mean(name, places)}'
            )
        if isinstance(output, bool) or not isinstance(output, int) or output < 0:
            raise InputError(
                f'`class_map["{name}"]` must be the place of an output of the model, a whole number from 0; got '
                f"{output!r}. A class for which the model has several outputs has no single saliency map: leave it out."
            )
        if output >= _MOST:
            raise InputError(
                f'`class_map["{name}"]` is output {output}, and no model has so many. Give the place of one of its '
                f"outputs, at most {_MOST - 1}."
            )
        if output in found.values():
            raise InputError(
                f"`class_map` gives output {output} to two classes. Saliency for it may lie on objects of either, and "
                "only one's would count: keep one."
            )
        found[places[name]] = output
    if not found:
        raise InputError("`class_map` is empty. Map at least one class, or leave it out.")
    return found


def mapped_names(class_names: Sequence[str], labels: Mapping[int, int]) -> tuple[str, ...]:
    """Names in the order of the labels that are delivered; an output that no class is mapped to goes by its number.

    Example:
        >>> mapped_names(["cat", "dog"], {1: 2})
        ('0', '1', 'dog')
    """
    names = [str(place) for place in range(max(labels.values()) + 1)]
    for place, output in labels.items():
        names[output] = class_names[place]
    return tuple(names)
