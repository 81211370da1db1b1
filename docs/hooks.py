"""What the documentation site adds to MkDocs: files from outside of docs/, links, formulas, notebooks, generated parts.

MkDocs calls the functions `on_...` (see `hooks` in mkdocs.yml), and griffe the class `Examples`, during `make docs`.
"""

from __future__ import annotations

import ast
import contextlib
import html
import io
import os
import posixpath
import re
import textwrap
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert as mathml
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
(REPOSITORY,) = re.findall(
    r'^repository-code: "(.*)"$', (ROOT / "CITATION.cff").read_text(encoding="utf-8"), flags=re.M
)
EXECUTED = ROOT / "build" / "notebooks"
"""Where `make docs` leaves the executed notebooks; a notebook that is not there is shown without its outputs."""

INCLUDED = {"contributors/contributing.md": "CONTRIBUTING.md", "contributors/changelog.md": "CHANGELOG.md"}
"""Pages of the site whose text lies elsewhere."""
PAGES = {"README.md": "index.md", **{source: page for page, source in INCLUDED.items()}}
"""Where links to files outside of docs/ lead within the site."""


# ------------------------------------------------------------------------------------- files and links


def on_files(files: Any, config: Any) -> Any:
    """Add the pages whose text lies outside of docs/, and the notebooks with their pictures."""
    for page, source in INCLUDED.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for path in sorted((ROOT / "examples" / "notebooks").glob("*.ipynb")):
        for name, content in notebook(path).items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def notebook(path: Path) -> dict[str, str | bytes]:
    """The page of a notebook, the pictures that it shows, and the notebook itself, by their names."""
    import nbformat
    from nbconvert import MarkdownExporter

    executed = EXECUTED / path.name
    cells = nbformat.read(executed if executed.exists() else path, as_version=4)
    body, resources = MarkdownExporter().from_notebook_node(cells, {"unique_key": path.stem})
    title, rest = body.replace("![png]", "![What the cell above shows]").split("\n", 1)
    page = f"{title}\n\n[Download this notebook]({path.name}){{ download }}\n{rest}"
    return {path.with_suffix(".md").name: page, path.name: path.read_bytes(), **resources["outputs"]}


def source_of(page: str) -> str:
    """The file that a page's text comes from, from the repository's root."""
    if page.startswith("notebooks/"):
        return f"examples/{page}"
    return INCLUDED.get(page, f"docs/{page}")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Lead links that leave docs/ to the site's page of that file, or to the file in the repository."""
    here = page.file.src_uri
    folder = posixpath.dirname(source_of(here))

    def mended(link: re.Match[str]) -> str:
        target, anchor = link["target"], link["anchor"] or ""
        if not target or files.get_file_from_path(
            posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
        ):
            return link[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        inside = PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if inside:
            return f"]({posixpath.relpath(inside, posixpath.dirname(here) or '.')}{anchor})"
        return f"]({REPOSITORY}/blob/main/{path}{anchor})" if (ROOT / path).exists() else link[0]

    link = r"(?s:^ *```.*?^ *```)|\]\((?!\w+:)(?P<target>[^)#\s]*)(?P<anchor>#[^)\s]*)?\)"
    markdown = re.sub(
        link, lambda found: mended(found) if found[0][0] == "]" else found[0], markdown, flags=re.M
    )
    markdown = re.sub(
        r"^\$ lightning-gcam (.*--help)$", lambda found: help_text(found[1]), markdown, flags=re.M
    )
    return re.sub(r"^<!-- \w+ -->$", lambda found: GENERATED[found[0]](), markdown, flags=re.M)


# ----------------------------------------------------------------------------------------- generated parts


def help_text(arguments: str) -> str:
    """A command of `lightning-gcam` that asks for help, and what it prints."""
    from lightning_gcam.cli import main

    os.environ["COLUMNS"] = "96"
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        main(arguments.split())
    return f"$ lightning-gcam {arguments}\n{printed.getvalue()}"


def modules() -> str:
    """Every module with the first line of its docstring, room by room."""
    lines = []
    for room in sorted((ROOT / "lightning_gcam").glob("**/__init__.py")):
        paths = sorted(path for path in room.parent.glob("*.py") if path != room)
        lines += [f"\n## `{room.parent.relative_to(ROOT).as_posix()}`\n", first_line(room), ""]
        lines += ["| module | what lives there |", "|---|---|"] if paths else []
        lines += [row(path.stem, path) for path in paths]
    return "\n".join(lines)


def benchmarks() -> str:
    """Every benchmark that is a command, with the first line of its docstring."""
    lines = ["| `python -m ...` | what it measures |", "|---|---|"]
    for path in sorted((ROOT / "benchmarks").glob("*/*.py")):
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8"):
            lines.append(row(f"benchmarks.{path.parent.name}.{path.stem}", path))
    return "\n".join(lines)


GENERATED = {"<!-- modules -->": modules, "<!-- benchmarks -->": benchmarks}


def row(name: str, path: Path) -> str:
    """A module as a row of a table: its name leads to its file in the repository."""
    return f"| [`{name}`]({REPOSITORY}/blob/main/{path.relative_to(ROOT).as_posix()}) | {first_line(path)} |"


def first_line(path: Path) -> str:
    """The first paragraph of a module's docstring, in one line."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


class Examples(griffe.Extension):
    """The docstrings' `Example:` is a section, and their `Source:` a paragraph."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite a docstring as griffe reads it."""
        if obj.docstring:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.M)
            obj.docstring.value = re.sub(r"^Source:\n((?: +.*\n?)+)", as_paragraph, text, flags=re.M)


