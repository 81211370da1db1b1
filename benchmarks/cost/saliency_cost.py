"""What one look costs, beside other explainers: time in forwards, memory in MiB, and whether the maps agree.

    python -m benchmarks.cost.saliency_cost

Time is measured in one process, one call of each contender a round. Memory is measured in fresh processes, one
contender each: the script calls itself for that.
"""

import argparse
import gc
import importlib
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks import ROOT
from benchmarks.common.measure import (
    EXACT_MALLOC,
    Goal,
    Spread,
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
from benchmarks.cost.explainers import (
    CONTENDERS,
    GRAD_CAM_FIVE,
    TORCHCAM_FOUR,
    VOLUMES,
    Contender,
    Scene,
    forward,
    grad_cam,
    ours,
    set_scene,
    set_volume_scene,
    torchcam,
)
from lightning_gcam.utils.errors import InputError

TIME_GOAL = 1.10  # forwards, for six maps
MEMORY_GOAL = 1 / 3  # of the leanest other library's extra memory
SETTINGS = ("model", "batch", "size", "layer", "threads", "volume")
PACKAGES = ["torch", "torchvision", "grad-cam", "torchcam", "captum"]
ALL = {**CONTENDERS, **VOLUMES}
RIVALS = ("torchcam_one", "captum_one", "grad_cam_one", "monai_one")


class Results(NamedTuple):
    """All that one run measured: for each contender its times and MiB, and what holds for the run."""

    took: dict[str, list[Took]]
    memory: dict[str, list[float]]
    agreement: dict[str, float]
    machine: dict[str, str]


# ----------------------------------------------------------------------------------------- measurements


def measure_time(contenders: Mapping[str, Contender], scene: Scene, rounds: int) -> dict[str, list[Took]]:
    """What the calls of those took that can be measured; no call finds gradients that another one left behind."""
    able = {name: each for name, each in contenders.items() if each.is_installed and accepts(each, scene)}
    calls = {name: partial(contender.run, scene) for name, contender in able.items()}
    return clock_interleaved(calls, rounds, between=partial(clean, scene))


def accepts(contender: Contender, scene: Scene) -> bool:
    """Whether a contender explains such images at all."""
    try:
        contender.run(scene)
    except InputError as error:
        print(f"{contender.label}: {error}", file=sys.stderr)
        return False
    return True


def clean(scene: Scene) -> None:
    """No gradients and no garbage of the call before."""
    scene.model.zero_grad()
    gc.collect()


def measure_memory(options: argparse.Namespace, names: Sequence[str]) -> dict[str, list[float]]:
    """MiB of these contenders' calls, each from fresh processes."""
    memory: dict[str, list[float]] = {name: [] for name in names}
    with tqdm([*names] * options.memory_rounds, desc="memory", unit="process") as progress:
        for name in progress:
            progress.set_postfix_str(name)
            memory[name].append(measure_memory_apart(name, options))
    return memory


def measure_memory_apart(name: str, options: argparse.Namespace) -> float:
    """MiB of one contender's call, from a process of its own."""
    scene = [f"--{key}={vars(options)[key]}" for key in SETTINGS]
    command = [sys.executable, "-m", "benchmarks.cost.saliency_cost", *scene, f"--memory-of={name}"]
    environment = os.environ | EXACT_MALLOC
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=environment)
    return float(done.stdout.splitlines()[-1])


def measure_memory_here(name: str, scene: Scene) -> float:
    """MiB of one contender's only call in this process, after one plain forward and after its imports."""
    for module in ALL[name].modules:
        importlib.import_module(module)
    forward(scene)
    return peak_extra_memory(partial(ALL[name].run, scene))


def measure_agreement(scene: Scene) -> dict[str, float]:
    """The largest difference between our Grad-CAM maps and another library's, on a scale from 0 to 1."""
    mine = stretched(ours(scene, ["grad_cam"])[0])
    theirs = {"grad-cam": grad_cam(scene, GRAD_CAM_FIVE[:1]), "torchcam": torchcam(scene, TORCHCAM_FOUR[:1])}
    return {name: float((stretched(maps[0]) - mine).abs().max()) for name, maps in theirs.items()}


def stretched(maps: Tensor) -> Tensor:
    """Each map from its minimum, 0, to its maximum, 1: the other two subtract the minimum, ours does not."""
    lowest, highest = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (maps - lowest) / (highest - lowest)


# ------------------------------------------------------------------------------------------- the report


def in_forwards(
    took: dict[str, list[Took]], clock: str = "wall", forward: str = "forward"
) -> dict[str, Spread]:
    """Every contender's times by one of the two clocks, counted in median plain forwards."""
    seconds = {name: spread([getattr(once, clock) for once in all_]) for name, all_ in took.items()}
    unit = seconds[forward].median
    return {name: each.over(unit) for name, each in seconds.items()}


def goals(times: dict[str, Spread], memory: dict[str, list[float]]) -> list[Goal]:
    """What issue 2 asks for."""
    six = times["ours_six"].median
    found = [Goal(f"six maps for at most {TIME_GOAL:.2f} forwards: {six:.3f}", six, TIME_GOAL)]
    if memory:
        found.append(memory_goal({name: spread(values).median for name, values in memory.items()}))
    return found


def memory_goal(memory: dict[str, float]) -> Goal:
    """Six maps of ours against the leanest of the other libraries, which computes one."""
    leanest = min((name for name in RIVALS if name in memory), key=memory.__getitem__)
    share = memory["ours_six"] / memory[leanest]
    text = (
        f"six maps in at most a third of any other's extra memory: {memory['ours_six']:.0f} MiB, {share:.2f} of "
        f"{memory[leanest]:.0f} MiB ({CONTENDERS[leanest].label})"
    )
    return Goal(text, share, MEMORY_GOAL)


