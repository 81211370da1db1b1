"""No exchange between processes stands inside of a guard: the one that fails before it would leave the others waiting.

The code is read: which functions exchange something, by themselves or through others that they call; and whether one
of them is called in the body of a `guard`, of a `try` that goes on, or in work that is tried. A call is looked up by
what is known of its receiver (its class, where the code says it); where nothing is known, by its name alone.

The exchanges of a look are its `map_fn`, and an `analyze` that is given one. These raise in all processes alike, so
that a `try` may hold one of them, as its only statement: nothing else fails in it. (What `analyze` does between two
exchanges cannot fail in one process only: `tests/unit/pipeline/test_run.py`.)
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import lightning_gcam

PACKAGE = Path(lightning_gcam.__file__).parent
EXCHANGES = {
    "all_gather_object",
    "all_gather",
    "all_reduce",
    "barrier",
    "broadcast",
    "broadcast_object_list",
    "gather_object",
    "reduce_boolean_decision",
    "sync_dist",
}
"""What torch and Lightning's strategies exchange with."""
ALIKE = {"map_fn", "analyze"}
"""Exchanges that raise in all processes where one fails."""
TRIED = {"_tried", "run_in_all", "gather_results", "gather_or_raise", "split_rows", "map_fn"}
"""Functions that catch what the work given to them raises."""


@dataclass
class Function:
    """One function of the package, by its name and its class."""

    place: str
    name: str
    owner: str | None
    node: ast.FunctionDef
    types: dict[str, str] = field(default_factory=dict)
    """The classes of arguments and local names, as far as the code says them."""


class Code:
    """The functions of some sources, and which of them exchange something between processes."""

    def __init__(self, sources: dict[str, str]) -> None:
        self.trees = {place: ast.parse(text) for place, text in sources.items()}
        nodes = [node for tree in self.trees.values() for node in ast.walk(tree)]
        self.classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}
        self.attributes = self._attributes()
        self.functions = list(self._functions())
        self.exchanging: set[int] = set()
        self._find_exchanging()

    def _functions(self) -> Iterator[Function]:
        for place, tree in self.trees.items():
            owners = {
                id(child): node.name
                for node in ast.walk(tree)
                if isinstance(node, ast.ClassDef)
                for child in node.body
            }
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef):
                    yield Function(place, node.name, owners.get(id(node)), node, self._types(node))

    def _types(self, function: ast.FunctionDef) -> dict[str, str]:
        found = {}
        for argument in [*function.args.args, *function.args.kwonlyargs]:
            if (name := self._class_in(argument.annotation)) is not None:
                found[argument.arg] = name
        for node in ast.walk(function):
            made = self._made(node.value) if isinstance(node, ast.Assign) else None
            if made is not None:
                found |= {each.id: made for each in node.targets if isinstance(each, ast.Name)}
        return found

    def _attributes(self) -> dict[str, set[str]]:
        """The classes of `self.<name>`, wherever it is assigned or declared."""
        found: dict[str, set[str]] = {}
        for node in (each for kind in self.classes.values() for each in ast.walk(kind)):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                made = self._made(node.value)
                for target in node.targets:
                    if isinstance(target, ast.Attribute) and made is not None:
                        found.setdefault(target.attr, set()).add(made)
            elif isinstance(node, ast.AnnAssign) and (name := self._class_in(node.annotation)) is not None:
                target = node.target
                key = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")
                found.setdefault(key, set()).add(name)
        return found

    def _class_in(self, annotation: ast.AST | None) -> str | None:
        names = [each.id for each in ast.walk(annotation) if isinstance(each, ast.Name)] if annotation else []
        return next((each for each in names if each in self.classes), None)

    def _made(self, call: ast.expr) -> str | None:
        if not isinstance(call, ast.Call):
            return None
        maker = (
            call.func.value if isinstance(call.func, ast.Attribute) else call.func
        )  # `EvaluationRun.begin(...)`
        return maker.id if isinstance(maker, ast.Name) and maker.id in self.classes else None

    def called(self, call: ast.Call, inside: Function | None) -> list[Function]:
        """The functions of the package that a call may run."""
        function = call.func
        if isinstance(function, ast.Name):
            makers = [each for each in self.functions if each.owner == function.id]
            plain = [each for each in self.functions if each.name == function.id and each.owner is None]
            return plain or [each for each in makers if each.name in ("__init__", "__post_init__")]
        if not isinstance(function, ast.Attribute):
            return []
        same = [each for each in self.functions if each.name == function.attr and each.owner is not None]
        known = self._receiver(function.value, inside)
        return [each for each in same if each.owner in known] if known else same

    def _receiver(self, value: ast.expr, inside: Function | None) -> set[str]:
        if isinstance(value, ast.Name):
            if value.id == "self" and inside is not None and inside.owner is not None:
                return {inside.owner}
            if inside is not None and value.id in inside.types:
                return {inside.types[value.id]}
            return {value.id} if value.id in self.classes else set()
        return self.attributes.get(value.attr, set()) if isinstance(value, ast.Attribute) else set()

    def exchanges(self, call: ast.Call, inside: Function | None) -> bool:
        """Whether a call exchanges something, by itself or further down."""
        name = _name_of(call)
        if name == "analyze":
            return any(isinstance(each, ast.Name) and each.id == "map_fn" for each in _arguments(call))
        return name in {*EXCHANGES, "map_fn"} or any(
            id(each.node) in self.exchanging for each in self.called(call, inside)
        )

    def _find_exchanging(self) -> None:
        while True:
            new = {
                id(each.node)
                for each in self.functions
                if any(self.exchanges(call, each) for call in _calls(each.node))
            } - self.exchanging
            if not new:
                return
            self.exchanging |= new

    def in_guards(self) -> list[str]:
        """The calls that exchange something inside of a guard."""
        found = []
        for function in self.functions:
            for body, fails_alike in _guarded(function.node):
                for call in (call for part in body for call in _calls(part)):
                    if self.exchanges(call, function) and not (fails_alike and _name_of(call) in ALIKE):
                        found.append(f"{function.place}:{call.lineno} {ast.unparse(call.func)}")
        return sorted(set(found))


