"""Every mutant is caught, by the check that should; every check is made to fire by one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulations.model.checks import CHECKS, check_of
from tests.model.broken import BROKEN
from tests.model.catches import CATCHES, Catch, find

MODEL = Path(__file__).parents[2] / "simulations" / "model"
SEARCHED = [catch for catch in CATCHES if not catch.schedule]

OTHER_NAMES = {"no-fuse": "r4-no-fuse"}


@pytest.mark.parametrize("catch", SEARCHED, ids=lambda catch: catch.mutant)
def test_a_mutant_is_caught_by_random_search(catch: Catch) -> None:
    assert find(catch) is not None


def test_no_mutant_is_left_out() -> None:
    looked_for = {catch.mutant for catch in CATCHES}
    assert {OTHER_NAMES.get(name, name) for name in BROKEN} == looked_for
    assert len(looked_for) >= 14
    for rule in ("r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10"):
        assert any(rule in name.split("-") for name in looked_for), rule


def test_every_check_has_a_mutant_that_is_named_for_it() -> None:
    assert {catch.check for catch in CATCHES} == set(CHECKS)


def test_every_violation_is_in_the_table_of_checks_and_nothing_else_is() -> None:
    named = [(text, [name for name in CHECKS if CHECKS[name] in text]) for text in messages()]
    assert [text for text, names in named if len(names) != 1] == []
    assert {name for _, names in named for name in names} == set(CHECKS)
    assert check_of("something else") is None


def messages() -> Iterator[str]:
    """Yield the fixed parts of every message that a check of the model can have."""
    for path in sorted(MODEL.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                is_ours = ast.unparse(node.exc.func) == "Violation"
                found = _fixed(node.exc.args[0]) if is_ours else ""
                if found.strip():  # What is passed on is yielded in `_wrong_with`.
                    yield found
            is_wrong = isinstance(node, ast.FunctionDef) and node.name == "_wrong_with"
            for inner in ast.walk(node) if is_wrong else ():
                if isinstance(inner, ast.Yield):
                    yield _fixed(inner.value)


def _fixed(text: ast.expr | None) -> str:
    assert text is not None
    parts = (part.value for part in ast.walk(text) if isinstance(part, ast.Constant))
    return "".join(part for part in parts if isinstance(part, str))
