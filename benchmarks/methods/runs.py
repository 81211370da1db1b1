"""The runs of `comparison.py`: each network at each layer, all methods on the same images, each score of each sample.

A network at a layer is one line of JSON, rich enough that no table needs a training, a map or a forward again. A line
counts only where its fingerprint is that of the settings, the methods and the code that a run of today would use.
"""

import hashlib
import json
import multiprocessing
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks import ROOT
from benchmarks.common.three_digits import LAYERS, Targets
from benchmarks.methods.networks import (
    HEADS,
    LABELS,
    Trained,
    Unit,
    build_network,
    marks_of_classes,
    targets_of,
    train,
)
from benchmarks.methods.variants import CONTROLS, VARIANTS, with_guidance_from_earlier
from lightning_gcam import SaliencyBatch, attribute
from lightning_gcam.cam import available_methods
from lightning_gcam.metrics import resolve_scores
from lightning_gcam.metrics.measurement import ScoreKey
from lightning_gcam.metrics.registry import OutputNeeds
from lightning_gcam.metrics.samples import PerSample
from lightning_gcam.metrics.similarity import average_ranks
from lightning_gcam.pipeline.attribution import Attribution
from lightning_gcam.pipeline.model_outputs import outputs_for_perturbed
from lightning_gcam.pipeline.scoring import score_maps

SCORES = [
    "pointing_game",
    "energy",
    "rank_accuracy",
    "iou",
    "average_drop",
    "average_gain",
    "average_increase",
    "insertion",
    "deletion",
]
DIGITS = 5  # of every number that is kept


class Settings(NamedTuple):
    """What all runs share."""

    epochs: int = 20
    train_size: int = 2048
    samples: int = 48
    methods: tuple[str, ...] = ()

    @staticmethod
    def of(epochs: int, train_size: int, samples: int, methods: Sequence[str] = ()) -> "Settings":
        """With every method that the package knows for such a network, where none are named."""
        known = [
            each for each in available_methods() if not each.startswith("attention_") and each not in CONTROLS
        ]
        return Settings(epochs, train_size, samples, tuple(methods or known))


class Run(NamedTuple):
    """A network at a layer."""

    unit: Unit
    layer: str


def plan_runs(seeds: int) -> list[Run]:
    """Both kinds of labels, each head, each layer, seed after seed: the first results are of all conditions."""
    return [
        Run(Unit(labels, head, seed), layer)
        for seed in range(seeds)
        for labels in LABELS
        for head in HEADS
        for layer in LAYERS
    ]


# -------------------------------------------------------------------------------------- one of them


def measure(run: Run, settings: Settings, folder: Path) -> dict[str, Any]:
    """Explain the same digits by every method at one layer, and score every map; the line of this run."""
    began = time.process_time()
    trained = trained_network(run.unit, settings, folder)
    rows = targets_of(run.unit, settings.samples)
    attribution = explain(trained.network, rows, run.layer, settings.methods)
    return {
        **run.unit._asdict(),
        "layer": run.layer,
        "accuracy": trained.accuracy,
        "even": attribution.even_gradients,
        "values": score(trained.network, rows, attribution, run.unit.labels),
        "spearman": rank_correlations(list(attribution.maps.values())),
        "seconds": time.process_time() - began,
    }


def explain(network: nn.Module, rows: Targets, layer: str, methods: Sequence[str]) -> Attribution:
    """The maps of all methods, controls and variants."""
    everything = [*methods, *CONTROLS.values(), *VARIANTS.values()]
    attribution = attribute(
        network, rows.images, rows.classes, methods=everything, target_layer=LAYERS[layer]
    )
    if layer != "last":
        return attribution
    layers = LAYERS["earlier"], LAYERS["last"]
    return with_guidance_from_earlier(attribution, network, rows.images, rows.classes, layers)


def score(
    network: nn.Module, rows: Targets, attribution: Attribution, labels: str
) -> dict[str, dict[str, list[float | None]]]:
    """By method and score each sample's number, by the package's own scores; None where a sample is left out."""
    marks = marks_of_canvases(rows)
    batch = SaliencyBatch(rows.images, rows.classes if labels == "single" else marks, rows.masks)
    metrics = resolve_scores(SCORES)
    needs = OutputNeeds.of(metrics)
    outputs = outputs_for_perturbed(network, batch, attribution, needs, targets=rows.classes)
    results = score_maps(attribution, batch, metrics, outputs=outputs)
    found: dict[str, dict[str, list[float | None]]] = {}
    for name in attribution.maps:
        found[name] = {each: numbers(results.samples[ScoreKey(name, each)][1]) for each in SCORES}
    return found


def marks_of_canvases(rows: Targets) -> Tensor:
    """The marks `(N, K)` of the canvas that each row is of: of every class that is explained on the same image."""
    same = (rows.images.flatten(1)[:, None] == rows.images.flatten(1)[None]).all(dim=2).float()
    return (same @ marks_of_classes(rows.classes[:, None])).clamp(max=1)


def numbers(sample: PerSample) -> list[float | None]:
    pairs = zip(sample.values.tolist(), sample.counted.tolist(), strict=True)
    return [round(value, DIGITS) if counted else None for value, counted in pairs]


