"""A name for each sample that can stand in a tag and in a path: the same at every look."""

from __future__ import annotations

import re

from lightning_gcam._names import shortened
from lightning_gcam.batch.saliency_batch import SaliencyBatch

_ELSEWHERE = re.compile(r"[^A-Za-z0-9_./-]+")
"""What some backend refuses in a tag: MLflow takes letters of ASCII, digits, and these signs."""

_LONGEST = 80
"""MLflow puts the whole tag, with a time and an id, into one file name of at most 255 signs."""


def sample_names(batch: SaliencyBatch) -> list[str]:
    """Each sample's name with the signs that every backend takes, or its number where it has none.

    Where two come out alike, or would on a disk that does not tell capital letters apart, all get their numbers in
    front. A name never leads out of the folder it is put into, and one that is too long for a file's ends in a
    checksum.

    Args:
        batch: the samples.

    Example:
        >>> import torch
        >>> images = torch.zeros(4, 3, 8, 8)
        >>> sample_names(SaliencyBatch(images, names=["cats/tom 1.png", "", "../a", "b"]))
        ['cats/tom_1.png', '1', 'a', 'b']
        >>> sample_names(SaliencyBatch(images, names=["cat", "dog", "cat", ""]))
        ['0_cat', '1_dog', '2_cat', '3_3']
        >>> sample_names(SaliencyBatch(images[:2], names=["a", "A"]))
        ['0_a', '1_A']
    """
    given = batch.names if batch.names is not None else [""] * len(batch)
    plain = [_plain(name) or str(number) for number, name in enumerate(given)]
    if len({name.casefold() for name in plain}) == len(plain):
        return plain
    return [f"{number}_{name}" for number, name in enumerate(plain)]


def _plain(name: str) -> str:
    parts = _ELSEWHERE.sub("_", name).split("/")
    plain = "/".join(part for part in parts if part.strip("._"))
    return plain if len(plain) <= _LONGEST else shortened(plain.rpartition("/")[2], _LONGEST, plain)
