"""What the benchmarks share: interleaved timings, peak memory, the machine, goals, and a section of a Markdown page."""

import gc
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm


class Spread(NamedTuple):
    """A median and the quartiles around it."""

    lower: float
    median: float
    upper: float

    def over(self, unit: float) -> "Spread":
        """The same, counted in units."""
        return Spread(*(value / unit for value in self))


def spread(values: list[float]) -> Spread:
    """Median and quartiles; a single value is all three."""
    if len(values) == 1:
        return Spread(*values * 3)
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(lower, median, upper)


# ------------------------------------------------------------------------------------------------ time


class Took(NamedTuple):
    """Seconds of one call: on the wall's clock, and of processor time, over all threads."""

    wall: float
    processor: float


def time_interleaved(
    calls: Mapping[str, Callable[[], object]], rounds: int, between: Callable[[], object] = gc.collect
) -> dict[str, list[float]]:
    """Seconds of each call on the wall's clock, as `clock_interleaved` takes them."""
    took = clock_interleaved(calls, rounds, between)
    return {name: [once.wall for once in each] for name, each in took.items()}


def clock_interleaved(
    calls: Mapping[str, Callable[[], object]], rounds: int, between: Callable[[], object] = gc.collect
) -> dict[str, list[Took]]:
    """What each call took, once a round, after one round of warm-up that is not counted.

    A slow minute of a shared machine so falls on all of them alike. The order is drawn anew each round (always the
    same draws): in a fixed or rotating order every call would always run in the wake of the same other one.

    Args:
        calls: what to time, by name.
        rounds: how many times each is timed.
        between: runs before each call, outside of the clocks.
    """
    took: dict[str, list[Took]] = {name: [] for name in calls}
    draw = random.Random(0)
    with tqdm(total=(rounds + 1) * len(calls), desc="time", unit="call") as progress:
        for counted in [False] + [True] * rounds:
            for name in draw.sample(list(calls), len(calls)):
                progress.set_postfix_str(name)
                between()
                once = clock_once(calls[name])
                if counted:
                    took[name].append(once)
                progress.update()
    return took


def clock_once(call: Callable[[], object]) -> Took:
    """What one call took; its result is kept until the clocks have stopped."""
    wall, processor = time.perf_counter(), time.process_time()
    result = call()
    took = Took(time.perf_counter() - wall, time.process_time() - processor)
    del result
    return took


# ---------------------------------------------------------------------------------------------- memory


# For a process whose memory is measured: every tensor is a mapping of its own, gone from the resident memory when it is
# freed. With glibc's own settings up to 100 MiB stay behind in the heap, more or fewer from run to run.
EXACT_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def can_measure_memory() -> bool:
    """Whether the kernel keeps a peak that can be reset: Linux."""
    return Path("/proc/self/clear_refs").exists()


def peak_extra_memory(call: Callable[[], object]) -> float:
    """By how many MiB the resident memory of this process rose at most during one call.

    The peak is the kernel's own high-water mark, reset just before the call: nothing is sampled, so nothing is missed.
    """
    gc.collect()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # proc_pid_clear_refs(5): sets VmHWM back to VmRSS
    result = call()
    peak = resident("VmHWM")
    del result
    return peak - before


def resident(key: str) -> float:
    """A line of /proc/self/status, in MiB: VmRSS, resident now, or VmHWM, its high-water mark."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kibibytes = next(line.split()[1] for line in lines if line.startswith(f"{key}:"))
    return int(kibibytes) / 1024


# --------------------------------------------------------------------------------------- what it ran on


def describe_machine(packages: list[str]) -> dict[str, str]:
    """Where and when a measurement was made: date, processor, threads, how busy it was, versions."""
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "CPU": f"{cpu_name()}, {os.cpu_count()} cores",
        "threads": str(torch.get_num_threads()),
        "load average": load_average(),
        "system": f"{platform.system()}, Python {platform.python_version()}",
        **{package: version(package) for package in packages},
    }


def cpu_name() -> str:
    """The processor as the system calls it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    found = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)
    return found or platform.processor() or platform.machine()


def load_average() -> str:
    """How many processes wanted the processor in the last minute, where the system says so."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


# ------------------------------------------------------------------------------------------- the report


class Goal(NamedTuple):
    """What was aimed at, what came out, and whether that is enough."""

    text: str
    measured: float
    limit: float

    @property
    def met(self) -> bool:
        """Whether the measured value lies within the limit."""
        return self.measured <= self.limit

    def __str__(self) -> str:
        return f"{'met' if self.met else 'MISSED'}: {self.text}"


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    ruler = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, ruler, *rows])


def publish(path: Path | None, name: str, text: str) -> None:
    """Print a section, and write it into its page, where there is one."""
    print(text)
    if path is not None:
        write_section(path, name, text)


def measured_on(packages: list[str]) -> str:
    """The line under a table: on which machine, when and with what it was measured."""
    return f"Measured on: {'; '.join(f'{key} {value}' for key, value in describe_machine(packages).items())}."


def write_section(path: Path, name: str, text: str) -> None:
    """Write `text` between the markers of `name` in a Markdown page; the rest of the page stays as it is.

    Where the page has no such markers they are added at its end, and where there is no page it is made.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    section = f"{begin}\n{text.strip()}\n{end}"
    page = path.read_text(encoding="utf-8") if path.exists() else "# Benchmarks\n"
    if begin in page and end in page:
        head, rest = page.split(begin, 1)
        page = head + section + rest.split(end, 1)[1]
    else:
        page = f"{page.rstrip()}\n\n{section}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    print(f"written: {path}", file=sys.stderr)