def rank_correlations(maps: Sequence[Tensor]) -> list[list[float | None]]:
    """Spearman's correlation of every two methods' maps, the mean over the samples; None where no map varies."""
    ranks = torch.stack([average_ranks(each.flatten(1)) for each in maps])
    centred = ranks - ranks.mean(dim=2, keepdim=True)
    length = centred.norm(dim=2, keepdim=True)
    varied = length > 1e-6
    unit = torch.where(varied, centred / torch.where(varied, length, 1.0), torch.nan)
    found = torch.einsum("mnp,knp->nmk", unit, unit).nanmean(dim=0)
    return [[None if value != value else round(value, DIGITS) for value in row] for row in found.tolist()]


# ------------------------------------------------------------------------------------ the trainings


def trained_network(unit: Unit, settings: Settings, folder: Path) -> Trained:
    """The network of a unit: as it was kept, or trained and kept."""
    code = ["methods/networks.py", "common/three_digits.py", "common/cues.py"]
    asked = [list(unit), settings.epochs, settings.train_size]
    path = folder / "comparison" / f"{fingerprint(asked, [ROOT / 'benchmarks' / name for name in code])}.pt"
    if path.exists():
        kept = torch.load(path, weights_only=True)
        network = build_network(unit.head)
        network.load_state_dict(kept["weights"])
        return Trained(network.eval(), kept["accuracy"])
    trained = train(unit, settings.epochs, settings.train_size)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    torch.save({"weights": trained.network.state_dict(), "accuracy": trained.accuracy}, unfinished)
    unfinished.replace(path)  # whole, or not there
    return trained


def fingerprint(asked: Any, files: Sequence[Path]) -> str:
    """The same for the same settings, the same code and the same torch."""
    found = hashlib.sha256(json.dumps([asked, version("torch")]).encode())
    for file in sorted(files):
        found.update(file.read_bytes())
    return found.hexdigest()[:16]


def fingerprint_of(settings: Settings) -> str:
    """Of everything that decides what a run measures."""
    package = ROOT / "lightning_gcam"
    files = [*(package / "cam").rglob("*.py"), *(package / "metrics").rglob("*.py")]
    files += [package / "pipeline" / name for name in ("attribution.py", "model_outputs.py", "scoring.py")]
    files += [ROOT / "benchmarks" / "common" / name for name in ("three_digits.py", "cues.py")]
    files += [ROOT / "benchmarks" / "methods" / f"{name}.py" for name in ("variants", "networks", "runs")]
    return fingerprint([list(settings), SCORES], files)


# ------------------------------------------------------------------------------------- all of them


def run_all(runs: Sequence[Run], settings: Settings, folder: Path, workers: int) -> list[dict[str, Any]]:
    """Measure what is not kept yet, in processes of their own; every run that ends is kept at once."""
    path, mark = folder / "comparison.jsonl", fingerprint_of(settings)
    done = read_runs(path, mark)
    missing = [run for run in runs if run not in done]
    folder.mkdir(parents=True, exist_ok=True)
    with tqdm(
        total=len(runs), initial=len(runs) - len(missing), desc="networks at layers", unit="run"
    ) as progress:
        for run, line in measure_each(missing, settings, folder, workers):
            done[run] = {"fingerprint": mark, **line}
            with path.open("a", encoding="utf-8") as file:
                file.write(f"\n{json.dumps(done[run])}\n")  # a line that was cut off ends here
            progress.set_postfix_str(" ".join([*map(str, run.unit), run.layer]))
            progress.update()
    return [done[run] for run in runs]


def read_runs(path: Path, mark: str) -> dict[Run, dict[str, Any]]:
    """The runs that a file holds; those of another fingerprint do not count, nor does a line that was cut off."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = [line for line in map(parse_line, lines) if line and line.get("fingerprint") == mark]
    return {Run(Unit(*(line[key] for key in Unit._fields)), line["layer"]): line for line in found}


def parse_line(text: str) -> dict[str, Any] | None:
    try:
        return dict(json.loads(text))
    except ValueError:
        return None


def measure_each(
    runs: Sequence[Run], settings: Settings, folder: Path, workers: int
) -> Iterator[tuple[Run, dict[str, Any]]]:
    """Each run with its line, as they end; here, one after another, where there are no workers.

    The layers of one network are one task, so that no two processes train the same one.
    """
    if not workers:
        yield from ((run, measure(run, settings, folder)) for run in runs)
        return
    context = multiprocessing.get_context("spawn")
    units = list(dict.fromkeys(run.unit for run in runs))
    with ProcessPoolExecutor(workers, mp_context=context, initializer=be_quiet) as pool:
        for layer in LAYERS:  # every network first at its last layer
            futures = {
                pool.submit(measure, Run(unit, layer), settings, folder): Run(unit, layer)
                for unit in units
                if Run(unit, layer) in runs
            }
            for future in as_completed(futures):
                yield futures[future], future.result()


def be_quiet() -> None:
    """One thread a process, and nothing between the progress bar's lines."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
