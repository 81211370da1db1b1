"""Scripts in processes of their own, one or several that know of each other as under torchrun.

A Python process needs many seconds to import torch and both Lightning packages. Here one server imports them once,
and each process is a fork of it: real processes with memory of their own, whose parent ran no network and no thread.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
GRACE = 5.0
"""Seconds that the others have to end where one process failed."""


@dataclass(frozen=True)
class Ended:
    """How the processes ended, one code each, and what they wrote to standard output and error."""

    codes: tuple[int, ...]
    said: str

    @property
    def returncode(self) -> int:
        """Of the first process that failed; 0 where none did."""
        return next((code for code in self.codes if code), 0)


def run_script(
    script: str,
    *arguments: str,
    processes: int = 1,
    timeout: float = 250,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Run a module (as `python -m` does) or a file of the repository, from its root.

    Args:
        script: the module's name, or the file's path below the root.
        arguments: of the command line.
        processes: how many run it; several find each other through the variables that torchrun sets. Where one fails,
            the others are ended.
        timeout: seconds for all together.
        environment: further variables.
    """
    context = server()
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(environment or {})}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "said"
        port = free_port()
        started = [
            context.Process(
                target=_run,
                args=(script, arguments, {**variables, **_place(rank, processes, port)}, str(log)),
            )
            for rank in range(processes)
        ]
        for each in started:
            each.start()
        codes = _wait(started, timeout)
        return Ended(codes, log.read_text(errors="replace") if log.exists() else "")


@cache
def server() -> Any:
    """The context of processes that are forks of a server; one for each process of the tests."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.preloaded"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)  # the server reads it when it starts
    try:
        from multiprocessing import forkserver

        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return context


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _place(rank: int, processes: int, port: int) -> dict[str, str]:
    """What torchrun tells a process of the others."""
    if processes == 1:
        return {}
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "tests",
    }


def _wait(started: list[Any], timeout: float) -> tuple[int, ...]:
    """The processes' codes; all are over when this returns."""
    until = time.monotonic() + timeout
    while any(each.exitcode is None for each in started):
        if time.monotonic() > until:
            _end(started, signal.SIGKILL)
            raise TimeoutError(f"{len(started)} processes did not end within {timeout:.0f} s")
        if any(each.exitcode for each in started):
            until = min(until, time.monotonic() + GRACE)
            for each in started:
                each.join(max(until - time.monotonic(), 0))
            _end(started, signal.SIGKILL)
            break
        time.sleep(0.05)
    for each in started:
        each.join()
    return tuple(each.exitcode for each in started)


def _end(started: list[Any], how: signal.Signals) -> None:
    for each in started:
        if each.exitcode is None:
            os.kill(each.pid, how)


def _run(script: str, arguments: tuple[str, ...], environment: dict[str, str], log: str) -> None:
    """In the new process: the script as if it had been called by itself."""
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    sys.argv = [script, *arguments]
    if script.endswith(".py"):
        sys.path.insert(0, str((ROOT / script).parent))
        runpy.run_path(script, run_name="__main__")
    else:
        sys.path.insert(0, str(ROOT))
        runpy.run_module(script, run_name="__main__", alter_sys=True)
