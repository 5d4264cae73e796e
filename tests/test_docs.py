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
from meshd.cli.meanings import Meaning, meanings

ROOT = Path(__file__).parent.parent
ERRORS = ROOT / "docs" / "errors.md"
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
CODE = re.compile(r"MESH-\d{4}")
HEADING = """# Error codes

The same codes stand in errors on the command line, in `meshd status` (health) and in the log,
each with the values of the case. What each means in general stands here; `meshd explain MESH-1022`
prints the same without a daemon.
This page is made from `meshd/errors.toml` by
`MESHD_REWRITE=1 .venv/bin/pytest tests/test_docs.py`.
"""
CHAPTERS = {
    "1": "Token and configuration",
    "2": "State and identity",
    "3": "Mesh",
    "4": "Genesis",
    "5": "k3s",
    "6": "Virtual address",
    "7": "Command line and local API",
    "8": "Laboratory",
}
ENTRY = """

[{code}]
title = "What it means: a short sentence without the values of one case, and without a full stop"
cause = "What usually causes it."
fix = "What to do."
"""


REWRITE = "Then rewrite docs/errors.md: MESHD_REWRITE=1 .venv/bin/pytest tests/test_docs.py"


def used_codes() -> dict[str, str]:
    """Every code that stands in the source as a string of its own, and the first place of it."""
    found: dict[str, str] = {}
    for package in ("ledger", "roles", "meshd", "simulations"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                text = node.value if isinstance(node, ast.Constant) else None
                if isinstance(text, str) and CODE.fullmatch(text):
                    assert isinstance(node, ast.Constant)
                    found.setdefault(text, f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


def error_page(known: dict[str, Meaning]) -> str:
    lines = [HEADING]
    chapter = ""
    for code, meaning in known.items():
        if code[5] != chapter:
            chapter = code[5]
            lines.append(f"## {chapter}xxx: {CHAPTERS[chapter]}")
            lines += ["| code | what it means | typical cause | fix |", "|---|---|---|---|"]
        lines.append(f"| {code} | {meaning.title} | {meaning.cause} | {meaning.fix} |")
    return "\n".join(lines).replace("\n## ", "\n\n## ").replace("\n\n\n", "\n\n") + "\n"


def test_every_error_code_of_the_source_is_explained_once_and_no_other() -> None:
    known, used = meanings(), used_codes()
    missing = sorted(used.keys() - known.keys())
    assert not missing, (
        f"{used[missing[0]]} uses {missing[0]}, which meshd/errors.toml does not explain. Add "
        f"there, in the order of the codes:{ENTRY.format(code=missing[0])}\n{REWRITE}"
    )
    spare = sorted(known.keys() - used.keys())
    assert not spare, (
        f"meshd/errors.toml explains {spare[0]}, which nothing in the source uses. Remove it there "
        f"(its number stays taken).\n{REWRITE}"
    )


def test_explanations_of_codes_are_sentences_in_the_order_of_the_codes() -> None:
    known = meanings()
    codes = [code for code in known if CODE.fullmatch(code)]
    assert list(known) == codes == sorted(codes), "meshd/errors.toml: sort by code"
    titles = [meaning.title for meaning in known.values()]
    assert len(set(titles)) == len(titles), "meshd/errors.toml: two codes have one title"
    for code, meaning in known.items():
        assert not meaning.title.endswith("."), f"{code}: a title has no full stop"
        for text in (meaning.title, meaning.cause, meaning.fix):
            assert len(text.split()) > 1, f"{code}: {text!r} says nothing"
            assert text.isprintable(), f"{code}: {text!r} is not one line"
            assert "|" not in text, f"{code}: a | breaks the table of docs/errors.md"
        for text in (meaning.cause, meaning.fix):
            assert text.endswith("."), f"{code}: {text!r} is no sentence"


def test_the_page_of_error_codes_is_up_to_date() -> None:
    page = error_page(meanings())
    if "MESHD_REWRITE" in os.environ:
        ERRORS.write_text(page, encoding="utf-8")
    assert ERRORS.read_text(encoding="utf-8") == page, (
        f"docs/errors.md is not what meshd/errors.toml says. {REWRITE}"
    )


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
        ours = words[: words.index("--")] if "--" in words else words
        for word in ours:
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
