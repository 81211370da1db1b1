"""From the lines of `photographs.py` to tables: means over photographs, paired differences, and their intervals.

A photograph's number is the mean over the networks: what shares a photograph is not independent. Intervals are those of
Student's t over the photographs, for differences of the paired ones, at 95%.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from benchmarks.common.measure import markdown_table

Line = dict[str, Any]
Numbers = NDArray[np.float64]

FOUND, LAST_BLOCK = "found", "last block"
PLACES = (FOUND, LAST_BLOCK, "1/16", "1/8", "1/4")
"""The layers: the one that is found, the last block in front of it, and three whose grid is a share of the image."""
BETTER = {"energy": 1, "pointing_game": 1, "iou": 1, "insertion": 1, "deletion": -1}
"""The scores, and which end of them is the better one."""
IN_BOXES = ("energy", "pointing_game", "iou")
FILLS = 0.75
"""A box of a larger share of the image leaves too little room to miss it."""
GUIDANCE, CENTRE = "guidance_cam", "centre"
LEVEL = 0.95
LEAST = 0.0005
"""Less is 0.000 in a table, and decides nothing."""
STEPS = 5
"""Of insertion and of deletion."""
CHANNELS = 64
"""How many of a layer's channels Score-CAM takes as masks, at the most."""


class Estimate(NamedTuple):
    """A mean over photographs, half of its interval's width, and how many photographs there are."""

    mean: float
    half: float
    number: int

    @staticmethod
    def of(values: Numbers) -> "Estimate":
        """Of one number a photograph, NaN where there is none."""
        there = values[~np.isnan(values)]
        if len(there) < 2:
            return Estimate(float("nan"), float("nan"), len(there))
        quantile = student.ppf((1 + LEVEL) / 2, len(there) - 1)
        return Estimate(there.mean(), quantile * there.std(ddof=1) / len(there) ** 0.5, len(there))

    @property
    def decides(self) -> int:
        """1 or -1 where the interval lies on one side of 0, else 0."""
        return int(np.sign(self.mean)) if abs(self.mean) > max(self.half, LEAST) else 0


class Table:
    """The numbers of all lines, by where they were measured.

    Args:
        lines: of `photographs.py`.
    """

    def __init__(self, lines: Sequence[Line]) -> None:
        self.variants = sorted({line["variant"] for line in lines})
        self.places = [place for place in PLACES if place in {line["place"] for line in lines}]
        self.counted = np.array(lines[0]["shares"]) <= FILLS
        self.names = [name for line in lines for name in line["values"]]
        self.names = [name for name in dict.fromkeys(self.names) if name != CENTRE]
        self._values = {
            (line["variant"], line["place"], name, score): np.array(values, dtype=float)
            for line in lines
            for name, of_name in line["values"].items()
            for score, values in of_name.items()
        }

    def of(self, place: str, name: str, score: str) -> Numbers:
        """`(networks, photographs)`, NaN where a number is missing, or where a score of boxes has no room to miss."""
        missing = np.full(len(self.counted), np.nan)
        keys = [(each, FOUND if name == CENTRE else place, name, score) for each in self.variants]
        found = np.stack([self._values.get(key, missing) for key in keys])
        return np.where(self.counted, found, np.nan) if score in IN_BOXES else found

    def mean(self, place: str, name: str, score: str) -> Estimate:
        """Over photographs, of the means over networks."""
        return Estimate.of(over_networks(self.of(place, name, score)))

    def better_by(self, score: str, first: tuple[str, str], second: tuple[str, str]) -> Estimate:
        """By how much one method at a layer is better than another one, on the same photographs and networks.

        Args:
            score: its name; the difference is turned so that more is better.
            first: a layer's place, and a method.
            second: the same of what it is compared with.
        """
        differences = BETTER[score] * (self.of(*first, score) - self.of(*second, score))
        return Estimate.of(over_networks(differences))


def over_networks(values: Numbers) -> Numbers:
    """The mean over the networks that have a number, NaN where none has."""
    there = ~np.isnan(values)
    return np.where(there, values, 0).sum(axis=0) / np.where(there.any(axis=0), there.sum(axis=0), np.nan)


# ------------------------------------------------------------------------------------------------ tables


def tables(lines: Sequence[Line]) -> Iterator[str]:
    """All of the section."""
    table = Table(lines)
    yield introduction(lines, table)
    yield "\n".join(summaries(table))
    for place in table.places:
        yield f"### At {described(lines, place)}"
        yield markdown_table(
            ["", *(f"`{score}` ({'high' if sign > 0 else 'low'})" for score, sign in BETTER.items())],
            [
                [f"`{name}`", *(plain(table.mean(place, name, score)) for score in BETTER)]
                for name in (*table.names, CENTRE)
            ],
        )
        yield "By how much each is better than `guidance_cam`, paired:"
        yield compared(table, place, GUIDANCE)
        yield "By how much each is better than a blob in the middle (`centre`), paired:"
        yield compared(table, place, CENTRE)
    yield "### Which layer\n\nBy how much each method is better at another layer than at the one that is found, paired:"
    for score in ("energy", "pointing_game", "insertion"):
        yield by_layer(table, score)


