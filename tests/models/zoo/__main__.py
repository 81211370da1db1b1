"""Look at the whole zoo, and keep its table in docs/models.md: `make zoo`.

Each network's result is kept in a file as soon as it is there, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.common.measure import describe_machine, markdown_table, write_section
from tests.models.zoo.examine import Finding
from tests.models.zoo.families import EXCEPTIONS, ZOO, look

ROOT = Path(__file__).resolve().parents[3]


def run(names: list[str], results: Path) -> dict[str, Finding]:
    """Every named network's finding, in order; the ones that `results` holds are not looked at again."""
    done = read(results)
    results.parent.mkdir(parents=True, exist_ok=True)
    for position, name in enumerate(names, 1):
        if name in done:
            continue
        start = time.perf_counter()
        done[name] = look(ZOO[name])
        gc.collect()
        with results.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"name": name, **asdict(done[name])}) + "\n")
        said = "; ".join(done[name].failures) or done[name].layer
        print(
            f"{position}/{len(names)} {name}: {said} ({time.perf_counter() - start:.1f} s)",
            file=sys.stderr,
            flush=True,
        )
    return {name: done[name] for name in names if name in done}


def read(results: Path) -> dict[str, Finding]:
    if not results.exists():
        return {}
    lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    return {line.pop("name"): Finding(**{**line, "grid": tuple(line["grid"])}) for line in lines}


def report(findings: dict[str, Finding]) -> str:
    """The counts, the table, and what it was run on."""
    good = [name for name, finding in findings.items() if not finding.failures]
    bad = [f"{name} ({_reason(name, finding)})" for name, finding in findings.items() if finding.failures]
    families = {ZOO[name].family for name in findings if ZOO[name].family.startswith("timm")}
    counts = (
        f"**{len(good)} of {len(findings)} networks**: every classifier of torchvision "
        f"({_count(findings, 'torchvision')}), the smallest member of {len(families)} families of timm, and "
        f"{_count(findings, 'transformers')} image classifiers of transformers, built from their configs. "
        f"Not among them: {'; '.join(bad) or 'none'}."
    )
    header = ["network", "layer found", "kind of grid", "grid", "image", "seconds", "notes"]
    rows = [_row(name, finding) for name, finding in findings.items()]
    machine = "; ".join(
        f"{key} {value}"
        for key, value in describe_machine(["torch", "torchvision", "timm", "transformers"]).items()
    )
    return f"{counts}\n\n{markdown_table(header, rows)}\n\n`make zoo`. {machine}."


def _count(findings: dict[str, Finding], family: str) -> int:
    return sum(ZOO[name].family == family for name in findings)


def _reason(name: str, finding: Finding) -> str:
    return EXCEPTIONS[name][1] if name in EXCEPTIONS else "; ".join(finding.failures)


def _row(name: str, finding: Finding) -> list[str]:
    notes = [
        *(["constant gradients"] if finding.even else []),
        *([_reason(name, finding)] if finding.failures else []),
    ]
    layer, grid = (f"`{finding.layer}`", "{} x {}".format(*finding.grid)) if finding.layer else ("", "")
    return [
        name,
        layer,
        finding.kind,
        grid,
        str(finding.size or ""),
        f"{finding.seconds:.2f}",
        "; ".join(notes),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.models.zoo", description=__doc__)
    parser.add_argument("--only", default="", help="networks whose name holds this")
    parser.add_argument(
        "--results", type=Path, default=ROOT / "runs" / "zoo.jsonl", help="delete it to begin anew"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "models.md")
    args = parser.parse_args()
    torch.set_num_threads(1)
    findings = run([name for name in ZOO if args.only in name], args.results)
    text = report(findings)
    print(text)
    if not args.only:
        write_section(args.output, "zoo", text)
    return int(any(finding.failures and name not in EXCEPTIONS for name, finding in findings.items()))


if __name__ == "__main__":
    sys.exit(main())
