"""The documents are true: error codes, links, and the commands that pages show.

`MESHD_REWRITE=1 pytest tests/test_docs.py` rewrites docs/errors.md; read the diff first.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from meshd.cli import meshd

ROOT = Path(__file__).parent.parent
ERRORS = ROOT / "docs" / "errors.md"
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
CODE = re.compile(r"MESH-\d{4}")
HEADING = """# Error codes

The same codes stand in errors on the command line, in `meshd status` (health) and in the log.
`…` stands for what was found. This page is made from the source by
`MESHD_REWRITE=1 .venv/bin/pytest tests/test_docs.py`.

| code | what | fix |
|---|---|---|
"""


def template(node: ast.expr | None) -> str:
    """The text of a string expression; what is filled in at run time is shown as `…`."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(
                template(part) if isinstance(part, ast.Constant) else "…" for part in parts
            )
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return template(left) + template(right)
        case ast.IfExp(body=body, orelse=orelse):
            return f"{template(body)} / {template(orelse)}"
        case _:
            return "…"


def constants(tree: ast.AST) -> dict[str, str]:
    """Names that hold one code."""
    return {
        ast.unparse(node.targets[0]): node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and CODE.fullmatch(node.value.value)
    }


def uses(tree: ast.AST) -> Iterator[tuple[str, str, str]]:
    """(code, what, fix) of every call that is given a code."""
    names = constants(tree)
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        given = {word.arg: word.value for word in call.keywords}
        positional = [given["code"], *call.args] if "code" in given else list(call.args)
        if not positional:
            continue
        second, third = (*positional, None, None)[1:3]
        what = template(given.get("message") or given.get("what") or second)
        first = ast.unparse(positional[0])  # A code, two to choose between, or a constant's name.
        for code in CODE.findall(names.get(first, first)):
            yield code, what, template(given.get("fix") or third)


def error_table() -> str:
    rows: dict[str, dict[tuple[str, str], None]] = {}
    for package in ("ledger", "roles", "meshd", "simulations"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for code, what, fix in uses(ast.parse(path.read_text(encoding="utf-8"))):
                rows.setdefault(code, {})[what, fix] = None
    lines = [
        f"| {code if number == 0 else ''} | {what} | {fix} |".replace("\n", " ")
        for code in sorted(rows)
        for number, (what, fix) in enumerate(rows[code])
    ]
    return HEADING + "\n".join(lines) + "\n"


def test_the_list_of_error_codes_is_complete_and_true() -> None:
    table = error_table()
    if "MESHD_REWRITE" in os.environ:
        ERRORS.write_text(table, encoding="utf-8")
    assert ERRORS.read_text(encoding="utf-8") == table
    mentioned = {
        code
        for package in ("meshd", "simulations")
        for path in (ROOT / package).rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        for code in CODE.findall(line)
        if '"' in line
    }
    assert mentioned <= set(CODE.findall(table))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), f"{target} does not exist"


def shown_commands(text: str) -> Iterator[list[str]]:
    """The `meshd …` commands in a page's code blocks and inline code."""
    blocks = re.findall(r"```(?:sh|console)?\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.removeprefix("$ ").strip() for block in blocks for line in block.splitlines()]
    inline = re.findall(r"`(meshd [^`]+)`", text)
    for line in [*lines, *inline]:
        words = line.removeprefix(".venv/bin/").removeprefix("sudo ").split("#")[0].split()
        if words and words[0] == "meshd":
            yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_a_page_shows_exist(page: Path) -> None:
    context = click.Context(meshd)
    for words in shown_commands(page.read_text(encoding="utf-8")):
        command: click.Command = meshd
        for word in words:
            known = command.get_command(context, word) if isinstance(command, click.Group) else None
            if known is not None:
                command = known
            elif word.startswith("--") and command.name != "demo":
                options = {name for parameter in command.params for name in parameter.opts}
                assert word.partition("=")[0] in options, f"{words}: no option {word}"
        assert command is not meshd, f"there is no command {words}"


def test_make_targets_that_pages_show_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    for page in PAGES:
        shown = re.findall(r"(?:`|^|\n)make ([a-z-]+)", page.read_text(encoding="utf-8"))
        assert set(shown) <= targets, page


def rows_of(text: str) -> Iterator[list[str]]:
    """The cells of each row of a page's tables, headings left out."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
        if line.startswith("| ") and cells[0] != "fault":
            yield cells


def test_each_fault_names_tests_and_codes_that_exist() -> None:
    codes = set(CODE.findall(ERRORS.read_text(encoding="utf-8")))
    rows = list(rows_of((ROOT / "docs" / "faults.md").read_text(encoding="utf-8")))
    assert rows
    for row in rows:
        assert len(row) == 4, row
        assert set(CODE.findall(" ".join(row))) <= codes, row
        shown = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row[3])
        assert shown, row
        for path, name in shown:
            source = (ROOT / path).read_text(encoding="utf-8")
            assert re.search(rf"def {name}\(", source), f"{path} has no {name}"
