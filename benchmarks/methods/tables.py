"""The tables of `comparison.py`, made from the rows of the summary, and what they are read by."""

from collections.abc import Iterator, Sequence

from benchmarks.common.measure import markdown_table
from benchmarks.common.three_digits import BETTER, HIGH, LAYERS
from benchmarks.methods.networks import HEADS, LABELS
from benchmarks.methods.runs import SCORES
from benchmarks.methods.summary import ALL, CONTRASTS, GUIDANCE, Row, overall
from benchmarks.methods.variants import CONTROLS, FROM_EARLIER, VARIANTS

BASELINES = ("random", "centre")
BESIDE = [*CONTROLS, *VARIANTS, FROM_EARLIER]
NAMED = {"pooled": "pooled", "max-pooled": "max-pooled", "VGG-like": "VGG-like", ALL: "all three"}
COMPARED = ["grad_cam", "grad_cam_squared", "hires_cam"]


def rivals(rows: Sequence[Row], layer: str) -> list[Row]:
    """The rows of the other methods of the package: no control, no variant, no baseline."""
    return [row for row in overall(rows, layer) if row["method"] not in (GUIDANCE, *BESIDE, *BASELINES)]


# ----------------------------------------------------------------------------------------- words


def won(triple: Sequence[float | None]) -> bool:
    """Whether the whole interval is above 0."""
    return triple[1] is not None and triple[1] > 0


def lost(triple: Sequence[float | None]) -> bool:
    """Whether the whole interval is below 0."""
    return triple[2] is not None and triple[2] < 0


def verdicts(row: Row, key: str = "guidance_is_better_by") -> tuple[list[str], list[str]]:
    """The scores by which the first is better, and those by which the second is."""
    return [name for name in SCORES if won(row[key][name])], [name for name in SCORES if lost(row[key][name])]


def in_words(names: Sequence[str]) -> str:
    """A list of code words; "none" where it is empty."""
    words = [f"`{name}`" for name in names]
    return "none" if not words else " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def best_of(rows: Sequence[Row], score: str) -> float:
    """The best value of a score, as the tables show it."""
    values = [round(row["scores"][score][0], 3) for row in rows if row["scores"][score][0] is not None]
    return (max if BETTER[score] == HIGH else min)(values)


def place(rows: Sequence[Row], layer: str, score: str) -> int:
    """How many of the package's other methods are better than guidance, and one."""
    own = next(row for row in overall(rows, layer) if row["method"] == GUIDANCE)["scores"][score][0]
    others = [row["scores"][score][0] for row in rivals(rows, layer)]
    return 1 + sum((other - own) * BETTER[score] > 5e-4 for other in others if other is not None)


# ---------------------------------------------------------------------------------------- tables


def networks_table(rows: Sequence[Row]) -> str:
    """How right the networks are."""
    header = ["labels", *(f"{head} head" for head in HEADS)]
    table = []
    for labels in LABELS:
        of_head = {
            row["head"]: row["accuracy"]
            for row in rows
            if row["kind"] == "network" and row["labels"] == labels
        }
        table.append([labels, *(", ".join(f"{each:.0%}" for each in of_head[head]) for head in HEADS)])
    return markdown_table(header, table)


def scores_table(rows: Sequence[Row], layer: str) -> str:
    """Every method's scores at a layer; the best of the methods and baselines in bold."""
    header = ["", *(f"`{score}` ({'high' if BETTER[score] == HIGH else 'low'})" for score in SCORES), "blank"]
    methods = overall(rows, layer)
    best = {
        score: best_of([row for row in methods if row["method"] not in BESIDE], score) for score in SCORES
    }

    def cell(row: Row, score: str) -> str:
        value = row["scores"][score][0]
        if value is None:
            return ""
        bold = round(value, 3) == best[score] and row["method"] not in BESIDE
        return f"**{value:.3f}**" if bold else f"{value:.3f}"

    table = [[label(row), *(cell(row, score) for score in SCORES), f"{row['blank']:.0%}"] for row in methods]
    return markdown_table(header, table)


def differences_table(rows: Sequence[Row], layer: str) -> str:
    """By how much guidance is better than each method, and in how many of the conditions it is better : worse."""
    table = []
    for row in overall(rows, layer):
        if row["method"] != GUIDANCE:
            single = [each for each in conditions(rows, layer) if each["method"] == row["method"]]
            table.append([label(row), *(difference(row, single, score) for score in SCORES)])
    return markdown_table(["guidance against", *(f"`{score}`" for score in SCORES)], table)


