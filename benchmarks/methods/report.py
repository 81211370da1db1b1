"""The text of `comparison.py`, around its tables: made from the rows of the summary, no number is written by hand."""

from collections.abc import Callable, Sequence

from benchmarks.common.three_digits import LAYERS
from benchmarks.methods.networks import HEADS
from benchmarks.methods.runs import SCORES
from benchmarks.methods.summary import ALL, GUIDANCE, Row, overall
from benchmarks.methods.tables import (
    contrast,
    contrasts_table,
    cost_table,
    differences_table,
    in_words,
    kendall_table,
    lost,
    networks_table,
    place,
    rivals,
    scores_table,
    spearman_table,
    verdicts,
    won,
)
from benchmarks.methods.variants import FROM_EARLIER, VARIANTS

BEGINNING = """
Scikit-learn's digits, three on a canvas of 64 x 64, each in a quarter of its own, over scikit-image's photographs;
a mask for each digit. **Single**: three digits of one class, softmax, the mask is all three. **Multi**: three
classes, a sigmoid each; one digit is explained at a time and its mask is its own, so that a map which lights up
every digit loses. Three heads behind the same five convolutions, {seeds} seeds, {epochs} epochs of {train_size}
canvases; {samples} digits explained a network and layer, on canvases and grounds that were never trained on. The
last layer has a grid of 8 x 8, the earlier one (the third convolution) of 16 x 16. Images, layer and targets are
the same for every method; the scores are the package's own, the same code as in training ([scores.md](scores.md)).
A blank map is left out of a method's scores and counted (column *blank*); differences are over the samples that
both methods have.

How right the networks are on unseen canvases, seed by seed (multi: the share of digits among the three highest
logits):
"""

FIGURE = """
![Guidance against Grad-CAM, its square, and HiResCAM](images/comparison.png)

By how much guidance is better, over all heads and labels; 0 is no difference. Bars: intervals of 95%, by a
bootstrap over seeds and canvases.
"""

SCORES_WORDS = """
The mean over heads and labels, each alike. In italics: controls and variants (below; `hires_cam_squared` is
a method since). Bold: the best of the others.
"""

DIFFERENCES = """
The same as paired differences, turned so that **plus is good for guidance**: bold where the interval of 95% is
above 0, in italics where it is below. In brackets: in how many of the six conditions (labels by head) guidance is
better : worse, by its interval. Of so many comparisons one in twenty would be decided by chance alone.
"""

SQUARING = """
Guidance is a product of two maps, so a part of what it gains any map would gain by being squared. Squaring does not
change the order of pixels on the layer's grid: `pointing_game`, `rank_accuracy`, `insertion` and `deletion` can
change only by what the enlargement to the image makes of it.
"""

OTHER_READINGS = """
Other ways to read the abstract ([formulas](../benchmarks/methods/variants.py)). A guidance divided by its own
maximum, `G / max G`, is no variant: every map is scaled to its maximum, so it is the same map.
"""

COST = """
*Images asked* counts what goes through the model for one map, its own forward included. On so small a network what
lies beside the forwards weighs more than on a large one, where six maps cost 1.1 forwards
([benchmarks.md](benchmarks.md)).
"""

# ------------------------------------------------------------------------------------------- text


