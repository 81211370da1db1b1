"""`make gpu`: the tests of `tests/gpu`, then the tables of `docs/gpu.md`, each within a time of its own.

It runs with any interpreter that has torch and Lightning; nothing is installed or downloaded. A test that fails does
not keep the tables from being measured; the exit status is the tests'.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

import torch

from benchmarks import ROOT
from benchmarks.cost.gpu import NO_DEVICE

TESTS_S, TABLES_S = 270, 190
"""Seconds; together with the imports less than eight minutes."""


def tests_command() -> list[str]:
    """Runs `tests/gpu` by itself: the settings of the whole suite name plugins that may not be there."""
    alone = [f"-c{os.devnull}", f"--rootdir={ROOT}", "--confcutdir=tests/gpu", "--import-mode=importlib"]
    command = [sys.executable, "-m", "pytest", "tests/gpu", "-m", "gpu", *alone, "-p", "no:cacheprovider"]
    command += ["-o", "markers=gpu: needs a CUDA device", "-q", "-ra", "--durations=10"]
    if find_spec("pytest_timeout") is not None:
        command += ["--timeout=120", f"--session-timeout={TESTS_S - 20}"]
    if find_spec("xdist") is not None:
        command += ["-n", str(max(1, min(4, (os.cpu_count() or 1) // 2)))]
    return command


def run(what: str, command: Sequence[str], seconds: int, extra: Mapping[str, str] | None = None) -> int:
    """The exit status of a command; 1 where it takes longer than it may."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, **(extra or {})}
    try:
        return subprocess.run(command, cwd=ROOT, env=environment, timeout=seconds).returncode
    except subprocess.TimeoutExpired:
        print(f"{what} took more than {seconds} seconds, and were stopped.", flush=True)
        return 1


def main(arguments: Sequence[str]) -> int:
    """Run both; the arguments are those of `benchmarks.cost.gpu`."""
    if not torch.cuda.is_available():
        print(NO_DEVICE)
        return 0
    status = 0
    if find_spec("pytest") is None:
        print("pytest is not installed here, so tests/gpu is left out; the tables are measured.", flush=True)
    else:
        status = run("The tests", tests_command(), TESTS_S, {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"})
    tables = [sys.executable, "-m", "benchmarks.cost.gpu", "--output", "docs/gpu.md", *arguments]
    run("The tables", tables, TABLES_S)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
