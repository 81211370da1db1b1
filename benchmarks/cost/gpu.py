"""What a look costs on a GPU: time, memory, how often the host waits, an evaluation's throughput, a training.

    python -m benchmarks.cost.gpu --output docs/gpu.md

`make gpu` runs it behind `tests/gpu`. It needs torch, Lightning, torchvision and this tree, and nothing is downloaded:
networks with random weights, drawn pictures. A part that fails is named in the page, and the others are measured.
"""

import argparse
import gc
import logging
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.common.measure import (
    Spread,
    Took,
    clock_interleaved,
    describe_machine,
    markdown_table,
    spread,
    write_section,
)
from benchmarks.cost.by_hand import draw, explain, log_figure
from benchmarks.cost.explainers import SIX_METHODS
from benchmarks.cost.trainings import CLASSES, Classifier, resnet18, small_network
from lightning_gcam import SaliencyBatch, SaliencyEvaluation, SaliencyMonitor, attribute
from lightning_gcam.loggers import log_saliency
from lightning_gcam.pipeline.config import LookConfig
from lightning_gcam.pipeline.record import LookHistory, SaliencyRecord, Stamp
from lightning_gcam.pipeline.run import analyze
from lightning_gcam.shortcuts import resolve_checks

LAYERS = {"resnet18": "layer4", "resnet50": "layer4", "vit_b_16": "encoder.layers.encoder_layer_11.ln_1"}
SETTINGS = ("device", "size", "batch", "large_batch", "rounds")
PACKAGES = ["torch", "torchvision", "pytorch-lightning"]
NO_DEVICE = "There is no CUDA device here, so nothing was measured, and docs/gpu.md stays as it is."
Call = Callable[[], object]


# ------------------------------------------------------------------------------------------------ the device