def conditions(rows: Sequence[Row], layer: str) -> Iterator[Row]:
    """The methods' rows of single conditions at a layer."""
    of_methods = (row for row in rows if row["kind"] == "method" and row["layer"] == layer)
    return (row for row in of_methods if ALL not in (row["labels"], row["head"]))


def difference(row: Row, single: Sequence[Row], score: str) -> str:
    triple = row["guidance_is_better_by"][score]
    counts = [sum(sign(each["guidance_is_better_by"][score]) for each in single) for sign in (won, lost)]
    return f"{marked(triple)} ({counts[0]}:{counts[1]})"


def marked(triple: Sequence[float | None]) -> str:
    """A difference: bold where it is above 0 by its interval, in italics where it is below."""
    if triple[0] is None:
        return ""
    text = f"{triple[0]:+.3f}"
    return f"**{text}**" if won(triple) else f"*{text}*" if lost(triple) else text


def label(row: Row) -> str:
    """A method's name in a table; in italics a control or a variant."""
    name = f"`{row['method']}`"
    return f"*{name}*" if row["method"] in BESIDE else name


def contrasts_table(rows: Sequence[Row]) -> str:
    """By layer and head: what squaring adds to one factor, and what the other factor adds to that."""
    table = []
    for layer in LAYERS:
        for head in (*HEADS, ALL):
            for first, second in CONTRASTS:
                row = contrast(rows, layer, head, first, second)
                cells = (marked(row["scores"][score]) for score in SCORES)
                table.append([f"{layer}, {NAMED[head]}: `{first}` less `{second}`", *cells])
    return markdown_table(["", *(f"`{score}`" for score in SCORES)], table)


def contrast(rows: Sequence[Row], layer: str, head: str, first: str, second: str) -> Row:
    """The row of one contrast over both kinds of labels."""
    asked = {
        "kind": "contrast",
        "labels": ALL,
        "head": head,
        "layer": layer,
        "first": first,
        "second": second,
    }
    return next(row for row in rows if asked.items() <= row.items())


def kendall_table(rows: Sequence[Row]) -> str:
    """Kendall's tau between the scores' orders of the methods: above the diagonal at the last layer, below earlier."""
    last, earlier = (
        next(row["kendall"] for row in rows if row["kind"] == "scores" and row["layer"] == layer)
        for layer in LAYERS
    )
    table = [
        [
            f"`{score}`",
            *("" if i == j else f"{(last if j > i else earlier)[i][j]:.2f}" for j in range(len(SCORES))),
        ]
        for i, score in enumerate(SCORES)
    ]
    return markdown_table(["", *(f"`{score}`" for score in SCORES)], table)


def spearman_table(rows: Sequence[Row]) -> str:
    """How alike the methods' maps are to those of guidance and of what it is made of."""
    beside = [GUIDANCE, "grad_cam", "hires_cam"]
    header = ["", *(f"{layer}: `{name}`" for layer in LAYERS for name in beside)]
    of_layer = {row["layer"]: row for row in rows if row["kind"] == "maps"}
    names = [row["method"] for row in overall(rows, next(iter(LAYERS)))]
    table = []
    for name in names:
        cells = [correlation(of_layer[layer], name, other) for layer in LAYERS for other in beside]
        table.append([f"`{name}`", *cells])
    return markdown_table(header, table)


def correlation(row: Row, one: str, other: str) -> str:
    if one not in row["methods"]:
        return ""
    value = row["spearman"][row["methods"].index(one)][row["methods"].index(other)]
    return "" if value is None else f"{value:.2f}"


def cost_table(rows: Sequence[Row]) -> str:
    """What a map costs."""
    header = ["", "images asked a map", "time, in forwards", "processor time", "peak extra memory, MiB"]
    table = [
        [
            f"`{row['method']}`",
            f"{row['asked']:.0f}",
            f"{row['wall']:.1f}",
            f"{row['processor']:.1f}",
            "not measured" if row["memory"] is None else f"{row['memory']:.0f}",
        ]
        for row in rows
        if row["kind"] == "cost"
    ]
    return markdown_table(header, table)
