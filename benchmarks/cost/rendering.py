"""What a look's picture costs to draw: by this package, by matplotlib, and by cv2 as grad-cam's helper does it.

    python -m benchmarks.cost.rendering

Everyone begins with the same tensors (images in [0, 1], maps in [0, 1], masks) and ends with one uint8 array; captions
are other ones at every call, as at every look of a training. Time is measured in one process, one call of each
contender a round; memory in fresh processes, one call each. Then ours alone, for larger images and for more of them.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import packages_distributions
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks import ROOT
from benchmarks.common.measure import (
    EXACT_MALLOC,
    Goal,
    Took,
    can_measure_memory,
    clock_interleaved,
    describe_machine,
    load_average,
    markdown_table,
    peak_extra_memory,
    spread,
    write_section,
)
from lightning_gcam import Attribution, SaliencyBatch
from lightning_gcam.pipeline.rendering import Style, draw

Pixels = npt.NDArray[np.uint8]
CV2 = packages_distributions()["cv2"][0]  # older releases of grad-cam bring the one with windows
PACKAGES = ["torch", "matplotlib", "grad-cam", CV2, "pillow"]
COLUMNS = 4  # samples side by side, by hand
CV2_GOAL = 3.0  # times cv2's time for the same picture
FEW, MANY = 4, 64  # samples of the images that grow; and those of one size that are many


class Scene(NamedTuple):
    """What is drawn: images `(N, 3, H, W)` in [0, 1], maps `(N, H, W)` in [0, 1], masks `(N, H, W)` bool, captions."""

    images: Tensor
    maps: Tensor
    masks: Tensor
    captions: list[str]


def set_scene(samples: int, size: int) -> Scene:
    """Smooth pictures, a blob of saliency and a disc as the object; always the same."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(samples, 3, 8, 8, generator=generator)
    images = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)
    line = torch.linspace(-1, 1, size)
    centers = torch.rand(samples, 2, 1, 1, generator=generator) - 0.5
    distance = (line[:, None] - centers[:, 0]) ** 2 + (line[None, :] - centers[:, 1]) ** 2
    return Scene(images, torch.exp(-distance * 12), distance < 0.15, captions_at(0, samples))


def captions_at(look: int, samples: int) -> list[str]:
    """Captions whose probabilities are other ones at the next look, and whose classes at the next but a few."""
    return [
        f"true class {index} · predicted class {index + look % 5} ({(13 * index + look) % 100 / 100:.2f})"
        for index in range(samples)
    ]


def at_each_look(draws: Callable[[Scene], Pixels], scene: Scene) -> Callable[[], Pixels]:
    """Draw a scene with the captions of the next look, at every call."""
    looks = count()
    return lambda: draws(scene._replace(captions=captions_at(next(looks), len(scene.maps))))


# ------------------------------------------------------------------------------------------ the contenders


def ours(scene: Scene) -> Pixels:
    """The picture of a look: captions, outlines, rings on the peaks, raw peaks, a legend."""
    labels = torch.zeros(len(scene.images), dtype=torch.long)
    maps, peaks = {"grad_cam": scene.maps}, {"grad_cam": torch.linspace(0.1, 0.9, len(labels))}
    attribution = Attribution(maps, torch.zeros(len(labels), 2), labels, "layer4", peaks, False)
    batch = SaliencyBatch(scene.images, labels, masks=scene.masks)
    return draw(batch, attribution, Style(), when="step 120 · epoch 3", texts=scene.captions)


