"""The house keeps its limits: how many modules, how they import each other, and how they are named and described.

The package's source is read, nothing of it is run. A name imported from a package counts as an import of the module
that defines it; imports inside of functions and for type checking count.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = "lightning_gcam"
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

# a hundred when the house was rebuilt; then `shares`, `message`, `budget`, `dry_run`, `transfer` and `event_files`
MOST_MODULES = 129
LONGEST_CHAIN = 14  # `dry_run` stands on `run`, `run` on `heads`
MOST_LINES = 430
LONGER = {
    f"{PACKAGE}.callbacks.saliency_monitor": "its arguments and its hooks are one class, which users read as a whole"
}
MOST_WORDS = 25

NOT_IN_A_FIRST_LINE = re.compile(
    r"\b(asks?|asked|tells?|told|hears?|heard|says?|said|speaks?|knows?|wants?|answers?|"
    r"inquiry|pieces?|partners?|at the door)\b",
    re.IGNORECASE,
)
"""Code does not do this, and a stranger cannot guess that: a first line says what is computed."""

Source = dict[str, ast.Module]
"""Each module and package by its dotted name."""


def read(package: Path = ROOT / PACKAGE) -> Source:
    found = {}
    for path in sorted(package.rglob("*.py")):
        name = ".".join(path.relative_to(package.parent).with_suffix("").parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


SOURCE = read()
MODULES = {name: tree for name, tree in SOURCE.items() if not name.endswith(".__init__")}
DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def imports_of(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Each module or package of ours that a source imports from, with the name that it takes; "" for a whole one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == PACKAGE)


def module_of(origin: str, name: str, source: Source) -> str | None:
    """The module that defines a name that is imported from a module or a package; None for a package itself."""
    if f"{origin}.{name}" in source:
        return f"{origin}.{name}"
    if f"{origin}.{name}.__init__" in source:
        return None
    if origin in source:
        return origin
    inside = source.get(f"{origin}.__init__")
    for node in ast.walk(inside) if inside is not None else ():
        if isinstance(node, ast.ImportFrom) and any(
            (each.asname or each.name) == name for each in node.names
        ):
            return module_of(str(node.module), name, source)
    return None


def graph_of(source: Source) -> dict[str, set[str]]:
    """The modules that each module imports."""
    modules = [name for name in source if not name.endswith(".__init__")]
    found = {name: {module_of(*each, source) for each in imports_of(source[name])} for name in modules}
    return {name: {each for each in others if each is not None} - {name} for name, others in found.items()}


def longest_chain(graph: dict[str, set[str]]) -> list[str]:
    """The longest chain of modules of which each imports the next.

    Raises:
        ValueError: where modules import each other in a circle, with the circle.
    """
    above: list[str] = []

    @cache
    def below(name: str) -> list[str]:
        if name in above:
            raise ValueError(" -> ".join([*above[above.index(name) :], name]))
        above.append(name)
        chain = max((below(each) for each in sorted(graph[name])), key=len, default=[])
        above.pop()
        return [name, *chain]

    return max((below(name) for name in graph), key=len)


def definitions(node: ast.AST, inside: str) -> Iterator[tuple[str, ast.AST]]:
    """Each class and function of a module with its dotted name; functions inside of functions are left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, DEFINITIONS):
            yield f"{inside}.{child.name}", child
            if isinstance(child, ast.ClassDef):
                yield from definitions(child, f"{inside}.{child.name}")


def wrong_docstrings(source: Source) -> list[str]:
    """Missing docstrings (of modules, classes and public functions), and first lines that are no plain sentence."""
    found = []
    for module, tree in source.items():
        for name, node in ((module, tree), *definitions(tree, module)):
            last = name.rsplit(".", 1)[-1]
            is_open = isinstance(node, (ast.Module, ast.ClassDef)) or not last.startswith("_")
            text = ast.get_docstring(node)
            if text is None:
                found += [f"{name}: no docstring"] if is_open and not is_method_of_private(name) else []
                continue
            line = text.splitlines()[0]
            if not line.endswith((".", ":")):
                found.append(f"{name}: the first line is no sentence: {line}")
            if word := NOT_IN_A_FIRST_LINE.search(re.sub(r"`[^`]*`", "", line)):
                found.append(f'{name}: "{word[0]}" in the first line: {line}')
    return found


