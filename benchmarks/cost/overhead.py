"""What the monitor costs a training: beside no callback, beside one written by hand, and part by part.

    python -m benchmarks.cost.overhead

Everything runs in one process, one call of each contender a round. The hooks are timed one by one, so that the cost of
the looks does not drown in the noise of the training around them.
"""

import argparse
import cProfile
import json
import logging
import pstats
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers import TensorBoardLogger

from benchmarks.common.measure import (
    Took,
    clock_interleaved,
    describe_machine,
    load_average,
    markdown_table,
    spread,
    write_section,
)
from benchmarks.cost import autotimm_callback as autotimm
from benchmarks.cost.by_hand import draw, draw_each, explain, log_figure
from benchmarks.cost.saliency_cost import Goal, in_forwards, noise
from benchmarks.cost.trainings import CLASSES, LAYER, NETWORKS, Run, photographs, resnet18, train
from lightning_gcam.loggers import log_saliency
from lightning_gcam.pipeline.attribution import attribute_in_chunks
from lightning_gcam.pipeline.model_outputs import logits_for_versions
from lightning_gcam.pipeline.record import SaliencyRecord, Stamp
from lightning_gcam.pipeline.scoring import score_maps
from lightning_gcam.shortcuts import Exchanges, measure_reliance
from lightning_gcam.shortcuts.checks import image_changes, removed_objects
from lightning_gcam.shortcuts.exchange import default_properties
from lightning_gcam.shortcuts.regions import regions_of_batch

MODEL_GOAL = 1.30  # forwards of the fixed batch, for model time and scores
PICTURE_GOAL = 0.060  # seconds, for rendering and logging
RIVAL_GOALS = {"small": 1 / 5, "resnet18": 1 / 3}  # of a look of the callback written by hand, without checks
CHECKED_GOAL = 1.0  # of it, with all checks
SETTINGS = ("size", "samples", "epochs", "batches", "threads")
PACKAGES = ["torch", "torchvision", "pytorch-lightning", "tensorboard", "grad-cam", "matplotlib"]
CALLBACKS = {
    "none": "none",
    "ours": "**SaliencyMonitor**, `checks=[]`",
    "checked": "**SaliencyMonitor**, all checks at every look",
    "default": "**SaliencyMonitor()**",
    "by_hand": "by hand: grad-cam, matplotlib",
}
if autotimm.is_installed():
    CALLBACKS["autotimm"] = "AutoTimm's InterpretationCallback"
MODEL, PICTURE = ["attribution", "scores"], ["rendering", "logging"]
TIMES = ["a look, ms", "quartiles", "processor, ms"]


# --------------------------------------------------------------------------------------------- training