def _calls(node: ast.AST) -> list[ast.Call]:
    return [each for each in ast.walk(node) if isinstance(each, ast.Call)]


def _arguments(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(each.value for each in call.keywords)]


def _name_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _guarded(function: ast.FunctionDef) -> Iterator[tuple[list[ast.AST], bool]]:
    """What stands in a guard: the body of `with ....guard(...)`, of a `try` that goes on, and work that is tried.

    And whether it is a `try` with a single statement, where an exchange that raises in all processes may stand.
    """
    for node in ast.walk(function):
        in_with = isinstance(node, ast.With) and any(_is_guard(each.context_expr) for each in node.items)
        in_try = isinstance(node, ast.Try) and not all(_ends(each) for each in node.handlers)
        if in_with or in_try:
            yield [*node.body], in_try and _is_one_statement(node.body)  # type: ignore[attr-defined]
        elif isinstance(node, ast.Call) and _name_of(node) in TRIED:
            local = {each.name: each for each in ast.walk(function) if isinstance(each, ast.FunctionDef)}
            for argument in _arguments(node):
                if isinstance(argument, ast.Lambda):
                    yield [argument], False
                elif isinstance(argument, ast.Name) and argument.id in local:
                    yield [local[argument.id]], False


def _is_one_statement(body: list[ast.stmt]) -> bool:
    """Whether a body is one assignment, expression or `return`, maybe in a `with`."""
    (first, *others) = body
    return not others and (
        _is_one_statement(first.body)
        if isinstance(first, ast.With)
        else isinstance(first, (ast.Assign, ast.Expr, ast.Return))
    )


def _is_guard(context: ast.expr) -> bool:
    return isinstance(context, ast.Call) and getattr(context.func, "attr", "") in ("guard", "suppress")


def _ends(handler: ast.ExceptHandler) -> bool:
    return isinstance(handler.body[-1], ast.Raise)


def package() -> dict[str, str]:
    return {
        str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8")
        for path in [*sorted((PACKAGE / "callbacks").glob("*.py")), PACKAGE / "pipeline" / "run.py"]
    }


