"""Which class each of ImageNet's validation images is of, and in which order its classes are counted.

Models count the classes in the order of their WordNet ids (wnids), "n01440764" first; the devkit's ground truth counts
by an ILSVRC id of its own. What ties the two together comes in one of two forms, and each is read here.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from lightning_gcam._errors import InputError
from lightning_gcam.datasets.layout import Layout

T = TypeVar("T")

DEVKIT = "ILSVRC2012_devkit_t12/data"
TRUTH = f"{DEVKIT}/ILSVRC2012_validation_ground_truth.txt"
META = f"{DEVKIT}/meta.mat"
MAPPING = "LOC_synset_mapping.txt"
SOLUTION = "LOC_val_solution.csv"


def read_mapping(path: Path) -> dict[str, str]:
    """From a wnid to its words, of Kaggle's "n01440764 tench, Tinca tinca" on each line."""
    pairs = (line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return {wnid: words.strip() for wnid, words in pairs}


def read_solution(path: Path) -> dict[str, str]:
    """From an image's name to its wnid, of Kaggle's "ILSVRC2012_val_00048981,n03995372 85 1 499 272"."""
    with path.open(encoding="utf-8", newline="") as file:
        return {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(file)}


def read_meta(path: Path) -> list[tuple[int, str, str]]:
    """ILSVRC id, wnid and words of each class in the devkit's meta.mat; those with children are no classes.

    Raises:
        InputError: without scipy.
    """
    try:
        from scipy.io import loadmat  # type: ignore[import-untyped]  # it carries no types
    except ImportError as error:
        raise InputError(
            f'"{META}" is read with scipy, which is not installed. Install `lightning-gcam[datasets]`.'
        ) from error
    rows = loadmat(path, squeeze_me=True)["synsets"]
    classes = (row for row in rows if int(row["num_children"]) == 0)
    return [(int(row["ILSVRC2012_ID"]), str(row["WNID"]), str(row["words"])) for row in classes]


def read_truth(path: Path, meta: Iterable[tuple[int, str, str]]) -> list[str]:
    """The wnid of each image in the order of their numbers, of the devkit's list of ILSVRC ids."""
    wnids = {number: wnid for number, wnid, _ in meta}
    return [wnids[int(line)] for line in path.read_text(encoding="ascii").split()]


def words_of(root: Path, layout: Layout) -> dict[str, str]:
    """From a wnid to its words, from whichever list is there; empty where there is none.

    Raises:
        InputError: where a list is in another form.
    """
    if (root / MAPPING).is_file():
        return reading(layout, root / MAPPING, read_mapping)
    if (root / META).is_file():
        return {wnid: words for _, wnid, words in reading(layout, root / META, read_meta)}
    return {}


def wnids_of(root: Path, names: Sequence[str], layout: Layout) -> list[str]:
    """The wnid of each of the images, from whichever list is there.

    Args:
        root: the folder with the lists.
        names: of the images' files, without their ending.
        layout: for the errors.

    Raises:
        InputError: where no list is there, it is in another form, or it lacks an image.
    """
    found = layout.require(root, SOLUTION, TRUTH)
    if found.name == SOLUTION:
        solution = reading(layout, found, read_solution)
        lacking = next((name for name in names if name not in solution), None)
        if lacking is None:
            return [solution[name] for name in names]
        raise InputError(f'"{found}" has no line for "{lacking}". Are image and list of the same set?')
    meta = reading(layout, layout.require(root, META), read_meta)
    truth = reading(layout, found, lambda path: read_truth(path, meta))
    return [truth[_number_of(name, len(truth), found)] for name in names]


def _number_of(name: str, count: int, path: Path) -> int:
    """Images are numbered from 1: ILSVRC2012_val_00000001."""
    number = name.rpartition("_")[2]
    if not number.isdecimal() or not 0 < int(number) <= count:
        raise InputError(
            f'"{path}" has {count} lines, one for each number of an image, and none is for "{name}". Are image and '
            "list of the same set, and is the image's name its owner's?"
        )
    return int(number) - 1


def reading(layout: Layout, path: Path, read: Callable[[Path], T]) -> T:
    """What `read` makes of a file.

    Raises:
        InputError: where it fails.
    """
    try:
        return read(path)
    except InputError:
        raise
    except Exception as error:  # a reader of someone else's format may raise anything
        raise layout.unreadable(path, error) from error


def names_of(wnids: Sequence[str], words: Mapping[str, str]) -> tuple[str, ...]:
    """A name for each class: its first word, with the wnid where two have the same; the wnid where there are no words.

    Example:
        >>> names_of(["n02012849", "n03126707", "n99999999"], {"n02012849": "crane, bird", "n03126707": "crane"})
        ('crane (n02012849)', 'crane (n03126707)', 'n99999999')
    """
    first = [words[wnid].split(",")[0] if wnid in words else wnid for wnid in wnids]
    counts = Counter(first)
    return tuple(
        f"{name} ({wnid})" if counts[name] > 1 else name for name, wnid in zip(first, wnids, strict=True)
    )