def is_method_of_private(name: str) -> bool:
    return any(part.startswith("_") and part != "__init__" for part in name.split(".")[1:-1])


def class_names(source: Source) -> list[str]:
    return [
        node.name for tree in source.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    ]


def rooms_of_contributing(text: str) -> set[str]:
    """The modules that the table of rooms names."""
    rows = re.findall(r"^\| \d \| `([\w/]+)/`.*\| ([^|]+) \|$", text, flags=re.M)
    return {
        f"{PACKAGE}.{room.replace('/', '.')}.{name}"
        for room, names in rows
        for name in re.findall(r"`(\w+)`", names)
    }


def glossary_of(text: str) -> list[str]:
    section = text.split("### Its words")[1].split("\n## ")[0]
    return [row.split("|")[1].strip() for row in re.findall(r"^\|.*\|$", section, flags=re.M)[2:]]


def test_there_are_not_too_many_modules() -> None:
    assert len(MODULES) <= MOST_MODULES, "merge a module that has one caller and no idea of its own"


def test_the_longest_chain_of_imports_and_no_circle() -> None:
    chain = longest_chain(graph_of(SOURCE))
    assert len(chain) <= LONGEST_CHAIN, " -> ".join(chain)


def test_a_chain_goes_through_packages_functions_and_types_and_a_circle_is_found() -> None:
    source = {
        "lightning_gcam.a.__init__": ast.parse("from lightning_gcam.a.one import f as g"),
        "lightning_gcam.a.one": ast.parse("def f():\n    from lightning_gcam.b import two"),
        "lightning_gcam.b.__init__": ast.parse(""),
        "lightning_gcam.b.two": ast.parse("if TYPE_CHECKING:\n    import lightning_gcam.b.three"),
        "lightning_gcam.b.three": ast.parse(""),
        "lightning_gcam.c": ast.parse("from lightning_gcam.a import g"),
    }
    assert longest_chain(graph_of(source)) == [
        f"lightning_gcam.{each}" for each in ("c", "a.one", "b.two", "b.three")
    ]
    source["lightning_gcam.b.three"] = ast.parse("from lightning_gcam.a import g")
    with pytest.raises(ValueError, match=r"a\.one -> \S+b\.two -> \S+b\.three -> \S+a\.one"):
        longest_chain(graph_of(source))


def test_no_module_is_too_long() -> None:
    lines = {
        name: len((ROOT / f"{name.replace('.', '/')}.py").read_text("utf-8").splitlines()) for name in MODULES
    }
    longer = {name: length for name, length in lines.items() if length > MOST_LINES}
    assert set(longer) == set(LONGER), longer


def test_no_class_name_stands_twice() -> None:
    names = class_names(SOURCE)
    assert not {name for name in names if names.count(name) > 1}


def test_every_docstring_begins_with_a_plain_sentence() -> None:
    assert not wrong_docstrings(SOURCE)


def test_the_table_of_rooms_names_every_module_and_no_other() -> None:
    differs = rooms_of_contributing(CONTRIBUTING) ^ set(MODULES)
    assert not differs, f"rows of CONTRIBUTING.md, The house: {sorted(differs)}"


def test_the_glossary_is_short_and_in_order() -> None:
    words = glossary_of(CONTRIBUTING)
    assert 10 < len(words) <= MOST_WORDS
    assert words == sorted(set(words))


def test_the_paths_that_the_page_names_are_there() -> None:
    section = CONTRIBUTING.split("## The house")[1].split("## The promise")[0]
    paths = re.findall(r"(?<![\w/])((?:tests|docs|[a-z_]+)/[\w/]*\w\.(?:py|md))", section)
    assert len(paths) > 10
    assert not [each for each in paths if not (ROOT / each).exists() and not (ROOT / PACKAGE / each).exists()]
