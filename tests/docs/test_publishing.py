"""What a release needs: one version, a citation, and workflows and hooks that call what is here."""

import re
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_gcam import __version__

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
CHECK_COMMANDS = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def runs_of(workflow: Any) -> list[str]:
    return [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]


def test_the_version_stands_in_one_place():
    printed = subprocess.run(["make", "-s", "version"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == __version__
    assert 'dynamic = ["version"' in (ROOT / "pyproject.toml").read_text()


def test_the_citation_is_of_this_version():
    assert read(ROOT / "CITATION.cff")["version"] == __version__


def test_the_citation_names_the_paper():
    (paper,) = read(ROOT / "CITATION.cff")["references"]
    assert {"type": "other", "value": "arXiv:2207.05374"} in paper["identifiers"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_targets_that_there_are(path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = set(re.findall(r"make (?:-s )?([a-z-]+)", "\n".join(runs_of(read(path)))))
    assert called
    assert called <= targets


def test_the_checks_call_what_ci_runs_and_the_docs():
    runs = runs_of(read(ROOT / ".github/workflows/checks.yml"))
    assert {"make check", "make test", "make docs", "make build"} <= set(runs)


def test_every_supported_python_is_tested():
    named = set(re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text()))
    assert (
        set(read(ROOT / ".github/workflows/checks.yml")["jobs"]["test"]["strategy"]["matrix"]["python"])
        == named
    )


def test_a_release_keeps_no_secret():
    text = (ROOT / ".github/workflows/release.yml").read_text()
    assert "secrets." not in text
    assert "password" not in text
    assert read(ROOT / ".github/workflows/release.yml")["jobs"]["publish"]["permissions"] == {
        "id-token": "write"
    }


def test_hooks_run_what_make_check_runs():
    assert CHECK_COMMANDS is not None
    tools = {
        re.sub(r"^\S*(?:PY\)|VENV\)/bin/)(?: -m )?", "", line.strip())
        for line in CHECK_COMMANDS[1].splitlines()
    }
    hooks = [hook for repo in read(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    names = {hook["entry"].split(" -m ")[-1].split("/")[-1].split(" --")[0] for hook in hooks}
    assert {tool.split(" .")[0].replace(" --check", "") for tool in tools} == names


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem
)
def test_issue_forms_have_what_github_asks_for(path):
    form = read(path)
    if path.stem == "config":
        assert all({"name", "url", "about"} <= set(link) for link in form["contact_links"])
        return
    assert {"name", "description", "body"} <= set(form)
    assert all(field["attributes"]["label"] for field in form["body"])
    assert len({field["id"] for field in form["body"]}) == len(form["body"])


def test_every_extra_is_tried_and_described():
    project = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    extras = set(re.findall(r"^([a-z]+) = \[", project.partition("\n[")[0], re.MULTILINE))
    tries = runpy.run_path(str(ROOT / ".ci/try_extras.py"))
    assert extras == set(tries["TRIES"]) | tries["FOR_DEVELOPERS"]
    packaging = (ROOT / "CONTRIBUTING.md").read_text().partition("## Packaging")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z]+)` \|", packaging, re.MULTILINE)) == set(tries["TRIES"])


@pytest.mark.parametrize(
    ("readme", "on_pypi"),
    [
        (
            "![a map](docs/a.png)",
            "![a map](https://raw.githubusercontent.com/lightning-gcam/lightning-gcam/main/docs/a.png)",
        ),
        (
            "[Start](docs/start.md#a)",
            "[Start](https://github.com/lightning-gcam/lightning-gcam/blob/main/docs/start.md#a)",
        ),
        ("[theirs](https://a.b/c) [here](#d)", "[theirs](https://a.b/c) [here](#d)"),
    ],
)
def test_links_of_the_readme_work_on_pypi(readme, on_pypi):
    build = (ROOT / "pyproject.toml").read_text()
    for pattern, replacement in re.findall(r"pattern = '(.+)', replacement = '(.+)' \}", build):
        readme = re.sub(pattern, replacement, readme)
    assert readme == on_pypi