def by_matplotlib(scene: Scene, complete: bool) -> Pixels:
    """One figure: image and overlay side by side, at a pixel a pixel; `complete`: with captions, outlines and peaks."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, side = -(-len(scene.maps) // COLUMNS), _side(scene)
    figure = Figure(figsize=(2.1 * COLUMNS * side / 100, 1.2 * rows * side / 100), dpi=100)
    figure.subplots_adjust(left=0, right=1, bottom=0, top=0.96, wspace=0.04, hspace=0.15)
    axes = figure.subplots(rows, 2 * COLUMNS, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    parts = zip(axes.reshape(-1, 2), *_arrays(scene), scene.captions, strict=False)
    for (left, right), picture, heat, mask, caption in parts:
        left.imshow(picture)
        right.imshow(picture)
        right.imshow(heat, cmap="inferno", alpha=0.5)
        if complete:
            left.set_title(caption, fontsize=6, loc="left")
            row, column = np.unravel_index(heat.argmax(), heat.shape)
            right.plot(column, row, "o", markerfacecolor="none", markeredgecolor="white")
            for axis in (left, right):
                axis.contour(mask, levels=[0.5], colors="cyan", linewidths=1)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def by_cv2(scene: Scene, complete: bool) -> Pixels:
    """`show_cam_on_image` for each sample, tiled beside its image; `complete`: with captions, outlines and peaks."""
    import cv2
    from pytorch_grad_cam.utils.image import show_cam_on_image

    side, cards = _side(scene), []
    for picture, heat, mask, caption in zip(*_arrays(scene), scene.captions, strict=True):
        overlay = show_cam_on_image(picture, heat, use_rgb=True)
        panels = [np.uint8(255 * picture), overlay]
        panels = [cv2.resize(each, (side, side), interpolation=cv2.INTER_NEAREST) for each in panels]
        if complete:
            large = cv2.resize(mask.astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST)
            lines, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            panels = [
                cv2.drawContours(np.ascontiguousarray(each), lines, -1, (64, 232, 255), 1) for each in panels
            ]
            row, column = (
                int(each * side / len(heat)) for each in np.unravel_index(heat.argmax(), heat.shape)
            )
            cv2.circle(panels[1], (column, row), 7, (255, 255, 255), 1, cv2.LINE_AA)
        card = np.hstack(panels)
        if complete:
            head = np.zeros((24, card.shape[1], 3), np.uint8)
            # its fonts know ASCII only
            cv2.putText(
                head,
                caption.replace("·", "-"),
                (4, 16),
                cv2.FONT_HERSHEY_SIMPLEX,
                0.4,
                (236,) * 3,
                1,
                cv2.LINE_AA,
            )
            card = np.vstack([head, card])
        cards.append(card)
    cards += [np.zeros_like(cards[0])] * (-len(cards) % COLUMNS)
    return np.vstack([np.hstack(cards[first : first + COLUMNS]) for first in range(0, len(cards), COLUMNS)])


def _arrays(scene: Scene) -> tuple[npt.NDArray[Any], ...]:
    return scene.images.permute(0, 2, 3, 1).numpy(), scene.maps.numpy(), scene.masks.numpy()


def _side(scene: Scene) -> int:
    """Small images are shown larger, by a whole factor, by everyone."""
    size = scene.maps.shape[-1]
    return size * max(1, 160 // size)


class Contender(NamedTuple):
    """A way to draw the picture.

    Args:
        label: in the table.
        draws: from a scene to pixels.
        modules: what it imports.
    """

    label: str
    draws: Callable[[Scene], Pixels]
    modules: Sequence[str]


AGG = [
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "matplotlib.contour",
    "matplotlib.font_manager",
]
CV2 = ["cv2", "pytorch_grad_cam.utils.image"]
CONTENDERS = {
    "ours": Contender("**lightning-gcam**, all of it", ours, ["matplotlib.font_manager"]),
    "matplotlib": Contender("matplotlib, images and heat alone", partial(by_matplotlib, complete=False), AGG),
    "matplotlib_complete": Contender(
        "matplotlib, the same picture", partial(by_matplotlib, complete=True), AGG
    ),
    "cv2": Contender("cv2, `show_cam_on_image`, tiled", partial(by_cv2, complete=False), CV2),
    "cv2_complete": Contender("cv2, the same picture", partial(by_cv2, complete=True), CV2),
}


# -------------------------------------------------------------------------------------------- measuring


def measure_memory(name: str, samples: int, size: int, threads: int) -> float:
    """MiB of one contender's second call (fonts and tables are there), from a process of its own."""
    scene = [f"--samples={samples}", f"--threads={threads}", f"--sizes={size}"]
    command = [sys.executable, "-m", "benchmarks.cost.rendering", *scene]
    environment = os.environ | EXACT_MALLOC
    done = subprocess.run(
        [*command, f"--memory-of={name}"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
        env=environment,
    )
    return float(done.stdout.splitlines()[-1])


def measure_memory_here(name: str, scene: Scene) -> float:
    for module in CONTENDERS[name].modules:
        importlib.import_module(module)
    CONTENDERS[name].draws(scene)
    return peak_extra_memory(partial(CONTENDERS[name].draws, scene))


def measure_size(options: argparse.Namespace, size: int) -> dict[str, dict[str, Any]]:
    """For each contender what its calls took, its picture's size, and its memory."""
    scene = set_scene(options.samples, size)
    took = clock_interleaved(
        {name: at_each_look(each.draws, scene) for name, each in CONTENDERS.items()}, options.rounds
    )
    found: dict[str, dict[str, Any]] = {}
    for name, each in CONTENDERS.items():
        height, width = each.draws(scene).shape[:2]
        remembers = options.memory and can_measure_memory()
        memory = measure_memory(name, options.samples, size, options.threads) if remembers else None
        found[name] = {"took": took[name], "pixels": [width, height], "memory": memory}
    return found


def measure_growth(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What ours takes for a few images of growing size, and for many of the first of `sizes`."""
    wanted = [(FEW, size) for size in options.growth] + [(MANY, options.sizes[0])] * bool(options.growth)
    scenes = {f"{samples} x {size} x {size}": set_scene(samples, size) for samples, size in wanted}
    took = clock_interleaved(
        {name: at_each_look(ours, each) for name, each in scenes.items()}, options.rounds
    )
    return {name: {"took": took[name], "pixels": each.maps.numel()} for name, each in scenes.items()}


# ------------------------------------------------------------------------------------------- the report


def table(found: dict[str, dict[str, Any]]) -> str:
    """One row a contender; times over the median of ours."""
    header = [
        "",
        "picture",
        "ms",
        "quartiles",
        "of ours",
        "processor time, of ours",
        "peak extra memory, MiB",
    ]
    walls, processors = (
        {name: _times(each["took"], clock) for name, each in found.items()} for clock in (0, 1)
    )
    rows = []
    for name, each in found.items():
        wall, memory = walls[name], each["memory"]
        rows.append(
            [
                CONTENDERS[name].label,
                "{} x {}".format(*each["pixels"]),
                f"{1e3 * wall.median:.0f}",
                f"{1e3 * wall.lower:.0f} to {1e3 * wall.upper:.0f}",
                f"{wall.median / walls['ours'].median:.2f}",
                f"{processors[name].median / processors['ours'].median:.2f}",
                "not measured" if memory is None else f"{memory:.0f}",
            ]
        )
    return markdown_table(header, rows)


def growth_table(found: dict[str, dict[str, Any]]) -> str:
    """One row a scene, with the time for each of its pixels."""
    rows = []
    for name, each in found.items():
        wall, processor = (_times(each["took"], clock).median for clock in (0, 1))
        rows.append(
            [name, f"{1e3 * wall:.0f}", f"{1e3 * processor:.0f}", f"{1e9 * wall / each['pixels']:.1f}"]
        )
    return markdown_table(["images", "ms", "processor, ms", "ns a pixel of the images"], rows)


def goal(size: int, found: dict[str, dict[str, Any]]) -> Goal:
    """What issue 16 asks for, on the wall's clock; the processor's beside it."""
    wall, processor = (
        _times(found["ours"]["took"], clock).median / _times(found["cv2_complete"]["took"], clock).median
        for clock in (0, 1)
    )
    text = f"at {size} pixels at most {CV2_GOAL:.0f} times cv2's same picture: {wall:.1f} times"
    return Goal(f"{text} (processor time {processor:.1f})", wall, CV2_GOAL)


def _times(took: Sequence[Took], clock: int) -> Any:
    return spread([once[clock] for once in took])


def report(
    options: argparse.Namespace,
    found: dict[int, dict[str, dict[str, Any]]],
    growth: dict[str, dict[str, Any]],
    machine: dict[str, str],
) -> str:
    """The section for `docs/benchmarks.md`: tables, goals, growth, machine."""
    sizes = " ".join(map(str, options.sizes))
    lines = [
        f"`python -m benchmarks.cost.rendering --samples {options.samples} --sizes {sizes} --threads {options.threads} "
        f"--rounds {options.rounds}`\n"
    ]
    for size, of_size in found.items():
        lines += [
            f"{options.samples} samples of {size} x {size}, one map each; medians of {options.rounds} rounds.\n"
        ]
        lines += [table(of_size) + "\n"]
    lines += [f"- Goal {goal(size, of_size)}." for size, of_size in found.items()]
    if growth:
        lines += ["\nOurs alone, for larger images and for more of them:\n", growth_table(growth)]
    lines += [""]
    return "\n".join(
        [*lines, f"Measured on: {'; '.join(f'{key} {value}' for key, value in machine.items())}."]
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--samples", type=int, default=16, help="how many samples the picture has")
    add("--sizes", type=int, nargs="+", default=[224, 32], help="heights and widths of the images")
    add("--growth", type=int, nargs="*", default=[512, 1024, 2048, 4096], help="sizes of a few larger images")
    add("--rounds", type=int, default=9, help="how often each is timed")
    add("--threads", type=int, default=1, help="threads that torch and cv2 may use")
    add("--no-memory", dest="memory", action="store_false", help="leave memory out")
    add("--output", type=Path, help="a Markdown page whose section rendering is written anew")
    add("--json", type=Path, help="a file for every single measurement")
    add("--memory-of", choices=CONTENDERS, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write where asked to."""
    options = parse(arguments)
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(measure_memory_here(options.memory_of, set_scene(options.samples, options.sizes[0])))
        return
    importlib.import_module("cv2").setNumThreads(options.threads)
    before = load_average()
    found = {size: measure_size(options, size) for size in options.sizes}
    growth = measure_growth(options)
    machine = describe_machine(PACKAGES)
    machine["load average"] = f"{before} before, {machine['load average']} after"
    section = report(options, found, growth, machine)
    print(f"\n{section}")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "found": found, "growth": growth}, indent=1))
    if options.output:
        write_section(options.output, "rendering", section)


if __name__ == "__main__":
    main()