def measure_training(options: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Every network with every callback, interleaved; the first round is a warm-up and does not count."""
    names = [(network, callback) for network in NETWORKS for callback in CALLBACKS]
    runs: dict[str, list[Run]] = {f"{network} {callback}": [] for network, callback in names}
    calls = {
        f"{network} {callback}": partial(
            train, NETWORKS[network], callback, options, root, runs[f"{network} {callback}"]
        )
        for network, callback in names
    }
    took = clock_interleaved(calls, options.rounds)
    return {
        name: {
            "took": took[name],
            "looks": [look for run in found[1:] for look in run.looks],
            "rest": [run.rest for run in found[1:]],
            "weights": sorted({run.weights for run in found}),
        }
        for name, found in runs.items()
    }


# ------------------------------------------------------------------------------------ one look, in parts


def parts_of_a_look(options: argparse.Namespace, root: Path) -> dict[str, Callable[[], object]]:
    """What one look consists of, ours and by hand, on resnet18; each part on the results of the one before."""
    torch.manual_seed(0)
    model = resnet18().eval()
    batch = photographs(options.samples, options.size)
    with torch.no_grad():  # a predicted class has evidence for it, so that no map comes out blank
        batch = replace(batch, labels=model(batch.images).argmax(dim=1))
    logger, steps = TensorBoardLogger(root), count()
    attribution, _ = attribute_in_chunks(model, batch, target_layer=LAYER)
    results = score_maps(attribution, batch)
    record = SaliencyRecord(batch, attribution, results.values, Stamp(), results)
    of_classes = replace(
        batch, labels=torch.arange(len(batch)) % CLASSES
    )  # backgrounds change between classes
    by_hand = (
        batch.images,
        *explain(model, batch.images, batch.labels, LAYER)[:1],
        batch.labels,
        batch.labels,
    )

    def check() -> object:
        maps, *_ = attribution.maps.values()
        annotated = regions_of_batch(of_classes)
        assert annotated is not None
        bare = removed_objects(of_classes.images, annotated)
        exchanges = Exchanges.of(of_classes, default_properties(), maps, annotated=annotated)
        assert exchanges is not None
        changes = image_changes(of_classes, maps, annotated=annotated, bare=bare)
        versions = {**changes, **exchanges.versions(bare)}
        outputs, _ = logits_for_versions(model, of_classes, versions, chunk_size=len(batch))
        logits = attribution.logits
        return (
            measure_reliance(of_classes, logits, outputs.logits, maps, own_sigmoids=False),
            exchanges.measure(logits, outputs.logits, own_sigmoids=False),
        )

    def render() -> object:
        return replace(record).overlay  # a copy has not drawn it yet

    def log() -> None:
        shown = replace(record, stamp=Stamp(next(steps)))
        shown.__dict__["overlay"] = record.overlay
        log_saliency(logger, shown)

    def log_each() -> None:
        step = next(steps)
        for index, figure in enumerate(draw_each(*by_hand)):
            log_figure(logger, figure, step, f"grad_cam/{index}")

    return {
        "forward": torch.no_grad()(lambda: model(batch.images)),
        "attribution": lambda: attribute_in_chunks(model, batch, target_layer=LAYER),
        "scores": lambda: score_maps(attribution, batch, baselines=results.baselines),
        "checks": check,
        "rendering": render,
        "logging": log,
        "by_hand_model": lambda: explain(model, batch.images, batch.labels, LAYER),
        "by_hand_figure": lambda: log_figure(logger, draw(*by_hand), next(steps)),
        "by_hand_figures": log_each,
    }


def together(parts: dict[str, list[Took]], names: Sequence[str]) -> list[Took]:
    """Several parts of one look, added up round by round."""
    rounds = zip(*(parts[name] for name in names), strict=True)
    return [Took(*(sum(clock) for clock in zip(*calls, strict=True))) for calls in rounds]


def middle(took: list[Took], clock: str = "wall") -> float:
    """The median, in seconds by one of the two clocks."""
    return spread([getattr(once, clock) for once in took]).median


def where_time_goes(call: Callable[[], object], calls: int = 3, most: int = 4) -> str:
    """The functions that take most of the time themselves, with their share."""
    with cProfile.Profile() as profile:
        for _ in range(calls):
            call()
    found: dict[Any, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    total = sum(row[2] for row in found.values())
    worst = sorted(found.items(), key=lambda item: -item[1][2])[:most]
    return ", ".join(f"{_short(key)} {row[2] / total:.0%}" for key, row in worst)


def _short(key: tuple[str, int, str]) -> str:
    path, _, name = key
    return f"`{name.strip('<>')}`" if path == "~" else f"`{Path(path).stem}.{name}`"


# ------------------------------------------------------------------------------------------- the report


def training_table(training: dict[str, Any]) -> str:
    """One row a network and callback."""
    header = ["", "callback", "training, s", "of none", *TIMES, "besides, ms", "weights"]
    rows = []
    for name, found in training.items():
        network, callback = name.split()
        plain = training[f"{network} none"]
        same = "the same" if found["weights"] == plain["weights"] else "OTHERS"
        looks = [*milliseconds(found["looks"]), f"{1000 * spread(found['rest']).median:.0f}", same]
        rows.append(
            [
                NETWORKS[network].label if callback == "none" else "",
                CALLBACKS[callback],
                f"{middle(found['took']):.2f}",
                f"{middle(found['took']) / middle(plain['took']):.2f}",
                *(looks if callback != "none" else [""] * len(looks)),
            ]
        )
    return markdown_table(header, rows)


def milliseconds(took: list[Took]) -> list[str]:
    """Median and quartiles on the wall's clock, and the median of processor time: the cells under `TIMES`."""
    if not took:
        return [""] * len(TIMES)
    found = spread([once.wall for once in took]).over(1e-3)
    quartiles = f"{found.lower:.0f} to {found.upper:.0f}"
    return [f"{found.median:.0f}", quartiles, f"{1000 * middle(took, 'processor'):.0f}"]


def parts_table(parts: dict[str, list[Took]]) -> str:
    """One row a part of a look."""
    rows = {
        "plain forward": ["forward"],
        "model time": ["attribution"],
        "scores": ["scores"],
        "rendering": ["rendering"],
        "logging": ["logging"],
        "**a look of ours**": MODEL + PICTURE,
        "causal checks": ["checks"],
        "**a look of ours with the checks**": [*MODEL, "checks", *PICTURE],
        "by hand: grad-cam": ["by_hand_model"],
        "by hand: one figure, `add_figure`": ["by_hand_figure"],
        "**a look by hand**": ["by_hand_model", "by_hand_figure"],
        "by hand: a figure a sample instead": ["by_hand_figures"],
    }
    cells = [
        [label, *milliseconds(took), *(f"{ratio(parts, names, clock):.2f}" for clock in Took._fields)]
        for label, names in rows.items()
        for took in [together(parts, names)]
    ]
    return markdown_table(["", "ms", *TIMES[1:], "in forwards", "of processor time"], cells)


def ratio(parts: dict[str, list[Took]], names: Sequence[str], clock: str = "wall") -> float:
    """Parts of a look, counted in plain forwards."""
    return middle(together(parts, names), clock) / middle(parts["forward"], clock)


def goals(training: dict[str, Any], parts: dict[str, list[Took]]) -> list[Goal]:
    """What a look may cost, on the wall's clock; the processor's beside it."""
    wall, processor = (ratio(parts, MODEL, clock) for clock in Took._fields)
    text = f"model time and scores for at most {MODEL_GOAL} forwards: {wall:.3f} (processor time {processor:.3f})"
    found = [Goal(text, wall, MODEL_GOAL)]
    wall, processor = (middle(together(parts, PICTURE), clock) for clock in Took._fields)
    text = f"rendering and logging in at most {1000 * PICTURE_GOAL:.0f} ms: {1000 * wall:.0f} ms"
    found.append(Goal(f"{text} (processor time {1000 * processor:.0f} ms)", wall, PICTURE_GOAL))
    kinds = {"ours": ("without checks", RIVAL_GOALS), "checked": ("with all checks", None)}
    for callback, (kind, limits) in kinds.items():
        for name, network in NETWORKS.items():
            ours, rival = (training[f"{name} {each}"]["looks"] for each in (callback, "by_hand"))
            wall, processor = (middle(ours, clock) / middle(rival, clock) for clock in Took._fields)
            limit = limits[name] if limits is not None else CHECKED_GOAL
            text = f"a look {kind} at most {limit:.2f} of one by hand, {network.label}: {wall:.2f}"
            found.append(Goal(f"{text} (processor time {processor:.2f})", wall, limit))
    return found


def report(options: argparse.Namespace, results: dict[str, Any]) -> str:
    """The section for `docs/benchmarks.md`: command, tables, goals, where the time goes, machine."""
    aims = goals(results["training"], results["parts"])
    machine = "; ".join(f"{key} {value}" for key, value in results["machine"].items())
    profile = [f"- {name}: {text}." for name, text in results["profile"].items()]
    lengths = ", ".join(f"{network.label} {network.times * options.batches}" for network in NETWORKS.values())
    return "\n".join(
        [
            f"`{command(options)}`\n",
            f"{options.epochs} epochs of so many batches: {lengths}; resnet18 at {options.size} px; a look at "
            f"{options.samples} samples after each epoch; medians of {options.rounds} rounds.\n",
            training_table(results["training"]) + "\n",
            f"One look in parts: resnet18, {options.samples} x 3 x {options.size} x {options.size}, masks, layer "
            f"`{LAYER}`; medians of {options.rounds} rounds.\n",
            parts_table(results["parts"]) + "\n",
            *(f"- Goal {aim}." for aim in aims),
            *(
                ["\nWhere the time goes, own time of the functions that take most:\n", *profile]
                if profile
                else []
            ),
            "",
            *noise(in_forwards(results["parts"])),
            f"Measured on: {machine}.",
        ]
    )


def command(options: argparse.Namespace) -> str:
    """The command line that measures the same again."""
    given = [f"--{key} {vars(options)[key]}" for key in (*SETTINGS, "rounds")]
    return " ".join(["python -m benchmarks.cost.overhead", *given])


# --------------------------------------------------------------------------------------------- the call


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, default=7, help="how often each is timed; at least 7 for a figure to publish")
    add("--size", type=int, default=224, help="height and width of resnet18's images")
    add("--samples", type=int, default=16, help="samples in a look")
    add("--epochs", type=int, default=3, help="epochs of each training")
    add(
        "--batches",
        type=int,
        default=3,
        help="resnet18's batches an epoch; the small network has ten times as many",
    )
    add("--threads", type=int, default=2, help="threads that torch may use")
    add("--output", type=Path, help="a Markdown page whose section overhead is written anew")
    add("--json", type=Path, help="a file for every single measurement")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All that is measured, as plain Python."""
    before = load_average()
    with tempfile.TemporaryDirectory() as folder:
        calls = parts_of_a_look(options, Path(folder) / "parts")
        parts = clock_interleaved(calls, options.rounds)
        training = measure_training(options, Path(folder) / "training")
        machine = describe_machine(PACKAGES)
        missed = [not aim.met for aim in goals(training, parts)]
        wanted = (MODEL if missed[0] else []) + (PICTURE if missed[1] else [])
        profile = {name: where_time_goes(calls[name]) for name in wanted}
    machine["load average"] = f"{before} before the timings, {machine['load average']} after"
    return {"parts": parts, "training": training, "profile": profile, "machine": machine}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write where asked to."""
    options = parse(arguments)
    warnings.simplefilter("ignore")  # Lightning's advice on tiny trainings
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_gcam"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(options.threads)
    results = measure(options)
    section = report(options, results)
    print(f"\n{section}")
    if options.json:
        settings = {key: vars(options)[key] for key in (*SETTINGS, "rounds")}
        options.json.write_text(json.dumps({"settings": settings, **results}, indent=1))
    if options.output:
        write_section(options.output, "overhead", section)


if __name__ == "__main__":
    main()
