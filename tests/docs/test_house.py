"""The house is in order: commands, versions, files that ship, and nothing that only one machine knows."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata, resources
from pathlib import Path

import pytest

import lightning_gcam

ROOT = Path(__file__).resolve().parents[2]

# A directory of one person's machine: a top-level name that is not preceded by the rest of a path or a URL.
MACHINE_PATH = re.compile(r"(?<![\w./:~-])/(?:home|root|work|tmp|Users)/[\w.-]+")


def targets_named_in(text: str) -> set[str]:
    """The `make` targets in the code of a Markdown text: in backticks, or at the start of a fenced line."""
    fenced = "\n".join(re.findall(r"^```.*?\n(.*?)^```", text, flags=re.M | re.S))
    inline = re.findall(r"`make ([a-z-]+)", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    return {*inline, *re.findall(r"^\s*(?:\$ )?make ([a-z-]+)", fenced, flags=re.M)}


def files_of_the_project() -> Iterator[Path]:
    """Every file that is tracked, or would be with the next commit."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    return (ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file())


@pytest.fixture(scope="module")
def listed_targets() -> set[str]:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    listing = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(re.findall(r"^  make ([a-z-]+)  ", listing.stdout, flags=re.M))


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_command_a_page_names_exists(page: str, listed_targets: set[str]) -> None:
    named = targets_named_in((ROOT / page).read_text(encoding="utf-8"))

    assert named, f"{page} names no command"
    assert named <= listed_targets


def test_every_target_is_listed(listed_targets: set[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):(?!=)", makefile, flags=re.M)

    assert set(targets) == listed_targets


def test_commands_are_read_from_code_only() -> None:
    text = "To make sure, run `make test ARGS=-x`.\n```sh\nmake demo  # a comment\n$ make check\n```\n"

    assert targets_named_in(text) == {"test", "demo", "check"}


def test_ci_runs_the_commands_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")

    assert re.findall(r"^make .*$", script, flags=re.M) == ["make check", "make test"]


def test_version_stands_in_one_place() -> None:
    assert metadata.version("lightning-gcam") == lightning_gcam.__version__


def test_types_are_shipped() -> None:
    assert resources.files("lightning_gcam").joinpath("py.typed").is_file()


def test_changelog_collects_what_is_not_released_yet() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## \[(.+?)\]", changelog, flags=re.M)

    assert sections[0] == "Unreleased"
    assert "keepachangelog.com" in changelog


def test_no_file_names_a_path_of_one_machine() -> None:
    found = []
    for path in files_of_the_project():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a picture
            continue
        found += [f"{path.relative_to(ROOT)}: {hit[0]}" for hit in MACHINE_PATH.finditer(text)]

    assert found == []


@pytest.mark.parametrize("top", ["home", "root", "work", "tmp", "Users"])
def test_a_path_of_one_machine_is_recognised(top: str) -> None:
    inside = f"{top}/someone"

    assert MACHINE_PATH.search(f"open /{inside}/runs")
    assert MACHINE_PATH.search(f'"/{inside}"')
    assert not MACHINE_PATH.search(f"runs/{inside} and ../{inside} and https://example.org/{inside}")