def where_it_wins(rows: Sequence[Row]) -> str:
    """One paragraph a layer: wins, losses, and its place by every score."""
    paragraphs = []
    for layer in LAYERS:
        others = rivals(rows, layer)
        pairs = [row["guidance_is_better_by"][score] for row in others for score in SCORES]
        wins, losses = (sum(map(sign, pairs)) for sign in (won, lost))
        places = {score: place(rows, layer, score) for score in SCORES}
        first = [score for score, each in places.items() if each == 1]
        behind = [score for score, each in places.items() if each > 1 + len(others) // 2]
        paragraphs.append(
            f"- **At the {layer} layer**, of {len(pairs)} comparisons with {len(others)} other methods by "
            f"{len(SCORES)} scores guidance wins {wins} and loses {losses}; {len(pairs) - wins - losses} are open. "
            f"{none_better(first)}More than half of the others are better by {in_words(behind)}. "
            "Its place among all, score by score: "
            + ", ".join(f"`{score}` {each}" for score, each in places.items())
            + "."
        )
    return "\n".join(paragraphs)


def none_better(first: Sequence[str]) -> str:
    """By which scores guidance is the best of all."""
    return (
        f"No other method is better by {in_words(first)}. "
        if first
        else "By every score some method is better. "
    )


def in_short(rows: Sequence[Row]) -> str:
    """What to take home: gains over Grad-CAM, how much of them squaring alone gives, and what is paid."""
    lines = []
    for layer in LAYERS:
        whole = contrast(rows, layer, ALL, GUIDANCE, "grad_cam")
        squared = contrast(rows, layer, ALL, "grad_cam_squared", "grad_cam")["scores"]
        gained, paid = verdicts(whole, "scores")
        gains = ", ".join(
            f"`{name}` {whole['scores'][name][0]:+.3f} (squaring alone: {squared[name][0]:+.3f})"
            for name in gained
        )
        lines.append(
            f"- Against Grad-CAM at the {layer} layer guidance gains {gains or 'nothing'}, and is worse by "
            f"{in_words(paid)}."
        )
    weak = [row for row in rows if row["kind"] == "network" and min(row["accuracy"]) < WEAK]
    names = " and ".join(f"{row['labels']}-label {row['head']}" for row in weak)
    pointing = sorted(rivals(rows, "last"), key=lambda row: -row["scores"]["pointing_game"][0])[:3]
    lines.append(
        f"- By `pointing_game` at the last layer {in_words([row['method'] for row in pointing])} are the best. "
        "(A digit is three cells of that layer high; maps at the image's own resolution can point better.)"
    )
    if weak:
        lines.append(f"- The {names} networks are weak (below), so their rows say the least.")
    return "\n".join(lines)


WEAK = 0.7
"""Networks that are less often right than this are named."""


def what_rectification_adds(rows: Sequence[Row]) -> str:
    """Squaring and rectification told apart, over all conditions of a layer."""
    sentences = []
    for layer in LAYERS:
        for factor, name in (("grad_cam", "Grad-CAM"), ("hires_cam", "HiResCAM")):
            squared = contrast(rows, layer, ALL, f"{factor}_squared", factor)
            rest = contrast(rows, layer, ALL, GUIDANCE, f"{factor}_squared")
            gained, paid = verdicts(squared, "scores")
            better, worse = verdicts(rest, "scores")
            sentences.append(
                f"- {layer} layer, {name}: **squaring alone** is better by {in_words(gained)}, worse by "
                f"{in_words(paid)}. **The other factor** adds to the square by {in_words(better)}, takes from it by "
                f"{in_words(worse)}."
            )
    same = [head for head in HEADS if is_the_square(rows, head)]
    heads = " and ".join(f"the {head} head" for head in same)
    sentences.append(
        f"- At the last layer under {heads} every difference to Grad-CAM squared is 0: there guidance *is* Grad-CAM "
        "squared ([why](method.md#when-it-is-grad-cam-squared)), and all it gains over Grad-CAM is what squaring gains."
        if same
        else "- Under no head is guidance Grad-CAM squared."
    )
    return "\n".join(sentences)


def is_the_square(rows: Sequence[Row], head: str) -> bool:
    """Whether guidance and Grad-CAM squared have the same scores at the last layer."""
    row = contrast(rows, "last", head, GUIDANCE, "grad_cam_squared")
    return all(abs(each) < 1e-3 for triple in row["scores"].values() for each in triple)


def better_throughout(rows: Sequence[Row], variant: str) -> bool:
    """Whether a variant is worse than guidance by no score at no layer where it exists, and better by some."""
    own = [row for layer in LAYERS for row in overall(rows, layer) if row["method"] == variant]
    lists = [verdicts(row) for row in own]
    return not any(wins for wins, _ in lists) and any(losses for _, losses in lists)


def variants_in_words(rows: Sequence[Row]) -> str:
    """By which scores each variant is better and worse than guidance, and whether one is better throughout."""
    lines = []
    for variant in (*VARIANTS, FROM_EARLIER):
        parts = []
        for layer in LAYERS:
            for row in overall(rows, layer):
                if row["method"] == variant:
                    worse, better = verdicts(row)
                    parts.append(f"{layer} layer: better by {in_words(better)}, worse by {in_words(worse)}")
        lines.append(f"- `{variant}`: {'; '.join(parts)}.")
    throughout = [name for name in (*VARIANTS, FROM_EARLIER) if better_throughout(rows, name)]
    verdict = (
        f"Better throughout (worse by no score at no layer): {in_words(throughout)}."
        if throughout
        else "**None is better throughout**, so none has a name of its own in the package, and the formula stays."
    )
    return "\n".join([*lines, "", verdict])


def agreement_in_words(rows: Sequence[Row]) -> str:
    """Which scores agree the least about the methods."""
    sentences = []
    for layer in LAYERS:
        taus = next(row["kendall"] for row in rows if row["kind"] == "scores" and row["layer"] == layer)
        pairs = {(i, j): taus[i][j] for i in range(len(SCORES)) for j in range(i)}
        (i, j), (k, m) = (pick(pairs, key=pairs.__getitem__) for pick in (min, max))
        sentences.append(
            f"At the {layer} layer `{SCORES[j]}` and `{SCORES[i]}` disagree the most about the methods "
            f"(tau {taus[i][j]:.2f}), `{SCORES[m]}` and `{SCORES[k]}` agree the most ({taus[k][m]:.2f})."
        )
    return " ".join(sentences)


def report(rows: Sequence[Row], command: str) -> str:
    """The whole section."""
    about = next(row for row in rows if row["kind"] == "about")
    parts = [
        "## A comparison on digits",
        f"`{command}`",
        in_short(rows),
        BEGINNING.format(seeds=about["seeds"], **about["settings"]),
        networks_table(rows),
        FIGURE,
        "### Where guidance wins, and where it loses",
        where_it_wins(rows),
        SCORES_WORDS,
        *by_layer(rows, scores_table),
        DIFFERENCES,
        *by_layer(rows, differences_table),
        "### What rectification adds, and what squaring does",
        SQUARING,
        what_rectification_adds(rows),
        contrasts_table(rows),
        "### Variants of the reading",
        OTHER_READINGS,
        variants_in_words(rows),
        "### How alike the methods are",
        "Spearman's correlation of the maps of the same sample, the mean over samples and networks:",
        spearman_table(rows),
        "Kendall's tau between the orders in which two scores put the methods; above the diagonal at the last layer, "
        "below it at the earlier one:",
        kendall_table(rows),
        agreement_in_words(rows),
        "### What a map costs",
        about["cost"] + COST,
        cost_table(rows),
        about["words"],
    ]
    return "\n\n".join(part.strip() for part in parts)


def by_layer(rows: Sequence[Row], table: Callable[[Sequence[Row], str], str]) -> list[str]:
    """One table a layer, each behind its name."""
    return [part for layer in LAYERS for part in (f"The {layer} layer:", table(rows, layer))]