def table(
    contenders: Mapping[str, Contender],
    took: dict[str, list[Took]],
    memory: dict[str, list[float]],
    forward: str = "forward",
) -> str:
    """One row a contender, also of one that could not be measured."""
    header = ["", "maps", "time, in forwards", "quartiles", "processor time", "peak extra memory, MiB"]
    walls, processors = in_forwards(took, forward=forward), in_forwards(took, "processor", forward)
    rows = []
    for name, contender in contenders.items():
        cells = ["refuses them" if contender.is_installed else "not installed", "", "", ""]
        if name in took:
            wall = walls[name]
            cells = [
                f"{wall.median:.2f}",
                f"{wall.lower:.2f} to {wall.upper:.2f}",
                f"{processors[name].median:.2f}",
                f"{spread(memory[name]).median:.0f}" if memory else "not measured",
            ]
        rows.append([contender.label, str(contender.maps), *cells])
    return markdown_table(header, rows)


def volumes(options: argparse.Namespace, results: Results) -> list[str]:
    """The lines about volumes; none where they were left out."""
    if "volume_forward" not in results.took:
        return []
    size = (options.volume // 2, options.volume, options.volume)
    unit = spread([once.wall for once in results.took["volume_forward"]]).median
    return [
        f"The same on volumes: torchvision's r3d_18, 1 x 3 x {' x '.join(map(str, size))}, layer `layer4`; one forward "
        f"took {1000 * unit:.0f} ms.\n",
        table(VOLUMES, results.took, results.memory, "volume_forward") + "\n",
    ]


def report(options: argparse.Namespace, results: Results) -> str:
    """The section for `docs/benchmarks.md`: command, table, goals, agreement, machine."""
    unit = spread([once.wall for once in results.took["forward"]]).median
    agreement = ", ".join(f"{name} {value:.1e}" for name, value in results.agreement.items())
    machine = "; ".join(f"{key} {value}" for key, value in results.machine.items())
    lines = [
        f"`{command(options)}`\n",
        f"{options.model} (random weights, eval mode), {options.batch} x 3 x {options.size} x {options.size}, "
        f"layer `{options.layer}`; medians of {options.rounds} rounds; one forward took {1000 * unit:.0f} ms.\n",
        table(CONTENDERS, results.took, results.memory) + "\n",
        *volumes(options, results),
        *(f"- Goal {goal}." for goal in goals(in_forwards(results.took), results.memory)),
        f"- Largest difference of our Grad-CAM maps from others', of 1: {agreement}.\n",
        *noise(in_forwards(results.took)),
        f"Measured on: {machine}.",
    ]
    return "\n".join(lines)


def noise(times: dict[str, Spread]) -> list[str]:
    """A warning where one and the same call took so differently long that the times cannot be told apart."""
    unit = times["forward"]
    if unit.upper - unit.lower <= TIME_GOAL - 1:
        return []
    return [
        f"**The machine was busy with other work**: half of the plain forwards took less than {unit.lower:.2f} or more "
        f"than {unit.upper:.2f} of their own median, so differences smaller than that mean nothing here, and a goal "
        "for the time is neither met nor missed by them. Measure on an idle machine.\n"
    ]


def command(options: argparse.Namespace) -> str:
    """The command line that measures the same again."""
    given = [f"--{key} {vars(options)[key]}" for key in (*SETTINGS, "rounds")]
    return " ".join(["python -m benchmarks.cost.saliency_cost", *given])


# --------------------------------------------------------------------------------------------- the call


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, default=9, help="how often each is timed; at least 7 for a figure to publish")
    add("--memory-rounds", type=int, default=1, help="fresh processes for each; 0 leaves memory out")
    add("--model", default="resnet50", help="any torchvision classifier")
    add("--batch", type=int, default=8, help="images in the batch")
    add("--size", type=int, default=224, help="height and width of the images")
    add("--layer", default="layer4", help="where the maps are taken")
    add("--volume", type=int, default=64, help="height and width of the volumes; 0 leaves them out")
    add("--threads", type=int, default=2, help="threads that torch may use")
    add("--output", type=Path, help="a Markdown page whose section saliency_cost is written anew")
    add("--json", type=Path, help="a file for every single measurement")
    add("--memory-of", choices=ALL, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace, scene: Scene) -> Results:
    """All that is measured."""
    before = load_average()
    took = measure_time(CONTENDERS, scene, options.rounds)
    if options.volume:
        took |= measure_time(VOLUMES, set_volume_scene(1, options.volume), options.rounds)
    machine = describe_machine(
        PACKAGES + [name for name in ["monai"] if CONTENDERS["monai_one"].is_installed]
    )
    machine["load average"] = f"{before} before the timings, {machine['load average']} after"
    wanted = options.memory_rounds > 0 and can_measure_memory()
    memory = measure_memory(options, list(took)) if wanted else {}
    return Results(took, memory, measure_agreement(scene), machine)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write where asked to."""
    options = parse(arguments)
    warnings.simplefilter("ignore")  # the libraries' own, about hooks and deprecated names
    torch.set_num_threads(options.threads)
    if options.memory_of in VOLUMES:
        scene = set_volume_scene(1, options.volume)
    else:
        scene = set_scene(options.model, options.batch, options.size, options.layer)
    if options.memory_of:
        print(measure_memory_here(options.memory_of, scene))
        return
    results = measure(options, scene)
    section = report(options, results)
    print(f"\n{section}")
    if options.json:
        settings = {key: vars(options)[key] for key in (*SETTINGS, "rounds")}
        options.json.write_text(json.dumps({"settings": settings, **results._asdict()}, indent=1))
    if options.output:
        write_section(options.output, "saliency_cost", section)


if __name__ == "__main__":
    main()