def as_paragraph(section: re.Match[str]) -> str:
    """A section `Source:` as a paragraph that begins with that word."""
    return "**Source:** " + textwrap.dedent(section[1])


# ------------------------------------------------------------------------------- formulas and cross-references


def on_page_content(html_text: str, **_: Any) -> str:
    """Turn formulas into MathML, which browsers draw without a script."""

    def drawn(formula: re.Match[str]) -> str:
        display = "block" if formula[1] == "div" else "inline"
        return str(mathml(html.unescape(formula[2]), display=display))

    return re.sub(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', drawn, html_text, flags=re.S)


def on_post_build(config: Any) -> None:
    """Keep the search's index as a script too, which a page that was opened from the disk may load."""
    index = Path(config.site_dir, "search", "search_index.json").read_text(encoding="utf-8")
    Path(config.site_dir, "search", "search_index.js").write_text(f"var __index = {index}", encoding="utf-8")


@event_priority(0)  # after mkdocstrings has listed what it documents, before autorefs makes the links
def on_env(env: Any, config: Any, files: Any) -> Any:
    """Link names of the package that stand as code in the text to the reference."""
    known = documented(config)

    def linked(code: re.Match[str]) -> str:
        name = code["name"]
        return (
            f'<autoref identifier="{known[name]}" optional>{code[0]}</autoref>' if name in known else code[0]
        )

    skipped = r"<(?P<tag>a|pre|h[1-6]|autoref)\b.*?</(?P=tag)>"
    for file in files.documentation_pages():
        if file.page.content:
            file.page.content = re.sub(
                rf"{skipped}|<code>(?P<name>[\w.]+)(?:\([^<]*\))?</code>",
                linked,
                file.page.content,
                flags=re.S,
            )
    return env


def documented(config: Any) -> dict[str, str]:
    """From names as the text has them to what the reference calls them; plain words are left out."""
    known = {}
    inventory = config.plugins["mkdocstrings"].handlers.inventory
    for identifier in sorted(inventory, key=len, reverse=True):
        if inventory[identifier].role in ("class", "function", "method", "data"):
            parts = identifier.split(".")
            short = ".".join(parts[-2:] if inventory[identifier].role == "method" else parts[-1:])
            known[identifier] = identifier
            if short == "attribute" or not short.islower() or "_" in short:
                known[short] = identifier
    return known
