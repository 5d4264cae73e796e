"""House rules that no linter knows. A rule lives here or it is not a rule.

Each rule is a function from a module to its complaints, and each was seen to fail: the tests at the
end give every rule a module that breaks it.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("ledger", "roles", "meshd", "simulations")

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70  # What fits on one screen.
NESTING_MAX = 4  # Of loops, conditions and tries; a `with` does not count.
PUBLIC_NAMES_MAX = {"ledger": 26, "roles": 30}
VAGUE_WORDS = frozenset({"manager", "helper", "helpers", "util", "utils", "data", "info", "misc"})

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Module:
    """A module's place, text and syntax tree."""

    path: Path
    source: str
    tree: ast.Module

    @classmethod
    def parse(cls, path: Path, source: str) -> Module:
        return cls(path, source, ast.parse(source))

    @property
    def package(self) -> str:
        return self.path.parts[0]

    def functions(self) -> Iterator[FunctionNode]:
        return (n for n in ast.walk(self.tree) if isinstance(n, FunctionNode))


Rule = Callable[[Module], Iterator[str]]


def says_what_it_is_for(module: Module) -> Iterator[str]:
    if module.package != "tests" and module.source and not ast.get_docstring(module.tree):
        yield "has no docstring"


def is_short(module: Module) -> Iterator[str]:
    lines = module.source.count("\n")
    if lines > MODULE_LINES_MAX:
        yield f"has {lines} lines, limit {MODULE_LINES_MAX}"
    for function in module.functions():
        assert function.end_lineno is not None
        length = function.end_lineno - function.lineno + 1
        if length > FUNCTION_LINES_MAX:
            yield f"{function.name} has {length} lines, limit {FUNCTION_LINES_MAX}"


def is_flat(module: Module) -> Iterator[str]:
    for function in module.functions():
        depth = _depth(function)
        if depth > NESTING_MAX:
            yield f"{function.name} nests {depth} deep, limit {NESTING_MAX}"


def documents_public_names(module: Module) -> Iterator[str]:
    if module.package == "tests":
        return
    for node in module.tree.body:
        if not isinstance(node, FunctionNode | ast.ClassDef) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node):
            yield f"{node.name} is public and has no docstring"


def keeps_out_of_private_parts(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        root, *rest = [*node.module.split("."), *(alias.name for alias in node.names)]
        private = [part for part in rest if part.startswith("_")]
        if root in PACKAGES and private and module.package not in {root, "tests"}:
            yield f"imports private {node.module}"


def names_things_plainly(module: Module) -> Iterator[str]:
    for word in module.path.stem.split("_"):
        if word in VAGUE_WORDS:
            yield f"file name says {word!r}"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef | FunctionNode):
            words = "".join(f" {c.lower()}" if c.isupper() else c for c in node.name)
            vague = VAGUE_WORDS & set(words.replace("_", " ").split())
            vague -= {node.name}  # Alone it is a term, such as a log's level `info`.
            if vague or node.name.startswith(("do_", "_do_")):
                yield f"{node.name} is a vague name"


def asserts_something(module: Module) -> Iterator[str]:
    if module.package != "tests":
        return
    for function in module.functions():
        if function.name.startswith("test_") and not _checks(function):
            yield f"{function.name} asserts nothing"


RULES: tuple[Rule, ...] = (
    says_what_it_is_for,
    is_short,
    is_flat,
    documents_public_names,
    keeps_out_of_private_parts,
    names_things_plainly,
    asserts_something,
)


def _depth(node: ast.AST) -> int:
    nests = isinstance(node, ast.For | ast.AsyncFor | ast.While | ast.If | ast.Try | ast.Match)
    inner = [
        child
        for child in ast.iter_child_nodes(node)
        if not isinstance(child, FunctionNode | ast.Lambda | ast.ClassDef)
    ]
    deepest = max((_depth(child) for child in inner), default=0)
    # `elif` is an `if` inside `orelse`: no deeper for the reader.
    if isinstance(node, ast.If) and len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If):
        chained = _depth(node.orelse[0])
        others = max((_depth(child) for child in inner if child is not node.orelse[0]), default=0)
        return max(chained, others + 1)
    return deepest + nests


def _checks(function: FunctionNode) -> bool:
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Attribute | ast.Name):
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            if name in {"raises", "RaisesGroup"} or name.startswith(("check", "expect", "assert")):
                return True
    return False


def _modules() -> Iterator[Module]:
    for package in (*PACKAGES, "tests"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield Module.parse(path.relative_to(ROOT), path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", tuple(_modules()), ids=lambda module: str(module.path))
def test_a_module_follows_the_house_rules(module: Module) -> None:
    assert [complaint for rule in RULES for complaint in rule(module)] == []


@pytest.mark.parametrize(("package", "limit"), PUBLIC_NAMES_MAX.items())
def test_the_core_packages_export_few_names(package: str, limit: int) -> None:
    assert len(importlib.import_module(package).__all__) <= limit


BROKEN: tuple[tuple[Rule, str, str], ...] = (
    (says_what_it_is_for, "meshd/x.py", "import ast\n"),
    (is_short, "meshd/x.py", '"""x"""\n' + "\n" * 400),
    (is_short, "meshd/x.py", "def f():\n" + "    x = 1\n" * 70),
    (
        is_flat,
        "meshd/x.py",
        "def f():\n for a in b:\n  if a:\n   for c in a:\n    while a:\n     if a:\n      b\n",
    ),
    (documents_public_names, "meshd/x.py", '"""x"""\nclass C: ...\n'),
    (keeps_out_of_private_parts, "meshd/x.py", "from ledger._entry import Entry\n"),
    (names_things_plainly, "meshd/peer_utils.py", ""),
    (names_things_plainly, "meshd/x.py", "class PeerManager: ...\n"),
    (names_things_plainly, "meshd/x.py", "def do_join(): ...\n"),
    (asserts_something, "tests/test_x.py", "def test_x():\n    print(1)\n"),
)


@pytest.mark.parametrize(("rule", "path", "source"), BROKEN)
def test_each_rule_fails_when_it_should(rule: Rule, path: str, source: str) -> None:
    assert list(rule(Module.parse(Path(path), source)))