def test_no_exchange_stands_in_a_guard() -> None:
    assert Code(package()).in_guards() == []


def test_only_the_callbacks_exchange_anything() -> None:
    others = [path for path in PACKAGE.rglob("*.py") if path.parent.name != "callbacks"]
    calls = [call for path in others for call in _calls(ast.parse(path.read_text(encoding="utf-8")))]
    assert not [ast.unparse(call) for call in calls if getattr(call.func, "attr", "") in EXCHANGES]


def test_the_exchanges_of_the_package_are_seen() -> None:
    """Else the test above could not fail."""
    code = Code(package())
    seen = {f"{each.owner or ''}.{each.name}" for each in code.functions if id(each.node) in code.exchanging}
    expected = {
        "._all_gather", ".pool_candidates", ".split_rows", ".run_in_all", ".gather_results", ".gather_or_raise",
        ".share_plans",
        ".from_rank_zero", ".same_record", ".all_ready", ".analyze", "_Look.attribution", "_Look.checks",
        "_Look._tried", "SampleCollector.end", "SaliencyMonitor._record", "SaliencyMonitor._look",
        "SaliencyMonitor._end_stream", "SaliencyMonitor._prepare", "EvaluationRun.begin", "Table.make", "Table.tidy",
    }  # fmt: skip
    assert expected <= seen
    assert "SampleCollector.receive" not in seen
    assert "BatchEvaluator.measure" not in seen
    assert ".dry_run" not in seen
    assert "_Look.scores" not in seen
    assert "FailurePolicy.guard" not in seen


GOES_ON = "\n        except OSError:\n            pass"

GUARDS = {
    "a guard": "with self.failures.guard('x'):\n            self.collection.end(trainer)",
    "a try": "try:\n            self.collection.end(trainer)\n        except Exception:\n            pass",
    "work that is tried": "_tried(lambda: self.collection.end(trainer))",
    "work with a name": "def inner():\n            return pool(trainer)\n        _tried(inner)",
    "a barrier": "with self.failures.guard('x'):\n            trainer.strategy.barrier()",
    "an unknown receiver": "with self.failures.guard('x'):\n            trainer.thing.end(trainer)",
    "a look": "with self.failures.guard('x'):\n            analyze(model, batch, config, map_fn)",
    "the work of a look": "self.map_fn(lambda rows: pool(trainer))",
    "a look in the work of a look": "self.map_fn(lambda rows: analyze(model, rows, map_fn=map_fn))",
    "more than a look": "try:\n            batch = read()\n            map_fn(work)" + GOES_ON,
    "a look and more": "try:\n            self.keep(map_fn(work), pool(trainer))" + GOES_ON,
}
HARMLESS = {
    "a look that fails in all": (
        "try:\n            with quiet():\n                return analyze(model, batch, config, map_fn)"
        + GOES_ON
    ),
    "a look of one process": "with self.failures.guard('x'):\n            analyze(model, batch, config)",
    "a part of a look that fails in all": "try:\n            return self.map_fn(work)" + GOES_ON,
}


@pytest.mark.parametrize("how", GUARDS)
def test_one_that_stands_in_a_guard_is_seen(how: str) -> None:
    source = source_with(GUARDS[how])
    assert len(Code({"source": source}).in_guards()) == 1
    apart = source.replace("self.collection = Collection()", "self.collection = Other()")
    is_about_it = how in ("a guard", "a try", "work that is tried")
    assert len(Code({"source": apart}).in_guards()) == (0 if is_about_it else 1)


@pytest.mark.parametrize("how", HARMLESS)
def test_one_that_raises_in_all_processes_may_stand_in_a_try(how: str) -> None:
    assert Code({"source": source_with(HARMLESS[how])}).in_guards() == []


def source_with(body: str) -> str:
    return f"""
def pool(trainer):
    return trainer.strategy.broadcast(1)

class Collection:
    def end(self, trainer):
        return pool(trainer)

class Other:
    def end(self, trainer):
        return None

class Monitor:
    def __init__(self):
        self.collection = Collection()

    def look(self, trainer):
        {body}
"""