def finish(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


class Clocked:
    """A call between two CUDA events, with the device idle before and behind it."""

    def __init__(self, call: Call, device: torch.device) -> None:
        self.call, self.device = call, device
        self.between_events: list[float] = []

    def __call__(self) -> object:
        if self.device.type != "cuda":
            return self.call()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        result = self.call()
        end.record()
        torch.cuda.synchronize()
        self.between_events.append(begin.elapsed_time(end))
        return result


def clear(device: torch.device) -> None:
    """No garbage of the call before, and an idle device."""
    gc.collect()
    finish(device)


def peak_memory(call: Call, device: torch.device) -> float | None:
    """The most MiB that tensors took on the device at any time of a call, weights and images included."""
    if device.type != "cuda":
        return None
    clear(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    result = call()
    torch.cuda.synchronize()
    del result
    return float(torch.cuda.max_memory_allocated()) / 2**20


def count_waits(call: Call, device: torch.device) -> int | None:
    """How often the host waited for the device in a call, as torch warns of it."""
    if device.type != "cuda":
        return None
    clear(device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(each.message) for each in caught)


def describe_device(device: torch.device) -> dict[str, str]:
    """The card and what drives it, with the machine around it."""
    machine = describe_machine(PACKAGES)
    if device.type != "cuda":
        return {"device": "the CPU, in the place of a GPU", **machine}
    properties = torch.cuda.get_device_properties(device)
    card = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return {"card": card, "CUDA": str(torch.version.cuda), **machine}


# ------------------------------------------------------------------------------------------------ the samples


@cache
def pictures(n: int, size: int, seed: int = 0) -> SaliencyBatch:
    """Smooth pictures, normalized; labels in turn; a disc for an object. Noise could not be compressed."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 8, 8, generator=generator)
    images = nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)
    line = torch.linspace(-1, 1, size)
    centers = torch.rand(n, 2, 1, 1, generator=generator) - 0.5
    distance = (line[:, None] - centers[:, 0]) ** 2 + (line[None, :] - centers[:, 1]) ** 2
    return SaliencyBatch((images - 0.45) / 0.23, torch.arange(n) % CLASSES, distance < 0.15)


def network(name: str, device: torch.device) -> nn.Module:
    """A torchvision classifier with random weights, in eval mode."""
    from torchvision.models import get_model

    torch.manual_seed(0)
    model = get_model(name, weights=None, num_classes=CLASSES).eval()
    if name.startswith("vit"):
        nn.init.normal_(model.heads.head.weight, std=0.02)  # zero before training: every map would be blank
    return model.to(device)


# ------------------------------------------------------------------------------------------- one look, in parts


def look(model: nn.Module, batch: SaliencyBatch, layer: str, *, checks: bool) -> Callable[[], SaliencyRecord]:
    """A look as `SaliencyMonitor` takes it by default, with the looks before it known; with or without the checks."""
    names, history, steps = resolve_checks(None) if checks else (), LookHistory(), count()
    config = LookConfig(checks=names, draws_earlier=True).at_layers([layer], None)
    return lambda: analyze(model, batch, config, history=history, stamp=Stamp(next(steps)))


def parts_of_a_look(
    name: str, options: argparse.Namespace, device: torch.device, root: Path
) -> dict[str, Call]:
    """The rows of the table of one network."""
    model, layer = network(name, device), LAYERS[name]
    batch = pictures(options.batch, options.size).to(device)
    with torch.no_grad():  # a predicted class has evidence for it, so that no map comes out blank
        predicted = model(batch.images).argmax(dim=1)
    of_predicted = SaliencyBatch(batch.images, predicted, batch.masks)
    logger, steps = TensorBoardLogger(root), count()
    record = look(model, of_predicted, layer, checks=False)()

    def show() -> None:
        fresh = SaliencyRecord(
            record.batch, record.attribution, record.scores, Stamp(next(steps)), record.results
        )
        log_saliency(logger, fresh)  # draws the picture

    def by_hand() -> None:
        heatmaps, guesses = explain(model, batch.images, predicted, layer)
        log_figure(logger, draw(batch.images, heatmaps, predicted, guesses), next(steps))

    calls: dict[str, Call] = {
        "plain forward": torch.no_grad()(lambda: model(batch.images)),
        "six maps": partial(
            attribute, model, batch.images, predicted, methods=SIX_METHODS, target_layer=layer
        ),
        "**a look without checks**": look(model, of_predicted, layer, checks=False),
        "**a look with checks**": look(model, batch, layer, checks=True),
        "rendering and logging": show,
    }
    if find_spec("pytorch_grad_cam") is not None and not name.startswith("vit"):
        calls["by hand: grad-cam, one figure, `add_figure`"] = by_hand
    return calls


def measure_parts(name: str, options: argparse.Namespace, device: torch.device, root: Path) -> str:
    """A network's table: time, memory and waits of each part."""
    calls = {
        part: Clocked(call, device) for part, call in parts_of_a_look(name, options, device, root).items()
    }
    took = clock_interleaved(calls, options.rounds, between=partial(clear, device))
    memory = {part: peak_memory(each.call, device) for part, each in calls.items()}
    waits = {part: count_waits(each.call, device) for part, each in calls.items()}
    unit, least = middle(took["plain forward"]), memory["plain forward"]
    rows = []
    for part, each in calls.items():
        wall, peak = spread([once.wall for once in took[part]]), memory[part]
        events = each.between_events[-options.rounds :]
        rows.append(
            [
                part,
                *milliseconds(wall),
                f"{spread(events).median:.1f}" if events else "",
                f"{1000 * spread([once.processor for once in took[part]]).median:.1f}",
                f"{wall.median / unit:.2f}",
                f"{peak:.0f}" if peak is not None else "",
                f"{peak / least:.2f}" if peak is not None and least else "",
                str(waits[part]) if waits[part] is not None else "",
            ]
        )
    header = ["", "ms", "quartiles", "by CUDA events, ms", "processor, ms", "in forwards"]
    table = markdown_table([*header, "peak memory, MiB", "of the forward's", "waits"], rows)
    return f"### {name}, one look of {options.batch}\n\nLayer `{LAYERS[name]}`.\n\n{table}\n{_missing(name, rows)}"


def _missing(name: str, rows: list[list[str]]) -> str:
    if any(row[0].startswith("by hand") for row in rows):
        return ""
    why = "it would need a reshape of its own" if name.startswith("vit") else "grad-cam is not installed"
    return f"\nThe callback written by hand is left out: {why}.\n"


def measure_throughput(names: Sequence[str], options: argparse.Namespace, device: torch.device) -> str:
    """Images a second in larger batches."""
    rows = []
    for name in names:
        model, layer = network(name, device), LAYERS[name]
        batch = pictures(options.large_batch, options.size).to(device)
        calls: dict[str, Call] = {
            "forward": torch.no_grad()(lambda model=model, batch=batch: model(batch.images)),
            "maps": partial(
                attribute, model, batch.images, batch.labels, methods=SIX_METHODS, target_layer=layer
            ),
            "look": look(model, batch, layer, checks=False),
        }
        clocked = {part: Clocked(call, device) for part, call in calls.items()}
        took = clock_interleaved(clocked, options.rounds, between=partial(clear, device))
        rows.append([name, *(f"{len(batch) / middle(took[part]):.0f}" for part in calls)])
    table = markdown_table(["images a second", "plain forward", "six maps", "a look without checks"], rows)
    return f"### Throughput, batches of {options.large_batch}\n\n{table}\n"


# ---------------------------------------------------------------------------------------------- an evaluation


class Pace(pl.Callback):
    """Seconds from the first test batch to the end of the last, and how many images came; it stands last."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.images, self.begin, self.seconds = device, 0, 0.0, 0.0

    def on_test_batch_start(self, *_: Any, **__: Any) -> None:
        if not self.begin:
            finish(self.device)
            self.begin = time.perf_counter()

    def on_test_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        finish(self.device)
        self.images += len(batch[0])
        self.seconds = time.perf_counter() - self.begin


class Evaluated(Classifier):
    """Tested as it is validated."""

    test_step = Classifier.validation_step


def measure_evaluation(
    names: Sequence[str], options: argparse.Namespace, device: torch.device, root: Path
) -> str:
    """`SaliencyEvaluation` beside the same `trainer.test` without it, in images a second."""
    rows: list[list[str]] = []
    samples = pictures(options.large_batch, options.size)
    batch = (samples.images, samples.labels, samples.masks)
    loader = DataLoader(
        [batch] * 4, batch_size=None
    )  # ready made: putting batches together would take longest
    for name in names:
        module, layer, paces = Evaluated(network(name, device)), f"network.{LAYERS[name]}", {}
        for how in ("warm-up", "plain", "evaluated"):
            pace = Pace(device)
            evaluation = SaliencyEvaluation(
                methods=["guidance_cam", "grad_cam"],
                target_layer=layer,
                checks=[],
                directory=root / f"{name} {how}",
                on_error="raise",
            )
            trainer = quiet_trainer(device, root, [pace] if how == "plain" else [evaluation, pace])
            trainer.test(module, loader, verbose=False)
            paces[how] = pace.images / pace.seconds
        plain, evaluated = paces["plain"], paces["evaluated"]
        rows.append([name, f"{plain:.0f}", f"{evaluated:.0f}", f"{plain / evaluated:.2f}"])
    header = [
        "images a second",
        "plain `trainer.test`",
        "with `SaliencyEvaluation`, two methods",
        "times as long",
    ]
    return f"### An evaluation\n\n{markdown_table(header, rows)}\n"


def quiet_trainer(device: torch.device, root: Path, callbacks: list[Any], **options: Any) -> pl.Trainer:
    """A Trainer on one device that prints nothing."""
    settings: dict[str, Any] = {
        "accelerator": device.type if device.type == "cpu" else "cuda",
        "devices": 1,
        "callbacks": callbacks,
        "default_root_dir": root,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return pl.Trainer(**{**settings, **options})


# ------------------------------------------------------------------------------------------------ a training


TRAININGS = {"small CNN": (small_network, 64, 10), "resnet18": (resnet18, 0, 1)}
"""What builds the network, its images' size (0 for the command line's), and how many times as many batches."""


def train(
    name: str, precision: str, monitored: bool, options: argparse.Namespace, device: torch.device, root: Path
) -> list[Tensor]:
    """Train once, with a real TensorBoard logger; the weights at its end, on the host."""
    build, size, times = TRAININGS[name]
    pl.seed_everything(0, verbose=False)
    loaders = [
        loader(times * options.batches * options.batch, size or options.size, options.batch, seed=1),
        loader(2 * options.batch, size or options.size, options.batch, seed=2),
    ]
    module = Classifier(build())
    trainer = quiet_trainer(
        device,
        root,
        [SaliencyMonitor()] if monitored else [],
        max_epochs=options.epochs,
        precision=precision,
        logger=TensorBoardLogger(root),
        log_every_n_steps=1,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, *loaders)
    finish(device)
    return [each.detach().cpu() for each in module.state_dict().values()]


def loader(n: int, size: int, batch: int, seed: int) -> DataLoader[Any]:
    """Samples in memory."""
    samples = pictures(n, size, seed)
    data = TensorDataset(samples.images, samples.labels, samples.masks)
    return DataLoader(data, batch_size=batch, shuffle=seed == 1)


def measure_trainings(options: argparse.Namespace, device: torch.device, root: Path) -> str:
    """A training with `SaliencyMonitor()` beside the same one without, in fp32 and in bf16."""
    rows = []
    for name in TRAININGS:
        for precision in ("32-true", "bf16-mixed"):
            weights: dict[str, list[Tensor]] = {}

            def once(how: str, name: str = name, precision: str = precision, weights: Any = weights) -> None:
                weights[how] = train(name, precision, how == "monitored", options, device, root)

            calls = {how: partial(once, how) for how in ("plain", "monitored")}
            took = clock_interleaved(calls, max(options.rounds // 2, 1), between=partial(clear, device))
            plain, with_ = middle(took["plain"]), middle(took["monitored"])
            same = all(torch.equal(*pair) for pair in zip(*weights.values(), strict=True))
            rows.append(
                [
                    f"{name}, {precision}",
                    f"{plain:.2f}",
                    f"{with_:.2f}",
                    f"{with_ / plain:.2f}",
                    f"{1000 * (with_ - plain) / options.epochs:.0f}",
                    "the same" if same else "OTHERS",
                ]
            )
    header = ["", "training, s", "with `SaliencyMonitor()`, s", "of it", "more an epoch, ms", "weights"]
    of_each = ", ".join(f"{name} {times * options.batches}" for name, (_, _, times) in TRAININGS.items())
    text = (
        f"{options.epochs} epochs of so many batches of {options.batch}: {of_each}; a look after each. The weights can "
        "only be the same where the training by itself comes out the same twice, which cuDNN does not promise."
    )
    return f"### A training\n\n{text}\n\n{markdown_table(header, rows)}\n"


# ------------------------------------------------------------------------------------------------- the report


def middle(took: list[Took]) -> float:
    """The median, in seconds on the wall's clock."""
    return spread([once.wall for once in took]).median


def milliseconds(wall: Spread) -> list[str]:
    """Median and quartiles in ms."""
    found = wall.over(1e-3)
    return [f"{found.median:.1f}", f"{found.lower:.1f} to {found.upper:.1f}"]


def command(options: argparse.Namespace) -> str:
    """The command line that measures the same again."""
    given = [f"--{key.replace('_', '-')} {vars(options)[key]}" for key in SETTINGS]
    return " ".join(["python -m benchmarks.cost.gpu --models", *options.models, *given])


def blocks(options: argparse.Namespace, device: torch.device, root: Path) -> Mapping[str, Callable[[], str]]:
    """The tables, in the order of the page."""
    parts = {name: partial(measure_parts, name, options, device, root / name) for name in options.models}
    return {
        **parts,
        "throughput": partial(measure_throughput, options.models, options, device),
        "evaluation": partial(measure_evaluation, options.models, options, device, root / "evaluation"),
        "training": partial(measure_trainings, options, device, root / "training"),
    }


def measure(options: argparse.Namespace, device: torch.device) -> None:
    """All tables; each is printed, and written beside those before it, at once: the time may run out."""
    machine = "; ".join(f"{key} {value}" for key, value in describe_device(device).items())
    head = (
        f"`{command(options)}`\n\nImages of {options.size} px, random weights, medians of {options.rounds} interleaved "
        f"rounds.\n\nMeasured on: {machine}.\n"
    )
    text = head
    print(head)
    with tempfile.TemporaryDirectory() as folder:
        for name, block in blocks(options, device, Path(folder)).items():
            try:
                table = block()
            except Exception as error:
                traceback.print_exc()
                why = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
                table = f"**{name} could not be measured**: {why}\n"
            print(f"\n{table}", flush=True)
            text += f"\n{table}"
            clear(device)
            if options.output:
                write_section(options.output, "gpu", text)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--device", default="cuda", choices=["cuda", "cpu"], help="cpu: to try the code, not to measure")
    add("--models", nargs="+", default=["resnet50", "vit_b_16"], choices=LAYERS, help="what is explained")
    add("--size", type=int, default=224, help="height and width of the images")
    add("--batch", type=int, default=16, help="samples in a look, and in a batch of the trainings")
    add("--large-batch", type=int, default=64, help="samples in a batch, for the throughput")
    add("--rounds", type=int, default=7, help="how often each is timed")
    add("--epochs", type=int, default=3, help="epochs of each training")
    add(
        "--batches",
        type=int,
        default=8,
        help="resnet18's batches an epoch; the small network has ten times as many",
    )
    add("--output", type=Path, help="a Markdown page whose section gpu is written anew")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write where asked to."""
    options = parse(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print(NO_DEVICE)
        return
    warnings.simplefilter("ignore")  # Lightning's advice on tiny trainings
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_gcam"):
        logging.getLogger(name).setLevel(logging.ERROR)
    measure(options, torch.device(options.device))


if __name__ == "__main__":
    main()