WORDS = """
{photographs} photographs, EfficientNet-{networks} with ImageNet's weights, at their own input sizes; the photograph's
class is explained. They predict it for {right} of them.

`energy`, `pointing_game` and `iou` (at 0.3 of the peak) are of {counted} photographs. In the others ({filled})
boxes fill more than three quarters of the image: hardly any map could miss them. On the {counted} a uniform map has an
`energy` of {share:.2f}.

`insertion` and `deletion` ({steps} steps) run the network {images} times a map: they are of {asked} alone. Squared maps
have the order of pixels of their maps, but for the enlarging, and are left out there. So is HiResCAM at the found
layer, where it is Grad-CAM. Score-CAM costs the most: it is of that layer alone, and of the {channels} channels that
vary the most, out of 1,280.

A cell is the mean over photographs, and half of its 95% interval (Student's t). Several networks give one number a
photograph, their mean. Where no photograph is missed (a `pointing_game` of 1.000) the interval is too narrow: of
{counted} without a miss, the rate is above {least:.2f}.

**Bold**: better, *italic*: worse, by the interval. Of so many comparisons one in twenty is decided by chance.
"""


def introduction(lines: Sequence[Line], table: Table) -> str:
    """What was measured, and what is left out."""
    names, counted = lines[0]["photographs"], int(table.counted.sum())
    right = {line["variant"]: sum(line["right"]) for line in lines}
    asked = sorted({line["variant"] for line in lines if line["part"] != "maps"})
    return WORDS.strip().format(
        photographs=len(names),
        networks=", ".join(f"Lite{each}" for each in table.variants),
        right=", ".join(str(right[each]) for each in table.variants),
        counted=counted,
        filled=", ".join(name for name, counts in zip(names, table.counted, strict=True) if not counts),
        share=np.array(lines[0]["shares"])[table.counted].mean(),
        steps=STEPS,
        images=2 * STEPS + 2,
        asked=", ".join(f"Lite{each}" for each in asked),
        channels=CHANNELS,
        least=0.05 ** (1 / counted),
    )


def summaries(table: Table) -> Iterator[str]:
    """For each layer, which methods are better or worse than guidance, and by which scores."""
    for place in table.places:
        found = {name: decided(table, place, name) for name in table.names if name != GUIDANCE}
        words = [f"`{name}` ({text})" for name, text in found.items() if text]
        yield (
            f"- **{place}**: against `guidance_cam`, "
            + ("; ".join(words) if words else "no difference is decided")
            + "."
        )


def decided(table: Table, place: str, name: str) -> str:
    signs = {score: table.better_by(score, (place, name), (place, GUIDANCE)).decides for score in BETTER}
    sides = [
        (word, [f"`{score}`" for score in BETTER if signs[score] == sign])
        for word, sign in (("better by", 1), ("worse by", -1))
    ]
    return ", ".join(f"{word} {' and '.join(scores)}" for word, scores in sides if scores)


def described(lines: Sequence[Line], place: str) -> str:
    """A layer in words: its place, and its name in each network."""
    own = {line["variant"]: line["layer"] for line in lines if line["place"] == place}
    even = all(line["even"] for line in lines if line["place"] == place)
    layers = ", ".join(f'"{name}"' for name in dict.fromkeys(own.values()))
    words = {FOUND: "the layer that is found", LAST_BLOCK: "the last block, on the same grid"}
    name = words.get(place, f"the layer whose grid is {place} of the image")
    return f"{name} ({layers}{'; gradients constant over space' if even else ''})"


def compared(table: Table, place: str, other: str) -> str:
    """A row a method, against one other."""
    return markdown_table(
        ["", *(f"`{score}`" for score in BETTER)],
        [
            [
                f"`{name}`",
                *(marked(table.better_by(score, (place, name), (place, other))) for score in BETTER),
            ]
            for name in table.names
            if name != other
        ],
    )


def by_layer(table: Table, score: str) -> str:
    """A row a method, a column a layer."""
    found, *others = table.places
    return markdown_table(
        [f"`{score}`", found, *others],
        [
            [
                f"`{name}`",
                plain(table.mean(found, name, score)),
                *(marked(table.better_by(score, (place, name), (found, name))) for place in others),
            ]
            for name in table.names
        ],
    )


def plain(each: Estimate) -> str:
    return "" if np.isnan(each.mean) else f"{each.mean:.3f} ± {each.half:.3f}"


def marked(each: Estimate) -> str:
    """A difference: in bold where it is better by its interval, in italics where it is worse."""
    if np.isnan(each.mean):
        return ""
    mark = {1: "**", -1: "*", 0: ""}[each.decides]
    return f"{mark}{each.mean:+.3f}{mark} ± {each.half:.3f}"
